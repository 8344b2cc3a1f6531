//! Clusters come, stay and go, whatever call fails on the way.

use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use migrations::{Actor, KubeconfigKind, NewKubeconfig, OperationState, Page, PoolKind, StepState};
use serde_json::json;
use tenant_controlplane::sni;
use tenant_controlplane::status::{AccessRole, ClusterState, NodeState, PoolState};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::engine::Outcome;
use crate::host::{Health, ObjectKey};
use crate::testing::World;

const API: [u8; 4] = [100, 64, 0, 3];

async fn operation(world: &World, cluster: &Cluster) -> migrations::Operation {
    world
        .store
        .operations()
        .list(world.organization.id, &cluster.id.to_string(), Page::first(1))
        .await
        .unwrap()
        .remove(0)
}

#[tokio::test]
async fn a_cluster_comes_up_and_a_second_visit_changes_nothing() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!(
        (row.state, row.observed_generation, row.endpoint.as_deref()),
        (ClusterState::Running, 1, Some("100.64.0.3:6443"))
    );
    let done = operation(&world, &cluster).await;
    assert_eq!(done.state, OperationState::Succeeded);
    assert!(done.steps.iter().all(|step| step.state == StepState::Done), "{:?}", done.steps);
    let (objects, inside) = (world.host.objects.lock().unwrap().clone(), world.tenant.objects.lock().unwrap().clone());
    let alias = objects.iter().find(|(key, _)| key.kind == "Deployment").unwrap().1;
    assert!(alias.to_string().contains("100.64.128.9"), "the control plane knows etcd's address");
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert_eq!(*world.host.objects.lock().unwrap(), objects);
    assert_eq!(*world.tenant.objects.lock().unwrap(), inside);
    assert_eq!(world.store.clusters().load(cluster.id).await.unwrap(), row);
}

#[tokio::test]
async fn pods_wait_for_etcds_volume_and_not_for_ever() {
    let world = World::tuned(|tuning| tuning.volume_bind_timeout = Duration::from_secs(60)).await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    let claim = ObjectKey::namespaced("v1", "PersistentVolumeClaim", &sni::namespace(cluster.id), "data-etcd-0");
    let comes_to = async |calls: usize| {
        while !world.host.names().contains(&"PersistentVolumeClaim data-etcd-0".to_owned())
            || world.faults.calls() < calls
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let volume = async {
        comes_to(0).await;
        comes_to(world.faults.calls() + 3).await;
        let early = |name: &String| name.starts_with("StatefulSet") || name.starts_with("Deployment");
        assert!(!world.host.names().iter().any(early), "{:?}", world.host.names());
        world.host.objects.lock().unwrap().get_mut(&claim).unwrap()["status"] = json!({"phase": "Bound"});
    };
    let (outcome, ()) = tokio::join!(world.reconcile_cluster(cluster.id), volume);
    assert_eq!(outcome.unwrap(), Outcome::Done);

    let world = World::tuned(|tuning| tuning.volume_bind_timeout = Duration::from_millis(20)).await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
}

#[tokio::test]
async fn nothing_is_claimed_while_pods_are_unknown() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!((row.state, row.endpoint), (ClusterState::Provisioning, None));
}

#[tokio::test]
async fn serving_is_enough_for_us_and_for_admins() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    *world.tenant.health.lock().unwrap() = Health::Serving;
    world.start_pods(cluster.id, API);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!((row.state, row.endpoint.is_some()), (ClusterState::Running, true));
    assert!(
        world.tenant.names().contains(&"ClusterRole cluster-admin".to_owned()),
        "Kubernetes may not have made it yet"
    );
    let [admin, viewer] = [AccessRole::Admin, AccessRole::View].map(|role| world.kubeconfig(cluster.id, role));
    let (admin, viewer) = (admin.await, viewer.await);
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    let bound = async |id| world.store.kubeconfigs().load(id).await.unwrap().bound;
    assert_eq!((bound(admin.id).await, bound(viewer.id).await), (true, false), "only one of the roles is there");
}

#[tokio::test]
async fn what_is_done_stays_done() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    *world.tenant.health.lock().unwrap() = Health::Starting("waiting for etcd".to_owned());
    world.start_pods(cluster.id, API);
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!((row.state, row.endpoint), (ClusterState::Provisioning, None));
    let steps = || async { operation(&world, &cluster).await.steps };
    let accepted = steps().await.remove(0);
    *world.tenant.health.lock().unwrap() = Health::Ready;
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert_eq!(steps().await.remove(0), accepted);
}

