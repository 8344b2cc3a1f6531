//! This machine as the embedded host's node: the very agent that joins any machine, told by a file what to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{DuringStep, HostError, Result};
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use node_linux::tool::run;
use node_protocol::program;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::site::Site;
use crate::supervise::Process;
use crate::{Host, NODE, control_plane, pki};
use node_linux::files::write_public;

/// The images that tenants' pods and volumes need; nothing is ever pulled.
const IMAGES: [&str; 6] = ["pause", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "busybox"];
/// Importing images on a slow disk is what takes long here.
const PATIENCE: Duration = Duration::from_secs(180);

/// Starts the agent, and starts it again whenever it ends. Pods outlive it.
pub fn start(host: &Host) -> Result<()> {
    let file = host.site.path("host/node.json");
    write_public(&file, &serde_json::to_vec_pretty(&specification(host)?)?)?;
    let agent = host.bundle.artefact(program::AGENT).during("the bundle has no agent: build it again")?;
    let program = control_plane::named(host, program::AGENT, &host.bundle.path(agent))?;
    let process = Process {
        name: "node",
        program,
        args: vec!["run".into(), "--static".into(), file.display().to_string()],
        env: Vec::new(),
        netns: host.site.netns(),
        cgroup: format!("{}/platform/node", host.site.cgroup()),
        log: host.site.path("logs/node.log"),
        grace: Duration::from_secs(20),
    };
    host.processes.keep(process)
}

fn specification(host: &Host) -> Result<Value> {
    let file = |name: &str| pki::file(&host.site, name);
    let pair =
        |name: &str| json!({ "cert_file": file(&format!("{name}.crt")), "key_file": file(&format!("{name}.key")) });
    let addresses = host.site.addresses;
    Ok(json!({
        "root_dir": root(&host.site), "run_dir": host.site.run_dir().join("n"),
        "cgroup_root": format!("/{}/node", host.site.cgroup()),
        "node_name": NODE, "node_ip": addresses.inside(), "server_url": format!("https://{}", host.api()),
        "api_ca_file": file("serving-ca.crt"), "client_ca_file": file("client-ca.crt"),
        "kubelet": pair("kubelet"), "proxy": pair("kube-proxy"), "serving": pair("kubelet-serving"),
        "pod_cidr": addresses.pods(), "cluster_pod_cidr": addresses.pods(), "service_cidr": addresses.services(),
        "labels": { "pilothouse.dev/host": "true" }, "masquerade": false, "network_name": host.site.cgroup(),
        "parts": parts(host)?,
        "kubelet_config": kubelet_config(),
        "kube_proxy_config": { "nftables": { "minSyncPeriod": "10ms" } }
    }))
}

/// Evictions are absolute, and images are not collected by percent: kubelet's defaults (10 and 15 of a hundred) are dozens of gigabytes
/// on a large disk that the machine shares with others, and would evict control planes that use a few hundred megabytes.
fn kubelet_config() -> Value {
    json!({
        "maxPods": 500, "registryPullQPS": 0, "kubeAPIQPS": 200, "kubeAPIBurst": 400, "podPidsLimit": 4096,
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "500Mi", "imagefs.available": "500Mi",
            "nodefs.inodesFree": "2%", "imagefs.inodesFree": "2%",
        },
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
    })
}

fn parts(host: &Host) -> Result<Vec<Value>> {
    let programs = program::ALL.iter().map(|name| (host.bundle.artefact(name), *name, "binary"));
    let images = IMAGES.iter().map(|name| (host.bundle.image(name), *name, "image"));
    programs.chain(images).map(|(found, name, kind)| {
        let artefact = found.during_step(|| format!("the bundle has no {name}: build it again"))?;
        let image = artefact.image.clone().unwrap_or_default();
        Ok(json!({ "name": name, "kind": kind, "version": artefact.version, "sha256": artefact.sha256, "size": artefact.size, "path": host.bundle.path(artefact), "image": image }))
    }).collect()
}

/// Where the node keeps everything of its own.
fn root(site: &Site) -> PathBuf {
    site.path("node")
}

/// Waits until the node is ready and its images are there.
pub async fn wait_ready(host: &Host, client: &Client, cancel: &CancellationToken) -> Result<()> {
    let waited = tokio::select! {
        () = cancel.cancelled() => return Err(HostError::Unfit("interrupted".to_owned())),
        waited = timeout(PATIENCE, ready(host, client)) => waited,
    };
    let logs = root(&host.site).join("logs");
    waited
        .during_step(|| format!("the node is not ready after {PATIENCE:?}: read kubelet.log in {}", logs.display()))?
}

async fn ready(host: &Host, client: &Client) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let changes = watcher(api, watcher::Config::default().fields(&format!("metadata.name={NODE}")))
        .default_backoff()
        .applied_objects();
    pin_mut!(changes);
    while let Some(node) = changes.try_next().await.during("watch the node")? {
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return marker(host).await;
        }
    }
    Err(HostError::Unfit("the watch of the node ended".to_owned()))
}

/// The agent's own mark: its images are imported.
async fn marker(host: &Host) -> Result<()> {
    let path = host.site.run_dir().join("n/ready");
    let mut tick = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(Duration::from_millis(50)));
    while tick.next().await.is_some() && !path.exists() {}
    Ok(())
}

/// Ends every pod and unmounts what they had. Runs any number of times.
pub async fn halt(site: &Site) -> Result<()> {
    let agent = control_plane::program(site, program::AGENT);
    if !agent.exists() || !root(site).exists() {
        return Ok(());
    }
    let (agent, root) = (agent.display().to_string(), root(site).display().to_string());
    run(&[&agent, "halt", "--root-dir", &root, "--grace", "2"]).await.during("stop the host's pods")?;
    Ok(())
}
