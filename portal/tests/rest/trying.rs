//! `?validate_only=true`: on every change; all is checked, nothing is changed.

use crate::tenancy::{Access, CASES};
use crate::world::{Things, World};
use axum::http::StatusCode;
use migrations::{ExposeSecret, Page, Role};
use serde_json::{Value, json};

/// Everything of Ana's that a change could show in.
async fn seen(world: &World, things: &Things, token: &str) -> String {
    let mut all = String::new();
    for (_, path, access, _) in
        CASES.iter().filter(|(method, _, access, _)| *method == "GET" && *access != Access::Open)
    {
        let answer = world.get(&things.path(path), token).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {access:?}");
        all.push_str(&answer.text);
    }
    let audit = world.store.audit().list(things.organization.id, Page::default()).await.unwrap();
    format!("{all} {}", audit.len())
}

#[tokio::test]
async fn every_change_can_be_tried_out() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    world.get("/me", &token).await;
    let before = seen(&world, &things, &token).await;
    for (method, path, access, body) in
        CASES.iter().filter(|(method, _, access, _)| *method != "GET" && *access != Access::Open)
    {
        let path = {
            let path = things.path(path);
            format!("{path}{}validate_only=true", if path.contains('?') { '&' } else { '?' })
        };
        let answer = world.call(method, &path, &token, body()).await;
        let expected = if *method == "DELETE" { StatusCode::NO_CONTENT } else { StatusCode::OK };
        assert_eq!(answer.status, expected, "{method} {path} {access:?}: {}", answer.text);
        assert_eq!((answer.header("location"), answer.header("etag")), ("", ""), "{method} {path}");
        assert_eq!(seen(&world, &things, &token).await, before, "{method} {path} changed something");
    }
}

#[tokio::test]
async fn what_would_be_refused_is_refused() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let owner = world.token(&things.ana, &things.organization, Role::Owner).await;
    let viewer = world.token(&things.ana, &things.organization, Role::Viewer).await;
    let clusters = "/projects/{prj}/clusters?validate_only=true";
    let table = [
        ("", clusters, json!({"name": "new"}), "UNAUTHENTICATED"),
        (viewer.as_str(), clusters, json!({"name": "new"}), "PERMISSION_DENIED"),
        (owner.as_str(), clusters, json!({"name": "demo"}), "NAME_TAKEN"),
        (owner.as_str(), clusters, json!({"name": "new", "version": "1.2.3"}), "VALIDATION_FAILED"),
        (owner.as_str(), clusters, json!({"nmae": "new"}), "VALIDATION_FAILED"),
        (owner.as_str(), "/projects/prj_1/clusters?validate_only=true", json!({"name": "new"}), "NOT_FOUND"),
        (
            owner.as_str(),
            "/clusters/{cls}/node-pools?validate_only=true",
            json!({"name": "web", "kind": "byo"}),
            "NAME_TAKEN",
        ),
        (owner.as_str(), "/organizations?validate_only=true", json!({"name": "default"}), "NAME_TAKEN"),
    ];
    for (token, path, body, code) in table {
        assert_eq!(world.call("POST", &things.path(path), token, body).await.code(), code, "{path}");
    }
    let delete = things.path("/clusters/{cls}?validate_only=true");
    let stale = world.call_with(("if-match", "\"stale.0\""), ("DELETE", &delete, &owner, Value::Null)).await;
    assert_eq!(stale.code(), "PRECONDITION_FAILED");
}

#[tokio::test]
async fn the_answer_is_what_would_be_without_secrets() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let post = async |path: &str, body: Value| {
        world.call("POST", &things.path(&format!("{path}?validate_only=true")), &token, body).await.json()
    };
    let cluster = post("/projects/{prj}/clusters", json!({"name": "new", "replicas": 3})).await;
    assert_eq!((cluster["name"].as_str(), cluster["replicas"].as_u64()), (Some("new"), Some(3)));
    assert_eq!(post("/me/tokens", json!({"name": "ci"})).await["secret"], "");
    let join = post("/clusters/{cls}/join-tokens", json!({})).await;
    assert_eq!(
        (&join["token"], &join["commands"]["shell"], &join["commands"]["cloud_init"]),
        (&json!(""), &json!(""), &json!(""))
    );
    assert_eq!(post("/clusters/{cls}/kubeconfigs", json!({})).await["kubeconfig"], "");
    // A key is not used up by trying out.
    let path = things.path("/projects/{prj}/clusters");
    let key = ("idempotency-key", "once");
    let body = json!({"name": "new"});
    let tried = world.call_with(key, ("POST", &format!("{path}?validate_only=true"), &token, body.clone())).await;
    assert_eq!(tried.status, StatusCode::OK);
    let done = world.call_with(key, ("POST", &path, &token, body)).await;
    assert_eq!((done.status, done.header("idempotency-replayed")), (StatusCode::ACCEPTED, ""));
}

#[tokio::test]
async fn set_up_can_be_tried_out() {
    let world = World::new().await;
    let token = world.store.identity().create_setup_token().await.unwrap();
    let body = json!({"token": token.expose_secret(), "email": "ana@example.com", "password": "correct horse battery"});
    let tried = world.call("POST", "/setup?validate_only=true", "", body.clone()).await;
    assert_eq!((tried.status, tried.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert!(world.store.identity().setup_needed().await.unwrap());
    assert_eq!(world.call("POST", "/setup", "", body).await.status, StatusCode::CREATED);
}
