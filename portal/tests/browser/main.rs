//! The portal's tour in a real browser: set up, sign in, create, watch, get in, add a machine, delete. Once with script and
//! once without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod world;

use std::time::Duration;

use migrations::{Enrollment, NodeInfo, NodeReport, Outcome, StepState, StepUpdate};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::status::{ClusterState, NodeState};
use time::OffsetDateTime;
use world::{PATIENCE, World};

const EMAIL: &str = "mira@example.com";
const PASSWORD: &str = "a long enough password";

async fn set_up(world: &World) {
    let link = world.setup_link().await;
    world.open(&link).await;
    world.look("setup").await;
    world.fill("Email", EMAIL).await;
    world.fill("Display name", "Mira Okafor").await;
    world.fill("Password", PASSWORD).await;
    world.click("Create account").await;
    world.at("/clusters", "").await;
    world.open(&link).await;
    world.at("/clusters", "").await;
}

/// Creates a cluster by the form and gives its id.
async fn create(world: &World, name: &str, workers: &str) -> ClusterId {
    world.open("/clusters/new").await;
    world.fill("Name", name).await;
    world.find(&format!("input[name=workers][value={workers}]")).await.click().await.unwrap();
    world.find("form button[type=submit]").await.click().await.unwrap();
    let path = world.at("/clusters/cls_", "").await;
    path.rsplit('/').next().unwrap().parse().unwrap()
}

