//! Why a machine that has joined does not show up in Kubernetes: its API server may refuse its node, because of a webhook that fails closed.
//!
//! The kubelet is told so, not we. So we ask the same with a dry run, as the platform, and tell people.

use serde_json::json;
use tenant_controlplane::plan::node::{Observed, Report};
use tenant_controlplane::status::{NodeState, ProblemCode};
use time::{Duration, OffsetDateTime};

use crate::admission;
use crate::context::Context;
use crate::error::ReconcileError;
use crate::host::ApiError;
use crate::node_context::NodeContext;

/// How long a kubelet may take to make its node before anybody asks.
const REPORT_AFTER: Duration = Duration::seconds(15);

/// The report, with what the cluster says against the node where it says something and nothing else is wrong.
pub async fn noticed(ctx: &Context, node_context: &NodeContext, report: Report, observation: &Observed) -> Report {
    if !is_due(node_context, &report, observation) {
        return report;
    }
    match ctx.with_timeout(refusal(ctx, node_context)).await {
        Ok(Some(error)) => {
            let (message, problem) = (error.problem.detail.clone(), Some(error.problem));
            Report { message, problem, ..report }
        }
        Ok(None) => report,
        Err(error) => {
            tracing::debug!(node = %node_context.node.id, error = crate::chain(&error), "dry-run Node creation");
            report
        }
    }
}

/// Whether its machine has joined, Kubernetes was seen not to have it, and it has had its time.
fn is_due(node_context: &NodeContext, report: &Report, observation: &Observed) -> bool {
    let node = &node_context.node;
    let is_reported = node.problem.as_ref().is_some_and(|problem| problem.code == ProblemCode::ClusterRefused);
    let waits = is_reported || OffsetDateTime::now_utc() - node.updated_at > REPORT_AFTER;
    let absent = observation.node_object == Some(None) && node.machine_fingerprint.is_some();
    absent && waits && report.problem.is_none() && report.state == NodeState::Joining
}

async fn refusal(ctx: &Context, node_context: &NodeContext) -> Result<Option<ReconcileError>, ReconcileError> {
    let Some(api) = ctx.tenants.reach(&node_context.cluster).await? else { return Ok(None) };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_context.node.name.as_str()}});
    match api.would_take(&node).await {
        // A webhook with effects besides is not asked in a dry run: that says nothing.
        Ok(()) | Err(ApiError::Rejected { code: 400, .. }) => Ok(None),
        Err(error @ ApiError::Rejected { .. }) => {
            Ok(Some(admission::explain(ReconcileError::cluster_api(error), &*api).await))
        }
        Err(error) => Err(ReconcileError::cluster_api(error)),
    }
}
