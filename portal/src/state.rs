//! What every handler shares: cheap to clone, nothing in it changes but the limiter and the password gate.

use crate::auth::limit::Limiter;
use crate::auth::password::Passwords;
use crate::config::PortalConfig;
use migrations::{Change, Store};
use std::sync::Arc;
use tokio::sync::broadcast;

/// The state of the whole portal.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    config: PortalConfig,
    limiter: Limiter,
    passwords: Passwords,
}

impl AppState {
    /// Wraps a configuration.
    pub fn new(config: PortalConfig) -> Self {
        Self(Arc::new(Shared { config, limiter: Limiter::default(), passwords: Passwords::default() }))
    }

    /// What the portal was given.
    pub fn config(&self) -> &PortalConfig {
        &self.0.config
    }

    /// The memory.
    pub fn store(&self) -> &Store {
        &self.0.config.store
    }

    /// Changes of rows, as they are committed; what live pages listen to.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.store().changes()
    }

    /// Counts attempts to sign in.
    pub fn limiter(&self) -> &Limiter {
        &self.0.limiter
    }

    /// Hashes and checks passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }
}
