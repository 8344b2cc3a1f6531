//! How something is deleted.

use crate::auth::policy::Action;

/// How something is deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deletion<'a> {
    /// The etag that the caller read, where it named one.
    pub if_match: Option<&'a str>,
    /// Whether nothing is waited for that may never come.
    pub force: bool,
}

impl Deletion<'_> {
    /// What it takes: force may leave machines and volumes behind that somebody has to look after.
    pub(super) const fn action(self) -> Action {
        if self.force { Action::Admin } else { Action::Write }
    }
}
