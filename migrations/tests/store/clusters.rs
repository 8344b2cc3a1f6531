//! Clusters and pools: specs, reports, deletion.

use migrations::*;
use tenant_controlplane::status::{
    Class, ClusterState, Condition, ConditionStatus, NodeState, PoolState, Problem, ProblemCode,
};

use crate::harness::*;

fn report(state: ClusterState) -> ClusterReport {
    let condition = Condition {
        kind: "Ready".to_owned(),
        status: ConditionStatus::True,
        reason: "Probed".to_owned(),
        message: "ok".to_owned(),
        observed_generation: 1,
        last_transition_time: time::macros::datetime!(2026-11-20 10:00:00.123 UTC),
    };
    ClusterReport {
        observed_generation: 1,
        state,
        state_message: "All is well".to_owned(),
        conditions: vec![condition],
        endpoint: Some("100.64.0.9:6443".to_owned()),
        problem: Some(Problem {
            code: ProblemCode::ControlPlanePods.into(),
            class: Class::Platform,
            detail: "slow".to_owned(),
            remediation: "wait".to_owned(),
        }),
    }
}

pub async fn a_wish_is_one_transaction(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let cluster = tenant.cluster("demo").await;
    assert_eq!(store.clusters().get(tenant.organization, cluster.id).await.unwrap(), cluster);
    assert_eq!((cluster.state, cluster.generation, cluster.observed_generation), (ClusterState::Pending, 1, 0));
    let operation = store.operations().load(cluster.operation.unwrap()).await.unwrap();
    assert_eq!((operation.kind.as_str(), operation.target), ("cluster.create", cluster.id.to_string()));
    assert_eq!(operation.actor, tenant.actor.to_string());
    let audit = store.audit().list(tenant.organization, Page::first(1)).await.unwrap();
    assert_eq!((audit[0].action.as_str(), audit[0].detail.as_str()), ("cluster.create", "demo"));
    let due = drain(store).await;
    assert_eq!(
        due.iter().map(|work| (work.kind, work.id)).collect::<Vec<_>>(),
        [(WorkKind::Cluster, cluster.id.uuid())]
    );
    let second = tenant.cluster("second").await;
    let page = store.clusters().list(tenant.organization, Some(tenant.project), Page::first(1)).await.unwrap();
    assert_eq!(page, std::slice::from_ref(&cluster));
    let after = Page { after: Some(cluster.id.uuid()), limit: 10 };
    assert_eq!(store.clusters().list(tenant.organization, None, after).await.unwrap(), [second]);
}

pub async fn a_taken_name_leaves_nothing_behind(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let entries = store.audit().list(org, Page::default()).await.unwrap().len();
    drain(store).await;
    let message = is_conflict(store.clusters().insert(tenant.new_cluster("demo")).await);
    assert_eq!(message, "the name `demo` is already used by another cluster of this project");
    assert_eq!(store.audit().list(org, Page::default()).await.unwrap().len(), entries);
    assert!(drain(store).await.is_empty());
    tenant.pool(cluster.id, "web").await;
    is_conflict(store.pools().insert(tenant.new_pool(cluster.id, "web", 1)).await);
    let other = tenant.cluster("other").await;
    tenant.pool(other.id, "web").await;
    // The same name in another project is fine, and a purged one is free again.
    let project = NewProject {
        organization: org,
        name: "blue".parse().unwrap(),
        display_name: String::new(),
        actor: tenant.actor,
    };
    let project = store.identity().create_project(project).await.unwrap();
    store.clusters().insert(NewCluster { project: project.id, ..tenant.new_cluster("demo") }).await.unwrap();
    store.clusters().purge(cluster.id).await.unwrap();
    tenant.cluster("demo").await;
}

