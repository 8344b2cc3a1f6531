//! Nodes that were removed, deleted behind the platform's back, missing from an older database, or off when their cluster went: who is told
//! what, and whom their keys still let in.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::world::{World, ok, pilothouse, program, text, until};

const DOMAIN: &str = "pilothouse.internal";
/// The API server's words to whoever shows a removed node's certificate.
const REFUSED: &str = "this node was removed";
/// It ends a test whose answer never comes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn story_attack_nodes() {
    let Some(world) = World::up("anode") else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let kubeconfig = world.kubeconfig("demo");
    refuse_what_is_not_nodes(&world, &kubeconfig);
    ok(&mut world.user(&["pool", "create", "web", "--cluster", "demo", "--kind", "local", "--count", "2", "--wait"]));
    ok(&mut world.kubectl(&kubeconfig, &["delete", "validatingwebhookconfiguration", "guard"]));
    let nodes = world.nodes(&kubeconfig, "web-", 2);
    it_registers_again(&world, &kubeconfig, &nodes[0]);
    let loot = Loot::take(&world, &nodes[1]);
    words_of_a_node_move_no_terminal(&world, &loot, &nodes[1]);
    keys_of_a_removed_node_open_nothing(&world, &kubeconfig, &nodes[1], &loot);
    an_older_database_ends_nothing(&world, &kubeconfig, &nodes[0]);
    a_machine_that_was_off_learns_of_its_clusters_end(&world);
    world.down();
}

/// A webhook that nobody answers stands before everything the platform writes in a cluster but nodes.
fn refuse_what_is_not_nodes(world: &World, kubeconfig: &Path) {
    let resources = json!(["clusterrolebindings", "configmaps", "rolebindings", "secrets", "serviceaccounts"]);
    let rules = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": resources}]);
    let webhook = json!({"name": "guard.example.com", "rules": rules, "failurePolicy": "Fail", "sideEffects": "None",
        "clientConfig": {"service": {"name": "nobody", "namespace": "default"}}, "admissionReviewVersions": ["v1"]});
    let kind = "ValidatingWebhookConfiguration";
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": "guard"}, "webhooks": [webhook]});
    let file = world.scratch.at("guard.json");
    std::fs::write(&file, configuration.to_string()).unwrap();
    ok(&mut world.kubectl(kubeconfig, &["create", "-f", file.to_str().unwrap()]));
    until("the webhook to be in force", || {
        let made = world.kubectl(kubeconfig, &["create", "configmap", "x", "--dry-run=server"]).output().unwrap();
        if made.status.success() { Err("a config map was accepted".to_owned()) } else { Ok(()) }
    });
}

/// A local machine's directory.
fn machine(world: &World, node: &str) -> PathBuf {
    let machines = std::fs::read_dir(world.dir.join("machines")).unwrap().flatten().map(|entry| entry.path());
    let named = |dir: &PathBuf| {
        let spec = std::fs::read(dir.join("machine.json")).unwrap_or_default();
        serde_json::from_slice::<Value>(&spec).is_ok_and(|spec| spec["name"] == node)
    };
    machines.into_iter().find(named).unwrap()
}

fn uid(world: &World, kubeconfig: &Path, node: &str) -> String {
    text(&world.kubectl(kubeconfig, &["get", "node", node, "-o", "jsonpath={.metadata.uid}"]).output().unwrap().stdout)
}

/// A pod on this very node, which says there what it is asked.
fn runs_a_pod(world: &World, kubeconfig: &Path, (node, pod): (&str, &str)) {
    world.sleeper(kubeconfig, pod, (json!({"nodeName": node}), json!({})));
}

/// Its Node object is deleted while its machine lives: it is there again, and pods run on it.
fn it_registers_again(world: &World, kubeconfig: &Path, node: &str) {
    let before = uid(world, kubeconfig, node);
    ok(&mut world.kubectl(kubeconfig, &["delete", "node", node]));
    until("the deleted node to register again", || {
        let now = uid(world, kubeconfig, node);
        if now.is_empty() || now == before { Err(format!("{before} {now}")) } else { Ok(()) }
    });
    world.nodes(kubeconfig, "web-", 2);
    runs_a_pod(world, kubeconfig, (node, "again"));
}

/// What somebody copied off a node's machine.
struct Loot {
    dir: PathBuf,
    address: SocketAddr,
    label: String,
    platform_ca: String,
}

impl Loot {
    fn take(world: &World, node: &str) -> Self {
        let (dir, state) = (world.scratch.at("loot"), machine(world, node).join("state"));
        std::fs::create_dir(&dir).unwrap();
        for who in ["kubelet", "proxy", "link"] {
            for file in [format!("{who}.crt"), format!("{who}.key")] {
                std::fs::copy(state.join("pki/current").join(&file), dir.join(&file)).unwrap();
            }
        }
        std::fs::copy(state.join("etc/api-ca.crt"), dir.join("ca.crt")).unwrap();
        let cluster = ok(&mut world.user(&["cluster", "get", "demo", "-o", "json"]));
        let cluster: Value = serde_json::from_str(&cluster).unwrap();
        let label = cluster["id"].as_str().unwrap().trim_start_matches("cls_").to_owned();
        let port = world.field("gateway").rsplit(':').next().unwrap().parse().unwrap();
        Self { dir, address: (Ipv4Addr::LOCALHOST, port).into(), label, platform_ca: world.field("ca_file") }
    }

