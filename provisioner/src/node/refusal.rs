//! Why a machine that has joined does not show up in Kubernetes: its API server may refuse its node, because of a webhook that fails closed.
//!
//! The kubelet is told so, not we. So we ask the same with a dry run, as the platform, and tell people.

use migrations::NodeReport;
use serde_json::json;
use tenant_controlplane::status::NodeState;
use time::{Duration, OffsetDateTime};

use super::decide::Sight;
use crate::admission;
use crate::context::Context;
use crate::family::Family;
use crate::host::ApiError;
use crate::trouble::Trouble;

/// How long a kubelet may take to make its node before anybody asks.
const PATIENCE: Duration = Duration::seconds(15);
const REFUSED: &str = "CLUSTER_REFUSED";

/// The report, with what the cluster says against the node where it says something and nothing else is wrong.
pub async fn noticed(ctx: &Context, family: &Family, report: NodeReport, sight: &Sight) -> NodeReport {
    if !is_due(family, &report, sight) {
        return report;
    }
    match ctx.visit(refusal(ctx, family)).await {
        Ok(Some(trouble)) => {
            let (state_message, problem) = (trouble.problem.detail.clone(), Some(trouble.problem));
            NodeReport { state_message, problem, ..report }
        }
        Ok(None) => report,
        Err(trouble) => {
            tracing::debug!(node = %family.node.id, error = crate::chain(&trouble), "dry-run Node creation");
            report
        }
    }
}

/// Whether its machine has joined, Kubernetes was seen not to have it, and it has had its time.
fn is_due(family: &Family, report: &NodeReport, sight: &Sight) -> bool {
    let node = &family.node;
    let told = node.problem.as_ref().is_some_and(|problem| problem.code == REFUSED);
    let waits = told || OffsetDateTime::now_utc() - node.updated_at > PATIENCE;
    let absent = sight.known == Some(None) && node.machine_fingerprint.is_some();
    absent && waits && report.problem.is_none() && report.state == NodeState::Joining
}

async fn refusal(ctx: &Context, family: &Family) -> Result<Option<Trouble>, Trouble> {
    let Some(api) = ctx.tenants.reach(&family.cluster).await? else { return Ok(None) };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": family.node.name.as_str()}});
    match api.would_take(&node).await {
        // A webhook with effects besides is not asked in a dry run: that says nothing.
        Ok(()) | Err(ApiError::Rejected { code: 400, .. }) => Ok(None),
        Err(error @ ApiError::Rejected { .. }) => {
            Ok(Some(admission::explain(Trouble::api("cluster", error), &*api).await))
        }
        Err(error) => Err(Trouble::api("cluster", error)),
    }
}
