//! Two organizations in one database never see each other.

use std::time::Duration;

use migrations::*;

use crate::harness::{Fixture, is_missing};

pub async fn another_organizations_rows_are_not_there(fixture: Fixture) {
    let store = fixture.store.clone();
    let (mine, theirs) = (fixture.tenant("mine").await, fixture.tenant("theirs").await);
    let cluster = mine.cluster("demo").await;
    let pool = mine.pool(cluster.id, "web").await;
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    let (join, _) = mine.join_token(cluster.id).await;
    let kubeconfig = store.kubeconfigs().insert(mine.new_kubeconfig(cluster.id)).await.unwrap();
    let operation = cluster.operation.unwrap();
    let (org, actor) = (theirs.organization, theirs.actor);

    assert_eq!(is_missing(store.clusters().get(org, cluster.id).await), "cluster");
    assert_eq!(is_missing(store.clusters().by_name(org, mine.project, &cluster.name).await), "cluster");
    assert_eq!(is_missing(store.clusters().request_deletion(org, cluster.id, actor).await), "cluster");
    assert!(store.clusters().list(org, None, Page::default()).await.unwrap().is_empty());
    assert!(store.clusters().list(org, Some(mine.project), Page::default()).await.unwrap().is_empty());
    let smuggled = NewCluster { organization: org, ..mine.new_cluster("smuggled") };
    assert_eq!(is_missing(store.clusters().insert(smuggled).await), "project");

    assert_eq!(is_missing(store.pools().get(org, pool.id).await), "node pool");
    assert_eq!(is_missing(store.pools().by_name(org, cluster.id, &pool.name).await), "node pool");
    assert_eq!(is_missing(store.pools().list(org, cluster.id).await), "cluster");
    assert_eq!(is_missing(store.pools().set_count(org, pool.id, 5, actor).await), "node pool");
    assert_eq!(is_missing(store.pools().request_deletion(org, pool.id, actor).await), "node pool");
    assert_eq!(is_missing(store.pools().insert(theirs.new_pool(cluster.id, "mole", 1)).await), "cluster");
    assert_eq!(is_missing(store.pools().ensure_byo(org, cluster.id, actor).await), "cluster");

    assert_eq!(is_missing(store.nodes().get(org, node.id).await), "node");
    assert_eq!(is_missing(store.nodes().list(org, cluster.id).await), "cluster");
    assert_eq!(is_missing(store.nodes().request_deletion(org, node.id, actor).await), "node");

    assert_eq!(is_missing(store.join_tokens().create(theirs.new_join_token(cluster.id)).await), "cluster");
    let own = theirs.cluster("own").await;
    let crossed = NewJoinToken { pool: Some(pool.id), ..theirs.new_join_token(own.id) };
    assert_eq!(is_missing(store.join_tokens().create(crossed).await), "node pool");
    let crossed = NewJoinToken { node: Some(node.id), ..theirs.new_join_token(own.id) };
    assert_eq!(is_missing(store.join_tokens().create(crossed).await), "node");
    assert_eq!(is_missing(store.join_tokens().list(org, cluster.id).await), "cluster");
    assert_eq!(is_missing(store.join_tokens().get(org, join.id).await), "join token");
    assert_eq!(is_missing(store.join_tokens().revoke(org, join.id, actor).await), "join token");

    assert_eq!(is_missing(store.kubeconfigs().insert(theirs.new_kubeconfig(cluster.id)).await), "cluster");
    assert_eq!(is_missing(store.kubeconfigs().list(org, cluster.id).await), "cluster");
    assert_eq!(is_missing(store.kubeconfigs().get(org, kubeconfig.id).await), "kubeconfig");
    assert_eq!(is_missing(store.kubeconfigs().revoke(org, kubeconfig.id, actor).await), "kubeconfig");

    assert_eq!(is_missing(store.operations().get(org, operation).await), "operation");
    assert_eq!(is_missing(store.operations().wait(org, operation, Duration::ZERO).await), "operation");
    assert_eq!(is_missing(store.operations().wait_change(org, operation, 0, Duration::ZERO).await), "operation");
    assert!(store.operations().list(org, &cluster.id.to_string(), Page::default()).await.unwrap().is_empty());

    assert_eq!(is_missing(store.identity().project_of(org, mine.project).await), "project");
    assert_eq!(is_missing(store.identity().project(org, &mine.project.to_string()).await), "project");
    let token = NewToken {
        organization: mine.organization,
        user: mine.user,
        name: "ci".to_owned(),
        role: Role::Editor,
        expires_at: None,
        actor,
    };
    let (token, _) = store.identity().create_token(token).await.unwrap();
    assert_eq!(is_missing(store.identity().revoke_token(org, token.id, actor).await), "token");
    assert!(store.identity().tokens(org).await.unwrap().is_empty());
    let foreign = store.audit().list(org, Page::default()).await.unwrap();
    assert!(foreign.iter().all(|entry| entry.organization == Some(org)));

    // And nothing of it happened to the rows themselves.
    let after = store.clusters().get(mine.organization, cluster.id).await.unwrap();
    assert_eq!((after.generation, after.deletion_requested_at), (1, None));
    assert_eq!(store.pools().get(mine.organization, pool.id).await.unwrap().count, 1);
    assert_eq!(store.join_tokens().get(mine.organization, join.id).await.unwrap().revoked_at, None);
}