    /// kubectl as this node's kubelet or kube-proxy, by one of the gateway's names.
    fn kubectl(&self, (who, kind): (&str, &str), words: &[&str]) -> Command {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut kubectl = Command::new(program("kubectl"));
        kubectl.args(["--kubeconfig=/dev/null", "--server", &format!("https://{}", self.address)]);
        kubectl.args(["--tls-server-name", &format!("{}.{kind}.{DOMAIN}", self.label)]);
        kubectl.args(["--certificate-authority", &file("ca.crt")]);
        kubectl.args(["--client-certificate", &file(&format!("{who}.crt"))]);
        kubectl.args(["--client-key", &file(&format!("{who}.key"))]);
        kubectl.env("HOME", &self.dir).args(words).stdin(Stdio::null());
        kubectl
    }

    fn asks(&self, who: (&str, &str), words: &[&str]) -> Output {
        self.kubectl(who, words).arg("--request-timeout=5s").output().unwrap()
    }

    /// A watch of all services, as kube-proxy has it, and open for as long as it is let.
    fn watch(&self) -> Child {
        let words = ["get", "services", "-A", "--watch", "--request-timeout=0"];
        let mut child = self.kubectl(("proxy", "api"), &words).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let seen = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(seen), &mut line).unwrap();
        assert!(line.starts_with("NAMESPACE"), "the watch did not begin: {line}");
        child
    }

    /// The link, opened for one purpose.
    async fn link(&self, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(&self.platform_ca).unwrap() {
            roots.add(authority.unwrap()).unwrap();
        }
        let chain = CertificateDer::pem_file_iter(self.dir.join("link.crt")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(self.dir.join("link.key")).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = config.with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(format!("{}.link.{DOMAIN}", self.label)).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(self.address).await?).await
    }

    /// Whether the link leads to the API server: it waits there for the client's first word.
    async fn reaches_the_api_server(&self) -> bool {
        let Ok(mut stream) = self.link(b"pilothouse-api/1").await else { return false };
        timeout(Duration::from_secs(2), stream.read(&mut [0; 1])).await.is_err()
    }

    /// The status and message with which a call of the node's own is refused at once; none for one that is let in.
    async fn call(&self, method: &str, message: &[u8]) -> Option<(String, String)> {
        let tls = self.link(b"h2").await.unwrap();
        let (client, connection) = h2::client::handshake(tls).await.unwrap();
        let running = tokio::spawn(connection);
        let uri = format!("https://{}.link.{DOMAIN}/pilothouse.agent.v1.NodeLink/{method}", self.label);
        let request = hyper::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        let mut ready = client.ready().await.unwrap();
        let (answer, mut body) = ready.send_request(request.body(()).unwrap(), false).unwrap();
        // Not compressed, and its length (gRPC over HTTP/2).
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        body.send_data(Bytes::from([&[0], &length[..], message].concat()), true).unwrap();
        let answer = answer.await.unwrap();
        running.abort();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Some((header("grpc-status")?, header("grpc-message").unwrap_or_default()))
    }
}

fn block<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, what).await.expect("an answer") })
}

/// What root of a node's machine reports in its name: a new title for the terminal, a cleared screen, and a line that is not ours.
fn words_of_a_node_move_no_terminal(world: &World, loot: &Loot, node: &str) {
    let words = b"gone\x1b]0;owned\x07\x1b[2J\nAll is well.\x9b1m";
    let message: String = words.iter().map(|byte| char::from(*byte)).collect();
    // A NodeReport (node-bootstrap/protocol/proto): `phase` and `message`.
    let phase = u8::try_from(i32::from(node_protocol::NodePhase::Failed)).unwrap();
    let length = u8::try_from(message.len()).unwrap();
    let report = [&[0x38, phase, 0x1a, length], message.as_bytes()].concat();
    // The agent itself says soon afterwards that it is well.
    until("the node's words to be shown", || {
        assert_eq!(block(loot.call("Report", &report)), None);
        let shown = ["table", "json", "yaml"].map(|form| {
            let words = ["node", "list", "--cluster", "demo", "--output", form];
            let shown = ok(&mut world.user(&words));
            assert!(!shown.contains(|one: char| one.is_control() && one != '\n'), "{shown:?}");
            assert!(!shown.contains("\\u001b") && !shown.contains("\nAll is well"), "{shown:?}");
            shown
        });
        if shown.iter().any(|shown| shown.contains("gone") && shown.contains(node)) {
            Ok(())
        } else {
            Err(shown.join("\n"))
        }
    });
}

