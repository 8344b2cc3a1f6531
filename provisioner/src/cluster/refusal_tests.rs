//! A cluster that refuses or keeps things: what is told of it, what goes on all the same, and what `--force` ends.

use migrations::{Actor, NodeReport, WorkKind};
use serde_json::{Value, json};
use tenant_controlplane::id::NodeId;
use tenant_controlplane::sni;
use tenant_controlplane::status::{AccessRole, Class, ClusterState, NodeState, Problem, ProblemCode};

use super::*;
use crate::engine::Reconcile;
use crate::host::ObjectKey;
use crate::host::testing::Scripted;
use crate::testing::World;

const API: [u8; 4] = [100, 64, 0, 3];
const WEBHOOKS: &str = "admissionregistration.k8s.io/v1";

fn edit(api: &Scripted, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
    change(api.objects.lock().unwrap().get_mut(key).unwrap());
}

/// A cluster that runs.
async fn running(world: &World) -> Cluster {
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    world.store.clusters().load(cluster.id).await.unwrap()
}

/// A webhook on everything that cannot be called and fails closed.
fn close(world: &World) {
    world.tenant.put(ObjectKey::global(WEBHOOKS, "ValidatingWebhookConfiguration", "guard"), &json!({}), "helm");
    world.tenant.webhook.store(true, std::sync::atomic::Ordering::SeqCst);
}

fn names_the_webhook(problem: &Problem) {
    assert_eq!((problem.code.as_str(), problem.class), ("CLUSTER_REFUSED", Class::User));
    assert!(problem.detail.contains("failed calling webhook \"all.example.com\""), "{}", problem.detail);
    let command = "kubectl delete validatingwebhookconfiguration/guard";
    assert!(problem.remediation.contains(command), "{}", problem.remediation);
}

#[tokio::test]
async fn a_webhook_that_fails_closed_is_named_and_hides_nothing_else() {
    let world = World::new().await;
    let cluster = running(&world).await;
    close(&world);
    world.ctx.forget(cluster.id);
    assert!(world.reconcile_cluster(cluster.id).await.is_err());
    let reported = world.store.clusters().load(cluster.id).await.unwrap();
    names_the_webhook(&reported.problem.unwrap());
    assert_eq!(reported.state, ClusterState::Running, "it answers");
    *world.tenant.reachable.lock().unwrap() = false;
    assert!(world.reconcile_cluster(cluster.id).await.is_err());
    let reported = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!(reported.state, ClusterState::Degraded, "that it stopped answering is seen behind the webhook");
}

#[tokio::test]
async fn a_kubeconfig_is_handed_out_behind_such_a_webhook() {
    let world = World::new().await;
    let cluster = running(&world).await;
    close(&world);
    world.ctx.forget(cluster.id);
    let row = world.kubeconfig(cluster.id, AccessRole::Admin).await;
    assert!(world.reconcile_cluster(cluster.id).await.is_err());
    assert!(world.store.kubeconfigs().load(row.id).await.unwrap().bound, "it helps against the webhook");
}

#[tokio::test]
async fn a_cluster_with_such_a_webhook_can_be_deleted() {
    let world = World::new().await;
    let cluster = running(&world).await;
    let node = world.join(&cluster).await;
    world.store.nodes().mark_removed(node).await.unwrap();
    close(&world);
    world.store.clusters().request_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    world.converge().await;
    assert!(world.store.clusters().load(cluster.id).await.is_err());
}

#[tokio::test]
async fn writes_that_are_never_answered_end_with_the_visit() {
    let world = World::tuned(|tuning| tuning.tenant_timeout = Duration::from_secs(2)).await;
    let cluster = running(&world).await;
    world.tenant.hangs.store(true, std::sync::atomic::Ordering::SeqCst);
    world.ctx.forget(cluster.id);
    let failed = world.reconcile_cluster(cluster.id).await.unwrap_err();
    assert_eq!(failed.problem.code.as_str(), "CLUSTER_UNREACHABLE");
}