pub async fn every_cluster_has_a_user_of_its_own(fixture: Fixture) {
    let (one, other) = (fixture.tenant("acme").await, fixture.tenant("other").await);
    let mut clusters = Vec::new();
    for name in ["a", "b", "c"] {
        let at_once = tokio::join!(one.cluster(name), other.cluster(name));
        clusters.extend([at_once.0, at_once.1]);
    }
    let spare =
        fixture.store.spares().begin(tenant_controlplane::spec::ClusterSpec::new(Default::default())).await.unwrap();
    let taker = one.cluster("taker").await;
    let users: std::collections::BTreeSet<u32> = clusters.iter().map(|cluster| cluster.user_id).collect();
    assert_eq!(users.len(), clusters.len());
    assert!(users.iter().all(|user| (1_879_100_000..1_889_100_000).contains(user)), "{users:?}");
    assert!(!users.contains(&spare.user_id));
    assert_eq!((taker.id, taker.user_id), (spare.id, spare.user_id), "what runs already goes on as it is");
    let again = fixture.store.clusters().load(clusters[0].id).await.unwrap();
    assert_eq!(again.user_id, clusters[0].user_id);
}

/// An older release of this program had that version.
pub async fn a_dropped_version_is_listed_and_deleted(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (clusters, org) = (fixture.store.clusters(), tenant.organization);
    let version = "1.29.14".parse().unwrap();
    let spec = tenant_controlplane::spec::ClusterSpec::new(version);
    let old = clusters.insert(NewCluster { spec, ..tenant.new_cluster("old") }).await.unwrap();
    let new = tenant.cluster("new").await;
    assert_eq!(clusters.list(org, None, Page::first(10)).await.unwrap(), [old.clone(), new.clone()]);
    assert_eq!(clusters.all().await.unwrap().len(), 2);
    assert_eq!(clusters.get(org, old.id).await.unwrap().spec.version, version);
    clusters.request_deletion(org, old.id, tenant.actor).await.unwrap();
    clusters.purge(old.id).await.unwrap();
    assert_eq!(clusters.list(org, None, Page::first(10)).await.unwrap(), [new]);
}

pub async fn reports_that_say_nothing_new_wake_nobody(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let clusters = fixture.store.clusters();
    let cluster = tenant.cluster("demo").await;
    clusters.report(cluster.id, report(ClusterState::Running)).await.unwrap();
    let first = clusters.load(cluster.id).await.unwrap();
    let wanted = report(ClusterState::Running);
    assert_eq!((first.state, &first.conditions), (ClusterState::Running, &wanted.conditions));
    assert_eq!((&first.endpoint, &first.problem), (&wanted.endpoint, &wanted.problem));
    assert_eq!((first.generation, first.observed_generation), (1, 1));
    // News come in the order of commits and may be late: one about another cluster says that all before it have been heard.
    let mut changes = fixture.store.changes();
    let fence = tenant.cluster("fence").await;
    while soon(changes.recv()).await.unwrap().cluster != Some(fence.id) {}
    clusters.report(cluster.id, report(ClusterState::Running)).await.unwrap();
    assert_eq!(clusters.load(cluster.id).await.unwrap(), first);
    clusters.report(cluster.id, report(ClusterState::Degraded)).await.unwrap();
    let fence = tenant.cluster("another").await;
    let mut notification = Vec::new();
    loop {
        let one = soon(changes.recv()).await.unwrap();
        if one.cluster == Some(fence.id) {
            break;
        }
        notification
            .extend((one.kind == ChangeKind::Cluster && one.cluster == Some(cluster.id)).then_some(one.organization));
    }
    assert_eq!(notification, [Some(tenant.organization)], "one change, one piece of news");
    assert_eq!(is_missing(clusters.report(tenant_id(), report(ClusterState::Error)).await), "cluster");
}

fn tenant_id() -> tenant_controlplane::id::ClusterId {
    tenant_controlplane::id::ClusterId::from_uuid(uuid::Uuid::now_v7())
}

