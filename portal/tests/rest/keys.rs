//! `Idempotency-Key`: carried out once, answered alike, nobody else's, and no twin after a crash.

use crate::world::{Answer, Things, World};
use axum::http::StatusCode;
use migrations::{Actor, KeyState, Role};
use serde_json::{Value, json};

const KEY: (&str, &str) = ("idempotency-key", "6f1c2c7e-one");

async fn clusters(world: &World, things: &Things, token: &str) -> Vec<String> {
    let all = world.get(&things.path("/projects/{prj}/clusters"), token).await.json();
    all["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn same(first: &Answer, second: &Answer) {
    assert_eq!((second.status, &second.text), (first.status, &first.text));
    for name in ["content-type", "location", "etag"] {
        assert_eq!(second.header(name), first.header(name), "{name}");
    }
    assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), ("", "true"));
}

#[tokio::test]
async fn what_is_sent_twice_is_made_once() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let path = things.path("/projects/{prj}/clusters");
    let send = async |body: Value| world.call_with(KEY, ("POST", &path, &token, body)).await;
    let first = send(json!({"name": "shop"})).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    same(&first, &send(json!({"name": "shop"})).await);
    let reused = send(json!({"name": "other"})).await;
    assert_eq!((reused.status.as_u16(), reused.code().as_str()), (422, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(clusters(&world, &things, &token).await, ["demo", "shop"]);
    // A refusal that would be the same again is kept too, with the id of the request that asks now.
    let taken = ("idempotency-key", "two");
    let refused = world.call_with(taken, ("POST", &path, &token, json!({"name": "shop"}))).await;
    let again = world.call_with(taken, ("POST", &path, &token, json!({"name": "shop"}))).await;
    assert_eq!((refused.code(), again.code()), ("NAME_TAKEN".to_owned(), "NAME_TAKEN".to_owned()));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_ne!(again.header("x-request-id"), refused.header("x-request-id"));
    let patch = async |count: u32| {
        world.call_with(KEY, ("PATCH", &things.path("/node-pools/{np}"), &token, json!({"count": count}))).await
    };
    let first = patch(3).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    same(&first, &patch(3).await);
}

#[tokio::test]
async fn a_key_is_its_callers_its_methods_and_its_paths() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let owner = world.token(&things.ana, &things.organization, Role::Owner).await;
    let other = world.token(&things.ana, &things.organization, Role::Owner).await;
    let tokens = async |token: &str| world.call_with(KEY, ("POST", "/me/tokens", token, json!({"name": "ci"}))).await;
    let (mine, theirs) = (tokens(&owner).await, tokens(&other).await);
    assert_eq!(theirs.header("idempotency-replayed"), "");
    assert_ne!(mine.json()["secret"], theirs.json()["secret"]);
    let pool = json!({"name": "ci", "kind": "byo"});
    let elsewhere = world.call_with(KEY, ("POST", &things.path("/clusters/{cls}/node-pools"), &owner, pool)).await;
    assert_eq!(elsewhere.status, StatusCode::ACCEPTED, "{}", elsewhere.text);
}

#[tokio::test]
async fn a_secret_is_shown_again_to_who_asked_and_is_nowhere_in_clear() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    for (path, body, field) in
        [("/me/tokens", json!({"name": "ci"}), "secret"), ("/clusters/{cls}/join-tokens", json!({}), "token")]
    {
        let path = things.path(path);
        let send = async || world.call_with(KEY, ("POST", &path, &token, body.clone())).await;
        let first = send().await;
        same(&first, &send().await);
        let secret = first.json()[field].as_str().unwrap().to_owned();
        assert!(!secret.is_empty());
        for file in std::fs::read_dir(world.folder()).unwrap().map(Result::unwrap).filter(|file| file.path().is_file())
        {
            let bytes = std::fs::read(file.path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{:?}", file.path());
        }
    }
}

#[tokio::test]
async fn refusals_that_may_end_are_not_kept() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let young = json!({"name": "young"});
    let young = world.call("POST", &things.path("/projects/{prj}/clusters"), &token, young).await.json();
    let path = format!("/clusters/{}/kubeconfigs", young["id"].as_str().unwrap());
    let send = async || world.call_with(KEY, ("POST", &path, &token, json!({"role": "view"}))).await;
    assert_eq!(send().await.code(), "CLUSTER_NOT_READY");
    world.runs(young["id"].as_str().unwrap().parse().unwrap()).await;
    let binder = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            for cluster in world.store.clusters().all().await.unwrap() {
                for row in world.store.kubeconfigs().unbound(cluster.id).await.unwrap() {
                    world.store.kubeconfigs().mark_bound(row.id).await.unwrap();
                }
            }
        }
    };
    let answer = tokio::select! { answer = send() => answer, () = binder => unreachable!() };
    assert_eq!((answer.status, answer.header("idempotency-replayed")), (StatusCode::CREATED, ""), "{}", answer.text);
    same(&answer, &send().await);
}