#[tokio::test]
async fn an_organization_that_holds_half_of_the_places_waits_and_others_do_not() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    let most = world.ctx.tuning.concurrency / 2;
    let held: Vec<_> =
        (0..most).filter_map(|_| world.ctx.shares.take(WorkKind::Cluster, world.organization.id)).collect();
    assert_eq!(held.len(), most);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Throttled);
    assert!(world.host.names().is_empty(), "nothing was looked at");
    drop(held);
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
}

/// A machine of a user's own in a running cluster, with its Kubernetes node.
async fn joined(world: &World, cluster: &Cluster) -> (NodeId, ObjectKey) {
    let id = world.join(cluster).await;
    let name = world.store.nodes().load(id).await.unwrap().name;
    let key = ObjectKey::global("v1", "Node", name.as_str());
    world.tenant.put(key.clone(), &json!({}), "kubelet");
    (id, key)
}

/// It is asked to go, and its machine has said goodbye.
async fn remove(world: &World, id: NodeId) {
    world.store.nodes().request_deletion(world.organization.id, id, Actor::System).await.unwrap();
    world.store.nodes().mark_removed(id).await.unwrap();
}

#[tokio::test]
async fn a_node_that_something_keeps_says_what_and_force_ends_it() {
    let world = World::new().await;
    let cluster = running(&world).await;
    let (id, key) = joined(&world, &cluster).await;
    edit(&world.tenant, &key, |node| node["metadata"]["finalizers"] = json!(["example.com/keep"]));
    remove(&world, id).await;
    let visit = async || world.ctx.reconcile(WorkKind::Node, id.uuid()).await.unwrap();
    assert!(
        matches!(visit().await, Outcome::Waiting { reason, .. } if reason.contains("finalizers: example.com/keep"))
    );
    let reported = world.store.nodes().load(id).await.unwrap();
    assert!(reported.state_message.contains("example.com/keep"), "{}", reported.state_message);
    world.store.nodes().force_deletion(world.organization.id, id, Actor::System).await.unwrap();
    assert_eq!(visit().await, Outcome::Gone);
    let removed = world.store.nodes().removed_names(cluster.id).await.unwrap();
    assert_eq!(removed, std::slice::from_ref(&key.name), "and it is deleted as soon as it can be");
}

#[tokio::test]
async fn a_removed_node_is_gone_when_its_certificates_are_refused() {
    let world = World::new().await;
    let cluster = running(&world).await;
    let (id, key) = joined(&world, &cluster).await;
    remove(&world, id).await;
    let visit = async || world.ctx.reconcile(WorkKind::Node, id.uuid()).await.unwrap();
    let waits = |outcome: &Outcome| matches!(outcome, Outcome::Waiting { reason, .. } if reason.contains("reject its certificates"));
    assert!(waits(&visit().await), "no API server knows its name");
    world.connector.mounted.deaf.store(true, std::sync::atomic::Ordering::SeqCst);
    let cluster_waits = world.reconcile_cluster(cluster.id).await.unwrap();
    assert!(matches!(cluster_waits, Outcome::Waiting { reason, .. } if reason.contains("reject removed nodes")));
    assert!(waits(&visit().await), "nobody has read the file yet");
    assert_eq!(world.store.tombstones().get(id).await.unwrap().unwrap().refused_at, None);
    assert!(!world.tenant.names().contains(&format!("Node {}", key.name)), "it is deleted all the same");
    world.connector.mounted.deaf.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(visit().await, Outcome::Gone, "the pod was touched, so the file was read");
    assert!(world.store.tombstones().get(id).await.unwrap().unwrap().refused_at.is_some());
}

#[tokio::test]
async fn a_node_that_went_by_force_is_seen_to_be_refused_afterwards() {
    let world = World::new().await;
    let cluster = running(&world).await;
    let (id, _) = joined(&world, &cluster).await;
    remove(&world, id).await;
    world.store.nodes().force_deletion(world.organization.id, id, Actor::System).await.unwrap();
    assert_eq!(world.ctx.reconcile(WorkKind::Node, id.uuid()).await.unwrap(), Outcome::Gone);
    let refused = async || world.store.tombstones().get(id).await.unwrap().unwrap().refused_at.is_some();
    assert!(!refused().await, "no API server knows its name");
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert!(refused().await);
}