fn keys_of_a_removed_node_open_nothing(world: &World, kubeconfig: &Path, node: &str, loot: &Loot) {
    let own = loot.asks(("kubelet", "api"), &["get", "node", node]);
    assert!(own.status.success(), "the loot is good while the node is one: {}", text(&own.stderr));
    assert!(block(loot.reaches_the_api_server()));
    assert_eq!(block(loot.call("Watch", &[])), None);
    let mut watch = loot.watch();

    ok(&mut world.user(&["node", "remove", node, "--cluster", "demo", "--yes", "--wait"]));
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
    let file = world.scratch.at("node.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let create = ["create", "--validate=false", "-f", file.to_str().unwrap()];
    for who in ["kubelet", "proxy"] {
        for words in [&["get", "services", "-A"][..], &["get", "nodes"], &["get", "--raw", "/version"], &create] {
            let said = text(&loot.asks((who, "api"), words).stderr);
            assert!(said.contains(REFUSED), "{who} {words:?}: {said}");
        }
    }
    until("the watch that was open to end", || {
        watch.try_wait().unwrap().map(|_| ()).ok_or_else(|| "it goes on".to_owned())
    });
    assert!(!block(loot.reaches_the_api_server()), "the link leads nowhere");
    for method in ["Watch", "Renew"] {
        let (status, message) = block(loot.call(method, &[])).unwrap();
        // gRPC's PERMISSION_DENIED.
        assert!(status == "7" && message.contains("removed"), "{method}: {status} {message}");
    }
    assert_eq!(uid(world, kubeconfig, node), "", "it is not there again");
    // Nobody else is touched: its pool made another one.
    let others = world.nodes(kubeconfig, "web-", 2);
    assert!(!others.iter().any(|name| name == node), "{others:?}");
}

/// The row of a node is gone from the database, as after a restored backup: nothing on its machine ends.
fn an_older_database_ends_nothing(world: &World, kubeconfig: &Path, node: &str) {
    runs_a_pod(world, kubeconfig, (node, "kept"));
    let machine = machine(world, node);
    let before = sleepers();
    assert!(!before.is_empty() && machine.join("state/ledger.json").exists());
    let sql = format!("PRAGMA busy_timeout = 10000; DELETE FROM nodes WHERE name = '{node}'");
    ok(Command::new("sqlite3").arg(world.dir.join("pilothouse.db")).arg(sql));
    console_says(&machine, "everything on this machine goes on as it is");
    assert!(machine.join("state/ledger.json").exists(), "the machine is still a node");
    assert!(!machine.join("state/removed.json").exists());
    let now = sleepers();
    assert!(before.iter().all(|pod| now.contains(pod)), "its pods run on: {before:?} {now:?}");
}

fn console_says(machine: &Path, words: &str) {
    let console = machine.join("console.log");
    until(&format!("the agent to say: {words}"), || {
        let said = text(&std::fs::read(&console).unwrap_or_default());
        if said.contains(words) { Ok(()) } else { Err(said[said.len().saturating_sub(2000)..].to_owned()) }
    });
}

/// The process ids of what [`World::sleeper`]s run.
fn sleepers() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let command = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| command(pid) == b"sleep\x00100000\x00").collect()
}

/// A machine is off while its cluster is deleted. When it is on again it hears of it, ends what it runs and resets itself.
fn a_machine_that_was_off_learns_of_its_clusters_end(world: &World) {
    let listed = ok(&mut world.user(&["node", "list", "--cluster", "demo", "-o", "json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let ready = listed["items"].as_array().unwrap().iter().find(|node| node["state"] == "ready").unwrap();
    let there = machine(world, ready["name"].as_str().unwrap());
    // Out of the platform's sight, as a machine of its owner's is: its provider would take it away with the cluster.
    let off = world.dir.join("off");
    std::fs::rename(&there, &off).unwrap();
    let mut spec: Value = serde_json::from_slice(&std::fs::read(off.join("machine.json")).unwrap()).unwrap();
    turn_off(spec["cgroup"].as_str().unwrap());
    spec["dir"] = json!(off);
    std::fs::write(off.join("machine.json"), spec.to_string()).unwrap();
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));

    let console = std::fs::File::options().append(true).open(off.join("console.log")).unwrap();
    let mut on = pilothouse();
    let mut on =
        on.arg("machine-run").arg(off.join("machine.json")).stderr(console).stdout(Stdio::null()).spawn().unwrap();
    console_says(&off, "removed; resetting this machine");
    until("the machine to end", || on.try_wait().unwrap().map(|_| ()).ok_or_else(|| "it runs".to_owned()));
    assert!(!off.join("state/ledger.json").exists() && !off.join("state/pki").exists(), "nothing of the node is left");
}

/// Ends everything that runs in a machine's cgroup at once, as a power cut does, and leaves no cgroup.
fn turn_off(cgroup: &str) {
    for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        std::fs::write(Path::new(root).join(cgroup).join("cgroup.kill"), "1").ok();
    }
    until("the machine to be off", || {
        let runs = |pid: &u32| {
            let of = std::fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            text(&of).lines().any(|line| line.contains(cgroup))
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let left: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(runs).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        remove_cgroups(&hierarchy.join(cgroup));
    }
}

fn remove_cgroups(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    std::fs::remove_dir(dir).ok();
}
