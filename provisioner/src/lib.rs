//! Reconciles: takes due work from the store, observes the host, tenants and machines, and does what is missing.
//!
//! The way through: [`engine`] claims an id and by `reconcilers` calls `cluster`, `node_pool` or `node`, which re-read everything, observe,
//! let the domain crate decide what should be, apply that, and report once. [`pods`] and [`tenants`] watch and wake. [`agents`] is what
//! machines talk to.
//!
//! What is deliberately not here: no rule of what a control plane looks like (the domain's), no SQL (the store's), no user interface
//! (the portal's).

mod admission;
pub mod agents;
pub mod backoff;
mod clients;
mod cluster;
pub mod config;
mod context;
pub mod engine;
mod error;
pub mod host;
mod isolation;
mod keys;
mod kubeconfig;
mod node;
mod node_context;
mod node_pool;
mod parts;
pub mod pods;
mod reconcilers;
mod shares;
mod standby;
mod steps;
pub mod tenants;
#[cfg(test)]
mod testing;
mod trace;
mod watch_to_work;

use std::sync::Arc;

use tenant_controlplane::isolation::IsolationState;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use agents::{Agents, Caller};
pub use config::{Config, InstallationInfo, LeaseOwner, Release, Releases, Tuning};
pub use error::ReconcileError;
pub use keys::SystemKeys;
pub use kubeconfig::{KubeconfigError, Server, issue_kubeconfig};
/// The programs a node is made of, as agents know them.
pub use node_protocol::{PartKind, Signed, Succession};
pub use parts::{Part, Parts};

use context::Context;
use engine::Engine;
use host::Kubernetes;
use host::kube::{KubeApi, KubeConnector};

/// A running provisioner.
pub struct Handle {
    isolation: watch::Receiver<IsolationState>,
    tasks: JoinSet<()>,
}

impl Handle {
    /// Who may talk to whom among tenants' pods, as it changes.
    pub fn isolation(&self) -> watch::Receiver<IsolationState> {
        self.isolation.clone()
    }

    /// DeletionWait, after the configured token was cancelled, until everything has ended.
    pub async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts the provisioner; it runs until `config.cancel` is cancelled.
pub fn start(config: Config) -> Handle {
    let host: Arc<dyn Kubernetes> = Arc::new(KubeApi::new(config.host));
    let installation = Arc::new(config.installation);
    let ctx = Context::new(context::Dependencies {
        store: config.store.clone(),
        host: Arc::clone(&host),
        connector: Arc::new(KubeConnector),
        providers: config.providers,
        keys: Arc::new(SystemKeys),
        installation,
        tuning: config.tuning.clone(),
        host_idle: config.host_idle,
        ending: config.cancel.clone(),
    });
    let engine = Engine::new(config.store, Arc::clone(&ctx) as Arc<_>, config.owner, config.tuning);
    let (publisher, isolation) = watch::channel(IsolationState::default());
    let mut tasks = JoinSet::new();
    let (pods, cancel) = (Arc::clone(&ctx.pods), config.cancel);
    tasks.spawn(isolation::publish(Arc::clone(&pods), publisher, cancel.clone()));
    tasks.spawn(standby::run(Arc::clone(&ctx), cancel.clone()));
    tasks.spawn(watch_to_work::run(ctx, Arc::clone(&engine), cancel.clone()));
    let watching = cancel.clone();
    tasks.spawn(async move { pods.run(&*host, watching).await });
    tasks.spawn(engine.run(cancel));
    Handle { isolation, tasks }
}

/// The most of an error that is written down, characters: its causes may quote what a tenant or a machine answered.
const LONGEST_CHAIN: usize = 2000;

/// An error with all its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    tenant_controlplane::text::printable_within(&text, LONGEST_CHAIN)
}