#[tokio::test]
async fn a_node_that_a_webhook_keeps_says_so() {
    let world = World::new().await;
    let cluster = running(&world).await;
    let (id, _) = joined(&world, &cluster).await;
    remove(&world, id).await;
    close(&world);
    let ended = world.ctx.reconcile(WorkKind::Node, id.uuid()).await.unwrap();
    assert!(matches!(ended, Outcome::Waiting { reason, .. } if reason.contains("failed calling webhook")));
}

#[tokio::test]
async fn a_machine_whose_node_a_webhook_refuses_is_told_why() {
    let world = World::new().await;
    let cluster = running(&world).await;
    let id = world.join(&cluster).await;
    let visit = async || {
        world.ctx.reconcile(WorkKind::Node, id.uuid()).await.unwrap();
        world.store.nodes().load(id).await.unwrap()
    };
    let mut changes = world.ctx.tenants.changes();
    visit().await;
    // Its cluster's nodes are known from now on: there are none.
    changes.recv().await.unwrap();
    assert_eq!(visit().await.problem, None, "it has had no time yet");
    // As if it had been asked before: the clock is nobody's to turn.
    let problem = Some(Problem::new(ProblemCode::ClusterRefused, ""));
    let (state, state_message) = (NodeState::Joining, String::new());
    let report = NodeReport { state, state_message, problem, facts: None, last_seen_at: None };
    world.store.nodes().report(id, report.clone()).await.unwrap();
    close(&world);
    let reported = visit().await;
    names_the_webhook(&reported.problem.unwrap());
    assert!(reported.state_message.contains("failed calling webhook"), "{}", reported.state_message);
    world.tenant.webhook.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(visit().await.problem, None, "it is let in");
}

#[tokio::test]
async fn what_keeps_a_deleted_cluster_is_named_and_force_ends_it() {
    let world = World::tuned(|tuning| tuning.reconcile_timeout = Duration::from_secs(1)).await;
    let cluster = running(&world).await;
    let namespace = sni::namespace(cluster.id);
    let volume = ObjectKey::global("v1", "PersistentVolume", "pv-1");
    world.host.put(volume.clone(), &json!({}), "storage");
    edit(&world.host, &volume, |volume| {
        volume["metadata"]["finalizers"] = json!(["storage.example.com/detach"]);
        volume["spec"] = json!({"claimRef": {"namespace": namespace}});
    });
    world.host.deletion_polls.store(0, std::sync::atomic::Ordering::SeqCst);
    world.store.clusters().request_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    let ended = world.reconcile_cluster(cluster.id).await.unwrap();
    let what = "waiting for the volume pv-1 to be deleted (finalizers: storage.example.com/detach)";
    assert!(matches!(&ended, Outcome::Waiting { reason, .. } if reason == what), "{ended:?}");
    world.store.clusters().force_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    world.converge().await;
    assert!(world.store.clusters().load(cluster.id).await.is_err());
    assert_eq!(world.host.get(&volume).await.unwrap(), None);
}

#[tokio::test]
async fn pods_that_do_not_end_are_ended_by_force() {
    let world = World::new().await;
    let cluster = running(&world).await;
    world.host.deletion_polls.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    let pod = ObjectKey::namespaced("v1", "Pod", &sni::namespace(cluster.id), "etcd-0");
    world.host.put(pod.clone(), &json!({}), "statefulset");
    world.store.clusters().request_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    let ended = world.reconcile_cluster(cluster.id).await.unwrap();
    assert!(matches!(ended, Outcome::Waiting { reason, .. } if reason.contains(&sni::namespace(cluster.id))));
    world.store.clusters().force_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    world.reconcile_cluster(cluster.id).await.unwrap();
    assert!(!world.host.objects.lock().unwrap().contains_key(&pod), "no kubelet was waited for");
    world.host.deletion_polls.store(0, std::sync::atomic::Ordering::SeqCst);
    world.converge().await;
    assert!(world.store.clusters().load(cluster.id).await.is_err(), "its absence is seen as ever");
}
