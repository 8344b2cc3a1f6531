//! A cluster and its first node pools: made together, or not at all.

use crate::world::{Things, World};
use axum::http::StatusCode;
use migrations::{QuotaHolder, Resource, Role};
use serde_json::{Value, json};

const CLUSTERS: &str = "/projects/{prj}/clusters";

/// The names of the project's clusters.
async fn clusters(world: &World, things: &Things, token: &str) -> Vec<String> {
    let list = world.get(&things.path(CLUSTERS), token).await.json();
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn they_are_made_with_it() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Admin).await;
    let pools = json!([{"name": "own", "kind": "byo"}, {"name": "web", "kind": "local", "count": 2}]);
    let body = json!({"name": "shop", "node_pools": pools});
    let tried = world.call("POST", &things.path(&format!("{CLUSTERS}?validate_only=true")), &token, body.clone()).await;
    assert_eq!(tried.status, StatusCode::OK, "{}", tried.text);
    assert_eq!(clusters(&world, &things, &token).await, ["demo"]);
    let made = world.call("POST", &things.path(CLUSTERS), &token, body).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let list = world.get(&format!("/clusters/{id}/node-pools"), &token).await.json();
    let seen = |item: &Value| json!([item["name"], item["kind"], item["count"], item["operation_id"].is_string()]);
    let seen: Vec<Value> = list["items"].as_array().unwrap().iter().map(seen).collect();
    assert_eq!(seen, [json!(["own", "byo", 0, true]), json!(["web", "local", 2, true])]);
}

#[tokio::test]
async fn what_is_wrong_with_one_is_told_with_its_place_and_makes_nothing() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let table = [
        (json!([{"name": "Web", "kind": "byo"}]), "/node_pools/0/name", "use only lowercase letters"),
        (json!([{"name": "web", "kind": "cloud"}]), "/node_pools/0/kind", "choose byo or local"),
        (
            json!([{"name": "own", "kind": "byo"}, {"name": "web", "kind": "local", "count": 21}]),
            "/node_pools/1/count",
            "choose 0 to 20",
        ),
        (
            json!([{"name": "web", "kind": "byo"}, {"name": "web", "kind": "local"}]),
            "/node_pools/1/name",
            "used by two node pools",
        ),
        (json!([{"name": "web", "kind": "local", "count": "two"}]), "/node_pools/0/count", "invalid type"),
        (json!([{"name": "web", "kind": "local", "cuont": 2}]), "/node_pools/0/cuont", "unknown field"),
        (json!([{"kind": "local"}]), "/node_pools/0/name", "missing field"),
        (json!(vec![json!({"name": "web", "kind": "byo"}); 21]), "/node_pools", "at most 20"),
    ];
    for (pools, pointer, words) in table {
        let body = json!({"name": "shop", "node_pools": pools});
        let answer = world.call("POST", &things.path(CLUSTERS), &token, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "VALIDATION_FAILED"), "{body}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["pointer"], pointer, "{body} {error}");
        assert!(error["detail"].as_str().unwrap().contains(words), "{body} {error}");
    }
    let editor = world.token(&things.ana, &things.organization, Role::Editor).await;
    let body = json!({"name": "shop", "node_pools": [{"name": "web", "kind": "local"}]});
    assert_eq!(world.call("POST", &things.path(CLUSTERS), &editor, body).await.code(), "PERMISSION_DENIED");
    assert_eq!(clusters(&world, &things, &token).await, ["demo"]);
}

#[tokio::test]
async fn a_quota_of_theirs_leaves_no_cluster_and_the_name_free() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let (holder, quotas) = (QuotaHolder::Organization(things.organization.id), world.store.quotas());
    let body = |count: u32| json!({"name": "shop", "node_pools": [{"name": "web", "kind": "local", "count": count}]});
    for resource in [Resource::NodePools, Resource::Nodes] {
        let before = quotas.list(holder).await.unwrap().into_iter().find(|quota| quota.resource == resource).unwrap();
        quotas.set(holder, resource, before.used, migrations::Actor::System).await.unwrap();
        let refused = world.call("POST", &things.path(CLUSTERS), &token, body(1)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "QUOTA_REACHED"), "{resource}");
        assert_eq!(refused.json()["quota"]["resource"], resource.to_string());
        assert_eq!(clusters(&world, &things, &token).await, ["demo"], "{resource}");
        quotas.set(holder, resource, 1000, migrations::Actor::System).await.unwrap();
    }
    let made = world.call("POST", &things.path(CLUSTERS), &token, body(1)).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
}

/// Kubernetes' skew policy: a kubelet is never newer than its API server.
#[tokio::test]
async fn nodes_may_be_older_than_their_cluster_and_not_newer() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Editor).await;
    let pools = things.path("/clusters/{cls}/node-pools");
    let pool = |version: &str| json!({"name": "old", "kind": "byo", "version": version});
    for (version, code) in [("1.30.0", "VERSION_UNSUPPORTED"), ("latest", "VERSION_UNSUPPORTED")] {
        let refused = world.call("POST", &pools, &token, pool(version)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
        let error = &refused.json()["errors"][0];
        assert_eq!((error["pointer"].as_str(), error["code"].as_str()), (Some("/version"), Some(code)), "{error}");
        assert!(error["detail"].as_str().unwrap().contains("1.36.3 or 1.35.4"), "{error}");
    }
    let made = world.call("POST", &pools, &token, pool("v1.35.4")).await;
    assert_eq!((made.status, &made.json()["version"]), (StatusCode::ACCEPTED, &json!("1.35.4")), "{}", made.text);
    let shown = world.get(&format!("/node-pools/{}", made.json()["id"].as_str().unwrap()), &token).await.json();
    assert_eq!(shown["version"], "1.35.4");
    let newer = json!([{"name": "own", "kind": "byo"}, {"name": "new", "kind": "byo", "version": "1.36.3"}]);
    let body = json!({"name": "shop", "version": "1.35.4", "node_pools": newer});
    let refused = world.call("POST", &things.path(CLUSTERS), &token, body).await;
    let error = &refused.json()["errors"][0];
    let found = (error["pointer"].as_str(), error["code"].as_str());
    assert_eq!(found, (Some("/node_pools/1/version"), Some("VERSION_SKEW")), "{error}");
    assert!(error["detail"].as_str().unwrap().contains("newer than their control plane, 1.35.4"), "{error}");
    assert_eq!(clusters(&world, &things, &token).await, ["demo"]);
}
