//! The verbs as a person types them, against a real HTTP server on loopback that plays one cluster's life.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::process::Command;

const TOKEN: &str = "pilothouse_test_secret";
const CLUSTER: &str = "cls_01m7wb22a2f3pv08eq6d1qjska";
const OPERATION: &str = "op_01m7wb22a2f3pv08eq6d1qjskb";
const AT: &str = "2026-11-20T10:00:00Z";

/// A portal that answers by script: every look at the operation moves it one step on.
#[derive(Default)]
struct Portal {
    looks: AtomicU32,
    /// Looks that are answered with 503 before it goes on.
    outage: AtomicU32,
    /// Requests to make a cluster that are answered with 503, and one more with 429, before one is taken.
    refusing: AtomicU32,
    keys: Mutex<Vec<String>>,
    endless: bool,
    failing: bool,
    bodies: Mutex<Vec<(String, Value)>>,
}

type Shared = Arc<Portal>;

fn cluster(state: &str) -> Value {
    json!({"id": CLUSTER, "object": "cluster", "organization_id": "org_1", "project_id": "prj_1", "name": "demo",
        "version": "1.36.3", "pod_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/16", "replicas": 1, "labels": {},
        "state": state, "state_message": "", "conditions": [], "endpoint": null, "tls_server_name": "x",
        "operation_id": OPERATION, "generation": 1, "observed_generation": 0, "deletion_requested_at": null,
        "created_at": AT, "updated_at": AT, "etag": "\"1\"", "links": {"self": "/x"}, "a_field_of_tomorrow": true})
}

fn pool() -> Value {
    json!({"id": "np_01m7wb22a2f3pv08eq6d1qjskc", "object": "node_pool", "cluster_id": CLUSTER, "name": "web",
        "kind": "local", "count": 1, "state": "running", "state_message": "", "operation_id": OPERATION, "generation": 1,
        "observed_generation": 1, "deletion_requested_at": null, "created_at": AT, "etag": "\"1\"", "links": {"self": "/x"}})
}

fn problem(status: u16, code: &str, detail: &str) -> Response {
    let body = json!({"type": "/errors/x", "title": "Title", "status": status, "detail": detail, "code": code,
        "class": "user", "retryable": false, "remediation": "Do the next thing.", "request_id": "req_7"});
    let head = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::from_u16(status).unwrap(), head, body.to_string()).into_response()
}

fn list(items: Value) -> Json<Value> {
    Json(json!({"items": items, "next_cursor": null}))
}

async fn operation(State(portal): State<Shared>) -> Response {
    if portal.outage.load(Ordering::SeqCst) > 0 {
        portal.outage.fetch_sub(1, Ordering::SeqCst);
        return problem(503, "UNAVAILABLE", "The database is away.");
    }
    let look = portal.looks.fetch_add(1, Ordering::SeqCst);
    let step = |index: u32, key: &str, title: &str| {
        let (state, took) = match look.cmp(&index) {
            std::cmp::Ordering::Less => ("waiting", None),
            std::cmp::Ordering::Equal => ("running", Some(100)),
            std::cmp::Ordering::Greater => ("done", Some(1234)),
        };
        json!({"key": key, "title": title, "state": state, "attempt": 1, "started_at": null, "finished_at": null,
            "duration_milliseconds": took, "message": ""})
    };
    let done = look >= 2 && !portal.endless;
    let (state, error) = match (done, portal.failing) {
        (true, true) => (
            "failed",
            json!({"type": "t", "title": "No room", "status": 409, "detail": "The host is full.",
            "code": "HOST_CAPACITY", "class": "platform", "retryable": true, "remediation": "Add a host."}),
        ),
        (true, false) => ("succeeded", Value::Null),
        (false, _) => ("running", Value::Null),
    };
    let steps = [step(0, "datastore", "Datastore"), step(1, "control_plane", "Control plane")];
    Json(json!({"id": OPERATION, "object": "operation", "kind": "cluster.create", "target": CLUSTER,
        "cluster_id": CLUSTER, "organization_id": "org_1", "state": state, "percent": 0, "steps": steps, "error": error,
        "actor": "usr_1", "created_at": AT, "finished_at": null, "links": {"self": "/x"}}))
    .into_response()
}

async fn clusters(Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
    let name = query.iter().find(|(key, _)| key == "name").map(|(_, value)| value.as_str());
    match name {
        None | Some("demo") => list(json!([cluster("running")])),
        Some("twice") => list(json!([cluster("running"), cluster("running")])),
        Some(_) => list(json!([])),
    }
}

