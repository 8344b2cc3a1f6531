//! Who may call what: one table with a case for every route of the document; a route without a case fails.

use crate::world::{PASSWORD, Things, World};
use axum::http::StatusCode;
use migrations::{Actor, Role};
use portal::auth::Action;
use portal::auth::policy::Least;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Access {
    /// Anybody, without credentials.
    Open,
    /// Anybody signed in; it speaks of the caller only, so another organization's caller gets an answer too.
    Own,
    /// The organization's people whose role is enough for this action of the policy; others do not see it.
    Needs(Action),
}

impl Access {
    /// The least role of a token.
    fn least(self) -> Option<Role> {
        match self {
            Self::Needs(action) => match action.rule().token {
                Least::Role(role) => Some(role),
                Least::Anybody | Least::Nobody => None,
            },
            Self::Open | Self::Own => None,
        }
    }
}

pub type Case = (&'static str, &'static str, Access, fn() -> Value);

const fn needs(action: Action) -> Access {
    Access::Needs(action)
}

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
    ("GET", "/organizations/{org}", needs(Action::ReadOrganization), none),
    ("GET", "/organizations/{org}/audit", needs(Action::ReadAuditLog), none),
    ("GET", "/organizations/{org}/quota", needs(Action::ReadOrganization), none),
    ("GET", "/organizations/{org}/projects", needs(Action::ReadProject), none),
    ("POST", "/organizations/{org}/projects", needs(Action::CreateProject), || json!({"name": "new"})),
    ("GET", "/projects/{prj}", needs(Action::ReadProject), none),
    ("GET", "/projects/{prj}/clusters", needs(Action::ReadCluster), none),
    ("POST", "/projects/{prj}/clusters", needs(Action::CreateCluster), || json!({"name": "new"})),
    ("GET", "/clusters/{cls}", needs(Action::ReadCluster), none),
    ("DELETE", "/clusters/{cls}", needs(Action::DeleteCluster), none),
    ("DELETE", "/clusters/{cls}?force=true", needs(Action::ForceDeleteCluster), none),
    ("GET", "/clusters/{cls}/kubeconfigs", needs(Action::ReadKubeconfig), none),
    ("POST", "/clusters/{cls}/kubeconfigs", needs(Action::IssueKubeconfig), || json!({"role": "edit"})),
    ("DELETE", "/kubeconfigs/{kcf}", needs(Action::RevokeKubeconfig), none),
    ("GET", "/clusters/{cls}/join-tokens", needs(Action::ReadJoinToken), none),
    ("POST", "/clusters/{cls}/join-tokens", needs(Action::CreateJoinToken), || json!({})),
    ("DELETE", "/join-tokens/{jtk}", needs(Action::RevokeJoinToken), none),
    ("GET", "/clusters/{cls}/node-pools", needs(Action::ReadNodePool), none),
    ("POST", "/clusters/{cls}/node-pools", needs(Action::CreateNodePool), || json!({"name": "new", "kind": "byo"})),
    (
        "POST",
        "/clusters/{cls}/node-pools",
        needs(Action::CreateLocalNodePool),
        || json!({"name": "new", "kind": "local"}),
    ),
    ("POST", "/clusters/{cls}/kubeconfigs", needs(Action::IssueViewKubeconfig), || json!({"role": "view"})),
    ("GET", "/node-pools/{np}", needs(Action::ReadNodePool), none),
    ("PATCH", "/node-pools/{np}", needs(Action::ChangeLocalNodePool), || json!({"count": 2})),
    ("DELETE", "/node-pools/{np}", needs(Action::DeleteNodePool), none),
    ("GET", "/clusters/{cls}/nodes", needs(Action::ReadNode), none),
    ("GET", "/nodes/{nod}", needs(Action::ReadNode), none),
    ("DELETE", "/nodes/{nod}", needs(Action::DeleteNode), none),
    ("DELETE", "/nodes/{nod}?force=true", needs(Action::ForceDeleteNode), none),
    ("GET", "/operations/{op}", needs(Action::ReadOperation), none),
    ("DELETE", "/tokens/{tok}", needs(Action::RevokeToken), none),
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
            Access::Needs(_) => {
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
        let Some(least) = access.least() else { continue };
        for role in below(least) {
            let token = world.token(&things.ana, &things.organization, role).await;
            let answer = world.call(method, &things.path(path), &token, body()).await;
            let found = (answer.status.as_u16(), answer.code());
            assert_eq!(found, (403, "PERMISSION_DENIED".to_owned()), "{method} {path} as {role}: {}", answer.text);
            assert!(answer.text.contains(&format!("requires the role {least}")), "{}", answer.text);
        }
    }
}

/// Every route as every role, by the status that it answers, with nothing changed.
#[tokio::test]
async fn routes_by_roles_are_as_agreed() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let mut tokens = Vec::new();
    for role in [Role::Viewer, Role::Editor, Role::Admin, Role::Owner] {
        tokens.push((role, world.token(&things.ana, &things.organization, role).await));
    }
    let mut table = String::new();
    for (method, path, access, body) in CASES.iter().filter(|(_, _, access, _)| *access != Access::Open) {
        let mut statuses = String::new();
        for (role, token) in &tokens {
            let tried = if *method == "GET" { "" } else { "validate_only=true" };
            let separator = if path.contains('?') { '&' } else { '?' };
            let answer = world.call(method, &things.path(&format!("{path}{separator}{tried}")), token, body()).await;
            let allowed = access.least().is_none_or(|least| *role >= least);
            if matches!(access, Access::Needs(_)) {
                assert_eq!(answer.status.is_success(), allowed, "{method} {path} as {role}: {}", answer.text);
            }
            statuses.push_str(&format!(" {role} {}", answer.status.as_u16()));
        }
        table.push_str(&format!("{method:<7}{path:<36}{statuses}\n"));
    }
    insta::assert_snapshot!("routes_by_roles", table);
}

#[tokio::test]
async fn ids_that_are_none_are_not_found() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    for (method, path, access, body) in CASES.iter().filter(|(_, path, ..)| path.contains("/{")) {
        assert!(matches!(access, Access::Needs(_)) || path.starts_with("/me/"));
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
