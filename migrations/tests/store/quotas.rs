//! Quotas: refused beyond the limit, counted rightly, set by the operator.

use migrations::*;

use crate::harness::*;

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (Resource, u64, u64) {
    match result {
        Err(StoreError::Quota { quota, .. }) => (quota.resource, quota.used, quota.limit),
        other => panic!("expected a quota, got {other:?}"),
    }
}

async fn used(fixture: &Fixture, tenant: &Tenant, resource: Resource) -> u64 {
    let all = fixture.store.quotas().list(tenant.organization.into()).await.unwrap();
    all.iter().find(|quota| quota.resource == resource).unwrap().used
}

fn project(tenant: &Tenant, name: &str) -> NewProject {
    let (organization, actor) = (tenant.organization, tenant.actor);
    NewProject { organization, name: name.parse().unwrap(), display_name: name.to_owned(), actor }
}

fn token(tenant: &Tenant, actor: Actor) -> NewToken {
    let (organization, user) = (tenant.organization, tenant.user);
    NewToken { organization, user, name: "ci".to_owned(), role: Role::Editor, expires_at: None, actor }
}

pub async fn each_resource_is_refused_beyond_its_limit(fixture: Fixture) {
    let (tenant, other) = (fixture.tenant("acme").await, fixture.tenant("other").await);
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let pool = tenant.pool(cluster.id, "web").await;
    let (join, _) = tenant.join_token(cluster.id).await;
    let kubeconfig = store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    let (key, _) = store.identity().create_token(token(&tenant, tenant.actor)).await.unwrap();
    let all = store.quotas().list(org.into()).await.unwrap();
    assert_eq!(all.iter().map(|quota| quota.used).collect::<Vec<_>>(), [1, 1, 2, 1, 1, 1, 1], "{all:?}");
    for quota in &all {
        store.quotas().set(org.into(), quota.resource, quota.used, Actor::System).await.unwrap();
    }
    assert_eq!(refused(store.clusters().insert(tenant.new_cluster("two")).await), (Resource::Clusters, 1, 1));
    assert_eq!(refused(store.pools().insert(tenant.new_pool(cluster.id, "two", 0)).await), (Resource::NodePools, 2, 2));
    assert_eq!(refused(store.pools().set_count(org, pool.id, 2, tenant.actor).await), (Resource::Nodes, 1, 1));
    let another = store.join_tokens().create(tenant.new_join_token(cluster.id)).await;
    assert_eq!(refused(another.map(|(token, _)| token)), (Resource::JoinTokens, 1, 1));
    let another = store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await;
    assert_eq!(refused(another), (Resource::Kubeconfigs, 1, 1));
    let another = store.identity().create_token(token(&tenant, tenant.actor)).await;
    assert_eq!(refused(another.map(|(token, _)| token)), (Resource::ApiTokens, 1, 1));
    assert_eq!(refused(store.identity().create_project(project(&tenant, "two")).await), (Resource::Projects, 1, 1));
    // The operator is not locked out, the platform's own machines have their tokens, and nobody else is concerned.
    store.identity().create_token(token(&tenant, Actor::System)).await.unwrap();
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    let own = NewJoinToken { node: Some(node.id), pool: Some(pool.id), ..tenant.new_join_token(cluster.id) };
    store.join_tokens().create(own).await.unwrap();
    let theirs = other.cluster("demo").await;
    other.pool(theirs.id, "web").await;
    // What ends makes room.
    store.join_tokens().revoke(org, join.id, tenant.actor).await.unwrap();
    tenant.join_token(cluster.id).await;
    store.kubeconfigs().revoke(org, kubeconfig.id, tenant.actor).await.unwrap();
    store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    store.identity().revoke_token(org, key.id, tenant.actor).await.unwrap();
    assert_eq!(used(&fixture, &tenant, Resource::ApiTokens).await, 1);
    // A person owns so many organizations: an organization's limits would bound nobody otherwise.
    let person = QuotaHolder::Person(tenant.user);
    let owned = store.quotas().list(person).await.unwrap();
    assert_eq!((owned.len(), owned[0].resource, owned[0].used), (1, Resource::Organizations, 3));
    store.quotas().set(person, Resource::Organizations, 3, Actor::System).await.unwrap();
    let more = store.identity().create_organization(tenant.user, "more".parse().unwrap(), "More", tenant.actor).await;
    assert_eq!(refused(more), (Resource::Organizations, 3, 3));
}

/// A limit of one's own can be taken back, and the default holds again.
pub async fn a_limit_of_its_own_is_taken_back(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (quotas, resource) = (fixture.store.quotas(), Resource::Clusters);
    let holder = QuotaHolder::from(tenant.organization);
    let default = quotas.default_of(resource).await.unwrap();
    assert_eq!(quotas.set(holder, resource, default + 7, Actor::System).await.unwrap().limit, default + 7);
    for _ in 0..2 {
        assert_eq!(quotas.unset(holder, resource, Actor::System).await.unwrap().limit, default);
    }
    let said = fixture.store.audit().list(tenant.organization, Page::default()).await.unwrap();
    let said: Vec<_> = said.iter().take(2).map(|entry| (entry.action.as_str(), entry.detail.as_str())).collect();
    assert_eq!(said, [("quota.unset", "clusters"), ("quota.set", &format!("clusters {}", default + 7))]);
    is_conflict(quotas.unset(holder, Resource::Organizations, Actor::System).await);
}