pub async fn deletion_marks_everything_under_it_once(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org, actor) = (&fixture.store, tenant.organization, tenant.actor);
    let cluster = tenant.cluster("demo").await;
    let pool = tenant.pool(cluster.id, "web").await;
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    drain(store).await;
    let deleted = store.clusters().request_deletion(org, cluster.id, actor).await.unwrap();
    assert!(deleted.deletion_requested_at.is_some() && deleted.generation == 2);
    let mut kinds: Vec<_> = drain(store).await.iter().map(|work| work.kind).collect();
    kinds.sort();
    assert_eq!(kinds, [WorkKind::Cluster, WorkKind::NodePool, WorkKind::Node]);
    assert!(store.pools().load(pool.id).await.unwrap().deletion_requested_at.is_some());
    assert!(store.nodes().load(node.id).await.unwrap().deletion_requested_at.is_some());
    let created = store.operations().load(cluster.operation.unwrap()).await.unwrap();
    assert_eq!(created.state, OperationState::Cancelled);
    let current = store.operations().current_for(&cluster.id.to_string()).await.unwrap().unwrap();
    assert_eq!((current.kind.as_str(), Some(current.id)), ("cluster.delete", deleted.operation));
    // Again: the same answer, nothing new.
    assert_eq!(store.clusters().request_deletion(org, cluster.id, actor).await.unwrap(), deleted);
    assert!(drain(store).await.is_empty());
    let message = is_conflict(store.pools().insert(tenant.new_pool(cluster.id, "late", 1)).await);
    assert_eq!(message, "the cluster `demo` is being deleted");
    is_conflict(store.nodes().insert_for_pool(pool.id).await);
    is_conflict(store.join_tokens().create(tenant.new_join_token(cluster.id)).await);
    is_conflict(store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await);
}

pub async fn purging_takes_every_row_and_ends_operations(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org, actor) = (&fixture.store, tenant.organization, tenant.actor);
    let (cluster, other) = (tenant.cluster("demo").await, tenant.cluster("other").await);
    let pool = tenant.pool(cluster.id, "web").await;
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    let (join, secret) = tenant.join_token(cluster.id).await;
    let byo = tenant.enroll(&secret, "machine").await.unwrap().node;
    let kubeconfig = store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    store.pki().put_new(cluster.id, &pki(&cluster)).await.unwrap();
    let deletion = store.clusters().request_deletion(org, cluster.id, actor).await.unwrap().operation.unwrap();
    store.clusters().purge(cluster.id).await.unwrap();
    store.clusters().purge(cluster.id).await.unwrap();
    assert_eq!(is_missing(store.clusters().load(cluster.id).await), "cluster");
    assert_eq!(is_missing(store.pools().load(pool.id).await), "node pool");
    assert_eq!(is_missing(store.nodes().load(node.id).await), "node");
    assert_eq!(is_missing(store.nodes().load(byo.id).await), "node");
    assert_eq!(is_missing(store.join_tokens().get(org, join.id).await), "join token");
    assert_eq!(is_missing(store.kubeconfigs().get(org, kubeconfig.id).await), "kubeconfig");
    assert!(store.pki().get(cluster.id).await.unwrap().is_none());
    assert!(matches!(tenant.enroll(&secret, "machine").await, Err(EnrollError::Unknown)));
    assert_eq!(store.operations().get(org, deletion).await.unwrap().state, OperationState::Succeeded);
    assert!(store.operations().current_for(&pool.id.to_string()).await.unwrap().is_none());
    // What stays: the other cluster, its work, the audit log.
    let due: Vec<_> = drain(store).await.iter().map(|work| work.id).collect();
    assert_eq!(due, [other.id.uuid()]);
    assert!(
        store.audit().list(org, Page::default()).await.unwrap().iter().any(|entry| entry.action == "cluster.delete")
    );
}

pub async fn forcing_a_deletion_is_written_down_and_reaches_every_node(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org, actor) = (&fixture.store, tenant.organization, tenant.actor);
    let other = fixture.tenant("other").await;
    let cluster = tenant.cluster("demo").await;
    let pool = tenant.pool(cluster.id, "web").await;
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    assert_eq!(is_missing(store.clusters().force_deletion(other.organization, cluster.id, actor).await), "cluster");
    assert_eq!(is_missing(store.nodes().force_deletion(other.organization, node.id, actor).await), "node");
    // Of one that is on its way already, and of one that is not.
    let asked = store.clusters().request_deletion(org, cluster.id, actor).await.unwrap();
    assert!(!asked.forced && !store.nodes().load(node.id).await.unwrap().forced);
    drain(store).await;
    let forced = store.clusters().force_deletion(org, cluster.id, actor).await.unwrap();
    assert!(forced.forced && forced.operation == asked.operation, "it is the same deletion");
    assert!(store.nodes().load(node.id).await.unwrap().forced);
    let mut kinds: Vec<_> = drain(store).await.iter().map(|work| work.kind).collect();
    kinds.sort();
    assert_eq!(kinds, [WorkKind::Cluster, WorkKind::Node], "they need not wait for their turn");
    assert_eq!(store.clusters().force_deletion(org, cluster.id, actor).await.unwrap(), forced);
    let second = tenant.cluster("second").await;
    let (_, secret) = tenant.join_token(second.id).await;
    let joined = tenant.enroll(&secret, "machine").await.unwrap().node;
    let gone = store.nodes().force_deletion(org, joined.id, actor).await.unwrap();
    assert!(gone.forced && gone.deletion_requested_at.is_some());
    let written = store.audit().list(org, Page::default()).await.unwrap();
    let count = |action: &str| written.iter().filter(|entry| entry.action == action).count();
    assert_eq!((count("cluster.force_delete"), count("node.force_delete"), count("node.delete")), (1, 1, 1));
}

