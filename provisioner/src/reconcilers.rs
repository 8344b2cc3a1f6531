//! Which function reconciles which kind of work, and whose share of the permits it takes: the one place that knows them all.

use async_trait::async_trait;
use migrations::{StoreError, WorkKind};
use tenant_controlplane::id::{ClusterId, NodeId, NodePoolId, OrganizationId};
use uuid::Uuid;

use crate::context::Context;
use crate::engine::{Outcome, Reconcile};
use crate::error::{ReconcileError, found_or_none};

#[async_trait]
impl Reconcile for Context {
    async fn reconcile(&self, kind: WorkKind, id: Uuid) -> Result<Outcome, ReconcileError> {
        let owner = owner(self, kind, id).await?;
        let share = owner.map(|owner| self.shares.take(kind, owner));
        if matches!(share, Some(None)) {
            return Ok(Outcome::Throttled);
        }
        match kind {
            WorkKind::Cluster => crate::cluster::reconcile(self, ClusterId::from_uuid(id)).await,
            WorkKind::NodePool => crate::node_pool::reconcile(self, NodePoolId::from_uuid(id)).await,
            WorkKind::Node => crate::node::reconcile(self, NodeId::from_uuid(id)).await,
        }
    }
}

/// Whose something is; `None` for what is not there any more.
async fn owner(ctx: &Context, kind: WorkKind, id: Uuid) -> Result<Option<OrganizationId>, StoreError> {
    Ok(match kind {
        WorkKind::Cluster => {
            found_or_none(ctx.store.clusters().load(ClusterId::from_uuid(id)).await)?.map(|row| row.organization)
        }
        WorkKind::NodePool => {
            found_or_none(ctx.store.pools().load(NodePoolId::from_uuid(id)).await)?.map(|row| row.organization)
        }
        WorkKind::Node => {
            found_or_none(ctx.store.nodes().load(NodeId::from_uuid(id)).await)?.map(|row| row.organization)
        }
    })
}
