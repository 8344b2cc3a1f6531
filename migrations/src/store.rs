//! The store: one value to pass around, and small handles by topic.

pub(crate) mod audit;
pub(crate) mod audit_chain;
mod audit_verify;
pub(crate) mod authorities;
pub(crate) mod cluster_ports;
pub(crate) mod clusters;
mod deletion;
mod enroll;
pub(crate) mod gateways;
pub(crate) mod hosts;
pub(crate) mod idempotency;
pub(crate) mod identity;
mod intent;
pub(crate) mod join_tokens;
pub(crate) mod kubeconfigs;
mod links;
pub(crate) mod nodes;
pub(crate) mod operations;
mod organizations;
pub(crate) mod pki;
pub(crate) mod pools;
pub(crate) mod quotas;
mod reseal;
mod retention;
mod sessions;
pub(crate) mod settings;
pub(crate) mod spares;
mod tokens;
pub(crate) mod tombstones;
pub(crate) mod users;
pub(crate) mod work;

use std::sync::{Arc, OnceLock};

use aws_lc_rs::hmac;
use sea_orm::{ConnectionTrait, EntityTrait, QuerySelect};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::changes::{self, Change, Hub};
use crate::connect::{self, Target};
use crate::db::{Db, Mode, Tx};
use crate::entity::user;
use crate::error::{ConnectError, StoreError};
use crate::kek::Kek;
use crate::secret;
use idempotency::KeyLease;

/// Where the key of [`Store::mac`] is kept, and its length: 5 random bits a character.
const MAC_KEY: &str = "audit.key";
const MAC_KEY_LENGTH: usize = 52;

/// The store. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    mode: Mode,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    kek: Kek,
    hub: Arc<Hub>,
    relay: Option<JoinHandle<()>>,
    /// Kept sealed in the settings; known as soon as the store is open.
    mac_key: OnceLock<hmac::Key>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(relay) = &self.relay {
            relay.abort();
        }
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $method:ident -> $module:ident::$name:ident;)+) => {$(
        $(#[$doc])*
        pub const fn $method(&self) -> $module::$name<'_> {
            $module::$name(self)
        }
    )+};
}

impl Store {
    /// Opens `sqlite:///absolute/path` (made with mode 0600 unless it is there) or `postgres://…`, brings the schema up to date and
    /// checks that the key fits.
    ///
    /// # Errors
    /// [`ConnectError`], with the next step in its text.
    pub async fn connect(url: &str, kek: Kek) -> Result<Self, ConnectError> {
        let hub = Arc::new(Hub::new());
        let (db, relay, chained) = match Target::parse(url)? {
            Target::Sqlite(path) => {
                let (opened, file) = connect::sqlite(&path).await?;
                (Db { pool: opened.pool, file: Some(file) }, None, opened.chained)
            }
            Target::Postgres(options) => {
                let opened = connect::postgres((*options).clone()).await?;
                let listener = changes::subscribe((*options).clone()).await;
                let listener = listener.map_err(|error| ConnectError::Connect(Box::new(error)))?;
                let relay = tokio::spawn(changes::relay(listener, *options, Arc::clone(&hub)));
                (Db { pool: opened.pool, file: None }, Some(relay), opened.chained)
            }
        };
        let inner = Inner { db, kek, hub, relay, mac_key: OnceLock::new() };
        let store = Self { inner: Arc::new(inner), mode: Mode::Plain };
        store.settings().check_key().await?;
        store.open_audit_log(chained).await?;
        store.hosts().ensure_one().await?;
        Ok(store)
    }