#[tokio::test]
async fn keys_that_are_none_are_refused() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let path = things.path("/projects/{prj}/clusters");
    for key in ["", "ä", &"k".repeat(256)] {
        let answer = world.call_with(("idempotency-key", key), ("POST", &path, &token, json!({"name": "shop"}))).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "MALFORMED_REQUEST"), "{key}");
    }
    let longest = "k".repeat(255);
    let answer = world.call_with(("idempotency-key", &longest), ("POST", &path, &token, json!({"name": "shop"}))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

/// The portal dies after the cluster is made and before anybody is told: the next attempt finds it.
#[tokio::test]
async fn an_attempt_after_a_crash_makes_no_twin() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let body = json!({"name": "shop"});
    let path = things.path("/projects/{prj}/clusters");
    let (id, fingerprint) = (portal_key(&world, &path).await, sha(&[body.to_string().as_bytes()]));
    let KeyState::Taken { claim, .. } =
        world.store.idempotency().begin(things.ana.id, &id, &fingerprint).await.unwrap()
    else {
        panic!("the key is taken")
    };
    let send = async || world.call_with(KEY, ("POST", &path, &token, body.clone())).await;
    let busy = send().await;
    assert_eq!((busy.status.as_u16(), busy.code().as_str()), (409, "IDEMPOTENCY_IN_PROGRESS"));
    assert_eq!(busy.header("retry-after"), "1");
    let row = world.store.clusters().load(things.cluster).await.unwrap();
    let new = migrations::NewCluster {
        project: row.project,
        organization: row.organization,
        name: "shop".parse().unwrap(),
        spec: row.spec.clone(),
        actor: Actor::User(things.ana.id),
    };
    let store = world.store.with_key_lease(claim.clone());
    let pool = migrations::FirstPool {
        name: "web".parse().unwrap(),
        kind: migrations::PoolKind::Byo,
        count: 0,
        version: None,
    };
    let (made, _) = store.clusters().insert_with_pools(new, vec![pool]).await.unwrap();
    world.store.idempotency().release(&claim).await.unwrap();
    let found = send().await;
    assert_eq!((found.status, found.header("idempotency-replayed")), (StatusCode::ACCEPTED, "true"), "{}", found.text);
    assert_eq!(found.json()["id"], made.id.to_string());
    assert_eq!(found.header("location"), format!("/api/v1/operations/{}", made.operation.unwrap()));
    assert_eq!(clusters(&world, &things, &token).await, ["demo", "shop"]);
}

/// The id under which the portal keeps the key of the newest token's request.
async fn portal_key(world: &World, path: &str) -> String {
    let (user, organization) = world.store.identity().ensure_admin().await.unwrap();
    assert_eq!(user.email, "ana@example.com");
    let token = world.store.identity().tokens(organization.id).await.unwrap().pop().unwrap();
    let path = format!("/api/v1{path}");
    sha(&[token.id.to_string().as_bytes(), b"POST", path.as_bytes(), KEY.1.as_bytes()])
}

fn sha(parts: &[&[u8]]) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_database_that_is_gone_keeps_no_answer() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    world.store.close().await;
    let path = things.path("/projects/{prj}/clusters");
    let answer = world.call_with(KEY, ("POST", &path, &token, json!({"name": "shop"}))).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "DATABASE_UNAVAILABLE"));
}

/// An answer may hold a secret; who has lost the role it was given to does not hear it again.
#[tokio::test]
async fn a_secret_is_not_told_again_to_who_lost_the_role() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Editor).await;
    let (path, body) = (things.path("/clusters/{cls}/join-tokens"), json!({}));
    let send = async || world.call_with(KEY, ("POST", &path, &token, body.clone())).await;
    let first = send().await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    same(&first, &send().await);
    let secret = first.json()["token"].as_str().unwrap().to_owned();
    let place = |role| migrations::Member { organization: things.organization.id, user: things.ana.id, role };
    let identity = world.store.identity();
    identity.put_member(place(Role::Viewer), Actor::System).await.unwrap();
    let refused = send().await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "PERMISSION_DENIED"));
    assert!(!refused.text.contains(&secret) && refused.text.contains("your role here is viewer"), "{}", refused.text);
    identity.put_member(place(Role::Editor), Actor::System).await.unwrap();
    same(&first, &send().await);
}
