//! Draining a node before its machine is released: the node is cordoned, and each pod is evicted, as disruption budgets
//! allow and for as long as [`Tuning::drain_timeout`](crate::Tuning) says. A node that is not ready, or whose API server is away, is not waited for.

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::host::{ApiError, Kubernetes, Meta, ObjectKey};
use crate::node_context::NodeContext;

/// How many pods are asked to go at a time, and in one visit.
const AT_ONCE: usize = 8;
const A_VISIT: usize = 64;

/// How far the pods of a node have moved.
#[derive(Debug, PartialEq, Eq)]
pub enum Drain {
    /// They have, or had their time, or need not.
    Finished,
    /// Some are still there: which.
    Draining(String),
}

/// Moves pods away for a moment.
///
/// # Errors
/// [`ReconcileError`] of the store.
pub async fn run(ctx: &Context, node_context: &NodeContext) -> Result<Drain, ReconcileError> {
    let (node, now) = (&node_context.node, OffsetDateTime::now_utc());
    let end = node.drain_ends_at.unwrap_or(now + ctx.tuning.drain_timeout);
    if end <= now {
        return Ok(Drain::Finished);
    }
    let remaining = match ctx.with_timeout(remaining(ctx, node_context)).await {
        Ok(remaining) => remaining,
        Err(error) if node.drain_ends_at.is_some() => Some(vec![crate::chain(&error)]),
        Err(error) => {
            tracing::info!(node = %node.id, error = crate::chain(&error), "drain failed");
            None
        }
    };
    let remaining = remaining.filter(|remaining| !remaining.is_empty());
    if remaining.is_none() || node.drain_ends_at.is_none() {
        ctx.store.nodes().set_drain_end(node.id, if remaining.is_none() { now } else { end }).await?;
    }
    Ok(remaining.map_or(Drain::Finished, |remaining| {
        Drain::Draining(waiting_message(&remaining, ctx.tuning.drain_timeout.as_secs()))
    }))
}

fn waiting_message(remaining: &[String], seconds: u64) -> String {
    let (full_name, more) =
        (remaining.iter().take(3).cloned().collect::<Vec<_>>().join(", "), remaining.len().saturating_sub(3));
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("draining pods, timeout {seconds} s: {full_name}{more}")
}