#[tokio::test]
async fn a_moved_pod_moves_the_endpoint_and_an_unreachable_gateway_degrades() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    world.start_pods(cluster.id, [100, 64, 0, 77]);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!(row.endpoint.as_deref(), Some("100.64.0.77:6443"));
    *world.tenant.reachable.lock().unwrap() = false;
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!(row.state, ClusterState::Degraded);
    assert_eq!(row.problem.unwrap().code.as_str(), "CLUSTER_UNREACHABLE");
    *world.tenant.reachable.lock().unwrap() = true;
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert_eq!(world.store.clusters().load(cluster.id).await.unwrap().problem, None);
}

fn bundle(world: &World) -> String {
    let objects = world.host.objects.lock().unwrap();
    let (_, secret) = objects.iter().find(|(key, _)| key.name == "client-authorities").unwrap();
    let data = secret["data"]["client-ca.crt"].as_str().unwrap();
    String::from_utf8(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap()).unwrap()
}

#[tokio::test]
async fn kubeconfigs_are_believed_until_they_are_revoked() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let (kubeconfigs, organization) = (world.store.kubeconfigs(), world.organization.id);
    let new = NewKubeconfig {
        organization,
        cluster: cluster.id,
        name: "mine".to_owned(),
        role: AccessRole::Admin,
        kind: KubeconfigKind::File,
        expires_at: OffsetDateTime::now_utc() + time::Duration::hours(1),
        actor: Actor::System,
    };
    let row = kubeconfigs.insert(new).await.unwrap();
    let text = crate::issue_kubeconfig(&world.store, &crate::testing::installation(), (&row, crate::Server::Sni))
        .await
        .unwrap();
    let label = cluster.id.suffix();
    for part in [
        "https://192.0.2.1:8443",
        &format!("{label}.api.pilothouse.internal"),
        &format!("default/default/demo/{}", row.id),
    ] {
        assert!(text.contains(part), "{part} missing of {text}");
    }
    let other = world.kubeconfig(cluster.id, AccessRole::Admin).await;
    let deployment = |world: &World| {
        let objects = world.host.objects.lock().unwrap();
        objects.iter().find(|(key, _)| key.kind == "Deployment").unwrap().1.clone()
    };
    let before = deployment(&world);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let row = kubeconfigs.load(row.id).await.unwrap();
    assert!(row.bound && kubeconfigs.load(other.id).await.unwrap().bound);
    let authorities = [row.authority.clone().unwrap(), other.authority.unwrap()];
    assert!(authorities.iter().all(|authority| bundle(&world).contains(authority)));
    assert!(!world.tenant.names().iter().any(|name| name.contains("kubeconfig")), "nothing in the tenant speaks of it");
    kubeconfigs.revoke(organization, row.id, Actor::System).await.unwrap();
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert!(!bundle(&world).contains(&authorities[0]) && bundle(&world).contains(&authorities[1]));
    assert!(kubeconfigs.load(row.id).await.unwrap().refused_at.is_some());
    assert!(kubeconfigs.load(other.id).await.unwrap().bound);
    assert_eq!(deployment(&world), before, "no pod is restarted for it");
    assert!(
        crate::issue_kubeconfig(&world.store, &crate::testing::installation(), (&row, crate::Server::Sni))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_kubeconfig_of_a_cluster_at_rest_is_believed_before_anybody_asks_for_it() {
    let world = World::tuned(|tuning| tuning.reconcile_timeout = Duration::from_secs(1)).await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let kubeconfigs = world.store.kubeconfigs();
    let next = kubeconfigs.prepared(cluster.id).await.unwrap().remove(0);
    assert!(bundle(&world).contains(&next.certificate));
    // The kubelet does not look at the Secret any more: what the API server believes stays as it is.
    world.connector.mounted.deaf.store(true, Ordering::SeqCst);
    let first = world.kubeconfig(cluster.id, AccessRole::Admin).await;
    assert_eq!((first.id, first.authority.as_deref()), (next.id, Some(next.certificate.as_str())));
    assert!(kubeconfigs.prepared_authority(first.id).await.unwrap().is_none(), "its key is gone with the signature");
    world.reconcile_cluster(cluster.id).await.unwrap();
    assert!(kubeconfigs.load(first.id).await.unwrap().bound);
    assert_ne!(kubeconfigs.prepared(cluster.id).await.unwrap()[0].id, next.id, "another one is on its way");
    let second = world.kubeconfig(cluster.id, AccessRole::Admin).await;
    world.reconcile_cluster(cluster.id).await.unwrap();
    assert!(!kubeconfigs.load(second.id).await.unwrap().bound, "that one is not believed yet");
    world.connector.mounted.deaf.store(false, Ordering::SeqCst);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert!(kubeconfigs.load(second.id).await.unwrap().bound);
}

#[tokio::test]
async fn revoked_is_told_when_it_is_seen_and_whatever_the_tenant_does() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    let row = world.kubeconfig(cluster.id, AccessRole::Admin).await;
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    world.store.kubeconfigs().revoke(world.organization.id, row.id, Actor::System).await.unwrap();
    // The kubelet has not looked yet, and the API server still believes it.
    world.connector.mounted.deaf.store(true, Ordering::SeqCst);
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    let state = async || world.store.kubeconfigs().load(row.id).await.unwrap().state(OffsetDateTime::now_utc());
    assert_eq!(state().await, migrations::KubeconfigState::Revoking);
    // An admin of the tenant took our rights away and refuses them to us.
    world.connector.mounted.deaf.store(false, Ordering::SeqCst);
    *world.tenant.health.lock().unwrap() = Health::Down("nothing answers us".to_owned());
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    assert_eq!(state().await, migrations::KubeconfigState::Revoked);
    // What was left behind is listed as soon as that can be.
    let key = ObjectKey::global("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "keep");
    world.tenant.put(key.clone(), &json!({}), "kubectl");
    let user = format!("pilothouse:kubeconfig:{}", row.id);
    world.tenant.objects.lock().unwrap().get_mut(&key).unwrap()["subjects"] = json!([{"kind": "User", "name": user}]);
    assert_eq!(world.store.kubeconfigs().load(row.id).await.unwrap().left_behind, None);
    *world.tenant.health.lock().unwrap() = Health::Ready;
    world.reconcile_cluster(cluster.id).await.unwrap();
    let reported = world.store.kubeconfigs().load(row.id).await.unwrap().left_behind.unwrap();
    assert!(reported.contains("ClusterRoleBinding keep"), "{reported}");
    // Once: what comes later is not its holder's.
    assert_eq!(world.store.kubeconfigs().unlisted(cluster.id).await.unwrap(), []);
}

#[tokio::test]
async fn what_its_holder_bound_and_tokens_it_may_have_made_are_told_after_a_revocation() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    let row = world.kubeconfig(cluster.id, AccessRole::Admin).await;
    world.reconcile_cluster(cluster.id).await.unwrap();
    let rbac = "rbac.authorization.k8s.io/v1";
    let bind = |key: ObjectKey, user: &str| {
        world.tenant.put(key.clone(), &json!({}), "kubectl");
        world.tenant.objects.lock().unwrap().get_mut(&key).unwrap()["subjects"] =
            json!([{"kind": "User", "name": user}]);
    };
    let own = format!("pilothouse:kubeconfig:{}", row.id);
    bind(ObjectKey::global(rbac, "ClusterRoleBinding", "keep"), &own);
    bind(ObjectKey::namespaced(rbac, "RoleBinding", "shop", "keep-too"), &own);
    bind(ObjectKey::global(rbac, "ClusterRoleBinding", "a-colleagues"), "carol");
    // Before it was issued, a day later, and no token.
    let made = row.created_at.unix_timestamp();
    let secret = |name: &str, type_: &str, at: i64| {
        let key = ObjectKey::namespaced("v1", "Secret", "shop", name);
        world.tenant.put(key.clone(), &json!({}), "kubectl");
        let (mut objects, at) =
            (world.tenant.objects.lock().unwrap(), OffsetDateTime::from_unix_timestamp(at).unwrap());
        let object = objects.get_mut(&key).unwrap();
        object["type"] = json!(type_);
        object["metadata"]["creationTimestamp"] = json!(at.format(&Rfc3339).unwrap());
    };
    secret("older", "kubernetes.io/service-account-token", made - 1);
    secret("token", "kubernetes.io/service-account-token", made + 86_400);
    secret("password", "Opaque", made + 86_400);
    world.store.kubeconfigs().revoke(world.organization.id, row.id, Actor::System).await.unwrap();
    world.reconcile_cluster(cluster.id).await.unwrap();
    let reported = world.store.kubeconfigs().load(row.id).await.unwrap().left_behind.unwrap();
    assert!(reported.contains("user: 2 (ClusterRoleBinding keep, RoleBinding shop/keep-too)."), "{reported}");
    assert!(
        reported.starts_with("Tokens of service accounts made since it was issued: 1 (Secret shop/token)."),
        "{reported}"
    );
}