async fn create(State(portal): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    portal.keys.lock().unwrap().push(headers["idempotency-key"].to_str().unwrap().to_owned());
    let left = portal.refusing.load(Ordering::SeqCst);
    if left > 0 {
        portal.refusing.store(left - 1, Ordering::SeqCst);
        let (status, code) = if left == 1 { (429, "REQUEST_LIMIT_EXCEEDED") } else { (503, "DATABASE_UNAVAILABLE") };
        return ([("retry-after", "0")], problem(status, code, "Not now.")).into_response();
    }
    portal.bodies.lock().unwrap().push(("cluster".into(), body.clone()));
    match body["name"].as_str() {
        Some("taken") => problem(409, "NAME_TAKEN", "A cluster called taken exists."),
        Some("Bad") => problem(422, "VALIDATION_FAILED", "The name is not a DNS label."),
        _ => (StatusCode::ACCEPTED, Json(cluster("pending"))).into_response(),
    }
}

async fn issue(State(portal): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    portal.bodies.lock().unwrap().push(("kubeconfig".into(), body));
    Json(json!({"id": "kcf_1", "object": "kubeconfig", "cluster_id": CLUSTER, "name": "k", "kind": "file",
        "role": "admin", "expires_at": AT, "revoked_at": null, "created_by": "usr_1", "created_at": AT,
        "links": {"self": "/x"}, "kubeconfig": "apiVersion: v1\nkind: Config\n", "active": true}))
}

async fn revoke(State(portal): State<Shared>, Path(id): Path<String>) -> StatusCode {
    portal.bodies.lock().unwrap().push(("revoked".into(), Value::from(id)));
    StatusCode::NO_CONTENT
}

async fn join(State(portal): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    portal.bodies.lock().unwrap().push(("join".into(), body));
    Json(json!({"id": "jtk_1", "object": "join_token", "cluster_id": CLUSTER, "node_pool_id": "np_1", "expires_at": AT,
        "max_uses": 1, "uses": 0, "revoked_at": null, "created_at": AT, "links": {"self": "/x"}, "token": "secret",
        "commands": {"shell": "curl … | sh -s -- join", "cloud_init": "#cloud-config\n"}}))
}

async fn me() -> Json<Value> {
    let org = json!({"organization_id": "org_1", "organization_name": "default", "role": "owner"});
    Json(json!({"user": {"id": "usr_1", "object": "user", "email": "mira@example.com", "display_name": "Mira",
        "created_at": AT}, "organizations": [org], "authenticated_by": "token"}))
}

async fn projects() -> Json<Value> {
    list(json!([{"id": "prj_1", "object": "project", "organization_id": "org_1", "name": "default",
        "display_name": "Default", "created_at": AT,
        "etag": "\"1\"", "links": {"self": "/x"}}]))
}

async fn one_cluster(Path(id): Path<String>) -> Response {
    if id == CLUSTER { Json(cluster("running")).into_response() } else { problem(404, "NOT_FOUND", "There is none.") }
}

async fn guard(headers: HeaderMap, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let wanted = format!("Bearer {TOKEN}");
    match headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        Some(token) if token == wanted => next.run(request).await,
        _ => problem(401, "UNAUTHENTICATED", "The token is not valid."),
    }
}

fn router(portal: Shared) -> Router {
    let accepted = |body: Value| async move { (StatusCode::ACCEPTED, Json(body)) };
    let api = Router::new()
        .route("/me", get(me))
        .route("/organizations/{org}/projects", get(projects))
        .route("/projects/{prj}/clusters", get(clusters).post(create))
        .route("/clusters/{cls}", get(one_cluster).delete(move || accepted(cluster("deleting"))))
        .route("/clusters/{cls}/kubeconfigs", post(issue))
        .route("/kubeconfigs/{kcf}", axum::routing::delete(revoke))
        .route("/clusters/{cls}/join-tokens", post(join))
        .route("/clusters/{cls}/node-pools", post(move || accepted(pool())))
        .route("/node-pools/{np}", get(|| async { Json(pool()) }))
        .route("/operations/{op}", get(operation))
        .layer(axum::middleware::from_fn(guard));
    Router::new().nest("/api/v1", api).with_state(portal)
}

/// A served portal, a home of its own, and the program.
struct World {
    server: String,
    home: tempfile::TempDir,
    portal: Shared,
    serving: tokio::task::JoinHandle<()>,
}

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

