//! What a cluster that is well needs as time goes by: new certificates, old objects taken away, roles that are whole.

use migrations::Kubeconfig;
use serde_json::{Value, json};
use tenant_controlplane::pki::{ClusterPki, PkiContext};
use tenant_controlplane::render::{
    CHECKSUM_ANNOTATION, CLUSTER_LABEL, MANAGED_BY_LABEL, RENDERING, RENDERING_ANNOTATION,
};
use tenant_controlplane::sni;
use tenant_controlplane::status::{AccessRole, ClusterState, ConditionStatus};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::engine::Outcome;
use crate::host::testing::Scripted;
use crate::host::{ApiError, FIELD_MANAGER, Health, Kubernetes, ObjectKey};
use crate::keys::SystemKeys;
use crate::testing::World;

const API: [u8; 4] = [100, 64, 0, 3];
const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// A cluster that has been running since so many days, as its certificates say.
async fn aged(world: &World, days: i64) -> Cluster {
    let cluster = world.cluster("demo").await;
    let context = PkiContext::new(cluster.id, "pilothouse.internal", &cluster.spec);
    let made = OffsetDateTime::now_utc() - Duration::days(days);
    let pki = ClusterPki::generate(&context, made, &SystemKeys).unwrap();
    world.store.pki().put_new(cluster.id, &pki).await.unwrap();
    world.start_pods(cluster.id, API);
    cluster
}

async fn stored(world: &World, cluster: &Cluster) -> ClusterPki {
    world.store.pki().get(cluster.id).await.unwrap().unwrap()
}

fn object(api: &Scripted, kind: &str, name: &str) -> Value {
    let objects = api.objects.lock().unwrap();
    objects.iter().find(|(key, _)| key.kind == kind && key.name == name).unwrap().1.clone()
}

fn checksum(api: &Scripted, kind: &str, name: &str) -> Value {
    object(api, kind, name)["spec"]["template"]["metadata"]["annotations"][CHECKSUM_ANNOTATION].clone()
}

#[tokio::test]
async fn old_certificates_are_renewed_and_rolled_out() {
    let world = World::new().await;
    let cluster = aged(&world, 243).await;
    let old = stored(&world, &cluster).await;
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert_eq!(stored(&world, &cluster).await, old, "they are good for another day");
    let before = [checksum(&world.host, "Deployment", "control-plane"), checksum(&world.host, "StatefulSet", "etcd")];
    let secret = object(&world.host, "Secret", "etcd");

    let world = World::new().await;
    let cluster = aged(&world, 244).await;
    let old = stored(&world, &cluster).await;
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    let new = stored(&world, &cluster).await;
    assert_ne!(new.leaves, old.leaves);
    assert_eq!(ClusterPki { leaves: old.leaves.clone(), ..new.clone() }, old, "nothing else changes");
    let after = [checksum(&world.host, "Deployment", "control-plane"), checksum(&world.host, "StatefulSet", "etcd")];
    assert!(before[0] != after[0] && secret != object(&world.host, "Secret", "etcd"));
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    let valid = row.conditions.iter().find(|condition| condition.kind == "CertificatesValid").unwrap();
    assert_eq!((row.state, valid.status), (ClusterState::Running, ConditionStatus::True));
    let end = (OffsetDateTime::now_utc() + Duration::days(365)).date().to_string();
    assert!(valid.message.contains(&end), "{}", valid.message);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert_eq!(stored(&world, &cluster).await, new, "once is enough");
}

#[tokio::test]
async fn a_running_cluster_is_rolled_and_its_etcd_is_not() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    world.age(&cluster, 300).await;
    let (pods, etcd) =
        (checksum(&world.host, "Deployment", "control-plane"), object(&world.host, "StatefulSet", "etcd"));
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert_ne!(checksum(&world.host, "Deployment", "control-plane"), pods);
    assert_eq!(object(&world.host, "StatefulSet", "etcd"), etcd);
}

#[tokio::test]
async fn two_who_renew_at_once_agree() {
    let world = World::new().await;
    let cluster = aged(&world, 300).await;
    let (one, two) = tokio::join!(pki::ensure(&world.ctx, &cluster, true), pki::ensure(&world.ctx, &cluster, true));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    assert_eq!(stored(&world, &cluster).await, one);
}

#[tokio::test]
async fn certificates_follow_their_names() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    let context = PkiContext::new(cluster.id, "before.example", &cluster.spec);
    let old = ClusterPki::generate(&context, OffsetDateTime::now_utc(), &SystemKeys).unwrap();
    world.store.pki().put_new(cluster.id, &old).await.unwrap();
    let kept = pki::ensure(&world.ctx, &cluster, true).await.unwrap();
    assert_ne!(kept.leaves, old.leaves);
    assert_eq!(stored(&world, &cluster).await, kept);
}

