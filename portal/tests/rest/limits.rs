//! How many requests a caller may send, and how they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::world::{Things, World};
use axum::body::Body;
use axum::http::Request;
use migrations::{Actor, Role};
use portal::{Connection, CredentialSeen, RequestLimits};
use serde_json::{Value, json};

/// Whoever serves a connection is notified of valid credentials, and of nothing else, so that anonymous clients cannot pass for callers.
#[tokio::test]
async fn only_a_valid_credential_is_reported_to_the_connection() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Viewer).await;
    let seen = Arc::new(AtomicUsize::new(0));
    let ask = async |path: &str, token: &str| {
        let counter = seen.clone();
        let report = CredentialSeen::new(move || {
            counter.fetch_add(1, SeqCst);
        });
        let request = Request::get(path).header("authorization", format!("Bearer {token}")).extension(report);
        world.send(request.body(Body::empty()).unwrap()).await.status.as_u16()
    };
    assert_eq!((ask("/api/v1/me", "pilothouse_nonsense").await, ask("/healthz", &token).await), (401, 200));
    assert_eq!(seen.load(SeqCst), 0);
    assert_eq!(ask("/api/v1/me", &token).await, 200);
    assert!(seen.load(SeqCst) > 0);
}

#[tokio::test]
async fn an_address_has_so_many_downloads_at_a_time() {
    let world = World::new().await;
    let begin = |host: u8| {
        let from = Connection { address: [192, 0, 2, host].into(), tls: true };
        let request = Request::get("/install/pilothouse-node").extension(from).body(Body::empty()).unwrap();
        world.begin(request)
    };
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(begin(1).await);
    }
    let refused = begin(1).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(begin(2).await.status().as_u16(), 200, "another address has its own");
    unread.pop();
    assert_eq!(begin(1).await.status().as_u16(), 200);
}

#[tokio::test]
async fn reads_writes_and_new_clusters_are_counted_apart_and_per_person() {
    let world = World::limited(RequestLimits { reads: 3, writes: 4, cluster_creates: 2 }).await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let path = things.path("/projects/{prj}/clusters");
    let make = async |name: &str| world.call("POST", &path, &token, json!({"name": name})).await;
    let first = make("one").await;
    assert_eq!(first.header("ratelimit-policy"), "\"write\";q=4;w=60, \"create\";q=2;w=60");
    assert_eq!(first.header("ratelimit"), "\"write\";r=3;t=15, \"create\";r=1;t=30");
    assert_eq!(make("two").await.status.as_u16(), 202);
    let over = make("three").await;
    assert_eq!((over.status.as_u16(), over.code().as_str()), (429, "REQUEST_LIMIT_EXCEEDED"));
    assert_eq!((over.json()["class"].as_str(), over.json()["retryable"].as_bool()), (Some("user"), Some(true)));
    assert!(over.text.contains("More than 2 new clusters per minute"), "{}", over.text);
    let wait: u64 = over.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert!(over.header("ratelimit").contains("\"create\";r=0;"), "{}", over.header("ratelimit"));
    for _ in 0..3 {
        assert_eq!(world.get("/me", &token).await.status.as_u16(), 200, "writes are not reads");
    }
    let over = world.get("/me", &token).await;
    assert_eq!(
        (over.code().as_str(), over.header("ratelimit-policy")),
        ("REQUEST_LIMIT_EXCEEDED", "\"read\";q=3;w=60")
    );
    let other = world.token(&things.ana, &things.organization, Role::Viewer).await;
    assert_eq!(
        world.get("/me", &other).await.code(),
        "REQUEST_LIMIT_EXCEEDED",
        "another token of the person is no way out"
    );
    let identity = world.store.identity();
    let elsewhere = "elsewhere".parse().unwrap();
    let elsewhere = identity.create_organization(things.ana.id, elsewhere, "", Actor::System).await.unwrap();
    let other = world.token(&things.ana, &elsewhere, Role::Viewer).await;
    assert_eq!(world.get("/me", &other).await.status.as_u16(), 200, "nor does it spoil their other organizations");
}

#[tokio::test]
async fn every_answer_tells_what_is_left_but_to_strangers() {
    let world = World::limited(RequestLimits::default()).await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Viewer).await;
    for path in ["/me", "/clusters/nonsense", "/me?unknown=1"] {
        let answer = world.get(path, &token).await;
        assert_eq!(answer.header("ratelimit-policy"), "\"read\";q=600;w=60", "{path}");
        assert!(answer.header("ratelimit").starts_with("\"read\";r=59"), "{path}");
    }
    let refused = world.call("DELETE", &things.path("/clusters/{cls}"), &token, Value::Null).await;
    assert_eq!(refused.code(), "PERMISSION_DENIED");
    assert_eq!(refused.header("ratelimit"), "\"write\";r=119;t=1");
    let anonymous = world.get("/me", "").await;
    assert_eq!((anonymous.code().as_str(), anonymous.header("ratelimit")), ("UNAUTHENTICATED", ""));
}

#[tokio::test]
async fn unknown_query_parameters_are_named() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let table = [
        ("GET", "/projects/{prj}/clusters?nmae=demo", "?nmae", "supported: limit, cursor, name"),
        ("GET", "/me?verbose=1", "?verbose", "supported: none"),
        ("DELETE", "/clusters/{cls}?now=true", "?now", "supported: wait, force, validate_only"),
        ("DELETE", "/clusters/{cls}?validate_only=yes", "?validate_only", "use `validate_only=true`"),
    ];
    for (method, path, pointer, words) in table {
        let answer = world.call(method, &things.path(path), &token, Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "VALIDATION_FAILED"), "{path}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["pointer"], pointer);
        assert!(error["detail"].as_str().unwrap().contains(words), "{error}");
    }
    let setup = json!({"token": "x", "email": "a@b", "password": "long enough to pass"});
    let answer = world.call("POST", "/setup?validate_onyl=true", "", setup).await;
    assert_eq!(answer.json()["errors"][0]["pointer"], "?validate_onyl");
    assert!(world.store.clusters().load(things.cluster).await.unwrap().deletion_requested_at.is_none());
}
