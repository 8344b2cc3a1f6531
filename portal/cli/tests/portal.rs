//! The tour's words against the real portal with a real SQLite store; the test plays the provisioner.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use migrations::{ClusterReport, ExposeSecret, Kek, Kubeconfig, NewToken, Outcome, Role, StepState, StepUpdate, Store};
use portal::{AgentFiles, Capabilities, IssueError, Issuer, PortalConfig, RequestLimits};
use tenant_controlplane::plan::{CLUSTER_CREATE, POOL_CREATE};
use tenant_controlplane::status::{ClusterState, KubeconfigEndpoint};
use tenant_controlplane::version::KubernetesVersion;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;
use tokio::task::JoinHandle;

struct Signer(Store);

#[async_trait]
impl Issuer for Signer {
    async fn kubeconfig(&self, kubeconfig: &Kubeconfig, _: KubeconfigEndpoint) -> Result<String, IssueError> {
        self.0.kubeconfigs().certify(kubeconfig.id, "0a", "<authority>").await.unwrap();
        Ok("apiVersion: v1\nkind: Config\n".into())
    }
}

/// Completes every request at once, step by step, as the provisioner does in its time.
async fn provision(store: Store) {
    let mut changes = store.changes();
    while changes.recv().await.is_ok() {
        for cluster in store.clusters().all().await.unwrap_or_default() {
            settle(&store, cluster).await;
        }
    }
}

async fn settle(store: &Store, cluster: migrations::Cluster) {
    for kubeconfig in store.kubeconfigs().unbound(cluster.id).await.unwrap_or_default() {
        store.kubeconfigs().mark_bound(kubeconfig.id).await.unwrap();
    }
    for pool in store.pools().of_cluster(cluster.id).await.unwrap_or_default() {
        if let Ok(Some(operation)) = store.operations().current_for(&pool.id.to_string()).await {
            store.operations().finish(operation.id, Outcome::Succeeded).await.unwrap();
        }
    }
    let Ok(Some(operation)) = store.operations().current_for(&cluster.id.to_string()).await else { return };
    if cluster.deletion_requested_at.is_some() {
        store.clusters().purge(cluster.id).await.unwrap();
        return;
    }
    let done = StepUpdate { key: "etcd", title: "etcd", state: StepState::Done, message: "" };
    store.operations().step(operation.id, done).await.unwrap();
    let report = ClusterReport {
        observed_generation: cluster.generation,
        state: ClusterState::Running,
        state_message: String::new(),
        conditions: Vec::new(),
        endpoint: Some("127.0.0.1:6443".into()),
        problem: None,
    };
    store.clusters().report(cluster.id, report).await.unwrap();
    store.operations().finish(operation.id, Outcome::Succeeded).await.unwrap();
}

struct World {
    url: String,
    token: String,
    home: tempfile::TempDir,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    async fn new() -> Self {
        Self::losing(0).await
    }

    /// A portal that carries out so many POSTs whose answers are lost on the way.
    async fn losing(answers: u32) -> Self {
        let home = tempfile::tempdir().unwrap();
        let kek = Kek::load_or_create(&home.path().join("kek")).unwrap();
        let store = Store::connect(&format!("sqlite://{}/db", home.path().display()), kek).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let token = owner_token(&store).await;
        let lossy = from_fn_with_state(Arc::new(AtomicU32::new(answers)), lose);
        let app = portal::app(config(store.clone(), &url)).layer(lossy);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        World { url, token, home, tasks: vec![serving, tokio::spawn(provision(store))] }
    }