/// A later visit to a cluster that was well, by another process.
async fn visit_again(world: &World, cluster: &Cluster) {
    world.ctx.forget(cluster.id);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
}

#[tokio::test]
async fn what_is_no_longer_rendered_goes_and_nothing_else() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let namespace = sni::namespace(cluster.id);
    let ours = json!({MANAGED_BY_LABEL: "pilothouse", CLUSTER_LABEL: cluster.id.to_string()});
    let others = json!({MANAGED_BY_LABEL: "pilothouse", CLUSTER_LABEL: "cls_other"});
    let key = |version: &str, kind: &str, name: &str| ObjectKey::namespaced(version, kind, &namespace, name);
    let host = &world.host;
    host.put(key("v1", "Secret", "old"), &ours, FIELD_MANAGER);
    host.put(key("networking.k8s.io/v1", "NetworkPolicy", "old"), &ours, FIELD_MANAGER);
    host.put(key("v1", "Secret", "an-operators"), &ours, "kubectl");
    host.put(key("v1", "Secret", "another-clusters"), &others, FIELD_MANAGER);
    host.put(key("v1", "PersistentVolumeClaim", "data-etcd-9"), &ours, FIELD_MANAGER);
    host.put(key("apps/v1", "StatefulSet", "old-etcd"), &ours, FIELD_MANAGER);
    host.put(ObjectKey::namespaced("v1", "Secret", "elsewhere", "old"), &ours, FIELD_MANAGER);
    let newer = key("v1", "Service", "a-newer-platforms");
    host.put(newer.clone(), &ours, FIELD_MANAGER);
    let number = json!({RENDERING_ANNOTATION: (RENDERING + 1).to_string()});
    host.objects.lock().unwrap().get_mut(&newer).unwrap()["metadata"]["annotations"] = number;
    let before = host.names();
    visit_again(&world, &cluster).await;
    let gone: Vec<_> = before.iter().filter(|name| !host.names().contains(name)).cloned().collect();
    assert_eq!(gone, ["NetworkPolicy old"]);
    assert!(host.get(&key("v1", "Secret", "old")).await.unwrap().is_none());
    assert!(host.objects.lock().unwrap().contains_key(&ObjectKey::namespaced("v1", "Secret", "elsewhere", "old")));
}

#[tokio::test]
async fn an_owner_that_somebody_took_away_is_made_again() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let key = ObjectKey::namespaced("apps/v1", "Deployment", &sni::namespace(cluster.id), "control-plane");
    world.host.delete(&key).await.unwrap();
    let left = world.ctx.pods.of(cluster.id).unwrap().into_iter().take(1).collect();
    world.ctx.pods.take(crate::host::WatchEvent::All(left));
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    assert!(world.host.get(&key).await.unwrap().is_some());
}

#[tokio::test]
async fn an_addon_that_is_none_any_more_goes_and_kubeconfigs_stay() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let ours = json!({MANAGED_BY_LABEL: "pilothouse"});
    let tenant = &world.tenant;
    tenant.put(ObjectKey::namespaced("v1", "ConfigMap", "kube-system", "old"), &ours, FIELD_MANAGER);
    // As kubeconfigs had them before each had an authority of its own.
    let binding = "pilothouse:kubeconfig:kcf_00000000000000000000000001";
    tenant.put(ObjectKey::global(RBAC, "ClusterRoleBinding", binding), &ours, FIELD_MANAGER);
    tenant.put(ObjectKey::namespaced("v1", "ConfigMap", "default", "a-users"), &ours, "kubectl");
    let slice = ObjectKey::namespaced("discovery.k8s.io/v1", "EndpointSlice", "kube-system", "kube-dns-x");
    tenant.put(slice.clone(), &ours, FIELD_MANAGER);
    let owner = json!([{"kind": "Service", "name": "kube-dns"}]);
    tenant.objects.lock().unwrap().get_mut(&slice).unwrap()["metadata"]["ownerReferences"] = owner;
    let before = tenant.names();
    visit_again(&world, &cluster).await;
    let gone: Vec<_> = before.iter().filter(|name| !tenant.names().contains(name)).cloned().collect();
    assert_eq!(gone, ["ConfigMap old"]);
    assert!(tenant.names().contains(&format!("ClusterRoleBinding {binding}")));
}

#[tokio::test]
async fn nothing_is_pruned_on_a_list_that_could_not_be_had() {
    let world = World::new().await;
    let ours = json!({MANAGED_BY_LABEL: "pilothouse"});
    let stray = ObjectKey::namespaced("v1", "Secret", "here", "old");
    world.host.put(stray.clone(), &ours, FIELD_MANAGER);
    let labels = format!("{MANAGED_BY_LABEL}=pilothouse");
    let kinds = [("v1", "Secret"), ("v1", "Service")];
    let scope = prune::Scope { kinds: &kinds, namespaces: &["here"], labels: &labels, is_ours: |_| true };
    world.faults.fail_at(1);
    assert!(matches!(prune::surplus(&*world.host, &scope, &[]).await, Err(ApiError::Unreachable(_))));
    assert!(world.host.objects.lock().unwrap().contains_key(&stray));
    prune::surplus(&*world.host, &scope, &[]).await.unwrap();
    assert!(!world.host.objects.lock().unwrap().contains_key(&stray));
}

