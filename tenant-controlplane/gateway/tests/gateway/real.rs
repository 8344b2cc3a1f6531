//! A real kube-apiserver behind the gateway, its egress selector in front of it, a real kubectl as the client.
//!
//! Needs root (a private /etc/hosts) and a directory with `etcd`, `kube-apiserver` and `kubectl`:
//! `PILOTHOUSE_TEST_BIN=… cargo test -p gateway -- --ignored`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::DnType;
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::{Child, Command},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    agent::Agent,
    pki::{Authority, Leaf},
    world::{A, DOMAIN, LABEL_A, World},
};

/// etcd and kube-apiserver as processes, and what kubectl needs.
struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    gateway: SocketAddr,
    _etcd: Child,
    _apiserver: Child,
}

impl Cluster {
    async fn start(world: &World, kubelet_ca: &Authority) -> Self {
        let bin = PathBuf::from(std::env::var_os("PILOTHOUSE_TEST_BIN").expect("PILOTHOUSE_TEST_BIN"));
        let dir = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port, api_port) = (free_port(), free_port(), free_port());
        let clients = Authority::new("clients");
        let admin = clients.client(&[(DnType::CommonName, "admin"), (DnType::OrganizationName, "system:masters")]);
        write_leaf(dir.path(), "admin", &admin);
        write_leaf(dir.path(), "api", &world.api_ca.server(&[&format!("{LABEL_A}.api.{DOMAIN}"), "127.0.0.1"]));
        write_leaf(dir.path(), "egress", &world.link_a.egress(A));
        write_leaf(dir.path(), "kubelet-client", &clients.client(&[(DnType::CommonName, "kube-apiserver")]));
        write_leaf(dir.path(), "sa", &clients.server(&["sa"]));
        for (name, ca) in [("api-ca", &*world.api_ca), ("clients", &clients), ("platform", &*world.platform)] {
            write_pem(dir.path(), name, "CERTIFICATE", &ca.certificate);
        }
        write_pem(dir.path(), "kubelet-ca", "CERTIFICATE", &kubelet_ca.certificate);
        write_egress(dir.path(), world.address);
        let etcd = spawn(&bin, "etcd", &etcd_flags(dir.path(), etcd_port, peer_port), None);
        let flags = apiserver_flags(dir.path(), etcd_port, api_port);
        let apiserver = spawn(&bin, "kube-apiserver", &flags, Some(dir.path()));
        let address = SocketAddr::from(([127, 0, 0, 1], api_port));
        world.book.add_cluster(LABEL_A, A, Some(address), &world.link_a);
        let cluster = Self { bin, dir, gateway: world.address, _etcd: etcd, _apiserver: apiserver };
        cluster.ready().await;
        cluster
    }

    async fn ready(&self) {
        let began = Instant::now();
        while !self.kubectl(&["get", "--raw", "/readyz"], "").await.status.success() {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("kube-apiserver.log")).unwrap_or_default()
    }

    /// kubectl through the gateway, by address and `tls-server-name`.
    async fn kubectl(&self, words: &[&str], input: &str) -> Output {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let mut child = Command::new(self.bin.join("kubectl"))
            .env("HOME", self.dir.path())
            .arg(format!("--server=https://{}", self.gateway))
            .arg(format!("--tls-server-name={LABEL_A}.api.{DOMAIN}"))
            .arg(format!("--certificate-authority={}", file("api-ca.crt")))
            .arg(format!("--client-certificate={}", file("admin.crt")))
            .arg(format!("--client-key={}", file("admin.key")))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        child.wait_with_output().await.unwrap()
    }

    async fn must(&self, words: &[&str], input: &str) -> String {
        let output = self.kubectl(words, input).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A node with a pod on it.
    async fn add_node(&self, name: &str) {
        let node = format!(r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{name}"}}}}"#);
        self.must(&["create", "-f", "-"], &node).await;
        let status = format!(
            r#"{{"status":{{"addresses":[{{"type":"Hostname","address":"{name}"}},{{"type":"InternalIP","address":"192.0.2.7"}}],
            "daemonEndpoints":{{"kubeletEndpoint":{{"Port":10250}}}}}}}}"#
        );
        self.must(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status], "").await;
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"on-{name}","namespace":"default"}},
            "spec":{{"nodeName":"{name}","containers":[{{"name":"c","image":"none"}}]}}}}"#
        );
        self.must(&["create", "-f", "-"], &pod).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and real binaries in PILOTHOUSE_TEST_BIN"]
