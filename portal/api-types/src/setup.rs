//! The first owner: a one-use set-up token becomes an account.

use crate::{Organization, Project, User};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Create the first owner. Works once per instance.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The token from the setup link printed by `pilothouse up`.
    pub token: String,
    /// Email address for sign-in.
    pub email: String,
    /// Display name; default: the part before the `@`.
    #[serde(default)]
    pub display_name: Option<String>,
    /// At least 12 characters.
    pub password: String,
}

/// Never shows token or password.
impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("email", &self.email).finish_non_exhaustive()
    }
}

/// Result of setup.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SetupDone {
    /// The first owner.
    pub user: User,
    /// The organization `default`.
    pub organization: Organization,
    /// The project `default`.
    pub project: Project,
    /// A first API token of the owner (`pilothouse_…`); shown once.
    pub token: String,
}

/// Never shows the token.
impl std::fmt::Debug for SetupDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetupDone").field("user", &self.user.id).finish_non_exhaustive()
    }
}