async fn step(world: &World, cluster: ClusterId, news: (&str, StepState, &str)) {
    let operation = world.store.operations().current_for(&cluster.to_string()).await.unwrap().unwrap();
    let (key, state, message) = news;
    let update = StepUpdate { key, title: if key == "etcd" { "etcd" } else { "Control plane" }, state, message };
    world.store.operations().step(operation.id, update).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tour() {
    let world = World::new(true).await;
    set_up(&world).await;
    world.sees("main", "Getting started").await;
    world.sees("main", "pilothouse cluster create demo --wait").await;
    world.look("empty").await;
    sign_out_and_in(&world).await;
    refused_names(&world).await;
    let cluster = watch_it_come(&world).await;
    get_in(&world).await;
    add_a_machine(&world, cluster).await;
    other_pages(&world, cluster).await;
    account(&world).await;
    delete(&world, cluster).await;
    assert_eq!(world.complaints().await, Vec::<String>::new());
    world.close().await;
}

async fn sign_out_and_in(world: &World) {
    world.find("[popovertarget=m-me]").await.click().await.unwrap();
    world.click("Sign out").await;
    world.at("/signin", "").await;
    world.look("signin").await;
    world.open("/clusters/new").await;
    world.at("/signin", "").await;
    world.fill("Email", EMAIL).await;
    world.fill("Password", "not the password").await;
    world.click("Sign in").await;
    world.sees("[role=alert]", "wrong").await;
    world.look("signin-wrong").await;
    world.fill("Password", PASSWORD).await;
    world.click("Sign in").await;
    world.at("/clusters/new", "").await;
}

async fn refused_names(world: &World) {
    world.look("create").await;
    world.fill("Name", "Not_a_name").await;
    world.find("form button[type=submit]").await.click().await.unwrap();
    world.sees("#name-error", "name").await;
    assert_eq!(world.find("#name").await.value().await.unwrap().unwrap(), "Not_a_name");
    world.look("create-refused").await;
}

async fn watch_it_come(world: &World) -> ClusterId {
    let cluster = create(world, "demo", "local").await;
    world.sees("h1", "demo").await;
    // From here on nothing loads the page again: what changes, changes live.
    world.driver.execute("window.untouched = true", vec![]).await.unwrap();
    let operation = world.store.operations().current_for(&cluster.to_string()).await.unwrap().unwrap();
    let steps = [("etcd", "etcd"), ("control_plane", "Control plane")];
    world.store.operations().plan(operation.id, &steps).await.unwrap();
    step(world, cluster, ("etcd", StepState::Running, "Waiting for a leader.")).await;
    world.report(cluster, ClusterState::Provisioning, "Starting etcd (1 of 2)").await;
    world.sees("#steps", "Waiting for a leader.").await;
    world.sees("h1", "Creating").await;
    world.sees("#announce", "Step 1 of 2, etcd.").await;
    world.look("creating").await;
    step(world, cluster, ("etcd", StepState::Done, "1 of 1 member healthy.")).await;
    step(world, cluster, ("control_plane", StepState::Running, "API server started.")).await;
    world.sees("#steps-h", "Step 2 of 2: Control plane").await;
    world.sees("#pools", "local").await;
    step(world, cluster, ("control_plane", StepState::Done, "")).await;
    world.store.operations().finish(operation.id, Outcome::Succeeded).await.unwrap();
    world.report(cluster, ClusterState::Running, "").await;
    world.sees("h1", "Ready").await;
    let untouched: bool =
        world.driver.execute("return window.untouched === true", vec![]).await.unwrap().convert().unwrap();
    assert!(untouched, "the page was loaded again");
    world.open("/clusters").await;
    world.sees("#clusters", "demo").await;
    world.sees("#clusters", "Ready").await;
    world.look("list").await;
    cluster
}

async fn get_in(world: &World) {
    world.click("demo").await;
    world.click("Get kubeconfig").await;
    world.at("/clusters/", "/kubeconfigs").await;
    world.fill("Name", "laptop").await;
    world.click("Issue and download").await;
    let file = world.downloads.join("demo.kubeconfig");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // The browser makes the file first and fills it then.
    while !std::fs::read_to_string(&file).is_ok_and(|text| text.starts_with("apiVersion: v1")) {
        assert!(tokio::time::Instant::now() < deadline, "no download");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let path = world.path().await;
    world.open(&path).await;
    world.sees("main table", "laptop").await;
    world.look("kubeconfigs").await;
    world.click("Revoke").await;
    world.sees("main table", "Revoked").await;
}

async fn add_a_machine(world: &World, cluster: ClusterId) {
    world.open(&format!("/clusters/{cluster}/join")).await;
    world.look("join").await;
    world.click("Create join command").await;
    let line = world.find("#line").await.text().await.unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    let secret: String = line
        .split("pilothouse_join_")
        .nth(1)
        .unwrap()
        .chars()
        .take_while(|c| c.is_alphanumeric() || "_-".contains(*c))
        .collect();
    let enrollment = Enrollment {
        token_secret: &format!("pilothouse_join_{secret}"),
        fingerprint: "machine-1",
        hostname: "oslo-rack-08",
        requested_name: "",
        facts: NodeInfo { os: "Debian GNU/Linux 12".into(), arch: "amd64".into(), ..NodeInfo::default() },
    };
    let node = world.store.nodes().enroll(enrollment).await.unwrap().node;
    world.sees("#contacts", "oslo-rack-08").await;
    let report = NodeReport {
        state: NodeState::Ready,
        state_message: String::new(),
        problem: None,
        facts: None,
        last_seen_at: Some(OffsetDateTime::now_utc()),
    };
    world.store.nodes().report(node.id, report).await.unwrap();
    world.sees("#contacts", "Ready").await;
    world.look("join-line").await;
    world.click("oslo-rack-08").await;
    world.sees("main", "Debian GNU/Linux 12").await;
    world.look("node").await;
}

async fn other_pages(world: &World, cluster: ClusterId) {
    world.open(&format!("/clusters/{cluster}/pools/new")).await;
    world.look("pool-new").await;
    world.fill("Name", "Wrong Name").await;
    world.click("Add pool").await;
    world.sees("#name-error", "name").await;
    world.open(&format!("/clusters/{cluster}")).await;
    world.find("#pools a").await.click().await.unwrap();
    world.look("pool").await;
    world.open("/tokens").await;
    world.fill("Name", "laptop").await;
    world.click("Create token").await;
    assert!(world.find("#secret").await.text().await.unwrap().starts_with("pilothouse_"));
    world.look("tokens").await;
    world.find("[popovertarget=m-me]").await.click().await.unwrap();
    world.find("label:has(#theme-dark)").await.click().await.unwrap();
    world.find("html[data-theme=dark]").await;
    world.open(&format!("/clusters/{cluster}")).await;
    world.look("cluster-dark").await;
    world.open("/clusters").await;
    world.look("list-dark").await;
    world.open("/limits").await;
    world.sees("main", "Node pools").await;
    world.look("limits").await;
    world.open("/nowhere").await;
    world.sees("main", "What to do").await;
    world.look("not-found").await;
}

async fn account(world: &World) {
    const NEW: &str = "another long password";
    world.open("/account").await;
    world.sees("main", "this browser").await;
    world.look("account").await;
    for (present, css, words) in
        [("wrong", "#cp-error", "current password is wrong"), (PASSWORD, "main", "Password changed")]
    {
        world.fill("Current password", present).await;
        world.fill("New password", NEW).await;
        world.click("Change password").await;
        world.sees(css, words).await;
        world.look("account-changed").await;
    }
    world.open("/audit").await;
    world.at("/organizations/org_", "/audit").await;
    world.sees("main", "user.password_change").await;
    world.look("audit").await;
    world.fill("Action", "setup").await;
    world.click("Show").await;
    world.sees("tbody", "setup.complete").await;
}

async fn delete(world: &World, cluster: ClusterId) {
    world.open(&format!("/clusters/{cluster}")).await;
    world.click("Delete cluster").await;
    let name = world.find("#delete[open] input[name=name]").await;
    name.send_keys("dem").await.unwrap();
    world.look("delete-dialog").await;
    world.find("#delete footer .btn-primary").await.click().await.unwrap();
    world.sees("#delete-error", "The name does not match").await;
    world.look("delete").await;
    world.fill("Type demo", "demo").await;
    world.click("Delete demo").await;
    world.at("/clusters/cls_", &cluster.to_string()).await;
    assert!(world.store.clusters().load(cluster).await.unwrap().deletion_requested_at.is_some());
    world.report(cluster, ClusterState::Deleting, "Removing volumes").await;
    world.sees("h1", "Deleting").await;
    world.look("deleting").await;
    world.store.clusters().purge(cluster).await.unwrap();
    world.sees("h1", "demo is deleted").await;
    world.click("Go to your clusters").await;
    world.sees("main", "Getting started").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_without_script() {
    let world = World::new(false).await;
    set_up(&world).await;
    let cluster = create(&world, "plain", "none").await;
    world.sees("h1", "plain").await;
    world.report(cluster, ClusterState::Running, "").await;
    world.open(&format!("/clusters/{cluster}")).await;
    world.sees("h1", "Ready").await;
    world.open(&format!("/clusters/{cluster}/join")).await;
    world.click("Create join command").await;
    assert!(world.find("#line").await.text().await.unwrap().contains("pilothouse_join_"));
    world.open(&format!("/clusters/{cluster}")).await;
    world.click("Delete cluster").await;
    world.at("/clusters/", "/delete").await;
    world.fill("Type plain", "plain").await;
    world.click("Delete plain").await;
    world.at("/clusters/cls_", &cluster.to_string()).await;
    world.sees("h1", "plain").await;
    assert!(world.store.clusters().load(cluster).await.unwrap().deletion_requested_at.is_some());
    world.close().await;
}