impl World {
    async fn new(portal: Portal) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let portal = Arc::new(portal);
        let app = router(portal.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        World { server, home: tempfile::tempdir().unwrap(), portal, serving }
    }

    fn bare(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilothouse-client"));
        command.args(words.split_whitespace()).env_clear().env("HOME", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn command(&self, words: &str) -> Command {
        let mut command = self.bare(words);
        command.env("PILOTHOUSE_SERVER", &self.server).env("PILOTHOUSE_TOKEN", TOKEN);
        command
    }

    async fn run(&self, words: &str) -> Outcome {
        finish(self.command(words)).await
    }

    fn body(&self, kind: &str) -> Value {
        let bodies = self.portal.bodies.lock().unwrap();
        bodies.iter().rev().find(|(found, _)| found == kind).map(|(_, body)| body.clone()).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn finish(mut command: Command) -> Outcome {
    let output = command.output().await.unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn the_tour_in_its_exact_words() {
    let world = World::new(Portal::default()).await;
    let made = world.run("cluster create demo --wait").await;
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("demo") && made.out.contains("running"), "{}", made.out);
    assert!(made.err.contains("✔ Datastore") && made.err.contains("1.2 s"), "{}", made.err);
    assert_eq!(world.body("cluster")["name"], "demo");
    assert_eq!(world.run("cluster create demo --pool web=2 --pool own=byo").await.code, 0);
    let pools = json!([{"name": "web", "kind": "local", "count": 2}, {"name": "own", "kind": "byo", "count": null}]);
    assert_eq!(world.body("cluster")["node_pools"], pools);

    let file = world.run("kubeconfig demo").await;
    assert_eq!((file.code, file.out.as_str(), file.err.as_str()), (0, "apiVersion: v1\nkind: Config\n", ""));

    let pool = world.run("pool create web --cluster demo --kind local --count 1 --wait").await;
    assert_eq!(pool.code, 0, "{}", pool.err);
    let line = world.run("node join-command --cluster demo").await;
    assert_eq!((line.code, line.out.as_str()), (0, "curl … | sh -s -- join\n"));
    let gone = world.run("cluster delete demo --yes --wait").await;
    assert_eq!((gone.code, gone.out.as_str()), (0, ""), "{}", gone.err);
    assert!(gone.err.contains("Cluster demo deleted"));
}

#[tokio::test]
async fn standard_output_holds_data_only_in_every_format() {
    let world = World::new(Portal::default()).await;
    let json: Value = serde_json::from_str(&world.run("cluster list -o json").await.out).unwrap();
    assert_eq!(json["items"][0]["id"], CLUSTER);
    let yaml: Value = serde_yaml_ng::from_str(&world.run("cluster get demo -o yaml").await.out).unwrap();
    assert_eq!(yaml["name"], "demo");
    assert_eq!(world.run("cluster list -o name").await.out, "demo\n");
    let table = world.run("cluster list").await.out;
    assert!(table.starts_with("NAME  STATE") && table.lines().count() == 2, "{table}");
    let quiet = world.run("cluster create demo --wait -q -o name").await;
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("demo\n", ""));
}

#[tokio::test]
async fn errors_say_what_why_and_next_and_exit_by_kind() {
    let world = World::new(Portal::default()).await;
    let cases = [
        ("cluster create taken", 5, "A cluster called taken exists."),
        ("cluster create Bad", 2, "not a DNS label"),
        ("cluster get nothere", 3, "cluster \"nothere\" not found"),
        ("cluster get cls_01m7wb22a2f3pv08eq6d1qjskz", 3, "There is none."),
        ("cluster get twice", 2, "multiple matches"),
        ("cluster delete demo", 2, "Add --yes"),
        ("pool get web", 2, "--cluster NAME"),
        ("cluster create demo --pool web", 2, "is not NAME=N or NAME=byo"),
        ("cluster create demo --pool web=many", 2, "\"many\" is not a number of machines or byo"),
        ("cluster frobnicate", 2, "unrecognized subcommand"),
        ("kubeconfig demo --expires-in soon", 2, "use the form 90s"),
    ];
    for (words, code, text) in cases {
        let outcome = world.run(words).await;
        assert_eq!(outcome.code, code, "{words}: {}", outcome.err);
        assert!(outcome.err.contains(text) && outcome.out.is_empty(), "{words}: {} {}", outcome.out, outcome.err);
    }
    let taken = world.run("cluster create taken").await.err;
    assert!(taken.contains("next  Do the next thing.") && taken.contains("NAME_TAKEN, request req_7"), "{taken}");
}

#[tokio::test]
async fn a_failed_operation_is_told_with_its_reason() {
    let world = World::new(Portal { failing: true, ..Portal::default() }).await;
    let outcome = world.run("cluster create demo --wait").await;
    assert_eq!(outcome.code, 1);
    for text in ["cluster.create failed", "The host is full.", "Add a host.", "HOST_CAPACITY"] {
        assert!(outcome.err.contains(text), "{text}: {}", outcome.err);
    }
}

#[tokio::test]
async fn a_short_outage_is_waited_out_and_a_long_one_told() {
    let world = World::new(Portal { outage: AtomicU32::new(2), ..Portal::default() }).await;
    let outcome = world.run("cluster create demo --wait").await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
}

#[tokio::test]
async fn what_passes_is_waited_out_with_the_same_key_and_not_for_ever() {
    let world = World::new(Portal { refusing: AtomicU32::new(3), ..Portal::default() }).await;
    let outcome = world.run("cluster create demo").await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(outcome.err.contains("retrying (3 of 5)"), "{}", outcome.err);
    let keys = std::mem::take(&mut *world.portal.keys.lock().unwrap());
    assert!(keys.len() == 4 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    world.portal.refusing.store(100, Ordering::SeqCst);
    assert_eq!(world.run("cluster create demo").await.code, 1);
    let others = world.portal.keys.lock().unwrap().clone();
    assert!(others.len() == 6 && others[0] != keys[0], "{others:?}");
}

/// A portal that is being stopped takes connections and closes them; where nobody listens, nothing is waited for.
#[tokio::test]
async fn a_connection_closed_at_once_is_tried_again() {
    let world = World::new(Portal::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let closing = tokio::spawn(async move {
        let first = listener.accept().await.unwrap();
        drop(first);
        let second = listener.accept().await.unwrap();
        drop((listener, second));
    });
    let outcome = world.run(&format!("cluster list --server {server}")).await;
    closing.abort();
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("retrying (2 of 5)") && !outcome.err.contains("(3 of 5)"), "{}", outcome.err);
}

#[tokio::test]
async fn waiting_can_end_while_the_work_goes_on() {
    let world = World::new(Portal { endless: true, ..Portal::default() }).await;
    let late = world.run("cluster create demo --wait=1s").await;
    assert_eq!(late.code, 6);
    assert!(late.err.contains(&format!("pilothouse operation wait {OPERATION}")), "{}", late.err);

    let child = world.command("cluster create demo --wait").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    let before = world.portal.looks.load(Ordering::SeqCst);
    while world.portal.looks.load(Ordering::SeqCst) == before {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("interrupted") && err.contains("operation wait op_"), "{err}");
}

#[tokio::test]
async fn login_is_remembered_privately_and_flags_win() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(Portal::default()).await;
    let nobody = finish(world.bare("cluster list")).await;
    assert_eq!(nobody.code, 2);
    let token = world.file("token", &format!("{TOKEN}\n"));
    let words = format!("login --server {}/ --token-file {}", world.server, token.display());
    let outcome = finish(world.bare(&words)).await;
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""), "{}", outcome.err);
    assert!(outcome.err.contains("mira@example.com") && !outcome.err.contains(TOKEN));
    let config = world.home.path().join(".config/pilothouse/config.toml");
    assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(finish(world.bare("cluster list -o name")).await.out, "demo\n");

    let wrong = world.file("wrong", "pilothouse_wrong");
    let refused = finish(world.bare(&format!("cluster list --token-file {}", wrong.display()))).await;
    assert_eq!(refused.code, 4, "{}", refused.err);
    // The saved token belongs to the saved server: another address must not receive it.
    let elsewhere = finish(world.bare("cluster list --server http://localhost:9")).await;
    assert_eq!(elsewhere.code, 4, "{}", elsewhere.err);
}

/// Scripts leave variables empty to unset them.
#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let world = World::new(Portal::default()).await;
    let mut command = world.command("cluster list -o name");
    for name in ["CA_FILE", "CONTEXT", "ORG", "PROJECT"] {
        command.env(format!("PILOTHOUSE_{name}"), "");
    }
    let outcome = finish(command).await;
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "demo\n"), "{}", outcome.err);
    let mut command = world.bare("cluster list");
    command.env("PILOTHOUSE_SERVER", "");
    let nowhere = finish(command).await;
    assert!(nowhere.err.contains("no portal specified") && nowhere.err.contains("admin env"), "{}", nowhere.err);
}