/// Asks every pod to go that is still there; answers which those are. None: there is nobody to ask, or the node is not ready.
async fn remaining(ctx: &Context, node_context: &NodeContext) -> Result<Option<Vec<String>>, ReconcileError> {
    let name = node_context.node.name.as_str();
    let Some(api) = ctx.tenants.reach(&node_context.cluster).await? else { return Ok(None) };
    let refused = ReconcileError::cluster_api;
    let Some(node) = api.get(&ObjectKey::global("v1", "Node", name)).await.map_err(refused)? else { return Ok(None) };
    if !is_ready(&node) {
        return Ok(None);
    }
    if node["spec"]["unschedulable"] != true {
        api.apply(&cordon(name)).await.map_err(refused)?;
    }
    let pods = api.pods_on(name).await.map_err(refused)?;
    let drainable: Vec<&Meta> = pods.iter().filter(|pod| is_drainable(pod)).collect();
    let (now, later) = drainable.split_at(drainable.len().min(A_VISIT));
    let asked: Vec<_> = now.iter().map(|pod| ask(&*api, pod)).collect();
    let mut remaining: Vec<String> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    remaining.extend(later.iter().map(|pod| full_name(pod)));
    Ok(Some(remaining))
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

fn cordon(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": true}})
}

/// Whether a pod would go on elsewhere: not one that every node has, nor one that only kubelet knows.
fn is_drainable(pod: &Meta) -> bool {
    !pod.mirror && pod.controller.as_deref() != Some("DaemonSet")
}

/// Evicts a pod that is not terminating yet; returns its name, and why it stays.
async fn ask(api: &dyn Kubernetes, pod: &Meta) -> String {
    if pod.terminating {
        return full_name(pod);
    }
    match api.evict(pod.namespace.as_deref().unwrap_or_default(), &pod.name).await {
        Ok(()) => full_name(pod),
        Err(ApiError::Rejected { code: 429, message, .. }) => {
            let namespace = pod.namespace.as_deref().unwrap_or_default();
            let command = format!("kubectl get poddisruptionbudgets --namespace {namespace}");
            format!("{} (blocked by PodDisruptionBudget: {message}; see: {command})", full_name(pod))
        }
        Err(error) => format!("{} ({error})", full_name(pod)),
    }
}

fn full_name(pod: &Meta) -> String {
    format!("{}/{}", pod.namespace.as_deref().unwrap_or_default(), pod.name)
}

#[cfg(test)]
mod tests {
    use migrations::{Actor, StepState};
    use tenant_controlplane::id::NodeId;

    use super::*;
    use crate::context::Context;
    use crate::engine::{Outcome, Reconcile};
    use crate::testing::World;

    /// A cluster with a node of a user's own, in Kubernetes as `ready` says, and one pod of each sort on it; the node is to go.
    async fn terminating(ready: &str) -> (World, NodeId) {
        let world = World::new().await;
        let cluster = world.cluster("demo").await;
        world.start_pods(cluster.id, [100, 64, 0, 3]);
        world.reconcile_cluster(cluster.id).await.unwrap();
        let id = world.join(&cluster).await;
        let name = world.store.nodes().load(id).await.unwrap().name.to_string();
        world.store.nodes().set_link(id, uuid::Uuid::nil()).await.unwrap();
        let put = |key: ObjectKey, more: Value| {
            world.tenant.put(key.clone(), &json!({}), "kubelet");
            let mut objects = world.tenant.objects.lock().unwrap();
            let object = objects.get_mut(&key).unwrap().as_object_mut().unwrap();
            for (field, value) in more.as_object().unwrap() {
                match object.get_mut(field).and_then(Value::as_object_mut) {
                    Some(known) => known.extend(value.as_object().unwrap().clone()),
                    None => _ = object.insert(field.clone(), value.clone()),
                }
            }
        };
        put(
            ObjectKey::global("v1", "Node", &name),
            json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}}),
        );
        let pod = |name: &str| ObjectKey::namespaced("v1", "Pod", "default", name);
        let here = json!({"nodeName": name});
        put(pod("web-0"), json!({"spec": here}));
        put(pod("db-0"), json!({"spec": here}));
        put(pod("elsewhere"), json!({"spec": {"nodeName": "another"}}));
        put(pod("done"), json!({"spec": here, "status": {"phase": "Succeeded"}}));
        let owner = json!([{"kind": "DaemonSet", "name": "log", "controller": true}]);
        put(pod("log-x"), json!({"spec": here, "metadata": {"ownerReferences": owner}}));
        put(pod("static"), json!({"spec": here, "metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}));
        world.tenant.guarded.lock().unwrap().push("db-0".to_owned());
        world.store.nodes().request_deletion(world.organization.id, id, Actor::System).await.unwrap();
        (world, id)
    }

    async fn visit(world: &World, id: NodeId) -> (Outcome, NodeContext) {
        let ended = world.ctx.reconcile(migrations::WorkKind::Node, id.uuid()).await.unwrap();
        (ended, NodeContext::load(&world.store, id).await.unwrap().unwrap())
    }

    /// Whether its machine may reset itself: it is told on a tombstone, and on nothing else.
    async fn is_told(world: &World, id: NodeId) -> bool {
        world.store.tombstones().get(id).await.unwrap().is_some()
    }

    fn pods(world: &World) -> Vec<String> {
        world.tenant.names().iter().filter_map(|name| name.strip_prefix("Pod ").map(ToOwned::to_owned)).collect()
    }

    #[tokio::test]
    async fn pods_move_away_as_their_budgets_allow_and_only_then_the_machine_hears_of_it() {
        let (world, id) = terminating("True").await;
        let (ended, node_context) = visit(&world, id).await;
        assert!(matches!(ended, Outcome::Waiting { .. }) && !is_told(&world, id).await);
        assert_eq!(pods(&world), ["db-0", "done", "elsewhere", "log-x", "static"]);
        let node = ObjectKey::global("v1", "Node", node_context.node.name.as_str());
        assert_eq!(world.tenant.get(&node).await.unwrap().unwrap()["spec"]["unschedulable"], true, "no new ones come");
        assert!(
            node_context.node.state_message.contains("default/db-0 (blocked by PodDisruptionBudget: Cannot evict pod")
        );
        let operation = world.store.operations().load(node_context.node.operation.unwrap()).await.unwrap();
        assert_eq!((operation.steps[0].key.as_str(), operation.steps[0].state), ("drain", StepState::Running));
        assert_eq!(operation.steps[0].message, node_context.node.state_message);
        world.tenant.guarded.lock().unwrap().clear();
        visit(&world, id).await;
        assert!(
            !pods(&world).contains(&"db-0".to_owned()) && !is_told(&world, id).await,
            "it was there when it was asked"
        );
        let (ended, _) = visit(&world, id).await;
        assert!(
            matches!(ended, Outcome::Waiting { .. }) && is_told(&world, id).await,
            "now its machine may reset itself"
        );
        let operation = world.store.operations().load(operation.id).await.unwrap();
        let states: Vec<_> = operation.steps.iter().map(|step| step.state).collect();
        assert_eq!(states, [StepState::Done, StepState::Running, StepState::Waiting]);
    }

    #[tokio::test]
    async fn nobody_is_waited_for_longer_than_agreed() {
        let (world, id) = terminating("True").await;
        let (_, node_context) = visit(&world, id).await;
        let end = node_context.node.drain_ends_at.unwrap() - OffsetDateTime::now_utc();
        assert!(end > time::Duration::seconds(30) && end <= time::Duration::seconds(60), "{end}");
        world.store.nodes().set_drain_end(id, OffsetDateTime::now_utc()).await.unwrap();
        visit(&world, id).await;
        assert!(is_told(&world, id).await);
        assert!(pods(&world).contains(&"db-0".to_owned()));
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_is_not_waited_for() {
        let (world, id) = terminating("Unknown").await;
        visit(&world, id).await;
        assert!(is_told(&world, id).await);
        assert!(pods(&world).contains(&"web-0".to_owned()), "its kubelet would not end them");
    }

    #[tokio::test]
    async fn an_api_server_that_is_away_is_not_waited_for() {
        let (world, id) = terminating("True").await;
        world.connector.unbound.store(true, std::sync::atomic::Ordering::SeqCst);
        let node_context = NodeContext::load(&world.store, id).await.unwrap().unwrap();
        assert_eq!(run(&world.ctx as &Context, &node_context).await.unwrap(), Drain::Finished);
    }
}
