//! A node that is said by a file instead of by the platform: the embedded host's own.
//!
//! No enrollment, no link, no tunnel; the caller has made the network namespace and the certificates. The same processes and the
//! same supervision. Stopping leaves the pods running unless the caller says otherwise; [`crate::halt`] ends them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use node_linux::describe;
use node_linux::files::{self, FileError};
use node_protocol::{Part, PartKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;
use crate::fetch::{self, FetchError};
use crate::runtime::{Runtime, RuntimeError};
use crate::spec::{ApiServer, Identities, KeyPairFiles, Layout, Network, NodeSpec};
use crate::status::{Board, Phase};

/// The copy of the file that `halt` reads.
pub const COPY: &str = "static.json";

/// Unix sockets' paths have 108 bytes; kubelet's longest below its root takes 45.
const ROOT_DIR_MAX: usize = 70;

/// A part as a file of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LocalPart {
    /// `kubelet`, `containerd`, …; `pause` is the sandbox image.
    pub name: String,
    /// `binary` or `image`.
    #[serde(with = "node_protocol::words::part_kind")]
    pub kind: i32,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Lower-case hex; empty: not verified.
    #[serde(default)]
    pub sha256: String,
    /// Bytes; 0: not verified.
    #[serde(default)]
    pub size: u64,
    /// The reference of an image.
    #[serde(default)]
    pub image: String,
    /// Where it lies.
    pub path: PathBuf,
}

fn yes() -> bool {
    true
}

fn network_name() -> String {
    "pilothouse".into()
}

/// The whole node.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StaticNode {
    /// Everything lies below it; at most 70 bytes long.
    pub root_dir: PathBuf,
    /// Sockets, containerd's state, pid files, markers; default `<root_dir>/run`.
    #[serde(default)]
    pub run_dir: Option<PathBuf>,
    /// The group below which pods (`kubepods`) and the agent's children (`services`) run.
    pub cgroup_root: String,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// The API server, `https://…`.
    pub server_url: String,
    /// The name in its certificate, when the URL's host is not one.
    #[serde(default)]
    pub tls_server_name: Option<String>,
    /// The CA that signs it.
    pub api_ca_file: PathBuf,
    /// The CA whose clients kubelet trusts.
    pub client_ca_file: PathBuf,
    /// kubelet as a client: CN `system:node:<node_name>`, O `system:nodes`.
    pub kubelet: KeyPairFiles,
    /// kube-proxy as a client: CN `system:kube-proxy`.
    pub proxy: KeyPairFiles,
    /// kubelet as a server.
    pub serving: KeyPairFiles,
    /// This node's own pods.
    pub pod_cidr: Ipv4Net,
    /// All pods of the cluster.
    pub cluster_pod_cidr: Ipv4Net,
    /// All services of the cluster.
    pub service_cidr: Ipv4Net,
    /// The cluster's DNS service.
    #[serde(default)]
    pub dns_ip: Option<IpAddr>,
    /// Node labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Give pods' packets the node's address when they leave the cluster.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// The CNI network's name; unique per instance.
    #[serde(default = "network_name")]
    pub network_name: String,
    /// Programs and images.
    pub parts: Vec<LocalPart>,
    /// Merged over kubelet's configuration (RFC 7386).
    #[serde(default)]
    pub kubelet_config: serde_json::Map<String, Value>,
    /// Merged over kube-proxy's configuration (RFC 7386).
    #[serde(default)]
    pub kube_proxy_config: serde_json::Map<String, Value>,
    /// Extra kubelet flags.
    #[serde(default)]
    pub kubelet_args: Vec<String>,
}