pub async fn pools_grow_shrink_and_go(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org, actor) = (&fixture.store, tenant.organization, tenant.actor);
    let cluster = tenant.cluster("demo").await;
    let pool = tenant.pool(cluster.id, "web").await;
    assert_eq!(store.pools().by_name(org, cluster.id, &pool.name).await.unwrap(), pool);
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    assert!(
        node.name.as_str().starts_with("web-") && node.name.as_str().len() == 9 && node.state == NodeState::Pending
    );
    assert_eq!(node.pod_cidr.to_string(), "10.244.0.0/24");
    let grown = store.pools().set_count(org, pool.id, 3, actor).await.unwrap();
    assert_eq!((grown.count, grown.generation), (3, 2));
    assert_eq!(store.pools().set_count(org, pool.id, 3, actor).await.unwrap(), grown);
    let scaling = store.operations().load(grown.operation.unwrap()).await.unwrap();
    assert_eq!((scaling.kind.as_str(), scaling.state), ("node_pool.scale", OperationState::Pending));
    let seen = PoolReport {
        observed_generation: 2,
        state: PoolState::Ready,
        state_message: "3 of 3 are ready".to_owned(),
        problem: None,
    };
    store.pools().report(pool.id, seen).await.unwrap();
    assert_eq!(store.pools().get(org, pool.id).await.unwrap().state, PoolState::Ready);
    let going = store.pools().request_deletion(org, pool.id, actor).await.unwrap();
    assert!(going.deletion_requested_at.is_some());
    assert!(store.nodes().load(node.id).await.unwrap().deletion_requested_at.is_some());
    is_conflict(store.pools().set_count(org, pool.id, 9, actor).await);
    assert_eq!(is_conflict(store.pools().purge(pool.id).await), "the node pool `web` still has nodes");
    drain(store).await;
    store.nodes().purge(node.id).await.unwrap();
    assert_eq!(drain(store).await[0].id, pool.id.uuid(), "the pool looks again when a node is gone");
    store.pools().purge(pool.id).await.unwrap();
    assert_eq!(store.operations().load(going.operation.unwrap()).await.unwrap().state, OperationState::Succeeded);
    // A node goes alone, too, and its pool stays.
    let pool = tenant.pool(cluster.id, "db").await;
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    let going = store.nodes().request_deletion(org, node.id, actor).await.unwrap();
    assert!(node.deletion_requested_at.is_none() && going.deletion_requested_at.is_some());
    assert_eq!(store.nodes().request_deletion(org, node.id, actor).await.unwrap(), going);
    store.nodes().purge(node.id).await.unwrap();
    store.nodes().purge(node.id).await.unwrap();
    assert_eq!(store.operations().load(going.operation.unwrap()).await.unwrap().state, OperationState::Succeeded);
}

pub async fn certificates_are_made_once_and_sealed(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let cluster = tenant.cluster("demo").await;
    assert!(store.pki().get(cluster.id).await.unwrap().is_none());
    let (first, second) = (pki(&cluster), pki(&cluster));
    let (one, two) = tokio::join!(store.pki().put_new(cluster.id, &first), store.pki().put_new(cluster.id, &second));
    let (one, two) = (one.unwrap().to_secret_json().unwrap(), two.unwrap().to_secret_json().unwrap());
    assert_eq!(one, two, "whoever comes second gets the first one's");
    assert!(one == first.to_secret_json().unwrap() || one == second.to_secret_json().unwrap());
    assert_eq!(store.pki().get(cluster.id).await.unwrap().unwrap().to_secret_json().unwrap(), one);
    let nowhere = tenant_id();
    assert_eq!(is_missing(store.pki().put_new(nowhere, &first).await.map(|_| ())), "cluster");
    if let Some(dir) = &fixture.dir {
        let files: Vec<Vec<u8>> =
            std::fs::read_dir(dir.path()).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect();
        let in_the_clear = |text: &str| files.iter().any(|file| file.windows(text.len()).any(|w| w == text.as_bytes()));
        assert!(in_the_clear("cluster.create") && !in_the_clear("PRIVATE KEY"));
    }
}

