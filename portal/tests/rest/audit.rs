//! The audit log: what is written, who may read it, and that nobody fills it.

use crate::sessions::{from, over_tls, set_up, sign_in};
use crate::world::{PASSWORD, Things, World};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use migrations::{AuditFilter, Page, Role};
use portal::state::AppState;
use serde_json::{Value, json};
use std::time::Duration;

/// The entries of an action in an organization's log, or in the platform's.
async fn entries(world: &World, organization: Option<&str>, action: &str) -> Vec<migrations::AuditEntry> {
    let organization = organization.map(|id| id.parse().unwrap());
    let filter = AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() };
    world.store.audit().find(organization, &filter, Page::first(1000)).await.unwrap()
}

/// Waits until that many are there: what is refused is written after it was answered.
pub async fn soon(
    world: &World,
    (organization, action): (Option<&str>, &str),
    count: usize,
) -> Vec<migrations::AuditEntry> {
    for _ in 0..500 {
        let found = entries(world, organization, action).await;
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{action}: not {count} entries");
}

#[tokio::test]
async fn signing_in_well_and_badly_is_written_and_no_password_is() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    set_up(&world, &state).await;
    let organization = world.store.identity().ensure_admin().await.unwrap().1.id.to_string();
    let attempt = async |email: &str, password: &str| sign_in(&state, (from(9, true), ""), (email, password)).await;
    assert!(attempt("ana@example.com", "a wrong password").await.is_err());
    let refused = soon(&world, (Some(&organization), "user.sign_in_refused"), 1).await;
    assert_eq!((refused[0].actor.as_str(), refused[0].detail.as_str()), ("anonymous", "wrong password"));
    assert!(refused[0].target.starts_with("usr_") && refused[0].address.as_deref() == Some("192.0.2.9"));
    // People type their password where the address belongs.
    for _ in 0..2 {
        assert!(attempt(PASSWORD, "").await.is_err());
    }
    assert!(attempt("nobody@example.com", PASSWORD).await.is_err());
    let unknown = soon(&world, (None, "user.sign_in_refused"), 3).await;
    let text = format!("{refused:?} {unknown:?}");
    assert!(!text.contains("correct horse") && !text.contains("nobody@") && !text.contains("a wrong"), "{text}");
    let mut targets: Vec<_> = unknown.iter().map(|entry| entry.target.as_str()).collect();
    targets.sort_unstable();
    assert!(targets[0].starts_with("unknown account ") && targets[0].len() == "unknown account ".len() + 12);
    targets.dedup();
    assert_eq!(targets.len(), 2, "the same is told from another");
    let signed_in = entries(&world, Some(&organization), "user.sign_in").await;
    attempt("ana@example.com", PASSWORD).await.unwrap();
    assert_eq!(entries(&world, Some(&organization), "user.sign_in").await.len(), signed_in.len() + 1);
    assert_eq!(entries(&world, Some(&organization), "setup.complete").await.len(), 1);
}

#[tokio::test]
async fn guessing_does_not_fill_the_log() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    for number in 0..300_u32 {
        let connection = portal::Connection { address: number.to_be_bytes().into(), tls: true };
        // Longer passwords than any is are refused without being looked at, which is what makes this quick.
        let _ = sign_in(&state, (connection, ""), (&format!("n{number}@example.com"), &"x".repeat(2000))).await;
    }
    soon(&world, (None, "user.sign_in_refused"), 100).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(entries(&world, None, "user.sign_in_refused").await.len(), 100);
}

#[tokio::test]
async fn refused_requests_are_written_a_few_times() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let viewer = world.token(&things.ana, &things.organization, Role::Viewer).await;
    for _ in 0..40 {
        let path = things.path("/clusters/{cls}?validate_only=true");
        let answer = world.call("DELETE", &path, &viewer, Value::Null).await;
        assert_eq!(answer.code(), "PERMISSION_DENIED");
    }
    let found = entries(&world, Some(&things.ids["org"]), "access.refuse").await;
    assert_eq!(found.len(), 20);
    let asked = format!("DELETE /api/v1/clusters/{}: This requires the role editor", things.ids["cls"]);
    assert!(found[0].detail.starts_with(&asked) && found[0].actor.starts_with("tok_"), "{:?}", found[0]);
}

#[tokio::test]
async fn a_token_in_another_place_is_written_once() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Viewer).await;
    let from = async |address: [u8; 4]| {
        let request = Request::get("/api/v1/me").header("authorization", format!("Bearer {token}"));
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(portal::Connection { address: address.into(), tls: true });
        assert_eq!(world.send(request).await.status, StatusCode::OK);
    };
    for address in [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 1, 1], [10, 0, 0, 1]] {
        from(address).await;
    }
    let found = entries(&world, Some(&things.ids["org"]), "token.use").await;
    let found: Vec<_> = found.iter().map(|entry| entry.address.clone().unwrap()).collect();
    assert_eq!(found, ["10.0.1.1", "10.0.0.1"]);
    // A thief with a whole network of addresses does not fill the log.
    for number in 0..30 {
        from([10, 9, number, 1]).await;
    }
    assert!(entries(&world, Some(&things.ids["org"]), "token.use").await.len() <= 10);
}

