//! Who may call what: one table with a case for every route of the document; a route without a case fails.

use crate::world::{PASSWORD, Things, World};
use axum::http::StatusCode;
use migrations::{Actor, Role};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Access {
    /// Anybody, without credentials.
    Open,
    /// Anybody signed in; it speaks of the caller only, so another organization's caller gets an answer too.
    Own,
    /// The organization's people with at least this role; others do not see it.
    Role(Role),
}

pub type Case = (&'static str, &'static str, Access, fn() -> Value);

const VIEW: Access = Access::Role(Role::Viewer);
const EDIT: Access = Access::Role(Role::Editor);
const ADMIN: Access = Access::Role(Role::Admin);

fn none() -> Value {
    Value::Null
}

pub const CASES: &[Case] = &[
    ("POST", "/setup", Access::Open, || json!({"token": "x", "email": "a@b", "password": "long enough to pass"})),
    ("GET", "/errors", Access::Open, none),
    ("GET", "/me", Access::Own, none),
    ("GET", "/me/tokens", Access::Own, none),
    ("POST", "/me/tokens", Access::Own, || json!({"name": "ci"})),
    ("GET", "/me/sessions", Access::Own, none),
    ("DELETE", "/me/sessions/{ses}", Access::Own, none),
    ("DELETE", "/me/sessions", Access::Own, none),
    ("POST", "/me/password", Access::Own, || json!({"current_password": PASSWORD, "new_password": PASSWORD})),
    ("GET", "/kubernetes-versions", Access::Own, none),
    ("GET", "/organizations", Access::Own, none),
    ("POST", "/organizations", Access::Own, || json!({"name": "new"})),
    ("GET", "/operations?target={cls}", Access::Own, none),
    ("GET", "/organizations/{org}", VIEW, none),
    ("GET", "/organizations/{org}/audit", ADMIN, none),
    ("GET", "/organizations/{org}/quota", VIEW, none),
    ("GET", "/organizations/{org}/projects", VIEW, none),
    ("POST", "/organizations/{org}/projects", ADMIN, || json!({"name": "new"})),
    ("GET", "/projects/{prj}", VIEW, none),
    ("GET", "/projects/{prj}/clusters", VIEW, none),
    ("POST", "/projects/{prj}/clusters", EDIT, || json!({"name": "new"})),
    ("GET", "/clusters/{cls}", VIEW, none),
    ("DELETE", "/clusters/{cls}", EDIT, none),
    ("DELETE", "/clusters/{cls}?force=true", ADMIN, none),
    ("GET", "/clusters/{cls}/kubeconfigs", VIEW, none),
    ("POST", "/clusters/{cls}/kubeconfigs", EDIT, || json!({"role": "edit"})),
    ("DELETE", "/kubeconfigs/{kcf}", EDIT, none),
    ("GET", "/clusters/{cls}/join-tokens", VIEW, none),
    ("POST", "/clusters/{cls}/join-tokens", EDIT, || json!({})),
    ("DELETE", "/join-tokens/{jtk}", EDIT, none),
    ("GET", "/clusters/{cls}/node-pools", VIEW, none),
    ("POST", "/clusters/{cls}/node-pools", EDIT, || json!({"name": "new", "kind": "byo"})),
    ("GET", "/node-pools/{np}", VIEW, none),
    ("PATCH", "/node-pools/{np}", ADMIN, || json!({"count": 2})),
    ("DELETE", "/node-pools/{np}", EDIT, none),
    ("GET", "/clusters/{cls}/nodes", VIEW, none),
    ("GET", "/nodes/{nod}", VIEW, none),
    ("DELETE", "/nodes/{nod}", EDIT, none),
    ("DELETE", "/nodes/{nod}?force=true", ADMIN, none),
    ("GET", "/operations/{op}", VIEW, none),
    ("DELETE", "/tokens/{tok}", ADMIN, none),
];