#[tokio::test]
async fn one_from_before_there_were_authorities_is_revoked_by_its_binding() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    let new = NewKubeconfig {
        organization: world.organization.id,
        cluster: cluster.id,
        name: "old".to_owned(),
        role: AccessRole::Admin,
        kind: KubeconfigKind::File,
        expires_at: OffsetDateTime::now_utc() + time::Duration::hours(1),
        actor: Actor::System,
    };
    let row = world.store.kubeconfigs().insert(new).await.unwrap();
    let binding = format!("pilothouse:kubeconfig:{}", row.id);
    let key = ObjectKey::global("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", &binding);
    world.tenant.put(key, &json!({"app.kubernetes.io/managed-by": "pilothouse"}), crate::host::FIELD_MANAGER);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let name = format!("ClusterRoleBinding {binding}");
    assert!(world.tenant.names().contains(&name));
    world.store.kubeconfigs().revoke(world.organization.id, row.id, Actor::System).await.unwrap();
    world.reconcile_cluster(cluster.id).await.unwrap();
    assert!(!world.tenant.names().contains(&name));
    assert!(world.store.kubeconfigs().load(row.id).await.unwrap().refused_at.is_some());
}

#[tokio::test]
async fn an_error_stays_readable_on_row_and_operation() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.faults.fail_at(0);
    let error = world.reconcile_cluster(cluster.id).await.unwrap_err();
    assert_eq!(error.problem.code.as_str(), "HOST_UNREACHABLE");
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!((row.state, row.problem.unwrap().code.as_str()), (ClusterState::Provisioning, "HOST_UNREACHABLE"));
    let failed = operation(&world, &cluster).await;
    assert!(
        failed.steps.iter().any(|step| step.state == StepState::Failed && step.message.contains("host")),
        "{:?}",
        failed.steps
    );
}

