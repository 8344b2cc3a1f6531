//! What is over goes in its time, and what is pointed at stays.

use migrations::*;
use time::{Duration, OffsetDateTime};

use crate::harness::*;

/// So many days from now.
fn in_days(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(days)
}

pub async fn what_is_over_goes_in_its_time(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let (first, target) = (cluster.operation.unwrap(), cluster.id.to_string());
    store.operations().finish(first, Outcome::Succeeded).await.unwrap();
    let pool = tenant.pool(cluster.id, "web").await;
    let made = pool.operation.unwrap();
    store.operations().finish(made, Outcome::Succeeded).await.unwrap();
    let scaled = store.pools().set_count(org, pool.id, 2, tenant.actor).await.unwrap().operation.unwrap();
    let ended = store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    let bound = store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    for kubeconfig in [&ended, &bound] {
        store.kubeconfigs().revoke(org, kubeconfig.id, tenant.actor).await.unwrap();
    }
    store.kubeconfigs().mark_refused(ended.id).await.unwrap();

    assert_eq!(store.delete_expired(in_days(6)).await.unwrap(), 0, "what ended is listed for a while");
    assert_eq!(store.delete_expired(in_days(8)).await.unwrap(), 1);
    let left = store.kubeconfigs().list(org, cluster.id).await.unwrap();
    assert_eq!(left.iter().map(|left| left.id).collect::<Vec<_>>(), [bound.id], "the cluster may still accept it");
    assert_eq!(
        store.delete_expired(in_days(31)).await.unwrap(),
        1,
        "the pool's operation that was followed by another"
    );
    assert!(matches!(store.operations().load(made).await, Err(StoreError::NotFound { .. })));
    assert!(store.operations().load(scaled).await.is_ok(), "one that goes on stays");
    assert_eq!(
        store.operations().list(org, &target, Page::default()).await.unwrap().len(),
        1,
        "the latest stays with its row"
    );
    let page = Page { after: None, limit: 100 };
    assert!(!store.audit().list(org, page).await.unwrap().is_empty());
    store.delete_expired(in_days(366)).await.unwrap();
    let left = store.audit().list(org, page).await.unwrap();
    assert_eq!(left.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["audit.begin"]);
}

pub async fn a_machines_token_goes_after_its_node(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let cluster = tenant.cluster("demo").await;
    let pool = tenant.pool(cluster.id, "web").await;
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    let new = NewJoinToken { pool: Some(pool.id), node: Some(node.id), ..tenant.new_join_token(cluster.id) };
    let (_, secret) = store.join_tokens().create(new).await.unwrap();
    tenant.enroll(&secret, "machine").await.unwrap();
    let (_, brought) = tenant.join_token(cluster.id).await;
    tenant.enroll(&brought, "brought").await.unwrap();
    assert_eq!(store.delete_expired(in_days(60)).await.unwrap(), 0);
    for node in store.nodes().of_cluster(cluster.id).await.unwrap() {
        store.nodes().purge(node.id).await.unwrap();
    }
    assert_eq!(store.nodes().removed_names(cluster.id).await.unwrap().len(), 2);
    assert_eq!(
        store.delete_expired(in_days(60)).await.unwrap(),
        5,
        "its token, both names and both tombstones; by the other token a machine is known"
    );
    assert_eq!(store.nodes().removed_names(cluster.id).await.unwrap(), Vec::<String>::new());
    assert!(matches!(tenant.enroll(&brought, "brought").await, Err(EnrollError::Removed)));
}