#[tokio::test]
async fn the_log_is_paged_and_filtered() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let admin = world.token(&things.ana, &things.organization, Role::Admin).await;
    let path = things.path("/organizations/{org}/audit");
    let all = world.get(&format!("{path}?limit=200"), &admin).await.json();
    let ids = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let part = world.get(&format!("{path}?limit=3{cursor}"), &admin).await.json();
        seen.extend(ids(&part));
        let Some(next) = part["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ids(&all), "the newest first, none twice and none left out");
    let first = &all["items"][0];
    assert_eq!((first["action"].as_str(), first["object"].as_str()), (Some("token.use"), Some("audit_entry")));
    assert_eq!(first["actor_name"], "admin of ana@example.com");
    let count = async |query: &str| ids(&world.get(&format!("{path}?{query}"), &admin).await.json()).len();
    assert_eq!(count("action=cluster.create").await, 1);
    assert_eq!(count("action=kubeconfig").await, 1);
    assert_eq!(count("actor=Ana@example.com&action=cluster").await, 1);
    assert_eq!(count("actor=eve@example.com").await, 0);
    assert_eq!(count(&format!("target={}", things.ids["cls"])).await, 1);
    assert_eq!(count("until=2020-01-01").await, 0);
    assert_eq!(count("since=2020-01-01T10:00:00Z&until=2999-01-01&limit=200").await, ids(&all).len());
    let wrong = world.get(&format!("{path}?since=yesterday"), &admin).await;
    assert_eq!((wrong.code().as_str(), &wrong.json()["errors"][0]["pointer"]), ("VALIDATION_FAILED", &json!("?since")));
    let cursor = world.get(&format!("{path}?limit=1"), &admin).await.json()["next_cursor"].as_str().unwrap().to_owned();
    let other = world.get(&format!("{path}?limit=1&action=cluster&cursor={cursor}"), &admin).await;
    assert_eq!(other.code(), "CURSOR_MISMATCH");
}

#[tokio::test]
async fn the_page_shows_it_to_admins_only() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let cookie = set_up(&world, &state).await;
    let identity = world.store.identity();
    let (ana, organization) = identity.ensure_admin().await.unwrap();
    let get = async |path: &str, cookie: &str| {
        let request = Request::get(path).header("cookie", cookie).body(Body::empty()).unwrap();
        world.send(over_tls(request)).await
    };
    let path = format!("/organizations/{}/audit", organization.id);
    assert_eq!(get("/audit", &cookie).await.header("location"), path);
    assert_eq!(get(&path, "").await.header("location"), format!("/signin?next={path}"));
    let page = get(&path, &cookie).await;
    assert!(page.text.contains("setup.complete") && page.text.contains("ana@example.com"), "{}", page.text);
    assert!(page.text.contains("href=\"/audit\" aria-current=\"page\""));
    let filtered = get(&format!("{path}?action=setup"), &cookie).await;
    assert_eq!(filtered.text.matches("<tr id=\"entry-").count(), 1, "{}", filtered.text);
    let wrong = get(&format!("{path}?since=soon"), &cookie).await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("is not a time"));
    for _ in 0..60 {
        let new = migrations::NewAudit {
            organization: Some(organization.id),
            actor: migrations::Actor::User(ana.id),
            action: "test.note",
            target: "<script>",
            detail: "",
        };
        world.store.audit().record(new).await.unwrap();
    }
    let page = get(&format!("{path}?action=test"), &cookie).await;
    assert!(!page.text.contains("<script>") && page.text.contains("&#60;script&#62;"));
    let at = page.text.find("Older entries").unwrap();
    let link = page.text[..at].rsplit("href=\"").next().unwrap().split('"').next().unwrap().replace("&#38;", "&");
    let older = get(&link, &cookie).await;
    assert_eq!(older.text.matches("<tr id=\"entry-").count(), 10, "{link}");
    // Another organization's log is not there.
    let name = "other".parse().unwrap();
    let other = identity.create_organization(ana.id, name, "Other", migrations::Actor::System).await.unwrap();
    assert_eq!(
        get(&format!("/organizations/{}/audit", other.id), &cookie).await.status,
        StatusCode::OK,
        "hers as well"
    );
    let foreign =
        format!("/organizations/{}/audit", tenant_controlplane::id::OrganizationId::from_uuid(uuid::Uuid::nil()));
    assert_eq!(get(&foreign, &cookie).await.status, StatusCode::NOT_FOUND);
}
