//! Turns a decided node into running processes, and keeps it so.
//!
//! Order: containerd; kubelet as soon as containerd answers and holds the sandbox image; kube-proxy once kubelet answers, so that it
//! does not take the processor from what the node's readiness waits for; each as soon as its program has arrived. The other images that
//! are there come beside all that, except on a machine so slow that it would be at kubelet's cost, and those that travel still come last.
//! Applying another spec changes only what differs; the same one changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::TryFutureExt;
use node_linux::cgroup::Cgroups;
use node_linux::describe;
use node_linux::files::{self, FileError};
use node_protocol::program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;
use crate::child::{ChildSpec, Identity};
use crate::images::{self, ImageError, Importer};
use crate::network::{self, NetworkError};
use crate::spec::{Image, Layout, NodeSpec, merge};
use crate::status::{Board, Phase};
use crate::supervise::{Supervisor, rotate_logs};
use crate::{cni, containerd, kube_proxy, kubelet};

/// How long containerd may take until its socket answers.
const CONTAINERD_START: Duration = Duration::from_secs(60);

/// A containerd that took this long tells of a slow machine: there, one thing at a time.
const SLOW: Duration = Duration::from_secs(3);

/// How long kube-proxy waits for kubelet.
const KUBELET_START: Duration = Duration::from_secs(30);

