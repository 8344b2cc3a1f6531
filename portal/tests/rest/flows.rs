//! The first day: set-up, a token, a cluster, a kubeconfig, a machine.

use crate::world::{AGENT, AGENT_SHA256, Things, World};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use migrations::{Actor, ExposeSecret, Role};
use serde_json::{Value, json};
use tenant_controlplane::id::ClusterId;

#[tokio::test]
async fn set_up_works_once() {
    let world = World::new().await;
    let token = world.store.identity().create_setup_token().await.unwrap();
    let setup = |token: &str, password: &str| json!({"token": token, "email": "ana@example.com", "display_name": "Ana", "password": password});
    let password = "correct horse battery";
    let call = async |body: Value| world.call("POST", "/setup", "", body).await;
    assert_eq!(call(setup("wrong", password)).await.code(), "SETUP_TOKEN_INVALID");
    let short = call(setup(token.expose_secret(), "short")).await;
    assert!(short.text.contains("5 characters: choose one with at least 12"), "{}", short.text);
    let done = call(setup(token.expose_secret(), password)).await;
    assert_eq!(done.status, StatusCode::CREATED, "{}", done.text);
    let done = done.json();
    assert_eq!(
        (done["organization"]["name"].as_str(), done["project"]["name"].as_str()),
        (Some("default"), Some("default"))
    );
    assert_eq!(call(setup(token.expose_secret(), password)).await.code(), "SETUP_DONE");
    let me = world.get("/me", done["token"].as_str().unwrap()).await.json();
    assert_eq!(
        (me["user"]["email"].as_str(), me["organizations"][0]["role"].as_str()),
        (Some("ana@example.com"), Some("owner"))
    );
    assert!(!me.to_string().contains("argon2"));
}

#[tokio::test]
async fn a_tokens_secret_is_shown_once() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let owner = world.token(&things.ana, &things.organization, Role::Owner).await;
    let made = world.call("POST", "/me/tokens", &owner, json!({"name": "ci", "role": "viewer"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("pilothouse_"));
    let listed = world.get("/me/tokens?name=ci", &owner).await;
    assert!(!listed.text.contains(&secret) && listed.json()["items"][0]["secret"].is_null());
    assert_eq!(world.get("/me", &secret).await.status, StatusCode::OK);
    let path = format!("/tokens/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(world.call("DELETE", &path, &owner, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get("/me", &secret).await.code(), "UNAUTHENTICATED");
    assert_eq!(world.call("DELETE", &path, &owner, Value::Null).await.code(), "NOT_FOUND");
}

#[tokio::test]
async fn a_join_token_comes_with_ready_commands_once() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let editor = world.token(&things.ana, &things.organization, Role::Editor).await;
    let path = things.path("/clusters/{cls}/join-tokens");
    let made = world.call("POST", &path, &editor, json!({})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = made.json();
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("pilothouse_join_"));
    assert!(made["commands"]["shell"].as_str().unwrap().contains(secret));
    assert!(made["commands"]["cloud_init"].as_str().unwrap().starts_with("#cloud-config"));
    let listed = world.get(&path, &editor).await;
    assert!(!listed.text.contains(secret) && listed.json()["items"].as_array().unwrap().len() == 2);
    let path = format!("/join-tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(world.call("DELETE", &path, &editor, Value::Null).await.status, StatusCode::NO_CONTENT);
}

/// Sees of every kubeconfig that the cluster does with it what was asked for, as the provisioner does.
pub async fn see_kubeconfigs(world: &World, cluster: ClusterId) {
    let kubeconfigs = world.store.kubeconfigs();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        for row in kubeconfigs.with_authority(cluster).await.unwrap() {
            match row.revoked_at {
                None => kubeconfigs.mark_bound(row.id).await.unwrap(),
                Some(_) => kubeconfigs.mark_refused(row.id).await.unwrap(),
            }
        }
    }
}

#[tokio::test]
async fn a_kubeconfig_is_issued_listed_and_revoked() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Editor).await;
    let path = things.path("/clusters/{cls}/kubeconfigs");
    let flow = async {
        let issued = world.call("POST", &path, &token, json!({"name": "ci"})).await;
        assert_eq!(issued.status, StatusCode::CREATED, "{}", issued.text);
        let issued = issued.json();
        assert_eq!((issued["active"].as_bool(), issued["role"].as_str()), (Some(true), Some("admin")));
        assert!(issued["kubeconfig"].as_str().unwrap().starts_with("apiVersion: v1"));
        let listed = world.get(&path, &token).await;
        assert!(!listed.text.contains("apiVersion") && !listed.text.contains("authority"), "{}", listed.text);
        let revoke = format!("/kubeconfigs/{}", issued["id"].as_str().unwrap());
        assert_eq!(world.call("DELETE", &revoke, &token, Value::Null).await.status, StatusCode::NO_CONTENT);
    };
    tokio::select! { () = flow => {}, () = see_kubeconfigs(&world, things.cluster) => unreachable!() };
    let listed = world.get(&format!("{path}?name=ci"), &token).await.json();
    assert_eq!((&listed["items"][0]["active"], &listed["items"][0]["state"]), (&json!(false), &json!("revoked")));
    assert!(listed["items"][0]["revoked_at"].is_string());
}