    /// Whether the database answers; for readiness checks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db().execute_unprepared("SELECT 1").await?;
        Ok(())
    }

    /// Gives all connections back; every later call is [`StoreError::Unavailable`].
    pub async fn close(&self) {
        if let Some(relay) = &self.inner.relay {
            relay.abort();
        }
        if let Err(error) = self.inner.db.pool.close_by_ref().await {
            tracing::warn!(error = %error, "database not closed cleanly");
        }
    }

    /// Changes from now on. A receiver that lags has missed some and should take that as [`crate::ChangeKind::Resync`].
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.hub.listen()
    }

    /// The same store for the request that holds an idempotency key: what it makes is known by the key from then on.
    #[must_use]
    pub fn with_key_lease(&self, claim: KeyLease) -> Self {
        Self { inner: Arc::clone(&self.inner), mode: Mode::Leased(claim) }
    }

    /// The same store for a dry run: every transaction is executed, with all its checks, and then rolled back.
    #[must_use]
    pub fn dry_run(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), mode: Mode::DryRun }
    }

    /// Whether this is [`Store::dry_run`].
    pub const fn is_dry_run(&self) -> bool {
        matches!(self.mode, Mode::DryRun)
    }

    handles! {
        /// Organizations, projects, people and their credentials.
        identity -> identity::Identity;
        /// Clusters.
        clusters -> clusters::Clusters;
        /// What is known of nodes that were removed.
        tombstones -> tombstones::Tombstones;
        /// Node pools.
        pools -> pools::Pools;
        /// Nodes.
        nodes -> nodes::Nodes;
        /// Join tokens.
        join_tokens -> join_tokens::JoinTokens;
        /// Kubeconfigs.
        kubeconfigs -> kubeconfigs::Kubeconfigs;
        /// Ports of the gateway that lead to one cluster alone.
        cluster_ports -> cluster_ports::ClusterPorts;
        /// Operations and their steps.
        operations -> operations::Operations;
        /// What is due.
        work -> work::WorkQueue;
        /// Clusters' certificates and keys.
        pki -> pki::Pki;
        /// Standby clusters.
        spares -> spares::Spares;
        /// Who did what.
        audit -> audit::Audit;
        /// Small facts of the installation.
        settings -> settings::Settings;
        /// Gateways that run, and which nodes are linked to them.
        gateways -> gateways::Gateways;
        /// The clusters that run control planes.
        hosts -> hosts::Hosts;
        /// How many of each resource a tenant may have.
        quotas -> quotas::Quotas;
        /// What was answered to requests that may come twice.
        idempotency -> idempotency::Idempotency;
    }

    /// Whether other processes may have this database open: PostgreSQL, as against a file of one process.
    pub fn is_shared(&self) -> bool {
        self.inner.db.file.is_none()
    }

    pub(crate) fn db(&self) -> &Db {
        &self.inner.db
    }

    pub(crate) fn kek(&self) -> &Kek {
        &self.inner.kek
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        self.inner.db.begin(&self.inner.hub, &self.mode, self.mac_key()?).await
    }

    /// HMAC-SHA-256 of a text for one purpose, in hexadecimal: the same on every replica and after every restart, and nobody who reads the
    /// database alone can compute it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] before the store is open.
    pub fn mac(&self, purpose: &str, text: &str) -> Result<String, StoreError> {
        let mut context = hmac::Context::with_key(self.mac_key()?);
        context.update(&(purpose.len() as u64).to_be_bytes());
        context.update(purpose.as_bytes());
        context.update(text.as_bytes());
        Ok(audit_chain::hex(context.sign().as_ref()))
    }

    pub(crate) fn mac_key(&self) -> Result<&hmac::Key, StoreError> {
        self.inner.mac_key.get().ok_or(StoreError::Corrupt { what: "signing key of the audit log" })
    }

    /// Loads the key that signs the audit log. `chained` says that the chains were made just now, or numbered: then they begin. So they do when there is
    /// neither key nor person yet, as after a process that was killed at its first start; where people are, somebody took the key away.
    async fn open_audit_log(&self, chained: bool) -> Result<(), StoreError> {
        let fresh = secret::random_label(MAC_KEY_LENGTH)?;
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, fresh.as_bytes());
        let tx = self.inner.db.begin(&self.inner.hub, &self.mode, &key).await?;
        let is_new = self.settings().add_secret(&tx, MAC_KEY, &fresh).await?;
        if !is_new {
            let kept = self.settings().get_secret(MAC_KEY).await?;
            let kept = kept.ok_or(StoreError::Corrupt { what: "signing key of the audit log" })?;
            key = hmac::Key::new(hmac::HMAC_SHA256, kept.as_bytes());
        }
        if chained || (is_new && user::Entity::find().limit(1).one(&tx).await?.is_none()) {
            audit_chain::begin_all(&tx, &key).await?;
        }
        tx.commit().await?;
        let _ = self.inner.mac_key.set(key);
        Ok(())
    }
}
