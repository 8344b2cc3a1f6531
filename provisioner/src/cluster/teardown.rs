//! Deletion of a cluster: nodes, machines, the namespace and its volumes, keys, then the row.
//!
//! Each thing counts as gone when its absence was observed. The nodes' own reconciles do the nodes' part, so nothing makes a machine
//! while this removes it: one lease per id.

use std::time::Duration;

use futures::future::try_join_all;
use migrations::{Cluster, Node, PoolKind, WorkKind};
use serde_json::Value;
use tenant_controlplane::render::{CONTROL_PLANE, ETCD};
use tenant_controlplane::status::{Problem, ProblemCode};
use tenant_controlplane::text::printable;
use tenant_controlplane::{plan, sni};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::report;
use crate::context::Context;
use crate::engine::Outcome;
use crate::error::ReconcileError;
use crate::host::{ApiError, ObjectKey};
use crate::steps::Steps;

/// Between two looks at something on its way out.
const LOOK: Duration = Duration::from_millis(100);
/// The most members an etcd has.
const ETCD_MEMBERS: u8 = 3;
const AGAIN: Duration = Duration::from_millis(500);
/// The same for one that has been on its way out for longer than people watch.
const LATER: Duration = Duration::from_secs(5);
const WATCHED: time::Duration = time::Duration::minutes(1);

/// Takes a cluster away.
///
/// # Errors
/// [`ReconcileError`]; everything done so far stays done.
pub async fn run(ctx: &Context, cluster: &Cluster) -> Result<Outcome, ReconcileError> {
    let mut steps =
        Steps::open(&ctx.store, &cluster.id.to_string(), &["cluster.delete"], &plan::CLUSTER_DELETE).await?;
    let mut waits = DeletionWait::begin(ctx, cluster);
    steps.running("nodes", "").await?;
    if !waits.is_overdue {
        report::report_deleting(ctx, cluster, "removing nodes", None).await?;
    }
    if let Some(remaining) = waits.wait_until_gone(&mut steps, || nodes(ctx, cluster)).await? {
        return waits.report(ctx, cluster, remaining).await;
    }
    steps.done("nodes").await?;
    steps.done("machines").await?;
    steps.running("namespace", "").await?;
    if !waits.is_overdue {
        report::report_deleting(ctx, cluster, "deleting control plane", None).await?;
    }
    if let Some(remaining) = waits.wait_until_gone(&mut steps, || namespace(ctx, cluster)).await? {
        return waits.report(ctx, cluster, remaining).await;
    }
    steps.done("namespace").await?;
    // Deleting the row finishes the operation; the last step cannot be reported after it.
    steps.done("keys").await?;
    ctx.store.clusters().purge(cluster.id).await?;
    ctx.forget(cluster.id);
    Ok(Outcome::Gone)
}

/// Something that is not deleted yet.
struct Remaining {
    step: &'static str,
    what: String,
    /// Where to look, and with which command.
    remedy: String,
}

impl Remaining {
    /// The same as a problem, when it is overdue.
    fn problem(&self, cluster: &Cluster) -> Problem {
        let remediation = match cluster.forced {
            true => self.remedy.clone(),
            false => format!("{} To stop waiting: pilothouse cluster delete {} --force.", self.remedy, cluster.id),
        };
        Problem::new(ProblemCode::DeletionWaits, self.what.clone()).with_remediation(remediation)
    }
}

struct DeletionWait<'a> {
    /// Whether it takes longer than expected.
    is_overdue: bool,
    until: Instant,
    again: Duration,
    ending: &'a CancellationToken,
}

impl<'a> DeletionWait<'a> {
    /// Waits a while for a deletion that has just begun. What is overdue is checked once per reconcile, so that it blocks no permit.
    fn begin(ctx: &'a Context, cluster: &Cluster) -> Self {
        let asked = cluster.deletion_requested_at.unwrap_or(cluster.updated_at);
        let is_overdue = OffsetDateTime::now_utc() - asked > WATCHED;
        let (stay, again) = if is_overdue { (Duration::ZERO, LATER) } else { (ctx.tuning.reconcile_timeout, AGAIN) };
        Self { is_overdue, until: Instant::now() + stay, again, ending: &ctx.ending }
    }