async fn works(world: &World, kubeconfig: &Kubeconfig) -> bool {
    world.store.kubeconfigs().load(kubeconfig.id).await.unwrap().bound
}

#[tokio::test]
async fn a_kubeconfig_works_when_its_role_is_whole() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let rule = |verb: &str| json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]});
    let fill = |name: &str, verbs: &[&str]| {
        let rules: Vec<_> = verbs.iter().map(|verb| rule(verb)).collect();
        let role = json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
        world.tenant.objects.lock().unwrap().insert(ObjectKey::global(RBAC, "ClusterRole", name), role);
    };
    fill("system:aggregate-to-view", &["get"]);
    fill("pilothouse:edit-workloads", &["create"]);
    fill("view", &[]);
    fill("pilothouse:edit", &["create"]);
    let issued = [AccessRole::View, AccessRole::Edit, AccessRole::Admin];
    let [view, edit, admin] = issued.map(|role| world.kubeconfig(cluster.id, role));
    let (view, edit, admin) = (view.await, edit.await, admin.await);
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    let row = world.store.clusters().load(cluster.id).await.unwrap();
    assert_eq!(row.state, ClusterState::Running, "the cluster itself waits for no role");
    assert_eq!(
        (works(&world, &view).await, works(&world, &edit).await, works(&world, &admin).await),
        (false, false, true)
    );
    fill("view", &["get"]);
    assert!(matches!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Waiting { .. }));
    assert_eq!((works(&world, &view).await, works(&world, &edit).await), (true, false));
    fill("pilothouse:edit", &["create", "get"]);
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
    assert!(works(&world, &edit).await);
}

#[tokio::test]
async fn masters_come_until_the_cluster_is_there_and_when_our_rights_are_gone() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let masters = || world.connector.opened.lock().unwrap().drain(..).filter(|(_, is_master)| *is_master).count();
    assert_eq!(masters(), 1);
    let visit = || async {
        world.ctx.forget(cluster.id);
        world.reconcile_cluster(cluster.id).await.unwrap()
    };
    assert_eq!(visit().await, Outcome::Done);
    assert_eq!(masters(), 0, "everything is done with rights that a binding gives");
    let binding = ObjectKey::global(RBAC, "ClusterRoleBinding", "pilothouse:platform");
    world.tenant.delete(&binding).await.unwrap();
    world.connector.unbound.store(true, std::sync::atomic::Ordering::SeqCst);
    visit().await;
    assert_eq!(masters(), 1);
    assert!(world.tenant.get(&binding).await.unwrap().is_some(), "somebody took it away, and it is back");
}

#[tokio::test]
async fn a_full_datastore_is_told_and_forgotten() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let visit = async |full: bool| {
        world.host.full.store(full, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
        let row = world.store.clusters().load(cluster.id).await.unwrap();
        let writable = row.conditions.iter().find(|condition| condition.kind == "DatastoreWritable").unwrap().status;
        (row.state, writable, row.problem.map(|problem| problem.code.to_string()))
    };
    let running = ClusterState::Running;
    assert_eq!(visit(true).await, (running, ConditionStatus::False, Some("DATASTORE_FULL".to_owned())));
    assert_eq!(visit(false).await, (running, ConditionStatus::True, None));
}

#[tokio::test]
async fn a_removed_node_that_comes_back_is_shut_out() {
    let world = World::new().await;
    let cluster = world.cluster("demo").await;
    world.start_pods(cluster.id, API);
    world.reconcile_cluster(cluster.id).await.unwrap();
    let node = world.join(&cluster).await;
    let name = world.store.nodes().load(node).await.unwrap().name;
    world.store.nodes().purge(node).await.unwrap();
    let nodes = [name.as_str(), "a-virtual-one"].map(|name| ObjectKey::global("v1", "Node", name));
    for node in &nodes {
        world.tenant.put(node.clone(), &json!({}), "kubelet");
    }
    // A visit ends here already, so it must not leave this to a later one.
    *world.tenant.health.lock().unwrap() = Health::Serving;
    world.reconcile_cluster(cluster.id).await.unwrap();
    assert!(world.tenant.get(&nodes[0]).await.unwrap().is_none());
    assert!(world.tenant.get(&nodes[1]).await.unwrap().is_some(), "what its owner makes is his business");
    assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done, "its certificates are refused too");
}