    /// Runs the program and gives exit status, standard output and standard error.
    async fn run(&self, words: &str) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_pilothouse-client"))
            .args(words.split_whitespace())
            .env_clear()
            .env("HOME", self.home.path())
            .env("PILOTHOUSE_SERVER", &self.url)
            .env("PILOTHOUSE_TOKEN", &self.token)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Runs the program, which must succeed, and gives standard output.
    async fn out(&self, words: &str) -> String {
        let (code, out, err) = self.run(words).await;
        assert_eq!(code, 0, "{words}: {err}");
        out
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn lose(State(left): State<Arc<AtomicU32>>, request: Request, next: Next) -> Response {
    let post = request.method() == Method::POST;
    let response = next.run(request).await;
    if !post || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
        return response;
    }
    let broken = futures::stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("the wire is cut")) });
    Response::new(Body::from_stream(broken))
}

async fn owner_token(store: &Store) -> String {
    let (user, organization) = store.identity().ensure_admin().await.unwrap();
    let new = NewToken {
        organization: organization.id,
        user: user.id,
        name: "test".into(),
        role: Role::Owner,
        expires_at: None,
        actor: migrations::Actor::System,
    };
    store.identity().create_token(new).await.unwrap().1.expose_secret().to_owned()
}

fn config(store: Store, url: &str) -> PortalConfig {
    PortalConfig {
        store: store.clone(),
        public_url: url.to_owned(),
        gateway_address: "127.0.0.1:6443".into(),
        domain: "pilothouse.internal".into(),
        platform_ca_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
        versions: KubernetesVersion::known().to_vec(),
        agent: AgentFiles {
            path: PathBuf::from("none"),
            sha256: "0".repeat(64),
            signing_key: "ed25519:a".into(),
            machine: "x86_64".into(),
        },
        capabilities: Capabilities { local: portal::LocalMachines::Isolated, dns: false, ports: false },
        limits: RequestLimits { reads: 100_000, writes: 100_000, cluster_creates: 100_000 },
        issuer: Arc::new(Signer(store)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_on_the_real_portal() {
    let world = World::new().await;
    let (code, out, err) = world.run("cluster create demo --wait").await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("demo") && out.contains("running"), "{out}");
    assert!(err.contains("✔ etcd"), "{err}");
    assert_eq!(world.run("cluster create demo").await.0, 5);
    assert_eq!(world.run("cluster create Bad_Name").await.0, 2);
    assert_eq!(world.run("cluster create other --version 9.9.9").await.0, 2);
    assert_eq!(world.out("kubeconfig demo").await, "apiVersion: v1\nkind: Config\n");
    assert!(world.out("kubeconfig list --cluster demo").await.contains("active"));
    let (code, pool, err) = world.run("pool create web --cluster demo --kind local --count 1 --wait").await;
    assert!(code == 0 && pool.contains("web") && err.contains("Creating pool web"), "{pool} {err}");
    let (code, _, err) = world.run("pool scale web --cluster demo --count 2 --wait").await;
    assert!(code == 0 && err.contains("Scaling pool web"), "{err}");
    assert!(world.out("pool list --cluster demo").await.contains(" 2 "));
    let line = world.out("node join-command --cluster demo").await;
    assert!(line.lines().count() == 1 && line.contains("pilothouse_join_"), "{line}");
    assert_eq!(world.out("node list --cluster demo -o name").await, "");
    for noun in ["pool", "node", "kubeconfig"] {
        let words = [format!("{noun} list demo -o name"), format!("{noun} list --cluster demo -o name")];
        assert_eq!(world.out(&words[0]).await, world.out(&words[1]).await, "{noun}");
        assert_eq!(world.run(&format!("{noun} list")).await.0, 2, "{noun}");
        assert_eq!(world.run(&format!("{noun} list demo --cluster demo")).await.0, 2, "{noun}");
    }
    assert_eq!(world.out("kubeconfig --cluster demo").await, "apiVersion: v1\nkind: Config\n");
    assert!(world.out("node join-command demo").await.contains("pilothouse_join_"));
    world.out("pool create old --cluster demo --kind byo --kubernetes-version 1.36.3").await;
    world.out("pool delete old --cluster demo --yes").await;
    assert_eq!(world.run("node get web-1 --cluster demo").await.0, 3);
    assert!(world.out("operation list --target demo").await.contains("cluster.create"));
    assert!(world.out("operation list --target web --cluster demo").await.contains("node_pool."));
    let (code, _, err) = world.run("operation list --target web").await;
    assert!(code == 3 && err.contains("add --cluster NAME"), "{err}");
    assert_eq!(world.run("operation list --target nothere --cluster demo").await.0, 3);
    let (code, out, err) = world.run("cluster create shop --pool web=1 --pool own=byo --wait").await;
    assert!(code == 0 && out.contains("running") && err.contains("Creating pool own"), "{out} {err}");
    assert_eq!(world.out("pool list --cluster shop -o name").await, "web\nown\n");
    world.out("cluster delete shop --yes --force --wait").await;
    world.out("cluster delete demo --yes --force --wait").await;
    assert_eq!(world.out("cluster list -o name").await, "");
    assert_eq!(world.out("cluster list").await, "NAME  STATE  VERSION  AGE  ID  MESSAGE\n");
    assert!(world.out("cluster list -o json").await.contains("\"items\": []"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_makes_no_twin() {
    let world = World::losing(2).await;
    let (code, out, err) = world.run("cluster create demo --wait").await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("demo") && err.contains("retrying (2 of 5)"), "{out} {err}");
    assert_eq!(world.out("cluster list -o name").await, "demo\n");
    let world = World::losing(1).await;
    let secret = world.out("token create ci").await;
    assert!(secret.starts_with("pilothouse_"), "{secret}");
    let listed = world.out("token list").await;
    assert_eq!(listed.lines().filter(|line| line.starts_with("ci ")).count(), 1, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trying_out_makes_nothing() {
    let world = World::new().await;
    let (code, out, err) = world.run("cluster create demo --version 1.36.3 --validate-only").await;
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("Cluster demo passed validation"), "{err}");
    assert_eq!(world.out("cluster list -o name").await, "");
    world.out("cluster create demo --wait").await;
    assert_eq!(world.run("cluster create demo --validate-only").await.0, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_listed() {
    let world = World::new().await;
    let listed = world.out("cluster versions").await;
    assert!(listed.contains(&KubernetesVersion::default().to_string()), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_tokens_and_projects() {
    let world = World::new().await;
    assert_eq!(world.out("org list -o name").await, "default\n");
    assert_eq!(world.out("project list -o name").await, "default\n");
    world.out("project create lab").await;
    let quota = world.out("org quota").await;
    assert!(quota.lines().any(|line| line.split_whitespace().eq(["projects", "2", "20"])), "{quota}");
    assert_eq!(world.out("org quota default").await, quota);
    world.out("cluster create one --project lab --wait").await;
    assert_eq!(world.out("cluster list -o name").await, "");
    assert_eq!(world.out("cluster list --project lab -o name").await, "one\n");
    let secret = world.out("token create ci --role viewer --expires-in 1h").await;
    assert!(secret.starts_with("pilothouse_") && secret.lines().count() == 1);
    let weak = World {
        token: secret.trim().to_owned(),
        url: world.url.clone(),
        home: tempfile::tempdir().unwrap(),
        tasks: Vec::new(),
    };
    assert_eq!(weak.out("cluster list --project lab -o name").await, "one\n");
    assert_eq!(weak.run("cluster delete one --project lab --yes").await.0, 4);
    assert_eq!(weak.run("audit list").await.0, 4);
    let listed = world.out("audit list --since 1h").await;
    let (header, newest) = (listed.lines().next().unwrap(), listed.lines().nth(1).unwrap());
    assert!(header.starts_with("WHEN") && newest.contains("access.refuse") && newest.contains("ci of "), "{listed}");
    let one = world.out("audit list --action cluster.create --limit 1 -o json").await;
    assert!(one.matches("\"action\"").count() == 1 && one.contains("cluster.create"), "{one}");
    assert_eq!(world.run("audit list --since yesterday").await.0, 2);
    world.out("token revoke ci").await;
    assert_eq!(weak.run("cluster list").await.0, 4);
}

/// What the help texts call defaults is what the portal chooses.
#[tokio::test(flavor = "multi_thread")]
async fn the_help_texts_say_the_portals_defaults() {
    let world = World::new().await;
    let json = async |words: &str| -> serde_json::Value { serde_json::from_str(&world.out(words).await).unwrap() };
    let help = async |words: &str, defaults: &[String]| {
        let text = world.out(&format!("{words} --help")).await;
        for default in defaults {
            assert!(text.contains(&format!("[default: {default}")), "{words}: {default}: {text}");
        }
    };
    let hours = |object: &serde_json::Value| {
        let at = |key: &str| OffsetDateTime::parse(object[key].as_str().unwrap(), &Rfc3339).unwrap();
        ((at("expires_at") - at("created_at")).as_seconds_f64() / 3600.0).round()
    };
    world.out("cluster create demo --wait").await;
    let cluster = json("cluster get demo -o json").await;
    let text = |key: &str| cluster[key].to_string().trim_matches('"').to_owned();
    help("cluster create", &[text("pod_cidr"), text("service_cidr"), text("replicas")]).await;
    let kubeconfig = json("kubeconfig demo -o json").await;
    let role = kubeconfig["role"].as_str().unwrap().to_owned();
    help("kubeconfig", &[role, format!("{}d", hours(&kubeconfig) / 24.0)]).await;
    let pool = json("pool create web --cluster demo --kind local -o json").await;
    help("pool create", &[pool["count"].to_string(), "the cluster's".into()]).await;
    let join = json("node join-command --cluster demo -o json").await;
    help("node join-command", &[format!("{}h", hours(&join)), join["max_uses"].to_string()]).await;
    let token = json("token create ci -o json").await;
    help("token create", &[format!("{}d", hours(&token) / 24.0), "your own".into()]).await;
}

/// The outputs of `cluster`, `kubeconfig` and `pool` in the README: of each line what does not change from one run to the next.
#[tokio::test(flavor = "multi_thread")]
async fn the_readme_shows_what_the_commands_print() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let world = World::new().await;
    let (mut printed, mut compared) = (String::new(), 0);
    let steps = [CLUSTER_CREATE.as_slice(), POOL_CREATE.as_slice()].concat();
    let titles: Vec<&str> = steps.iter().map(|step| step.title).collect();
    for line in readme.split("```console\n").skip(1).flat_map(|block| block.split("```").next().unwrap().lines()) {
        if let Some(command) = line.strip_prefix("# ") {
            let words = command.strip_prefix("pilothouse ").unwrap_or_default();
            let ours = ["cluster ", "kubeconfig ", "pool "].iter().any(|noun| words.starts_with(noun));
            let words =
                words.replace("demo.kubeconfig", &world.home.path().join("demo.kubeconfig").display().to_string());
            let (code, out, err) = if ours { world.run(&words).await } else { (0, String::new(), String::new()) };
            assert_eq!(code, 0, "{words}: {err}");
            printed = out + &err;
        } else if !printed.is_empty() {
            let step = line.strip_prefix("  ✔ ").map(|step| titles.iter().any(|title| step.starts_with(title)));
            let is_row = line.starts_with(char::is_lowercase) || line.starts_with('[');
            let header = line.split_whitespace().collect::<Vec<_>>();
            let fixed = line.split(['(', '…']).next().unwrap().split("x7k2p").next().unwrap();
            let shown = |text: &str| text.starts_with(fixed) || text.split_whitespace().eq(header.iter().copied());
            assert!(step.unwrap_or(is_row || printed.lines().any(shown)), "{line:?} is not in {printed}");
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared}");
}