/// What goes wrong in a life, once.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Nothing,
    /// The `n`th call to the host or the tenant takes effect, and its answer is lost.
    Call(usize),
    /// The same of the provider of machines.
    Machine(usize),
    /// Some reconcile is dropped where it waits, at the `n`th look at any.
    Dropped(usize),
}

/// How often something could have gone wrong in a life.
struct Chances {
    calls: usize,
    machines: usize,
    looks: usize,
}

impl Fault {
    fn befall(self, world: &World) {
        match self {
            Self::Nothing => {}
            Self::Call(n) => world.faults.fail_at(n),
            Self::Machine(n) => world.machines.lose_answer(n),
            Self::Dropped(n) => world.cancel_at.set(n),
        }
    }
}

/// A life: created with a kubeconfig, two machines and one that a user brought; certificates grow old, objects are left over, one
/// machine goes; and all is deleted again. Answers how often something could have gone wrong.
async fn life(fault: Fault) -> Chances {
    let world = World::new().await;
    fault.befall(&world);
    let cluster = world.cluster("demo").await;
    let pool = world.pool(cluster.id, PoolKind::Local, 2).await;
    let kubeconfig = world.kubeconfig(cluster.id, AccessRole::Admin).await;
    world.start_pods(cluster.id, API);
    world.converge().await;
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!(row.state, ClusterState::Running, "{fault:?}");
    assert_eq!(operation(&world, &cluster).await.state, OperationState::Succeeded, "{fault:?}");
    assert!(world.store.kubeconfigs().load(kubeconfig.id).await.unwrap().bound, "{fault:?}");
    let nodes = world.store.nodes().of_pool(pool.id).await.unwrap();
    assert_eq!((nodes.len(), world.machines.made()), (2, 2), "{fault:?}");
    assert!(nodes.iter().all(|node| node.state == NodeState::Joining), "{fault:?}: {nodes:?}");
    upkeep(&world, &row, fault).await;
    world.store.clusters().request_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    world.converge().await;
    assert!(world.store.clusters().load(cluster.id).await.is_err(), "{fault:?}");
    assert_eq!(world.host.names(), ["PriorityClass pilothouse-control-plane"], "{fault:?}");
    let chances =
        Chances { calls: world.faults.calls(), machines: world.machines.calls(), looks: world.cancel_at.looks() };
    assert_eq!(cloud_providers::Provider::list(&*world.machines).await.unwrap(), Vec::new(), "{fault:?}");
    let ended = operation(&world, &cluster).await;
    assert_eq!((ended.kind.as_str(), ended.state), ("cluster.delete", OperationState::Succeeded), "{fault:?}");
    let due = world.store.work().next_due(migrations::WorkKind::ALL).await.unwrap();
    assert_eq!(due, None, "{fault:?}: nothing is left to do");
    chances
}

