//! A cluster's end: nodes told to leave, machines gone, the namespace and its volumes gone, keys destroyed, then the row.
//!
//! Each thing counts as gone when its absence was observed. The nodes' own reconciles do the nodes' part, so nothing makes a machine
//! while this removes it: one lease per id.

use std::time::Duration;

use futures::future::try_join_all;
use migrations::{Cluster, Node, PoolKind, WorkKind};
use serde_json::Value;
use tenant_controlplane::render::{CONTROL_PLANE, ETCD};
use tenant_controlplane::status::{Class, Problem};
use tenant_controlplane::text::printable;
use tenant_controlplane::{plan, sni};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::report;
use crate::context::Context;
use crate::engine::Outcome;
use crate::host::{ApiError, ObjectKey};
use crate::steps::Steps;
use crate::trouble::Trouble;

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
/// [`Trouble`]; everything done so far stays done.
pub async fn run(ctx: &Context, cluster: &Cluster) -> Result<Outcome, Trouble> {
    let mut steps =
        Steps::open(&ctx.store, &cluster.id.to_string(), &["cluster.delete"], &plan::CLUSTER_DELETE).await?;
    let mut waits = Waits::begin(ctx, cluster);
    steps.running("nodes", "").await?;
    if !waits.lingers {
        report::going(ctx, cluster, "removing nodes", None).await?;
    }
    if let Some(left) = waits.for_absence(&mut steps, || nodes(ctx, cluster)).await? {
        return waits.told(ctx, cluster, left).await;
    }
    steps.done("nodes").await?;
    steps.done("machines").await?;
    steps.running("namespace", "").await?;
    if !waits.lingers {
        report::going(ctx, cluster, "deleting control plane", None).await?;
    }
    if let Some(left) = waits.for_absence(&mut steps, || namespace(ctx, cluster)).await? {
        return waits.told(ctx, cluster, left).await;
    }
    steps.done("namespace").await?;
    // The row's end closes the operation; the last step cannot be told after it.
    steps.done("keys").await?;
    ctx.store.clusters().purge(cluster.id).await?;
    ctx.forget(cluster.id);
    Ok(Outcome::Gone)
}

/// Something that is not gone yet.
struct Left {
    step: &'static str,
    what: String,
    /// Where to look, and with which command.
    remedy: String,
}

impl Left {
    /// The same for people who have waited for long.
    fn problem(&self, cluster: &Cluster) -> Problem {
        let remediation = match cluster.forced {
            true => self.remedy.clone(),
            false => format!("{} To stop waiting: pilothouse cluster delete {} --force.", self.remedy, cluster.id),
        };
        let (code, class, detail) = ("DELETION_WAITS".to_owned(), Class::Platform, self.what.clone());
        Problem { code, class, detail, remediation }
    }
}

struct Waits<'a> {
    /// Whether it takes longer than people watch.
    lingers: bool,
    until: Instant,
    again: Duration,
    ending: &'a CancellationToken,
}

impl<'a> Waits<'a> {
    /// Stays a while with what has just begun to go. What lingers is looked at once a visit, so that it takes nobody's place.
    fn begin(ctx: &'a Context, cluster: &Cluster) -> Self {
        let asked = cluster.deletion_requested_at.unwrap_or(cluster.updated_at);
        let lingers = OffsetDateTime::now_utc() - asked > WATCHED;
        let (stay, again) = if lingers { (Duration::ZERO, LATER) } else { (ctx.tuning.patience, AGAIN) };
        Self { lingers, until: Instant::now() + stay, again, ending: &ctx.ending }
    }

    /// Looks until nothing is left, or others should have a turn.
    async fn for_absence<F>(
        &mut self,
        steps: &mut Steps<'_>,
        mut look: impl FnMut() -> F,
    ) -> Result<Option<Left>, Trouble>
    where
        F: Future<Output = Result<Option<Left>, Trouble>>,
    {
        loop {
            let Some(left) = look().await? else { return Ok(None) };
            if left.step == "machines" {
                steps.done("nodes").await?;
            }
            steps.running(left.step, &left.what).await?;
            if Instant::now() >= self.until || self.ending.is_cancelled() {
                return Ok(Some(left));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Says what is waited for; what lingers is a problem, with the command that helps.
    async fn told(&self, ctx: &Context, cluster: &Cluster, left: Left) -> Result<Outcome, Trouble> {
        if self.lingers {
            report::going(ctx, cluster, &left.what, Some(left.problem(cluster))).await?;
        }
        Ok(Outcome::waiting(left.what, self.again))
    }
}

/// Makes every node's own reconcile see to it; they know that the cluster is going.
async fn nodes(ctx: &Context, cluster: &Cluster) -> Result<Option<Left>, Trouble> {
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
    Ok(Some(Left { step, what: format!("waiting for {}{more}", names.join(", ")), remedy }))
}

/// A node whose own reconcile has not begun to take it away.
fn is_idle(node: &Node) -> bool {
    node.state != tenant_controlplane::status::NodeState::Deleting
}

/// Deletes the namespace, and then waits for the volumes that were claimed in it.
async fn namespace(ctx: &Context, cluster: &Cluster) -> Result<Option<Left>, Trouble> {
    let name = sni::namespace(cluster.id);
    let key = ObjectKey::global("v1", "Namespace", &name);
    let host = |error| Trouble::api("host", error);
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
        return Ok(Some(Left { step: "namespace", what: remaining(&found, &name), remedy }));
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
    Ok(Some(Left {
        step: "namespace",
        what: format!("waiting for the volume {} to be deleted{}", key.name, finalizers(volume)),
        remedy,
    }))
}

/// Ends a namespace's pods without waiting for their kubelets, and lets its claims go.
async fn end_pods(ctx: &Context, namespace: &str) -> Result<(), ApiError> {
    for kind in ["Pod", "PersistentVolumeClaim"] {
        for left in ctx.host.metadata("v1", kind, Some(namespace), "").await? {
            let key = left.key("v1", kind);
            ctx.host.end(&key).await?;
            ctx.host.release(&key).await?;
        }
    }
    Ok(())
}

/// What else has a say in an object's deletion.
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

/// What the host says is still in a namespace on its way out.
fn remaining(namespace: &Value, name: &str) -> String {
    let conditions = namespace["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let tells = |condition: &&Value| {
        condition["status"] == "True" && condition["type"].as_str().is_some_and(|kind| kind.starts_with("Namespace"))
    };
    let words = conditions.iter().find(tells).and_then(|condition| condition["message"].as_str());
    let said = words.map_or_else(|| "its pods to terminate".to_owned(), printable);
    format!("waiting for the namespace {name}: {said}")
}