#[test]
fn every_route_has_a_case() {
    let document = serde_json::to_value(portal::openapi()).unwrap();
    let routes = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        let path = path.strip_prefix("/api/v1").unwrap();
        methods.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.to_owned()))
    });
    let plain = |path: &str| path.split('?').next().unwrap().to_owned();
    let cases: BTreeSet<_> = CASES.iter().map(|(method, path, ..)| ((*method).to_owned(), plain(path))).collect();
    assert_eq!(routes.collect::<BTreeSet<_>>(), cases);
}

#[tokio::test]
async fn nobody_comes_in_without_credentials() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    for (method, path, access, body) in CASES {
        for token in ["", "pilothouse_00000000000000000000000000_nonsense", "nonsense"] {
            let answer = world.call(method, &things.path(path), token, body()).await;
            if *access == Access::Open {
                assert_ne!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
                continue;
            }
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "UNAUTHENTICATED"), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
}

#[tokio::test]
async fn another_organization_sees_nothing() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let (ana, identity) = (&things.ana, world.store.identity());
    let name = "other".parse().unwrap();
    let other = identity.create_organization(ana.id, name, "Other", Actor::User(ana.id)).await.unwrap();
    let token = world.token(ana, &other, Role::Owner).await;
    for (method, path, access, body) in CASES {
        let answer = world.call(method, &things.path(path), &token, body()).await;
        match access {
            Access::Open => {}
            Access::Own => {
                assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
                assert!(!answer.text.contains(&things.ids["op"]), "{method} {path}: {}", answer.text);
            }
            Access::Role(_) => {
                let found = (answer.status.as_u16(), answer.code());
                assert_eq!(found, (404, "NOT_FOUND".to_owned()), "{method} {path}: {}", answer.text);
            }
        }
    }
}

#[tokio::test]
async fn a_role_too_low_is_told_which_one_is_needed() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let below = |role: Role| Role::ALL.iter().copied().filter(move |other| *other < role);
    for (method, path, access, body) in CASES {
        let Access::Role(least) = access else { continue };
        for role in below(*least) {
            let token = world.token(&things.ana, &things.organization, role).await;
            let answer = world.call(method, &things.path(path), &token, body()).await;
            let found = (answer.status.as_u16(), answer.code());
            assert_eq!(found, (403, "PERMISSION_DENIED".to_owned()), "{method} {path} as {role}: {}", answer.text);
            assert!(answer.text.contains(&format!("requires the role {least}")), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn ids_that_are_none_are_not_found() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    for (method, path, access, body) in CASES.iter().filter(|(_, path, ..)| path.contains("/{")) {
        assert!(matches!(access, Access::Role(_)) || path.starts_with("/me/"));
        for id in ["nonsense", "cls_00000000000000000000000000", "..", "%00", "x y".replace(' ', "%20").as_str()] {
            let start = path.find('{').unwrap();
            let end = path.find('}').unwrap();
            let path = format!("{}{id}{}", &path[..start], &path[end + 1..]);
            let answer = world.call(method, &path, &token, body()).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "NOT_FOUND"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_role_taken_away_is_taken_from_the_tokens_too() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Viewer).await;
    let me = world.get("/me", &token).await.json();
    assert_eq!(me["organizations"][0]["role"], "viewer");
    assert_eq!(me["authenticated_by"], "token");
    let more = world.call("POST", "/me/tokens", &token, json!({"name": "up", "role": "owner"})).await;
    assert_eq!(more.code(), "PERMISSION_DENIED");
}

#[tokio::test]
async fn other_peoples_tokens_take_an_admin() {
    let world = World::new().await;
    let (machine, _) = world.store.identity().ensure_admin().await.unwrap();
    let things = Things::new(&world).await;
    let path = things.path("/tokens/{tok}");
    let editor = world.token(&machine, &things.organization, Role::Editor).await;
    assert_eq!(world.call("DELETE", &path, &editor, Value::Null).await.code(), "PERMISSION_DENIED");
    let admin = world.token(&machine, &things.organization, Role::Admin).await;
    assert_eq!(world.call("DELETE", &path, &admin, Value::Null).await.status, StatusCode::NO_CONTENT);
}