    /// Polls until nothing is left, or the time is over.
    async fn wait_until_gone<F>(
        &mut self,
        steps: &mut Steps<'_>,
        mut check: impl FnMut() -> F,
    ) -> Result<Option<Remaining>, ReconcileError>
    where
        F: Future<Output = Result<Option<Remaining>, ReconcileError>>,
    {
        loop {
            let Some(remaining) = check().await? else { return Ok(None) };
            if remaining.step == "machines" {
                steps.done("nodes").await?;
            }
            steps.running(remaining.step, &remaining.what).await?;
            if Instant::now() >= self.until || self.ending.is_cancelled() {
                return Ok(Some(remaining));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reports what is waited for; what is overdue becomes a problem, with the command that helps.
    async fn report(&self, ctx: &Context, cluster: &Cluster, remaining: Remaining) -> Result<Outcome, ReconcileError> {
        if self.is_overdue {
            report::report_deleting(ctx, cluster, &remaining.what, Some(remaining.problem(cluster))).await?;
        }
        Ok(Outcome::waiting(remaining.what, self.again))
    }
}

/// Makes every node's own reconcile see to it; they know that the cluster is going.
async fn nodes(ctx: &Context, cluster: &Cluster) -> Result<Option<Remaining>, ReconcileError> {
    let nodes = ctx.store.nodes().of_cluster(cluster.id).await?;
    if nodes.is_empty() {
        return Ok(None);
    }
    let mut brought = 0;
    for pool in ctx.store.pools().of_cluster(cluster.id).await? {
        let own = nodes.iter().filter(|node| node.pool == pool.id);
        brought += if pool.kind == PoolKind::Byo { own.count() } else { 0 };
    }
    for node in nodes.iter().filter(|node| is_idle(node)) {
        ctx.due(WorkKind::Node, node.id.uuid()).await?;
    }
    let step = if brought > 0 { "nodes" } else { "machines" };
    let names: Vec<_> = nodes.iter().take(3).map(|node| format!("{} ({})", node.name, node.state_message)).collect();
    let more =
        if nodes.len() > names.len() { format!(" and {} more", nodes.len() - names.len()) } else { String::new() };
    let remedy = format!("Check its nodes: pilothouse node list --cluster {}.", cluster.id);
    Ok(Some(Remaining { step, what: format!("waiting for {}{more}", names.join(", ")), remedy }))
}

/// A node whose own reconcile has not begun to take it away.
fn is_idle(node: &Node) -> bool {
    node.state != tenant_controlplane::status::NodeState::Deleting
}

/// Deletes the namespace, and then waits for the volumes that were claimed in it.
async fn namespace(ctx: &Context, cluster: &Cluster) -> Result<Option<Remaining>, ReconcileError> {
    let name = sni::namespace(cluster.id);
    let key = ObjectKey::global("v1", "Namespace", &name);
    let host = ReconcileError::host_api;
    if let Some(found) = ctx.host.get(&key).await.map_err(host)? {
        if found["metadata"]["deletionTimestamp"].is_null() {
            // The host begins with a namespace's content seconds later; what takes longest to go is sent on its way first.
            try_join_all(slow(&name).iter().map(|key| ctx.host.delete(key))).await.map_err(host)?;
            ctx.host.delete(&key).await.map_err(host)?;
        } else if cluster.forced {
            end_pods(ctx, &name).await.map_err(host)?;
        }
        let remedy = format!(
            "Platform operator: kubectl get pods,pvc --namespace {name} on the host cluster (pod stuck in Terminating: is its node Ready?)."
        );
        return Ok(Some(Remaining { step: "namespace", what: describe_remaining(&found, &name), remedy }));
    }
    let volumes = ctx.host.list("v1", "PersistentVolume").await.map_err(host)?;
    let own = |volume: &&Value| volume["spec"]["claimRef"]["namespace"] == name.as_str();
    let Some(volume) = volumes.iter().find(own) else { return Ok(None) };
    let key = ObjectKey::global("v1", "PersistentVolume", volume["metadata"]["name"].as_str().unwrap_or_default());
    if cluster.forced {
        tracing::warn!(cluster = %cluster.id, volume = key.name, "forced: deleting the PersistentVolume object; its data may remain");
        ctx.host.delete(&key).await.map_err(host)?;
        ctx.host.release(&key).await.map_err(host)?;
    }
    let remedy = format!(
        "Platform operator: kubectl describe pv {} on the host cluster; is the storage class's provisioner running?",
        key.name
    );
    Ok(Some(Remaining {
        step: "namespace",
        what: format!("waiting for the volume {} to be deleted{}", key.name, finalizers(volume)),
        remedy,
    }))
}

/// Ends a namespace's pods without waiting for their kubelets, and lets its claims go.
async fn end_pods(ctx: &Context, namespace: &str) -> Result<(), ApiError> {
    for kind in ["Pod", "PersistentVolumeClaim"] {
        for remaining in ctx.host.metadata("v1", kind, Some(namespace), "").await? {
            let key = remaining.key("v1", kind);
            ctx.host.end(&key).await?;
            ctx.host.release(&key).await?;
        }
    }
    Ok(())
}

/// The finalizers that delay an object's deletion.
fn finalizers(object: &Value) -> String {
    let names = object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let names: Vec<&str> = names.collect();
    if names.is_empty() { String::new() } else { format!(" (finalizers: {})", names.join(", ")) }
}

/// What takes its time: the owners of pods, and the claims of volumes, which go once their pods have. One that is not there is fine.
fn slow(namespace: &str) -> Vec<ObjectKey> {
    let owners = [("Deployment", CONTROL_PLANE), ("StatefulSet", ETCD)];
    let owners = owners.map(|(kind, name)| ObjectKey::namespaced("apps/v1", kind, namespace, name));
    let claim =
        |member| ObjectKey::namespaced("v1", "PersistentVolumeClaim", namespace, &format!("data-{ETCD}-{member}"));
    owners.into_iter().chain((0..ETCD_MEMBERS).map(claim)).collect()
}

/// What is still in a terminating namespace, quoted from the host.
fn describe_remaining(namespace: &Value, name: &str) -> String {
    let conditions = namespace["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_blocking = |condition: &&Value| {
        condition["status"] == "True" && condition["type"].as_str().is_some_and(|kind| kind.starts_with("Namespace"))
    };
    let message = conditions.iter().find(is_blocking).and_then(|condition| condition["message"].as_str());
    let reason = message.map_or_else(|| "its pods to terminate".to_owned(), printable);
    format!("waiting for the namespace {name}: {reason}")
}
