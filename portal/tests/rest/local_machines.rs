//! Local machines that share the platform's kernel: who may have them, and who may work in their clusters.

use crate::flows::see_kubeconfigs;
use crate::world::{Things, World};
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use migrations::{Actor, Organization, Role};
use portal::LocalMachines;
use serde_json::{Value, json};
use tenant_controlplane::id::ClusterId;

const KUBECONFIGS: &str = "/clusters/{cls}/kubeconfigs";
const POOLS: &str = "/node-pools";

/// Another organization of Ana's with a cluster that runs: its path, and the organization.
async fn other(world: &World, things: &Things) -> (String, Organization) {
    let (ana, identity) = (&things.ana, world.store.identity());
    let name = "other".parse().unwrap();
    let other = identity.create_organization(ana.id, name, "Other", Actor::User(ana.id)).await.unwrap();
    let project = identity.create_project(migrations::NewProject {
        organization: other.id,
        name: "apps".parse().unwrap(),
        display_name: "Apps".into(),
        actor: Actor::User(ana.id),
    });
    let (project, owner) = (project.await.unwrap(), world.token(ana, &other, Role::Owner).await);
    let body = json!({"name": "demo"});
    let made = world.call("POST", &format!("/projects/{}/clusters", project.id), &owner, body).await.json();
    (format!("/clusters/{}", made["id"].as_str().unwrap()), other)
}

/// Runs a flow while the cluster accepts and refuses kubeconfigs as it should.
async fn accepted<T>(world: &World, cluster: ClusterId, flow: impl Future<Output = T>) -> T {
    tokio::select! { outcome = flow => outcome, () = see_kubeconfigs(world, cluster) => unreachable!() }
}

async fn refused(world: &World, call: (&str, &str, Value)) {
    let (path, token, body) = call;
    let answer = world.call("POST", path, token, body.clone()).await;
    let found = (answer.status.as_u16(), answer.code());
    assert_eq!(found, (403, "LOCAL_MACHINES_RESTRICTED".to_owned()), "{path} {body}: {}", answer.text);
    assert!(answer.text.contains("share the kernel of the platform host"), "{}", answer.text);
}

#[tokio::test]
async fn beside_local_machines_an_editor_gets_no_more_than_view() {
    let world = World::with(LocalMachines::Trusted).await;
    let things = Things::new(&world).await;
    let path = things.path(KUBECONFIGS);
    let editor = world.token(&things.ana, &things.organization, Role::Editor).await;
    for role in ["edit", "admin"] {
        refused(&world, (&path, &editor, json!({"role": role}))).await;
    }
    let written = crate::audit::soon(&world, (Some(&things.ids["org"]), "access.refuse"), 2).await;
    assert!(written[0].detail.contains("share the kernel of the platform host"), "{:?}", written[0]);
    let admin = world.token(&things.ana, &things.organization, Role::Admin).await;
    let given = async {
        for body in [json!({"role": "view"}), json!({})] {
            let given = world.call("POST", &path, &editor, body).await.json();
            assert_eq!(given["role"], "view", "{given}");
        }
        assert_eq!(world.call("POST", &path, &admin, json!({})).await.json()["role"], "admin");
    };
    accepted(&world, things.cluster, given).await;
    // Its removal takes a while, in which the machines are there.
    world.call("DELETE", &things.path("/node-pools/{np}"), &editor, Value::Null).await;
    refused(&world, (&path, &editor, json!({"role": "edit"}))).await;
}

#[tokio::test]
async fn a_cluster_that_others_worked_in_gets_no_local_machines() {
    let world = World::with(LocalMachines::Trusted).await;
    let things = Things::new(&world).await;
    let owner = world.token(&things.ana, &things.organization, Role::Owner).await;
    let editor = world.token(&things.ana, &things.organization, Role::Editor).await;
    let made = world.call("POST", &things.path("/projects/{prj}/clusters"), &editor, json!({"name": "open"})).await;
    let made = made.json();
    let id = made["id"].as_str().unwrap();
    let cluster = id.parse().unwrap();
    world.runs(cluster).await;
    let (pools, kubeconfigs) = (format!("/clusters/{id}{POOLS}"), format!("/clusters/{id}/kubeconfigs"));
    let given_and_revoked = async {
        let given = world.call("POST", &kubeconfigs, &editor, json!({"role": "edit"})).await.json();
        let revoked = format!("/kubeconfigs/{}", given["id"].as_str().unwrap());
        assert!(world.call("DELETE", &revoked, &owner, Value::Null).await.status.is_success());
    };
    accepted(&world, cluster, given_and_revoked).await;
    refused(&world, (&pools, &owner, json!({"name": "web", "kind": "local"}))).await;
    assert!(world.call("POST", &pools, &owner, json!({"name": "web", "kind": "byo"})).await.status.is_success());
}

#[tokio::test]
async fn only_the_first_organization_has_local_machines() {
    for (mode, allowed) in [(LocalMachines::Trusted, false), (LocalMachines::Isolated, true)] {
        let world = World::with(mode).await;
        let things = Things::new(&world).await;
        let (cluster, organization) = other(&world, &things).await;
        let other_token = world.token(&things.ana, &organization, Role::Owner).await;
        let (path, body) = (format!("{cluster}{POOLS}"), json!({"name": "web", "kind": "local"}));
        if allowed {
            assert!(world.call("POST", &path, &other_token, body).await.status.is_success());
        } else {
            refused(&world, (&path, &other_token, body)).await;
        }
    }
}

#[tokio::test]
async fn isolated_machines_leave_editors_their_kubeconfigs() {
    let world = World::with(LocalMachines::Isolated).await;
    let things = Things::new(&world).await;
    let editor = world.token(&things.ana, &things.organization, Role::Editor).await;
    let path = things.path(KUBECONFIGS);
    let given = world.call("POST", &path, &editor, json!({"role": "admin"}));
    let given = accepted(&world, things.cluster, given).await;
    assert_eq!(given.json()["role"], "admin", "{}", given.text);
}

#[tokio::test]
async fn pages_say_what_local_machines_are() {
    for (mode, words) in [(LocalMachines::Trusted, "share the kernel"), (LocalMachines::Isolated, "user namespace")] {
        let world = World::with(mode).await;
        let things = Things::new(&world).await;
        let state = portal::state::AppState::new(world.config.clone());
        let clear = portal::Connection { address: [192, 0, 2, 1].into(), tls: false };
        let cookie = portal::auth::session::start(&state, things.ana.id, &HeaderMap::new(), &clear).await.unwrap();
        for path in
            ["/clusters/new".to_owned(), things.path("/clusters/{cls}/pools/new"), things.path("/clusters/{cls}")]
        {
            let request = Request::get(&path).header("cookie", &cookie).body(Body::empty()).unwrap();
            let page = world.send(request).await;
            assert!(page.status.is_success() && page.text.contains(words), "{path}: {}", page.text);
        }
    }
}
