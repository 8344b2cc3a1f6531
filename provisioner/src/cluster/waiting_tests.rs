//! What is reported while a cluster does not come up.

use migrations::{Page, Step};
use serde_json::json;
use tenant_controlplane::sni;
use tenant_controlplane::status::{Class, ClusterState};

use super::*;
use crate::host::Component;
use crate::host::{FIELD_MANAGER, ObjectKey, PodInfo, WaitingReason, WatchEvent};
use crate::testing::World;

const API: [u8; 4] = [100, 64, 0, 3];

/// A world whose people wait that long.
async fn patient(step_message_after: Duration, problem_after: Duration) -> World {
    World::tuned(|tuning| (tuning.step_message_after, tuning.problem_after) = (step_message_after, problem_after)).await
}

fn hang(world: &World, cluster: &Cluster, waiting_reason: Option<WaitingReason>) {
    let (name, component) = ("etcd-0".to_owned(), Component::Etcd);
    let pod = PodInfo {
        cluster: cluster.id,
        component,
        name,
        address: None,
        ready: false,
        terminating: false,
        waiting_reason,
    };
    world.ctx.pods.take(WatchEvent::All(vec![pod]));
}

async fn step(world: &World, cluster: &Cluster, key: &str) -> Step {
    let operations =
        world.store.operations().list(world.organization.id, &cluster.id.to_string(), Page::default()).await.unwrap();
    operations[0].steps.iter().find(|step| step.key == key).unwrap().clone()
}

async fn row(world: &World, cluster: &Cluster) -> Cluster {
    world.store.clusters().load(cluster.id).await.unwrap()
}

#[tokio::test]
async fn a_step_that_waits_says_what_the_host_says_first_and_then_the_cluster_does() {
    let world = patient(Duration::ZERO, Duration::from_secs(3600)).await;
    let cluster = world.cluster("demo").await;
    let (reason, message) = ("Unschedulable".to_owned(), "0/1 nodes are available: 1 Insufficient memory.".to_owned());
    hang(&world, &cluster, Some(WaitingReason { reason, message }));
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    let waiting = step(&world, &cluster, "datastore").await;
    assert_eq!(waiting.message, "Insufficient host capacity: etcd-0: 0/1 nodes are available: 1 Insufficient memory.");
    assert_eq!(row(&world, &cluster).await.problem, None, "not yet");

    let world = patient(Duration::ZERO, Duration::ZERO).await;
    let cluster = world.cluster("demo").await;
    let (reason, message) = ("ErrImageNeverPull".to_owned(), "etcd: ErrImageNeverPull".to_owned());
    hang(&world, &cluster, Some(WaitingReason { reason, message }));
    world.reconcile_cluster(cluster.id).await.unwrap();
    let reported = row(&world, &cluster).await;
    let problem = reported.problem.unwrap();
    assert_eq!((problem.code.as_str(), problem.class), ("CONTROL_PLANE_PODS", Class::Platform));
    assert_eq!((reported.state, reported.state_message), (ClusterState::Provisioning, problem.detail));
    world.start_pods(cluster.id, API);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let reported = row(&world, &cluster).await;
    assert_eq!((reported.state, reported.problem), (ClusterState::Running, None), "it went on");
    assert_eq!(step(&world, &cluster, "datastore").await.message, "");
}

#[tokio::test]
async fn pods_that_are_being_made_for_ever_are_explained_by_the_hosts_events() {
    let world = patient(Duration::ZERO, Duration::ZERO).await;
    let cluster = world.cluster("demo").await;
    hang(&world, &cluster, None);
    let key = ObjectKey::namespaced("v1", "Event", &sni::namespace(cluster.id), "etcd-0.1");
    world.host.put(key.clone(), &json!({}), FIELD_MANAGER);
    let now = OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    let words = "failed to create containerd task: open /etc/hosts: no such file or directory";
    {
        let mut objects = world.host.objects.lock().unwrap();
        let event = objects.get_mut(&key).unwrap();
        event["type"] = json!("Warning");
        event["reason"] = json!("FailedCreatePodSandBox");
        event["message"] = json!(words);
        event["lastTimestamp"] = json!(now);
        event["involvedObject"] = json!({"kind": "Pod", "name": "etcd-0"});
    }
    world.reconcile_cluster(cluster.id).await.unwrap();
    let reported = row(&world, &cluster).await.problem.unwrap();
    assert!(reported.detail.contains(words) && reported.remediation.contains("doctor"), "{reported:?}");
    assert_eq!(step(&world, &cluster, "datastore").await.message, reported.detail);
}

#[tokio::test]
async fn nobody_is_told_of_what_takes_a_moment() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    let (reason, message) = ("Unschedulable".to_owned(), "pod has unbound immediate PersistentVolumeClaims".to_owned());
    hang(&world, &cluster, Some(WaitingReason { reason, message }));
    world.reconcile_cluster(cluster.id).await.unwrap();
    assert_eq!(step(&world, &cluster, "datastore").await.message, "");
    assert_eq!(row(&world, &cluster).await.problem, None);
}

#[tokio::test]
async fn what_has_been_broken_for_long_is_left_after_one_look() {
    let world = World::tuned(|tuning| tuning.reconcile_timeout = Duration::from_millis(300)).await;
    let cluster = world.cluster("demo").await;
    hang(&world, &cluster, None);
    let looks = async || {
        let before = world.cancel_at.looks();
        let ended = world.looked_at(cluster.id).await.unwrap();
        assert!(matches!(ended, Outcome::Waiting { .. }), "{ended:?}");
        (world.cancel_at.looks() - before, ended)
    };
    world.start_pods(cluster.id, API);
    *world.tenant.health.lock().unwrap() = crate::host::Health::Starting("etcd".to_owned());
    let (first, _) = looks().await;
    let (second, ended) = looks().await;
    assert!(second * 3 < first, "{second} looks after {first}: its patience is for all visits together");
    assert!(matches!(ended, Outcome::Waiting { after, .. } if after >= ROUTINE_LOOK && after <= LONGEST_LOOK));
}
