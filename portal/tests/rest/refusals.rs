//! What is refused, and that every refusal is problem+json with its own code.

use crate::world::{Things, World};
use axum::body::Body;
use axum::http::Request;
use migrations::Role;
use serde_json::{Value, json};

#[tokio::test]
async fn the_frameworks_own_rejections_have_our_shape() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let clusters = things.path("/api/v1/projects/{prj}/clusters");
    let json = "application/json";
    let big = format!("{{\"name\":\"{}\"}}", "a".repeat(2 << 20));
    let table: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("GET", "/api/v1/nothing", "", "", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/", "", "", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/install/nothing", "", "", 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/api/v1/me", "", "", 405, "METHOD_NOT_ALLOWED"),
        ("POST", &clusters, "", "{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", &clusters, "text/plain", "{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", &clusters, json, "", 400, "MALFORMED_REQUEST"),
        ("POST", &clusters, json, "{\"name\":", 400, "MALFORMED_REQUEST"),
        ("POST", &clusters, json, "{\"name\":1}", 422, "VALIDATION_FAILED"),
        ("POST", &clusters, json, "[]", 422, "VALIDATION_FAILED"),
        ("POST", &clusters, json, &big, 413, "BODY_TOO_LARGE"),
        ("GET", &format!("{clusters}?limit=many"), "", "", 422, "VALIDATION_FAILED"),
        ("GET", &format!("{clusters}?cursor=nonsense"), "", "", 400, "CURSOR_MISMATCH"),
        ("GET", "/api/v1/operations", "", "", 422, "VALIDATION_FAILED"),
        ("GET", "/api/v1/clusters/%ff", "", "", 400, "MALFORMED_REQUEST"),
    ];
    for (method, path, kind, body, status, code) in table {
        let mut request = Request::builder().method(*method).uri(*path);
        request = request.header("authorization", format!("Bearer {token}"));
        if !kind.is_empty() {
            request = request.header("content-type", *kind);
        }
        let answer = world.send(request.body(Body::from((*body).to_owned())).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (*status, *code), "{method} {path} {kind}");
    }
}

#[tokio::test]
async fn values_are_refused_with_their_place_and_reason() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let (clusters, pools) = ("/projects/{prj}/clusters", "/clusters/{cls}/node-pools");
    let table: &[(&str, &str, Value, &str, &str)] = &[
        ("POST", clusters, json!({"name": "Demo"}), "/name", "use only lowercase letters a-z, digits and `-`"),
        ("POST", clusters, json!({"name": ""}), "/name", "a name is required"),
        ("POST", clusters, json!({"name": "a".repeat(41)}), "/name", "41 characters; the maximum is 40"),
        ("POST", clusters, json!({"name": "a", "version": "1.2.3"}), "/version", "choose 1.36.3 or 1.35.4"),
        ("POST", clusters, json!({"name": "a", "pod_cidr": "8.8.8.0/24"}), "/pod_cidr", "choose a private network"),
        ("POST", clusters, json!({"name": "a", "pod_cidr": "ten"}), "/pod_cidr", "is not an IPv4 CIDR"),
        ("POST", clusters, json!({"name": "a", "replicas": 9}), "/replicas", "choose 1 to 5"),
        ("POST", clusters, json!({"name": "a", "replcas": 1}), "/replcas", "unknown field"),
        ("POST", pools, json!({"name": "a", "kind": "cloud"}), "/kind", "choose byo or local"),
        ("POST", pools, json!({"name": "a", "kind": "local", "count": 21}), "/count", "choose 0 to 20"),
        ("POST", pools, json!({"name": "a", "kind": "byo", "count": 2}), "/count", "with a join token"),
        ("PATCH", "/node-pools/{np}", json!({"count": 99}), "/count", "choose 0 to 20"),
        ("POST", "/clusters/{cls}/join-tokens", json!({"max_uses": 0}), "/max_uses", "choose 1 to 100"),
        ("POST", "/clusters/{cls}/join-tokens", json!({"node_pool": "web"}), "/node_pool", "choose a pool of kind byo"),
        ("POST", "/clusters/{cls}/join-tokens", json!({"node_pool": "none"}), "/node_pool", "no pool `none`"),
        ("POST", "/clusters/{cls}/join-tokens", json!({"expires_in_seconds": 5}), "/expires_in_seconds", "(30 days)"),
        ("POST", "/clusters/{cls}/kubeconfigs", json!({"role": "root"}), "/role", "choose view, edit or admin"),
        (
            "POST",
            "/clusters/{cls}/kubeconfigs",
            json!({"expires_in_seconds": 31_536_001}),
            "/expires_in_seconds",
            "(365 days)",
        ),
        ("POST", "/me/tokens", json!({"name": ""}), "/name", "1 to 64 characters"),
        ("POST", "/me/tokens", json!({"name": "a", "role": "king"}), "/role", "choose owner, admin, editor or viewer"),
        ("POST", "/organizations", json!({"name": "A B"}), "/name", "use only lowercase letters"),
    ];
    for (method, path, body, pointer, words) in table {
        let answer = world.call(method, &things.path(path), &token, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "VALIDATION_FAILED"), "{body}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["pointer"], *pointer, "{body} {error}");
        assert!(error["detail"].as_str().unwrap().contains(words), "{body} {error}");
    }
}