#[tokio::test]
async fn addresses_that_cannot_be_right_are_told_so() {
    let world = World::new(Portal::default()).await;
    for (server, code, text) in [
        ("http://192.0.2.1", 2, "clear text"),
        ("pilothouse.example.com", 2, "not a portal URL"),
        ("http://127.0.0.1:1", 1, "cannot reach http://127.0.0.1:1"),
    ] {
        let outcome = world.run(&format!("cluster list --server {server}")).await;
        assert_eq!(outcome.code, code, "{}", outcome.err);
        assert!(outcome.err.contains(text) && outcome.err.contains("next"), "{}", outcome.err);
    }
}

#[tokio::test]
async fn a_kubeconfig_can_go_to_a_private_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(Portal::default()).await;
    let path = world.home.path().join("demo.kubeconfig");
    let words = format!("kubeconfig demo --role view --expires-in 12h --name ci --out {}", path.display());
    let outcome = world.run(&words).await;
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""), "{}", outcome.err);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let asked = world.body("kubeconfig");
    assert_eq!((asked["role"].as_str(), asked["expires_in_seconds"].as_u64()), (Some("view"), Some(43_200)));
}

/// Nothing is issued for a file that cannot be written, and nothing is lost that was there.
#[tokio::test]
async fn a_file_is_checked_before_a_kubeconfig_is_issued() {
    let world = World::new(Portal::default()).await;
    let old = world.file("old", "mine");
    for (out, text) in [(old.clone(), "already exists"), (world.home.path().join("none/file"), "cannot write")] {
        let refused = world.run(&format!("kubeconfig demo --out {}", out.display())).await;
        assert_eq!(refused.code, 2, "{}", refused.err);
        assert!(refused.err.contains(text) && refused.err.contains("nothing was issued"), "{}", refused.err);
    }
    assert!(world.portal.bodies.lock().unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "mine");

    let none = world.run(&format!("kubeconfig nothere --force --out {}", old.display())).await;
    assert_eq!((none.code, std::fs::read_to_string(&old).unwrap().as_str()), (3, "mine"));
    let new = world.home.path().join("new");
    assert_eq!(world.run(&format!("kubeconfig nothere --out {}", new.display())).await.code, 3);
    assert_eq!(std::fs::read_dir(world.home.path()).unwrap().count(), 1, "no empty file is left");

    let forced = world.run(&format!("kubeconfig demo --force --out {}", old.display())).await;
    assert_eq!(forced.code, 0, "{}", forced.err);
    assert!(std::fs::read_to_string(&old).unwrap().starts_with("apiVersion"));
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_kept_is_revoked() {
    let world = World::new(Portal::default()).await;
    let out = world.home.path().join("demo.kubeconfig");
    let program = env!("CARGO_BIN_EXE_pilothouse-client");
    let full = format!("trap '' XFSZ; ulimit -f 0; exec {program} kubeconfig demo --out {}", out.display());
    let mut command = Command::new("sh");
    command.args(["-c", &full]).env_clear().env("HOME", world.home.path());
    command.env("PILOTHOUSE_SERVER", &world.server).env("PILOTHOUSE_TOKEN", TOKEN);
    let outcome = finish(command).await;
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    assert!(outcome.err.contains("Kubeconfig kcf_1 was revoked"), "{}", outcome.err);
    assert_eq!(world.body("revoked"), "kcf_1");
    assert!(!out.exists());
}

/// A listener that speaks TLS with a certificate of its own making.
struct Tls {
    tcp: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named_and_not_otherwise() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    let tls = tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("https://{}", tcp.local_addr().unwrap());
    let listener = Tls { tcp, acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(tls)) };
    let world = World::new(Portal::default()).await;
    let app = router(world.portal.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let unknown = world.run(&format!("cluster list --server {server}")).await;
    assert_eq!(unknown.code, 1, "{}", unknown.err);
    assert!(unknown.err.contains("pass --ca-file"), "{}", unknown.err);
    let ca = world.file("ca.pem", &made.cert.pem());
    let words = format!("cluster list -o name --server {server} --ca-file {}", ca.display());
    assert_eq!(world.run(&words).await.out, "demo\n");
    let empty = world.file("empty.pem", "");
    let none = world.run(&format!("cluster list --server {server} --ca-file {}", empty.display())).await;
    assert_eq!(none.code, 2, "{}", none.err);
    serving.abort();
}