/// The middle of a life.
async fn upkeep(world: &World, cluster: &Cluster, fault: Fault) {
    world.age(cluster, 300).await;
    let stray = ObjectKey::namespaced("v1", "Secret", &tenant_controlplane::sni::namespace(cluster.id), "old");
    world.leave_behind(cluster, &stray);
    world.ctx.forget(cluster.id);
    let joined = world.join(cluster).await;
    world.converge().await;
    world.store.nodes().request_deletion(world.organization.id, joined, Actor::System).await.unwrap();
    // Its agent says that it has reset the machine.
    world.store.nodes().mark_removed(joined).await.unwrap();
    world.due(cluster).await;
    world.converge().await;
    assert!(world.store.nodes().load(joined).await.is_err(), "{fault:?}");
    assert!(!world.host.objects.lock().unwrap().contains_key(&stray), "{fault:?}");
    let pki = world.store.pki().get(cluster.id).await.unwrap().unwrap();
    assert!(pki.earliest_end() > Some(OffsetDateTime::now_utc() + time::Duration::days(300)), "{fault:?}");
}

/// So many of all that could go wrong, evenly: the later ones differ with timing anyway.
fn some(chances: usize, most: usize) -> impl Iterator<Item = usize> {
    (0..chances).step_by(chances.div_ceil(most).max(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_it_converges() {
    let chances = life(Fault::Nothing).await;
    assert!(chances.calls > 60 && chances.machines > 6 && chances.looks > 200);
    let calls = some(chances.calls, 35).map(Fault::Call);
    let faults: Vec<_> = calls.chain(some(chances.machines, 10).map(Fault::Machine)).collect();
    live(faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_is_dropped_it_converges() {
    let chances = life(Fault::Nothing).await;
    live(some(chances.looks, 30).map(Fault::Dropped).collect()).await;
}

async fn live(faults: Vec<Fault>) {
    let lives = futures::stream::iter(faults).map(|fault| tokio::spawn(life(fault)));
    let lives: Vec<_> = futures::StreamExt::collect(futures::StreamExt::buffer_unordered(lives, 10)).await;
    assert!(lives.iter().all(Result::is_ok));
}

#[tokio::test]
async fn machines_whose_answer_was_lost_are_not_made_twice() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.pool(cluster.id, PoolKind::Local, 1).await;
    world.start_pods(cluster.id, API);
    world.machines.lose_answer(1);
    world.converge().await;
    assert_eq!(world.machines.made(), 1);
}

#[tokio::test]
async fn a_pool_scales_and_goes() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    let pool = world.pool(cluster.id, PoolKind::Local, 3).await;
    world.start_pods(cluster.id, API);
    world.converge().await;
    assert_eq!(world.store.nodes().of_pool(pool.id).await.unwrap().len(), 3);
    world.store.pools().set_count(world.organization.id, pool.id, 1, Actor::System).await.unwrap();
    world.converge().await;
    assert_eq!(world.store.nodes().of_pool(pool.id).await.unwrap().len(), 1);
    assert_eq!(cloud_providers::Provider::list(&*world.machines).await.unwrap().len(), 1);
    let row = world.store.pools().load(pool.id).await.unwrap();
    assert_eq!(row.state, PoolState::Scaling);
    world.store.pools().request_deletion(world.organization.id, pool.id, Actor::System).await.unwrap();
    world.converge().await;
    assert!(world.store.pools().load(pool.id).await.is_err());
    let operations =
        world.store.operations().list(world.organization.id, &pool.id.to_string(), Page::default()).await.unwrap();
    assert_eq!((operations[0].kind.as_str(), operations[0].state), ("node_pool.delete", OperationState::Succeeded));
    assert_eq!(cloud_providers::Provider::list(&*world.machines).await.unwrap(), Vec::new());
}

#[tokio::test]
async fn a_namespace_that_lingers_is_waited_for() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    world.host.deletion_polls.store(1000, Ordering::SeqCst);
    world.store.clusters().request_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    assert!(world.store.pki().get(cluster.id).await.unwrap().is_some(), "keys live as long as anything of it may");
    world.host.deletion_polls.store(0, Ordering::SeqCst);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Gone);
    assert!(world.store.pki().get(cluster.id).await.unwrap().is_none());
}
