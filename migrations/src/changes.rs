//! Change notifications: which row changed, published to subscribers after the transaction that changed it.
//!
//! On SQLite all of an instance is one process and changes travel within it. On PostgreSQL they are NOTIFY payloads sent by the same
//! transaction, so that every replica receives them and none receives what was rolled back. Changes carry ids and nothing else: a
//! receiver reads the row. They may be missed (a slow receiver, a lost connection); then comes [`ChangeKind::Resync`], and nobody
//! should rely on changes alone.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use strum::{Display, EnumString};
use tenant_controlplane::id::{ClusterId, OrganizationId};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

/// PostgreSQL's channel.
pub(crate) const CHANNEL: &str = "pilothouse";
/// How many changes a slow receiver may be behind before it gets a resync.
const BACKLOG: usize = 256;
const RECONNECT: Duration = Duration::from_millis(500);

/// What kind of row changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, EnumString, Display)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// An organization or its members.
    Organization,
    /// A project.
    Project,
    /// A cluster.
    Cluster,
    /// A node pool.
    NodePool,
    /// A node.
    Node,
    /// A join token.
    JoinToken,
    /// A kubeconfig.
    Kubeconfig,
    /// An operation.
    Operation,
    /// Something became due; the id is that of the thing to look at.
    Work,
    /// Changes may have been missed: read everything that matters again.
    Resync,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind of row.
    pub kind: ChangeKind,
    /// Which row.
    pub id: Uuid,
    /// The cluster it belongs to, if it does.
    pub cluster: Option<ClusterId>,
    /// The organization it belongs to; whoever shows changes to people must check it.
    pub organization: Option<OrganizationId>,
}

impl Change {
    /// A change of a row that belongs to nothing.
    pub(crate) const fn of(kind: ChangeKind, id: Uuid) -> Self {
        Self { kind, id, cluster: None, organization: None }
    }

    pub(crate) const fn within(mut self, organization: Uuid, cluster: Option<Uuid>) -> Self {
        self.organization = Some(OrganizationId::from_uuid(organization));
        self.cluster = match cluster {
            Some(cluster) => Some(ClusterId::from_uuid(cluster)),
            None => None,
        };
        self
    }

    /// The text of a NOTIFY: kind, id, cluster or `-`, organization or `-`.
    pub(crate) fn payload(&self) -> String {
        let text = |uuid: Option<Uuid>| uuid.map_or_else(|| "-".to_owned(), |uuid| uuid.simple().to_string());
        let (cluster, organization) = (self.cluster.map(ClusterId::uuid), self.organization.map(OrganizationId::uuid));
        format!("{} {} {} {}", self.kind, self.id.simple(), text(cluster), text(organization))
    }

    /// The inverse of [`Change::payload`]; what another version wrote and this one does not know is a resync.
    fn parse(payload: &str) -> Self {
        Self::try_parse(payload).unwrap_or(Self::of(ChangeKind::Resync, Uuid::nil()))
    }

    fn try_parse(payload: &str) -> Option<Self> {
        let mut parts = payload.split(' ');
        let (kind, id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut uuid = || parts.next().and_then(|part| part.parse().ok());
        let (cluster, organization): (Option<Uuid>, Option<Uuid>) = (uuid(), uuid());
        let organization = organization.map(OrganizationId::from_uuid);
        Some(Self { kind, id, cluster: cluster.map(ClusterId::from_uuid), organization })
    }
}

/// Connects publishers and subscribers of changes.
#[derive(Debug)]
pub(crate) struct Hub {
    sender: broadcast::Sender<Change>,
    work: watch::Sender<u64>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), work: watch::Sender::new(0) }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }

    pub(crate) fn work(&self) -> watch::Receiver<u64> {
        self.work.subscribe()
    }

    pub(crate) fn publish(&self, change: Change) {
        if matches!(change.kind, ChangeKind::Work | ChangeKind::Resync) {
            self.work.send_modify(|count| *count = count.wrapping_add(1));
        }
        // Nobody listening is fine.
        let _unheard = self.sender.send(change);
    }

    fn resync(&self) {
        self.publish(Change::of(ChangeKind::Resync, Uuid::nil()));
    }
}

/// A connection of its own that receives others' changes. It is up when this returns, so nothing later is missed.
pub(crate) async fn subscribe(options: PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let pool = pool.acquire_timeout(Duration::from_secs(5)).connect_with(options).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Relays notifications until dropped; a lost connection is restored and followed by a resync.
pub(crate) async fn relay(mut listener: PgListener, options: PgConnectOptions, hub: Arc<Hub>) {
    loop {
        match listener.try_recv().await {
            Ok(Some(notification)) => hub.publish(Change::parse(notification.payload())),
            Ok(None) => hub.resync(),
            Err(error) => {
                tracing::warn!(error = %error, "database notifications interrupted; reconnecting");
                listener = again(&options).await;
                hub.resync();
            }
        }
    }
}

async fn again(options: &PgConnectOptions) -> PgListener {
    loop {
        tokio::time::sleep(RECONNECT).await;
        if let Ok(listener) = subscribe(options.clone()).await {
            return listener;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_whole() {
        let uuid = Uuid::now_v7();
        let bare = Change::of(ChangeKind::Operation, uuid);
        for change in [bare, bare.within(uuid, None), bare.within(uuid, Some(uuid))] {
            assert_eq!(Change::parse(&change.payload()), change);
        }
        assert_eq!(Change::parse("something new").kind, ChangeKind::Resync);
        assert_eq!(Change::parse("").kind, ChangeKind::Resync);
    }
}