async fn kubectl_reaches_a_kubelet_nothing_can_dial() {
    let world = World::new().await;
    let kubelets = Authority::new("kubelets");
    let agent = Agent::join(&world).await;
    *agent.seen.kubelet.lock().unwrap() = Some(fake_kubelet(kubelets.server(&["web-1"])).await);
    let cluster = Cluster::start(&world, &kubelets).await;
    cluster.must(&["get", "namespace", "default"], "").await;
    cluster.add_node("web-1").await;
    cluster.add_node("web-9").await;
    let path = cluster.must(&["get", "--raw", "/api/v1/nodes/web-1/proxy/healthz"], "").await;
    assert_eq!(path, "/healthz\n");
    let logs = cluster.must(&["logs", "on-web-1"], "").await;
    assert_eq!(logs, "/containerLogs/default/on-web-1/c\n");
    assert!(agent.seen.asked.lock().unwrap().iter().all(|asked| asked == "web-1:10250"));
    let refused = cluster.kubectl(&["logs", "on-web-9"], "").await;
    let written = String::from_utf8_lossy(&refused.stderr);
    assert!(written.contains("503 node web-9 has no tunnel: agent not connected"), "{written}");
    eprintln!("kubectl's user reads: {written}");
}

/// A kubelet that answers every request with its path.
async fn fake_kubelet(leaf: Leaf) -> SocketAddr {
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(leaf.chain, leaf.key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(tcp).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split([' ', '?']).nth(1).unwrap();
                let length = path.len() + 1;
                let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{path}\n");
                stream.write_all(reply.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

fn etcd_flags(dir: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn apiserver_flags(dir: &Path, etcd: u16, port: u16) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--kubelet-preferred-address-types=InternalIP,Hostname".to_owned(),
        "--service-account-issuer=https://test".to_owned(),
        file("service-account-key-file", "sa.crt"),
        file("service-account-signing-key-file", "sa.key"),
        file("tls-cert-file", "api.crt"),
        file("tls-private-key-file", "api.key"),
        file("client-ca-file", "clients.crt"),
        file("kubelet-certificate-authority", "kubelet-ca.crt"),
        file("kubelet-client-certificate", "kubelet-client.crt"),
        file("kubelet-client-key", "kubelet-client.key"),
        file("egress-selector-config-file", "egress.yaml"),
        file("cert-dir", "."),
    ]
}

/// The egress selector, and the hosts file by which the API server finds the gateway's name. A node's `proxy`
/// subresource (and nothing else) looks the node's name up before it dials through the tunnel, hence `web-1`.
fn write_egress(dir: &Path, gateway: SocketAddr) {
    let name = format!("{LABEL_A}.egress.{DOMAIN}");
    fs::write(dir.join("hosts"), format!("127.0.0.1 localhost {name}\n192.0.2.7 web-1\n")).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n- name: cluster\n  \
         connection:\n    proxyProtocol: HTTPConnect\n    transport:\n      tcp:\n        url: https://{name}:{}\n        \
         tlsConfig:\n          caBundle: {}\n          clientCert: {}\n          clientKey: {}\n",
        gateway.port(),
        file("platform.crt"),
        file("egress.crt"),
        file("egress.key"),
    );
    fs::write(dir.join("egress.yaml"), config).unwrap();
}

/// A process that dies with the test; `hosts`: a directory whose `hosts` file it sees as /etc/hosts.
fn spawn(bin: &Path, name: &str, flags: &[String], hosts: Option<&Path>) -> Child {
    let program = bin.join(name);
    let mut command = match hosts {
        None => Command::new(program),
        Some(dir) => {
            let mut command = Command::new("unshare");
            let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            command.args(["--mount", "--propagation", "slave", "sh", "-c", script]);
            command.arg(dir.join("hosts")).arg(program);
            let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
            command.stderr(log);
            command
        }
    };
    if hosts.is_none() {
        command.stderr(Stdio::null());
    }
    command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

fn write_leaf(dir: &Path, name: &str, leaf: &Leaf) {
    write_pem(dir, name, "CERTIFICATE", &leaf.chain[0]);
    let key = pem("PRIVATE KEY", leaf.key.secret_der());
    fs::write(dir.join(format!("{name}.key")), key).unwrap();
}

fn write_pem(dir: &Path, name: &str, kind: &str, der: &[u8]) {
    fs::write(dir.join(format!("{name}.crt")), pem(kind, der)).unwrap();
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