#[tokio::test]
async fn names_are_taken_once() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let table = [
        ("/projects/{prj}/clusters", json!({"name": "demo"})),
        ("/clusters/{cls}/node-pools", json!({"name": "web", "kind": "local"})),
        ("/organizations", json!({"name": "default"})),
        ("/organizations/{org}/projects", json!({"name": "default"})),
    ];
    for (path, body) in table {
        let answer = world.call("POST", &things.path(path), &token, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "NAME_TAKEN"), "{path} {}", answer.text);
        assert_eq!(answer.json()["errors"][0]["pointer"], "/name");
    }
}

#[tokio::test]
async fn local_machines_only_where_the_instance_can_make_them() {
    let world = World::with(portal::LocalMachines::Off).await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let body = json!({"name": "a", "kind": "local"});
    let answer = world.call("POST", &things.path("/clusters/{cls}/node-pools"), &token, body).await;
    assert_eq!(answer.json()["errors"][0]["code"], "KIND_UNAVAILABLE");
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    for path in ["/node-pools/{np}", "/nodes/{nod}", "/clusters/{cls}"] {
        let path = things.path(path);
        let etag = world.get(&path, &token).await.header("etag").to_owned();
        let delete = |etag: &str| {
            let request = Request::delete(format!("/api/v1{path}")).header("if-match", etag);
            request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap()
        };
        let stale = world.send(delete("\"stale.0\"")).await;
        assert_eq!((stale.status.as_u16(), stale.code().as_str()), (412, "PRECONDITION_FAILED"), "{path}");
        assert_eq!(stale.header("etag"), etag);
        assert_eq!(world.send(delete(&etag)).await.status.as_u16(), 202, "{path}");
    }
}

#[tokio::test]
async fn sign_in_attempts_run_dry() {
    let world = World::new().await;
    let body = json!({"token": "wrong", "email": "a@b", "password": "short"});
    let mut codes = Vec::new();
    for _ in 0..11 {
        codes.push(world.call("POST", "/setup", "", body.clone()).await.code());
    }
    assert_eq!(codes.last().unwrap(), "RATE_LIMITED", "{codes:?}");
}

#[tokio::test]
async fn a_database_that_is_gone_is_told_and_may_be_retried() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    world.store.close().await;
    for path in ["/readyz", "/api/v1/me", "/api/v1/organizations"] {
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "DATABASE_UNAVAILABLE"), "{path}");
        assert_eq!((answer.header("retry-after"), answer.json()["retryable"].as_bool()), ("5", Some(true)));
    }
}

#[tokio::test]
async fn request_ids_are_kept_or_made() {
    let world = World::new().await;
    let ask = |id: &str| Request::get("/api/v1/me").header("x-request-id", id).body(Body::empty()).unwrap();
    assert_eq!(world.send(ask("my-id.7")).await.header("x-request-id"), "my-id.7");
    assert!(world.send(ask("no spaces, please")).await.header("x-request-id").starts_with("req_"));
}

#[tokio::test]
async fn a_small_token_makes_nothing_lasting_and_no_local_machines() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let editor = world.token(&things.ana, &things.organization, Role::Editor).await;
    let tokens = world.store.identity().tokens(things.organization.id).await.unwrap();
    let own = tokens.iter().find(|token| token.name == "editor").unwrap().id;
    let local = json!({"name": "more", "kind": "local", "count": 1});
    let refused = [
        ("POST", "/me/tokens".to_owned(), json!({"name": "child"})),
        ("DELETE", things.path("/tokens/{tok}"), Value::Null),
        ("POST", things.path("/clusters/{cls}/node-pools"), local),
    ];
    for (method, path, body) in refused {
        let answer = world.call(method, &path, &editor, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "PERMISSION_DENIED"), "{method} {path}");
        assert!(answer.text.contains("requires the role admin"), "{}", answer.text);
    }
    let answer = world.call("DELETE", &format!("/tokens/{own}"), &editor, Value::Null).await;
    assert!(answer.status.is_success(), "it may end itself: {}", answer.text);
}

#[tokio::test]
async fn a_token_does_not_outlive_the_one_that_made_it() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let forever = world.token(&things.ana, &things.organization, Role::Admin).await;
    let hour = json!({"name": "hour", "expires_in_seconds": 3600});
    let parent = world.call("POST", "/me/tokens", &forever, hour).await.json();
    let secret = parent["secret"].as_str().unwrap();
    let end = |token: &Value| {
        let text = token["expires_at"].as_str().unwrap();
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap()
    };
    let child = world.call("POST", "/me/tokens", secret, json!({"name": "child"})).await.json();
    assert!(end(&child) <= end(&parent), "{child}");
    let year = json!({"name": "year", "expires_in_seconds": 31_536_000});
    let answer = world.call("POST", "/me/tokens", secret, year).await;
    assert_eq!(answer.status.as_u16(), 422, "{}", answer.text);
    assert_eq!(answer.json()["errors"][0]["code"], "OUT_OF_RANGE");
}
