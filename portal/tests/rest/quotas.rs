//! Quotas: what REST shows of them, and what it says when one is used up.

use crate::world::{Things, World};
use migrations::{QuotaHolder, Resource, Role};
use serde_json::json;

#[tokio::test]
async fn what_is_used_is_shown() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Viewer).await;
    let quota = world.get(&things.path("/organizations/{org}/quota"), &token).await.json();
    assert_eq!((&quota["object"], &quota["organization_id"]), (&json!("quota"), &json!(things.ids["org"])));
    let used: Vec<_> =
        quota["resources"].as_array().unwrap().iter().map(|row| (&row["resource"], &row["used"])).collect();
    let (pools, tokens) = (json!("node_pools"), json!("api_tokens"));
    assert!(used.contains(&(&json!("clusters"), &json!(1))) && used.contains(&(&pools, &json!(2))), "{quota}");
    assert!(used.contains(&(&tokens, &json!(2))) && used.len() == 7, "{quota}");
    let by_name = world.get("/organizations/default/quota", &token).await.json();
    assert_eq!(by_name, quota);
}

/// Every resource: which quota, how many are used, and who can act.
#[tokio::test]
async fn a_refusal_names_the_quota_and_who_can_act() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let holder = QuotaHolder::Organization(things.organization.id);
    let table = [
        (Resource::Clusters, "/projects/{prj}/clusters", json!({"name": "new"})),
        (Resource::NodePools, "/clusters/{cls}/node-pools", json!({"name": "new", "kind": "byo"})),
        (Resource::Nodes, "/clusters/{cls}/node-pools", json!({"name": "new", "kind": "local", "count": 3})),
        (Resource::JoinTokens, "/clusters/{cls}/join-tokens", json!({})),
        (Resource::Kubeconfigs, "/clusters/{cls}/kubeconfigs", json!({"role": "view"})),
        (Resource::ApiTokens, "/me/tokens", json!({"name": "new"})),
        (Resource::Projects, "/organizations/{org}/projects", json!({"name": "new"})),
    ];
    for (resource, path, body) in table {
        let quotas = world.store.quotas();
        let quota = quotas.list(holder).await.unwrap().into_iter().find(|quota| quota.resource == resource).unwrap();
        quotas.set(holder, resource, quota.used, migrations::Actor::System).await.unwrap();
        for path in [things.path(path), things.path(&format!("{path}?validate_only=true"))] {
            let refused = world.call("POST", &path, &token, body.clone()).await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "QUOTA_REACHED"), "{resource}");
            let problem = refused.json();
            let told = json!({"resource": resource.to_string(), "used": quota.used, "limit": quota.used});
            assert_eq!((&problem["quota"], &problem["class"]), (&told, &json!("quota")), "{problem}");
            let (detail, next) = (problem["detail"].as_str().unwrap(), problem["remediation"].as_str().unwrap());
            let words = format!("{0} of {0} {1}", quota.used, resource.title());
            assert!(detail.contains(&words) && next.contains("ask the platform operator"), "{problem}");
        }
        quotas.set(holder, resource, 1000, migrations::Actor::System).await.unwrap();
    }
    let person = QuotaHolder::Person(things.ana.id);
    world.store.quotas().set(person, Resource::Organizations, 1, migrations::Actor::System).await.unwrap();
    let refused = world.call("POST", "/organizations", &token, json!({"name": "new"})).await;
    assert_eq!(
        (refused.code().as_str(), &refused.json()["quota"]["resource"]),
        ("QUOTA_REACHED", &json!("organizations"))
    );
    assert!(refused.text.contains("you own 1 of 1"), "{}", refused.text);
}
