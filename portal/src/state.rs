//! What every handler shares: cheap to clone, nothing in it changes but the limiters, the password gate and the live pages.

use crate::audit::Recorder;
use crate::auth::limit::Limiter;
use crate::auth::password::Passwords;
use crate::auth::rate::Rates;
use crate::config::PortalConfig;
use crate::install::downloads::Downloads;
use crate::web::live::LivePages;
use axum::http::request::Parts;
use bytes::Bytes;
use migrations::{Change, Store, StoreError};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell, broadcast};
use tokio::time::Instant;

/// How long the database counts as answering after it did.
const READINESS: Duration = Duration::from_secs(1);

/// The state of the whole portal.
#[derive(Clone)]
pub struct AppState {
    shared: Arc<Shared>,
    store: Store,
}

struct Shared {
    config: PortalConfig,
    limiter: Limiter,
    rates: Rates,
    passwords: Passwords,
    recorder: Recorder,
    downloads: Arc<Downloads>,
    agent: OnceCell<Bytes>,
    live: LivePages,
    /// When the database last answered.
    answered: Mutex<Option<Instant>>,
}

impl AppState {
    /// Wraps a configuration.
    pub fn new(config: PortalConfig) -> Self {
        let (store, rates) = (config.store.clone(), Rates::new(config.limits));
        let (limiter, passwords, recorder) = (Limiter::default(), Passwords::default(), Recorder::default());
        let (downloads, agent, live) = (Arc::default(), OnceCell::new(), LivePages::default());
        let answered = Mutex::default();
        let shared = Shared { config, limiter, rates, passwords, recorder, downloads, agent, live, answered };
        Self { shared: Arc::new(shared), store }
    }

    /// The state for one request: the same, with the store that the guard chose for it, if it chose one.
    pub fn of(&self, parts: &Parts) -> Self {
        let store = parts.extensions.get::<Store>().unwrap_or(&self.store).clone();
        Self { shared: Arc::clone(&self.shared), store }
    }

    /// A secret as it is shown this once; when trying out it is empty, because it would open nothing.
    pub fn shown_once(&self, secret: &SecretString) -> String {
        if self.store.is_dry_run() { String::new() } else { secret.expose_secret().to_owned() }
    }

    /// What the portal was given.
    pub fn config(&self) -> &PortalConfig {
        &self.shared.config
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Changes of rows, as they are committed; what live pages listen to.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.store().changes()
    }

    /// Counts attempts to sign in.
    pub fn limiter(&self) -> &Limiter {
        &self.shared.limiter
    }

    /// Counts requests, to REST and to pages.
    pub fn rates(&self) -> &Rates {
        &self.shared.rates
    }

    /// What the live pages share.
    pub(crate) fn live(&self) -> &LivePages {
        &self.shared.live
    }

    /// Limits what anonymous callers make us write in the audit log.
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// The downloads under way.
    pub(crate) fn downloads(&self) -> &Arc<Downloads> {
        &self.shared.downloads
    }

    /// The agent's binary, read once: however many download it, and however slowly, it is in memory once.
    ///
    /// # Errors
    /// The file system's; `InvalidData` for a file that is not what its checksum says, which nobody gets.
    pub(crate) async fn agent(&self) -> io::Result<Bytes> {
        let file = &self.shared.config.agent;
        let read = || async { whole(tokio::fs::read(&file.path).await?, &file.sha256) };
        self.shared.agent.get_or_try_init(read).await.cloned()
    }

    /// Whether the database answers. Anybody may ask, so it is asked by one at a time and once a second at most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(crate) async fn ready(&self) -> Result<(), StoreError> {
        let mut answered = self.shared.answered.lock().await;
        if answered.is_none_or(|at| at.elapsed() >= READINESS) {
            self.store.ping().await?;
            *answered = Some(Instant::now());
        }
        Ok(())
    }

    /// Hashes and checks passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.shared.passwords
    }
}

/// The bytes, if that is their checksum.
fn whole(bytes: Vec<u8>, sha256: &str) -> io::Result<Bytes> {
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == sha256 {
        return Ok(bytes.into());
    }
    let reason = "the agent binary was changed after it was signed: `pilothouse bundle verify` shows the file, \
                      `pilothouse bundle build` repairs it";
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_was_changed_is_not_handed_out() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(whole(b"abc".to_vec(), sha256).unwrap(), "abc");
        let refused = whole(b"abd".to_vec(), sha256).unwrap_err();
        assert!(
            refused.kind() == io::ErrorKind::InvalidData && refused.to_string().contains("bundle verify"),
            "{refused}"
        );
    }
}