/// A static node that could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    /// The file is not there.
    #[error("{0} does not exist")]
    Absent(PathBuf),
    /// A value that cannot work.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// A part is not itself.
    #[error(transparent)]
    Part(#[from] FetchError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The node's processes.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A step on another thread was lost.
    #[error("a step was cut off")]
    Lost(#[from] tokio::task::JoinError),
}

impl StaticNode {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, StaticError> {
        let node: Self = files::read_json(path)?.ok_or_else(|| StaticError::Absent(path.to_owned()))?;
        node.check().map(|()| node)
    }

    fn check(&self) -> Result<(), StaticError> {
        let invalid = |field, reason: &str| Err(StaticError::Invalid { field, reason: reason.into() });
        if !self.root_dir.is_absolute() || self.root_dir.as_os_str().len() > ROOT_DIR_MAX {
            return invalid("root_dir", "must be absolute and at most 70 bytes long (unix sockets lie below it)");
        }
        let plain = self.cgroup_root.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..");
        if !self.cgroup_root.starts_with('/') || self.cgroup_root.len() < 2 || !plain {
            return invalid("cgroup_root", "must look like /name or /name/name, not the root itself");
        }
        if self.node_ip.is_loopback() {
            return invalid("node_ip", "kubelet refuses a loopback address");
        }
        Ok(())
    }

    /// Where its files lie.
    pub fn layout(&self) -> Layout {
        let run = self.run_dir.clone().unwrap_or_else(|| self.root_dir.join("run"));
        Layout::below(&self.root_dir, &run)
    }

    /// The group of the agent's children.
    pub fn services_cgroup(&self) -> String {
        format!("{}/services", self.cgroup_root)
    }

    /// The node as the runtime wants it, without its parts.
    fn spec(&self) -> NodeSpec {
        NodeSpec {
            layout: self.layout(),
            cgroup_root: self.cgroup_root.clone(),
            services_cgroup: self.services_cgroup(),
            node_name: self.node_name.clone(),
            node_ip: self.node_ip,
            api: ApiServer {
                url: self.server_url.clone(),
                tls_server_name: self.tls_server_name.clone(),
                ca_file: self.api_ca_file.clone(),
                client_ca_file: self.client_ca_file.clone(),
            },
            identities: Identities {
                kubelet: self.kubelet.clone(),
                proxy: self.proxy.clone(),
                serving: self.serving.clone(),
            },
            network: self.network(),
            labels: self.labels.clone(),
            sandbox_image: String::new(),
            images: Vec::new(),
            programs_digest: String::new(),
            kubelet_config: Value::Object(self.kubelet_config.clone()),
            kube_proxy_config: Value::Object(self.kube_proxy_config.clone()),
            kubelet_args: self.kubelet_args.clone(),
            registration: 0,
            proxy: Vec::new(),
        }
    }

    fn network(&self) -> Network {
        Network {
            pod_cidr: self.pod_cidr,
            cluster_pod_cidr: self.cluster_pod_cidr,
            service_cidr: self.service_cidr,
            dns: self.dns_ip,
            masquerade: self.masquerade,
            name: self.network_name.clone(),
            api: None,
        }
    }

    /// Links the programs into place and decides the node. Verifies what has a checksum. Blocks.
    fn prepare(&self) -> Result<NodeSpec, StaticError> {
        let mut spec = self.spec();
        for dir in spec.layout.dirs() {
            files::make_dir(&dir)?;
        }
        files::write_json(&self.root_dir.join(COPY), self, 0o600)?;
        let store = fetch::PartStore::new(spec.layout.parts.clone(), None);
        let parts: Vec<Part> = self.parts.iter().map(LocalPart::part).collect();
        let mut places = BTreeMap::new();
        let promised = self.parts.iter().filter(|local| !local.sha256.is_empty());
        let promised: Vec<(&Path, Part)> = promised.map(|local| (local.path.as_path(), local.part())).collect();
        store.verify_in_place(&promised)?;
        for (local, part) in self.parts.iter().zip(&parts) {
            places.insert((part.name.clone(), part.kind), local.place(&store)?);
        }
        let place_of = |part: &Part| places.get(&(part.name.clone(), part.kind)).cloned().unwrap_or_default();
        let (images, digest) = fetch::install(&parts, &spec.layout.bin, place_of)?;
        if !images.iter().any(|image| image.name == "pause") {
            let reason = "no image part is named pause (the sandbox image)".into();
            return Err(StaticError::Invalid { field: "parts", reason });
        }
        fetch::fill(&mut spec, images, digest);
        Ok(spec)
    }
}

impl LocalPart {
    fn part(&self) -> Part {
        let Self { name, kind, version, sha256, size, image, .. } = self.clone();
        Part { name, kind, version, sha256, size, image }
    }

    /// Where the part is usable: in place, or as an executable copy.
    fn place(&self, store: &fetch::PartStore) -> Result<PathBuf, StaticError> {
        if self.part().kind() != PartKind::Binary {
            return Ok(self.path.clone());
        }
        let key = if self.sha256.is_empty() { &self.name } else { &self.sha256 };
        let path = store.path(key);
        fetch::adopt_file(&self.path, &path, true)?;
        Ok(path)
    }
}

/// Runs the node until `stop`; then stops its processes, and with `stop_pods` everything in it.
pub async fn run(node: StaticNode, stop: CancellationToken, stop_pods: bool) -> Result<(), StaticError> {
    let layout = node.layout();
    files::make_dir(&layout.run)?;
    let board = Board::new(layout.run.join("status.json"));
    board.phase(Phase::Starting, "verifying parts");
    let prepared = node.clone();
    let spec = tokio::task::spawn_blocking(move || prepared.prepare()).await??;
    let (mut runtime, arrivals) = (Runtime::new(board.clone()), Arrivals::default());
    let applied = tokio::select! {
        applied = runtime.apply(&spec, &arrivals) => applied.map(drop),
        () = stop.cancelled() => Ok(()),
    };
    if let Err(error) = &applied {
        board.phase(Phase::Degraded, describe(error));
    } else {
        stop.cancelled().await;
    }
    runtime.stop(&layout).await;
    if stop_pods {
        let halted =
            tokio::task::spawn_blocking(move || crate::halt::halt(&node.root_dir, std::time::Duration::from_secs(2)));
        if let Err(error) = halted.await? {
            tracing::error!(error = describe(&error), "pods not ended");
        }
    }
    applied.map_err(StaticError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        let pair = json!({"cert_file": "/c", "key_file": "/k"});
        json!({
            "root_dir": "/var/lib/x/node", "cgroup_root": "/pilothouse-x/node", "node_name": "host", "node_ip": "100.64.192.2",
            "server_url": "https://100.64.192.1:6443", "api_ca_file": "/ca", "client_ca_file": "/cca",
            "kubelet": pair, "proxy": pair, "serving": pair,
            "pod_cidr": "100.64.0.0/17", "cluster_pod_cidr": "100.64.0.0/17", "service_cidr": "100.64.128.0/18",
            "parts": [{"name": "pause", "kind": "image", "path": "/p.tar", "image": "x/pause:1"}],
        })
    }

    #[test]
    fn the_documented_shape_is_read_with_its_defaults() {
        let node: StaticNode = serde_json::from_value(sample()).unwrap();
        node.check().unwrap();
        assert!(node.masquerade);
        let spec = node.spec();
        assert_eq!(spec.layout.run, Path::new("/var/lib/x/node/run"));
        assert_eq!(spec.services_cgroup, "/pilothouse-x/node/services");
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (field, value) in [
            ("root_dir", json!("relative")),
            ("root_dir", json!(format!("/{}", "x".repeat(80)))),
            ("cgroup_root", json!("/")),
            ("cgroup_root", json!("/a/../b")),
            ("node_ip", json!("127.0.0.1")),
        ] {
            let mut text = sample();
            text[field] = value.clone();
            let node: StaticNode = serde_json::from_value(text).unwrap();
            assert!(node.check().unwrap_err().to_string().contains(field), "{field} = {value}");
        }
        let mut unknown = sample();
        unknown["surprise"] = json!(1);
        assert!(serde_json::from_value::<StaticNode>(unknown).is_err());
    }

    #[test]
    fn a_part_with_another_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("pause.tar");
        std::fs::write(&archive, "tar").unwrap();
        let mut text = sample();
        text["root_dir"] = json!(dir.path());
        text["parts"][0]["path"] = json!(archive);
        text["parts"][0]["sha256"] = json!("0".repeat(64));
        let node: StaticNode = serde_json::from_value(text).unwrap();
        assert!(matches!(node.prepare().unwrap_err(), StaticError::Part(FetchError::Mismatch { .. })));
    }
}