/// A refusal of a cluster with several pools counts what was there before the request, and all that it wants.
pub async fn a_refused_request_does_not_count_itself(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    store.quotas().set(org.into(), Resource::Nodes, 5, Actor::System).await.unwrap();
    let pool = |name: &str| FirstPool { name: name.parse().unwrap(), kind: PoolKind::Local, count: 3, version: None };
    let made = store.clusters().insert_with_pools(tenant.new_cluster("demo"), vec![pool("one"), pool("two")]).await;
    let Err(StoreError::Quota { quota, wanted }) = made else { panic!("{made:?}") };
    assert_eq!((quota.resource, quota.used, quota.limit, wanted), (Resource::Nodes, 0, 5, 6));
    assert_eq!(store.clusters().all().await.unwrap().len(), 0);
}

pub async fn of_two_for_the_last_place_one_gets_it(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let replica = fixture.replica().await;
    fixture.store.quotas().set(tenant.organization.into(), Resource::Clusters, 1, Actor::System).await.unwrap();
    let stores = [&fixture.store, &replica, &fixture.store, &replica];
    let tries = stores.iter().enumerate().map(|(number, store)| {
        let (store, new) = ((*store).clone(), tenant.new_cluster(&format!("c{number}")));
        tokio::spawn(async move { store.clusters().insert(new).await })
    });
    let mut made = 0;
    for task in tries.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert!(matches!(error, StoreError::Quota { .. }), "{error:?}"),
        }
    }
    assert_eq!((made, fixture.store.clusters().all().await.unwrap().len()), (1, 1));
}

pub async fn nodes_are_counted_by_pool_and_by_machine(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let pool = store.pools().insert(tenant.new_pool(cluster.id, "web", 3)).await.unwrap();
    assert_eq!(used(&fixture, &tenant, Resource::Nodes).await, 3, "what is asked for counts before it is there");
    store.nodes().insert_for_pool(pool.id).await.unwrap();
    assert_eq!(used(&fixture, &tenant, Resource::Nodes).await, 3);
    store.quotas().set(org.into(), Resource::Nodes, 4, Actor::System).await.unwrap();
    let uses = NewJoinToken { max_uses: 3, ..tenant.new_join_token(cluster.id) };
    let (_, secret) = store.join_tokens().create(uses).await.unwrap();
    tenant.enroll(&secret, "one").await.unwrap();
    tenant.enroll(&secret, "one").await.expect("the same machine again is no more");
    let refused = tenant.enroll(&secret, "two").await.unwrap_err();
    assert!(matches!(refused, EnrollError::Quota(quota) if quota.used == 4 && quota.limit == 4), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("4 of 4") && text.contains("platform operator"), "{text}");
    // What was asked for is made, also under a limit that was lowered; and going down is never refused.
    store.quotas().set(org.into(), Resource::Nodes, 1, Actor::System).await.unwrap();
    store.nodes().insert_for_pool(pool.id).await.unwrap();
    store.pools().set_count(org, pool.id, 2, tenant.actor).await.unwrap();
    store.pools().request_deletion(org, pool.id, tenant.actor).await.unwrap();
    assert_eq!(
        used(&fixture, &tenant, Resource::Nodes).await,
        3,
        "two machines of the pool are still there, and one's own"
    );
}

pub async fn limits_are_set_for_one_and_for_all(fixture: Fixture) {
    let (tenant, other) = (fixture.tenant("acme").await, fixture.tenant("other").await);
    let quotas = fixture.store.quotas();
    let limit = async |tenant: &Tenant| quotas.list(tenant.organization.into()).await.unwrap()[0].limit;
    assert_eq!((limit(&tenant).await, quotas.default_of(Resource::Clusters).await.unwrap()), (20, 20));
    quotas.set_default(Resource::Clusters, 5, Actor::System).await.unwrap();
    let log = fixture.store.audit().find(None, &AuditFilter::default(), Page::first(1)).await.unwrap();
    assert_eq!((&*log[0].action, &*log[0].target, &*log[0].detail), ("quota.set_default", "clusters", "5"));
    let set = quotas.set(tenant.organization.into(), Resource::Clusters, 7, Actor::System).await.unwrap();
    assert_eq!((set.limit, limit(&tenant).await, limit(&other).await), (7, 7, 5));
    quotas.set(tenant.organization.into(), Resource::Clusters, 8, Actor::System).await.unwrap();
    assert_eq!(limit(&tenant).await, 8);
    let log = fixture.store.audit().list(tenant.organization, Page::default()).await.unwrap();
    assert_eq!((log[0].action.as_str(), log[0].detail.as_str()), ("quota.set", "clusters 8"));
    let misplaced = quotas.set(tenant.organization.into(), Resource::Organizations, 1, Actor::System).await;
    assert!(is_conflict(misplaced).contains("belongs to a person"));
    is_conflict(quotas.set(QuotaHolder::Person(tenant.user), Resource::Nodes, 1, Actor::System).await);
    is_conflict(quotas.set(tenant.organization.into(), Resource::Nodes, 1_000_001, Actor::System).await);
    let nobody = tenant_controlplane::id::OrganizationId::from_uuid(uuid::Uuid::now_v7());
    assert_eq!(is_missing(quotas.set(nobody.into(), Resource::Nodes, 1, Actor::System).await), "organization");
}