/// A node that could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file, directory or control group.
    #[error(transparent)]
    File(#[from] FileError),
    /// Forwarding or nftables.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// containerd did not come up.
    #[error("containerd did not answer within {} s; see {log}", CONTAINERD_START.as_secs())]
    Containerd {
        /// Its log.
        log: String,
    },
    /// A step on another thread was lost.
    #[error("a step was cut off")]
    Lost(#[from] tokio::task::JoinError),
}

/// The configuration texts of one spec.
struct Texts {
    containerd: String,
    kubelet: serde_json::Value,
    kube_proxy: serde_json::Value,
}

/// A node's processes.
pub struct Runtime {
    board: Board,
    supervisors: BTreeMap<&'static str, Supervisor>,
    background: CancellationToken,
    watching: Option<JoinHandle<()>>,
}

impl Runtime {
    /// Nothing runs yet.
    pub fn new(board: Board) -> Self {
        Self { board, supervisors: BTreeMap::new(), background: CancellationToken::new(), watching: None }
    }

    /// Makes the node as `spec` says, of parts that may be on their way still. Returns the former value of the forwarding sysctl when it had
    /// to change.
    pub async fn apply(&mut self, spec: &NodeSpec, arrivals: &Arrivals) -> Result<Option<String>, RuntimeError> {
        let placed = spec.clone();
        let (texts, forward_before) = tokio::task::spawn_blocking(move || place(&placed)).await??;
        // With all it runs: it asks the shim and runc at its start what they can, and never again.
        arrivals.of(|name| program::ALL.contains(&name) && ![kubelet::NAME, kube_proxy::NAME].contains(&name)).await;
        let began = Instant::now();
        self.keep(containerd::child(spec, &texts.containerd));
        await_containerd(&spec.layout).await?;
        let slow = began.elapsed() > SLOW;
        let importer = Importer::new(spec).await?;
        let (sandbox, others) = images::split(&spec.images, &spec.sandbox_image);
        let (here, coming): (Vec<_>, Vec<_>) = others.into_iter().partition(|image| arrivals.has(&image.name));
        let start = self.start((spec, &texts), &importer, &sandbox, arrivals);
        let import = importer.ensure_all(&here, arrivals);
        if slow {
            start.await?;
            import.await?;
        } else {
            tokio::try_join!(start, import.err_into())?;
        }
        self.watch(&spec.layout);
        arrivals.of(|name| name == kube_proxy::NAME).await;
        self.keep(kube_proxy::child(spec, &texts.kube_proxy));
        importer.ensure_all(&coming, arrivals).await?;
        self.board.images(spec.images.len());
        Ok(forward_before)
    }

    /// The sandbox image, kubelet, and kube-proxy if it is there.
    async fn start(
        &mut self,
        (spec, texts): (&NodeSpec, &Texts),
        importer: &Importer,
        sandbox: &[&Image],
        arrivals: &Arrivals,
    ) -> Result<(), RuntimeError> {
        for image in sandbox {
            arrivals.of(|name| name == image.name).await;
            importer.ensure(image, true).await?;
        }
        arrivals.of(|name| name == kubelet::NAME).await;
        self.keep(kubelet::child(spec, &texts.kubelet));
        await_kubelet().await;
        // Beside the import of images; one that travels still is kept once it is there.
        if arrivals.has(kube_proxy::NAME) {
            self.keep(kube_proxy::child(spec, &texts.kube_proxy));
        }
        Ok(())
    }

    fn keep(&mut self, child: ChildSpec) {
        if let Some(supervisor) = self.supervisors.get(child.name) {
            return supervisor.want(child);
        }
        self.supervisors.insert(child.name, Supervisor::new(child, self.board.clone(), true));
    }

    fn watch(&mut self, layout: &Layout) {
        if self.watching.is_none() {
            let watching = watch_health(layout.clone(), self.board.clone(), self.background.clone());
            self.watching = Some(tokio::spawn(watching));
            tokio::spawn(rotate_logs(layout.logs.clone(), self.background.clone()));
        }
    }

    /// Stops the processes; pods keep running. kubelet goes first, so that it does not see its runtime vanish.
    pub async fn stop(mut self, layout: &Layout) {
        self.background.cancel();
        if let Some(watching) = self.watching.take() {
            let _ = watching.await;
        }
        let _ = files::remove(&layout.run.join("ready"));
        self.board.phase(Phase::Stopping, "stopping the node's processes");
        let (kubelet, proxy) = (self.supervisors.remove("kubelet"), self.supervisors.remove("kube-proxy"));
        tokio::join!(stop(kubelet), stop(proxy));
        stop(self.supervisors.remove("containerd")).await;
        self.board.phase(Phase::Stopped, "stopped; pods keep running");
    }
}

async fn stop(supervisor: Option<Supervisor>) {
    if let Some(supervisor) = supervisor {
        supervisor.stop().await;
    }
}

/// Everything that must lie on disk, in the kernel and in the network before the first process starts. Blocks.
fn place(spec: &NodeSpec) -> Result<(Texts, Option<String>), RuntimeError> {
    for dir in spec.layout.dirs() {
        files::make_dir(&dir)?;
    }
    let cgroups = Cgroups::detect();
    let texts = write_configs(spec, cgroups.is_v1())?;
    cgroups.create(&spec.services_cgroup)?;
    cgroups.create(&spec.cgroup_root)?;
    let kubelet = spec.layout.pids().join("kubelet.json");
    if Identity::load(&kubelet).is_none() && cgroups.processes(&spec.pods_cgroup()).is_empty() {
        cgroups.prune(&spec.pods_cgroup()); // stale ones cost kubelet 12 s
    }
    let forward_before = network::apply(&spec.network)?;
    Ok((texts, forward_before))
}

fn write_configs(spec: &NodeSpec, cgroup_v1: bool) -> Result<Texts, FileError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let inside = containerd::in_user_namespace(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
    let resolver = kubelet::place_resolver(Path::new("/"), &spec.layout)?;
    let mut kubelet = kubelet::config(spec, cgroup_v1, &resolver);
    if inside {
        merge(&mut kubelet, &kubelet::in_user_namespace());
    }
    let texts = Texts {
        containerd: containerd::config(spec, inside || containerd::lacks_sys_resource(&status)),
        kubelet,
        kube_proxy: kube_proxy::config(spec),
    };
    let etc = &spec.layout.etc;
    let write = |path: &Path, text: &str| files::write_if_changed(path, text.as_bytes(), 0o600).map(drop);
    let json = |name: &str, value: &serde_json::Value| write(&etc.join(name), &format!("{value:#}\n"));
    write(&etc.join("containerd.toml"), &texts.containerd)?;
    json("kubelet.json", &texts.kubelet)?;
    json("kube-proxy.json", &texts.kube_proxy)?;
    json("kubelet.kubeconfig", &kubelet::kubeconfig(&spec.api, &spec.identities.kubelet))?;
    json("kube-proxy.kubeconfig", &kubelet::kubeconfig(&spec.api, &spec.identities.proxy))?;
    write(&spec.layout.cni_conf().join("10-pilothouse.conflist"), &format!("{:#}\n", cni::conflist(spec)))?;
    Ok(texts)
}

async fn await_containerd(layout: &Layout) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + CONTAINERD_START;
    while UnixStream::connect(layout.containerd_socket()).await.is_err() {
        if Instant::now() > deadline {
            let log = layout.logs.join("containerd.log").to_string_lossy().into_owned();
            return Err(RuntimeError::Containerd { log });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Asks kubelet's health endpoint; the first line of the answer tells.
async fn kubelet_answers() -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(kubelet::HEALTHZ).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        Some(head.ends_with(b" 200"))
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten().unwrap_or(false)
}

/// Waits until kubelet answers, but not for ever: services matter too.
pub async fn await_kubelet() {
    let deadline = Instant::now() + KUBELET_START;
    while !kubelet_answers().await && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn watch_health(layout: Layout, board: Board, stop: CancellationToken) {
    let ready = layout.run.join("ready");
    let mut was_ready = false;
    loop {
        let containerd = UnixStream::connect(layout.containerd_socket()).await.is_ok();
        let kubelet = kubelet_answers().await;
        if containerd && kubelet {
            if !was_ready && let Err(error) = files::write(&ready, b"", 0o644) {
                tracing::warn!(error = describe(&error), "ready marker not written");
            }
            board.phase(Phase::Ready, "containerd and kubelet answer");
        } else {
            let _ = files::remove(&ready);
            let phase = if was_ready { Phase::Degraded } else { Phase::Starting };
            let silent = if containerd { "kubelet" } else { "containerd" };
            board.phase(phase, format!("{silent} does not answer; see {}/{silent}.log", layout.logs.display()));
        }
        was_ready |= containerd && kubelet;
        let pause = Duration::from_millis(if containerd && kubelet { 3000 } else { 100 });
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::sample;

    #[test]
    fn every_configuration_lies_in_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = sample();
        spec.layout = Layout::below(dir.path(), &dir.path().join("run"));
        for dir in spec.layout.dirs() {
            files::make_dir(&dir).unwrap();
        }
        let texts = write_configs(&spec, true).unwrap();
        let written = std::fs::read_to_string(spec.layout.etc.join("containerd.toml")).unwrap();
        assert_eq!(written, texts.containerd);
        let kubelet: serde_json::Value = files::read_json(&spec.layout.etc.join("kubelet.json")).unwrap().unwrap();
        assert_eq!(kubelet, texts.kubelet);
        assert!(spec.layout.cni_conf().join("10-pilothouse.conflist").exists());
    }

    #[test]
    fn another_program_or_configuration_is_another_child() {
        let spec = sample();
        let first = containerd::child(&spec, "a");
        assert_eq!(first.digest, containerd::child(&spec, "a").digest);
        assert_ne!(first.digest, containerd::child(&spec, "b").digest);
        let upgraded = NodeSpec { programs_digest: "1".into(), ..spec };
        assert_ne!(first.digest, containerd::child(&upgraded, "a").digest);
    }
}