#[tokio::test]
async fn a_kubeconfig_is_called_by_what_it_opens() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let path = things.path("/clusters/{cls}/kubeconfigs");
    let cluster = world.get(&things.path("/clusters/{cls}"), &token).await.json()["name"].as_str().unwrap().to_owned();
    let flow = async {
        let mut names = std::collections::BTreeSet::new();
        for role in ["view", "view", "admin"] {
            let issued = world.call("POST", &path, &token, json!({"role": role})).await.json();
            let name = issued["name"].as_str().unwrap().to_owned();
            assert!(name.starts_with(&format!("{cluster}-{role}-")), "{name}");
            names.insert(name);
        }
        assert_eq!(names.len(), 3);
    };
    tokio::select! { () = flow => {}, () = see_kubeconfigs(&world, things.cluster) => unreachable!() };
}

#[tokio::test]
async fn what_the_cluster_does_not_do_is_not_told_as_done() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Editor).await;
    let path = things.path("/clusters/{cls}/kubeconfigs");
    // Nobody sees the cluster accept it, and somebody else gives up sooner.
    let somebody = async {
        let kubeconfigs = world.store.kubeconfigs();
        loop {
            for row in kubeconfigs.with_authority(things.cluster).await.unwrap() {
                kubeconfigs.revoke(things.organization.id, row.id, Actor::System).await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let issue = world.call("POST", &path, &token, json!({"name": "ci"}));
    let answer = tokio::select! { answer = issue => answer, () = somebody => unreachable!() };
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "KUBECONFIG_NOT_ACCEPTED"));
    assert!(!answer.text.contains("apiVersion"), "no file is handed out");
    let listed = world.get(&format!("{path}?name=ci"), &token).await.json();
    assert_eq!(listed["items"][0]["state"], "revoking", "it is withdrawn, and that is not seen either");
    let answer = world.call("DELETE", &things.path("/kubeconfigs/{kcf}"), &token, Value::Null).await;
    assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::ACCEPTED, &json!("revoking")));
}

#[tokio::test]
async fn a_viewer_gets_a_view_kubeconfig_as_yaml() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Viewer).await;
    let request = Request::post(things.path("/api/v1/clusters/{cls}/kubeconfigs"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("accept", "application/yaml")
        .body(Body::from("{}"));
    let answer = tokio::select! { answer = world.send(request.unwrap()) => answer, () = see_kubeconfigs(&world, things.cluster) => unreachable!() };
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::CREATED, "application/yaml"));
    assert!(answer.text.starts_with("apiVersion: v1") && answer.text.contains(" view"), "{}", answer.text);
}

#[tokio::test]
async fn no_kubeconfig_before_the_cluster_runs() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let made =
        world.call("POST", &things.path("/projects/{prj}/clusters"), &token, json!({"name": "young"})).await.json();
    let path = format!("/clusters/{}/kubeconfigs", made["id"].as_str().unwrap());
    let answer = world.call("POST", &path, &token, json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "CLUSTER_NOT_READY"));
    assert_eq!(answer.json()["operation_id"], made["operation_id"]);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let path = things.path("/projects/{prj}/clusters");
    for name in ["a", "b", "c"] {
        assert_eq!(world.call("POST", &path, &token, json!({"name": name})).await.status.as_u16(), 202);
    }
    let first = world.get(&format!("{path}?limit=3"), &token).await.json();
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first), ["demo", "a", "b"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = world.get(&format!("{path}?limit=3&cursor={cursor}"), &token).await.json();
    assert_eq!((names(&second), second["next_cursor"].is_null()), (vec!["c".to_owned()], true));
    let one = world.get(&format!("{path}?name=b"), &token).await.json();
    assert_eq!(names(&one), ["b"]);
    assert!(names(&world.get(&format!("{path}?name=No%20Name"), &token).await.json()).is_empty());
}

#[tokio::test]
async fn a_pool_scales_and_nothing_can_be_added_to_a_dying_cluster() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let pool = things.path("/node-pools/{np}");
    let same = world.call("PATCH", &pool, &token, json!({"count": 1})).await;
    assert_eq!((same.status.as_u16(), same.json()["count"].as_u64()), (200, Some(1)));
    let more = world.call("PATCH", &pool, &token, json!({"count": 3})).await;
    assert_eq!((more.status.as_u16(), more.json()["count"].as_u64()), (202, Some(3)));
    assert!(more.header("location").starts_with("/api/v1/operations/op_"));
    let dying = world.call("DELETE", &things.path("/clusters/{cls}"), &token, Value::Null).await;
    assert_eq!((dying.status.as_u16(), dying.json()["deletion_requested_at"].is_string()), (202, true));
    for (path, body) in [
        ("/clusters/{cls}/node-pools", json!({"name": "x", "kind": "byo"})),
        ("/clusters/{cls}/join-tokens", json!({})),
        ("/clusters/{cls}/kubeconfigs", json!({})),
    ] {
        assert_eq!(world.call("POST", &things.path(path), &token, body).await.code(), "DELETION_IN_PROGRESS", "{path}");
    }
}

#[tokio::test]
async fn machines_fetch_script_agent_and_checksum() {
    let world = World::new().await;
    let ask = async |path: &str| world.send(Request::get(path).body(Body::empty()).unwrap()).await;
    let script = ask("/install/agent.sh").await;
    assert!(script.text.starts_with("#!/bin/sh") && script.text.contains(AGENT_SHA256), "{}", script.text);
    let agent = ask("/install/pilothouse-node").await;
    assert_eq!((agent.text.as_str(), agent.header("content-length")), (AGENT, "9"));
    assert_eq!(agent.header("x-checksum-sha256"), AGENT_SHA256);
    assert!(ask("/install/pilothouse-node.sha256").await.text.ends_with("  pilothouse-node\n"));
    assert_eq!((ask("/healthz").await.status, ask("/readyz").await.status), (StatusCode::OK, StatusCode::OK));
}
