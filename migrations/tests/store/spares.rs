//! Standby clusters: found by nobody, taken over by one request each.

use migrations::*;
use tenant_controlplane::id::OrganizationId;
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::ClusterState;

use crate::harness::*;

fn well() -> ClusterReport {
    ClusterReport {
        observed_generation: 1,
        state: ClusterState::Running,
        state_message: "the cluster is ready".to_owned(),
        conditions: Vec::new(),
        endpoint: Some("100.64.0.9:6443".to_owned()),
        problem: None,
    }
}

/// A spare that runs.
async fn running(store: &Store) -> Cluster {
    let spare = store.spares().begin(ClusterSpec::new(Default::default())).await.unwrap();
    store.pki().put_new(spare.id, &pki(&spare)).await.unwrap();
    store.clusters().report(spare.id, well()).await.unwrap();
    store.clusters().load(spare.id).await.unwrap()
}

pub async fn a_wish_takes_a_spare_over(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let spare = running(store).await;
    let keys = store.pki().get(spare.id).await.unwrap();
    drain(store).await;
    let labels = [("team".to_owned(), "blue".to_owned())].into();
    let mut new = tenant.new_cluster("demo");
    new.spec = new.spec.with_labels(labels).unwrap();
    let cluster = store.clusters().insert(new.clone()).await.unwrap();
    assert_eq!((cluster.id, cluster.host, cluster.endpoint.clone()), (spare.id, spare.host, spare.endpoint));
    assert_eq!((cluster.organization, cluster.project), (tenant.organization, tenant.project));
    assert_eq!((cluster.name.as_str(), &cluster.spec, cluster.state), ("demo", &new.spec, ClusterState::Pending));
    assert_eq!((cluster.generation, cluster.observed_generation), (2, 1), "it is another spec for what is there");
    assert!(cluster.created_at >= spare.updated_at);
    assert_eq!(store.clusters().get(tenant.organization, cluster.id).await.unwrap(), cluster);
    assert_eq!(store.pki().get(cluster.id).await.unwrap(), keys);
    assert_eq!(drain(store).await.iter().map(|work| work.id).collect::<Vec<_>>(), [cluster.id.uuid()]);
    let theirs = store.operations().load(spare.operation.unwrap()).await.unwrap();
    assert_eq!(theirs.state, OperationState::Cancelled);
    let current = store.operations().current_for(&cluster.id.to_string()).await.unwrap().unwrap();
    assert_eq!((Some(current.id), current.actor), (cluster.operation, tenant.actor.to_string()));
    let audit = store.audit().list(tenant.organization, Page::default()).await.unwrap();
    assert!(audit.iter().any(|entry| entry.action == "cluster.create" && entry.detail == "demo"));
    assert!(store.spares().list().await.unwrap().is_empty());
    assert_eq!(is_missing(store.spares().discard(cluster.id).await), "cluster");
    assert_ne!(tenant.cluster("second").await.id, spare.id);
}

pub async fn the_furthest_that_fits_is_taken(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let begun = store.spares().begin(ClusterSpec::new(Default::default())).await.unwrap();
    let [ready, leaving] = [running(store).await, running(store).await];
    store.spares().discard(leaving.id).await.unwrap();
    assert_eq!(store.spares().list().await.unwrap().len(), 3);
    let mut unlike = tenant.new_cluster("unlike");
    unlike.spec = unlike.spec.with_replicas(2).unwrap();
    let unlike = store.clusters().insert(unlike).await.unwrap();
    assert!([begun.id, ready.id, leaving.id].iter().all(|spare| *spare != unlike.id));
    // What comes to nothing takes nothing.
    is_conflict(store.clusters().insert(tenant.new_cluster("unlike")).await);
    // Waits until the database has let go of the row, and by a commit lets go of it itself: what was rolled back lets go a moment later.
    let news = ClusterReport { state_message: "ready".to_owned(), ..well() };
    store.clusters().report(ready.id, news).await.unwrap();
    let rehearsed = store.dry_run().clusters().insert(tenant.new_cluster("demo")).await.unwrap();
    assert_eq!((rehearsed.id, store.spares().list().await.unwrap().len()), (ready.id, 3));
    assert_eq!(tenant.cluster("first").await.id, ready.id);
    let early = tenant.cluster("second").await;
    assert_eq!((early.id, early.generation, early.observed_generation), (begun.id, 2, 0));
    let third = tenant.cluster("third").await;
    assert_eq!((third.id != leaving.id, third.generation), (true, 1));
}

pub async fn a_broken_one_is_nobodys_beginning(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let spare = running(store).await;
    for state in [ClusterState::Degraded, ClusterState::Error] {
        store.clusters().report(spare.id, ClusterReport { state, ..well() }).await.unwrap();
        assert_ne!(tenant.cluster(&state.to_string()).await.id, spare.id);
    }
    store.clusters().report(spare.id, well()).await.unwrap();
    assert_eq!(tenant.cluster("mended").await.id, spare.id);
}

pub async fn each_gets_its_own(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let replica = fixture.replica().await;
    let mut spares = Vec::new();
    for _ in 0..3 {
        spares.push(running(&fixture.store).await.id);
    }
    let requests = (0..6).map(|number| {
        let store = if number % 2 == 0 { fixture.store.clone() } else { replica.clone() };
        let new = tenant.new_cluster(&format!("demo-{number}"));
        tokio::spawn(async move { store.clusters().insert(new).await.unwrap().id })
    });
    let mut ids = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        ids.push(request.await.unwrap());
    }
    assert!(spares.iter().all(|spare| ids.contains(spare)));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

pub async fn nobody_finds_a_spare(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let spare = running(store).await;
    assert_ne!(spare.organization, org);
    assert_eq!(is_missing(store.clusters().get(org, spare.id).await), "cluster");
    assert_eq!(is_missing(store.clusters().request_deletion(org, spare.id, tenant.actor).await), "cluster");
    assert_eq!(is_missing(store.kubeconfigs().insert(tenant.new_kubeconfig(spare.id)).await), "cluster");
    assert_eq!(is_missing(store.operations().get(org, spare.operation.unwrap()).await), "operation");
    assert!(store.clusters().list(org, None, Page::default()).await.unwrap().is_empty());
    let mine: Vec<OrganizationId> =
        store.identity().organizations_of(tenant.user).await.unwrap().into_iter().map(|(each, _)| each.id).collect();
    assert!(mine.contains(&org) && !mine.contains(&spare.organization));
    assert_eq!(store.identity().role_in(tenant.user, spare.organization).await.unwrap(), None);
}

pub async fn what_is_made_ahead_has_time(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    store.spares().begin(ClusterSpec::new(Default::default())).await.unwrap();
    let busy = async |calm| store.spares().are_in_the_way(time::Duration::seconds(calm)).await.unwrap();
    assert!(!busy(3600).await, "not by themselves");
    let cluster = tenant.cluster("demo").await;
    assert!(busy(0).await, "somebody waits");
    store.clusters().report(cluster.id, ClusterReport { observed_generation: 2, ..well() }).await.unwrap();
    assert_eq!((busy(0).await, busy(3600).await), (false, true), "it is there, and young");
    store.clusters().request_deletion(tenant.organization, cluster.id, tenant.actor).await.unwrap();
    assert!(!busy(3600).await);
}