pub async fn certificates_are_replaced_only_when_seen(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, replica) = (&fixture.store, fixture.replica().await);
    let cluster = tenant.cluster("demo").await;
    let (old, mine, theirs) = (pki(&cluster), pki(&cluster), pki(&cluster));
    assert_eq!(is_missing(store.pki().replace(cluster.id, &old, &mine).await), "cluster certificates");
    store.pki().put_new(cluster.id, &old).await.unwrap();
    let (one, two) = tokio::join!(async { store.pki().replace(cluster.id, &old, &mine).await.unwrap() }, async {
        replica.pki().replace(cluster.id, &old, &theirs).await.unwrap()
    },);
    assert_eq!(one, two, "whoever comes second gets the first one's");
    assert!(one == mine || one == theirs);
    assert_eq!(store.pki().get(cluster.id).await.unwrap().unwrap(), one);
    assert_eq!(store.pki().replace(cluster.id, &old, &old).await.unwrap(), one, "nothing goes back");
    let route = store.clusters().route(&cluster.label()).await.unwrap().unwrap();
    assert_eq!(route.link_trust_pem, Some(one.link.trust_pem()), "the gateway trusts what is kept");
}

pub async fn routes_are_found_by_label(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let clusters = fixture.store.clusters();
    let cluster = tenant.cluster("demo").await;
    let bare = Route { cluster: cluster.id, endpoint: None, link_trust_pem: None };
    assert_eq!(clusters.route(&cluster.label()).await.unwrap().unwrap(), bare);
    let pki = fixture.store.pki().put_new(cluster.id, &pki(&cluster)).await.unwrap();
    clusters.report(cluster.id, report(ClusterState::Running)).await.unwrap();
    let whole = clusters.route(&cluster.label()).await.unwrap().unwrap();
    assert_eq!(whole.endpoint.as_deref(), Some("100.64.0.9:6443"));
    assert_eq!(whole.link_trust_pem.as_deref(), Some(pki.link.trust_pem().as_str()));
    assert_eq!(clusters.all_routes().await.unwrap(), [whole]);
    for wrong in ["", "demo", "00000000000000000000000000", &cluster.label().to_uppercase()] {
        assert!(clusters.route(wrong).await.unwrap().is_none(), "{wrong}");
    }
}

pub async fn a_cluster_and_its_first_pools_are_one_intent(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let first = |count| {
        let own = FirstPool { name: "own".parse().unwrap(), kind: PoolKind::Byo, count: 0, version: None };
        vec![own, FirstPool { name: "web".parse().unwrap(), kind: PoolKind::Local, count, version: None }]
    };
    let (cluster, pools) = store.clusters().insert_with_pools(tenant.new_cluster("demo"), first(2)).await.unwrap();
    assert_eq!(
        pools.iter().map(|pool| (pool.cluster, pool.count)).collect::<Vec<_>>(),
        [(cluster.id, 0), (cluster.id, 2)]
    );
    assert_eq!(store.pools().list(org, cluster.id).await.unwrap(), pools);
    let entries = store.audit().list(org, Page::default()).await.unwrap().len();
    drain(store).await;
    // The pool is more than the organization may have: no cluster either, and its name is free.
    let refused = store.clusters().insert_with_pools(tenant.new_cluster("shop"), first(1000)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Quota { wanted: 1000, .. }), "{refused:?}");
    assert_eq!(store.clusters().all().await.unwrap().len(), 1);
    assert_eq!(store.audit().list(org, Page::default()).await.unwrap().len(), entries);
    assert!(drain(store).await.is_empty());
    store.clusters().insert_with_pools(tenant.new_cluster("shop"), first(1)).await.unwrap();
}
