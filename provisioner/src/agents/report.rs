//! A machine's report, which is also its heartbeat. Rows are written only for changes; the node's reconcile draws the conclusions.

use migrations::{Node, NodeReport as RowReport, StoreError, WorkKind};
use node_protocol::{Check, CheckStatus, NodePhase, NodeReport, ReportReply};
use tenant_controlplane::status::{Problem, ProblemCode};
use tenant_controlplane::text::printable;
use time::{Duration, OffsetDateTime};
use tonic::Status;

use super::enroll::facts;
use super::{Agents, unavailable};

/// A thousand machines that say every ten seconds that they are well are a hundred writes a second, each to the disk: once a minute will do.
const NOTED_EVERY: Duration = Duration::minutes(1);

/// Takes a report in.
///
/// # Errors
/// `UNAVAILABLE` while the database is.
pub async fn report(agents: &Agents, node: Node, report: NodeReport) -> Result<ReportReply, Status> {
    let generation = report.observed_generation;
    take(agents, &node, report).await.map_err(|error| unavailable(&error))?;
    Ok(ReportReply { generation })
}

async fn take(agents: &Agents, node: &Node, report: NodeReport) -> Result<(), StoreError> {
    let store = &agents.inner.store;
    if report.phase() == NodePhase::Reset {
        tracing::info!(node = %node.id, name = %node.name, "the machine has reset");
        store.nodes().mark_removed(node.id).await?;
        return store.work().due(WorkKind::Node, node.id.uuid()).await;
    }
    let problem = problem(node, &report);
    let facts = report
        .facts
        .as_ref()
        .map(|agent_problem| facts(agent_problem, &node.facts.kubelet_version))
        .filter(|new| *new != node.facts);
    if problem == node.problem && facts.is_none() {
        return if is_noted(node) { Ok(()) } else { store.nodes().record_heartbeat(node.id).await };
    }
    let (state, state_message) = (node.state, node.state_message.clone());
    let last_seen_at = Some(OffsetDateTime::now_utc());
    store.nodes().report(node.id, RowReport { state, state_message, problem, facts, last_seen_at }).await?;
    store.work().due(WorkKind::Node, node.id.uuid()).await
}

/// Whether it is written down that the machine was heard of lately. (The end of its link always is.)
fn is_noted(node: &Node) -> bool {
    node.last_seen_at.is_some_and(|seen| OffsetDateTime::now_utc() - seen < NOTED_EVERY)
}

/// The problem to show: the agent's own while it fails, none of the agent's when it does not, and others' as they are.
fn problem(node: &Node, report: &NodeReport) -> Option<Problem> {
    let is_agents = node.problem.as_ref().is_some_and(|problem| problem.code == ProblemCode::NodeAgent);
    match report.phase() {
        NodePhase::Failed => Some(agent_problem(report)),
        _ if is_agents => None,
        _ => node.problem.clone(),
    }
}

fn agent_problem(report: &NodeReport) -> Problem {
    let failed: Vec<&Check> = report.checks.iter().filter(|check| check.status() == CheckStatus::Fail).collect();
    let observed = failed.iter().map(|check| format!("{}: {}", check.id, check.observed));
    let detail: Vec<String> =
        Some(report.message.clone()).filter(|text| !text.is_empty()).into_iter().chain(observed).collect();
    let remedies: Vec<_> =
        failed.iter().map(|check| check.remediation.as_str()).filter(|text| !text.is_empty()).collect();
    // Root of the machine writes what the agent says: it is quoted, and what to do is the platform's own word.
    let mut detail = detail.join("; ");
    if !remedies.is_empty() {
        detail.push_str(&format!("; the machine suggests: {}", remedies.join(" ")));
    }
    Problem::new(ProblemCode::NodeAgent, printable(&detail))
}
