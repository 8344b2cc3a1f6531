//! The host's etcd, API server, controller manager and scheduler: the specs of every tenant, as supervised processes.
//!
//! They live in the instance's network namespace, so their ports are fixed and nothing of the machine's is taken.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{DuringStep, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tenant_controlplane::component::{Files, apiserver, controller_manager, etcd, scheduler};
use tenant_controlplane::pki::{ClusterPki, KubeconfigAuthorities};
use tenant_controlplane::render::RemovedNodes;

use crate::site::Site;
use crate::supervise::Process;
use crate::{Host, pki, storage};
use node_linux::files::write_secret;

/// The port of the host's API server, in the instance's own namespace.
pub const API_PORT: u16 = 6443;
const ETCD_PORT: u16 = 2379;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Writes what each process reads and starts the four of them at once: each waits for what it needs by itself.
pub fn start(host: &Host, pki: &ClusterPki) -> Result<()> {
    let api = format!("https://{}", host.api());
    let logs = host.site.path("logs");
    let etcd_dir = write(host, etcd::NAME, &etcd::files(pki))?;
    let data = host.site.path("host/etcd");
    let audit = logs.join("audit.log");
    let api_dir = write(host, apiserver::NAME, &apiserver::files(pki, None))?;
    let (nobody, none) = (KubeconfigAuthorities::new(), RemovedNodes::new());
    write(host, apiserver::NAME, &apiserver::client_files(pki, &nobody, &none, &api_dir))?;
    let manager_dir = write(host, controller_manager::NAME, &controller_manager::files(pki, &api))?;
    let scheduler_dir = write(host, scheduler::NAME, &scheduler::files(pki, &api))?;
    let scratch = host.site.path("host").display().to_string();
    let settings = etcd::Settings {
        files: &etcd_dir,
        data: &data.display().to_string(),
        member: "host",
        bind: LOOPBACK,
        client_port: ETCD_PORT,
        peer_port: 2380,
        http_port: 2382,
        health_port: 2381,
        fsync: true,
        quota: etcd::HOST_QUOTA,
    };
    host.memory.keep(process(host, etcd::NAME, etcd::flags(&settings))?)?;
    run(host, apiserver::NAME, api_flags(host, &api_dir, &audit.display().to_string()))?;
    let settings = controller_manager::Settings { files: &manager_dir, scratch: &scratch, leader_elect: false };
    run(host, controller_manager::NAME, manager_flags(&settings))?;
    let settings = scheduler::Settings { files: &scheduler_dir, leader_elect: false };
    run(host, scheduler::NAME, client_rate(scheduler::flags(&settings)))
}

fn api_flags(host: &Host, files: &str, audit_log: &str) -> Vec<String> {
    let inside = IpAddr::V4(host.site.addresses.inside());
    let mut flags = apiserver::flags(&apiserver::Settings {
        files,
        client_files: files,
        audit_log,
        bind: inside,
        port: API_PORT,
        advertise: inside,
        external_name: "host.internal",
        issuer: "https://host.internal",
        etcd_url: &format!("https://127.0.0.1:{ETCD_PORT}"),
        service_cidr: host.site.addresses.services(),
        tunnel: false,
        publishes_endpoint: true,
    });
    // The host's pods speak to no API server, so nothing of theirs may be mounted by accident either.
    flags.push("--disable-admission-plugins=ServiceAccount".to_owned());
    flags
}

fn manager_flags(settings: &controller_manager::Settings<'_>) -> Vec<String> {
    let mut flags = client_rate(controller_manager::flags(settings));
    // A namespace with a whole control plane goes away in one sweep instead of ten at a time.
    flags.extend(["--concurrent-namespace-syncs=20", "--pvclaimbinder-sync-period=1s"].map(str::to_owned));
    flags
}

/// The defaults (20 and 50 a second) would make five clusters at once wait for each other.
fn client_rate(mut flags: Vec<String>) -> Vec<String> {
    flags.extend(["--kube-api-qps=200", "--kube-api-burst=400"].map(str::to_owned));
    flags
}

/// Writes a component's files below `host/<name>` and returns that directory.
fn write(host: &Host, name: &str, files: &Files) -> Result<String> {
    let dir = host.site.path("host").join(format!("{name}.d"));
    for (file, text) in files.iter() {
        write_secret(&dir.join(file), text.as_bytes())?;
    }
    Ok(dir.display().to_string())
}

fn run(host: &Host, name: &'static str, args: Vec<String>) -> Result<()> {
    host.processes.keep(process(host, name, args)?)
}

fn process(host: &Host, name: &'static str, args: Vec<String>) -> Result<Process> {
    Ok(Process {
        name,
        program: named(host, name, &host.bundle.program(name)?)?,
        args,
        env: vec![("GOGC", "100".to_owned())],
        netns: host.site.netns(),
        cgroup: format!("{}/platform/{name}", host.site.cgroup()),
        log: host.site.path("logs").join(format!("{name}.log")),
        grace: Duration::from_secs(10),
    })
}

/// A program of the bundle under its own name: so `ps` on the machine says what runs, not a checksum. It is the instance's
/// own, for the cache may be emptied while it runs (FHS 3.0, 5.5): a hard link, or a copy where that is another file system.
pub fn named(host: &Host, name: &str, program: &Path) -> Result<PathBuf> {
    own(program, &self::program(&host.site, name))
}

/// Where an instance keeps a program of its own.
pub fn program(site: &Site, name: &str) -> PathBuf {
    site.path("host/bin").join(name)
}

fn own(program: &Path, place: &Path) -> Result<PathBuf> {
    let dir = place.parent().during("a program has a directory")?;
    fs::create_dir_all(dir).during_step(|| format!("create {}", dir.display()))?;
    let program = program.canonicalize().during_step(|| format!("find {}", program.display()))?;
    let draft = place.with_extension("new");
    fs::remove_file(&draft).ok();
    fs::hard_link(&program, &draft)
        .or_else(|_| fs::copy(&program, &draft).map(drop))
        .and_then(|()| fs::rename(&draft, place))
        .during_step(|| format!("place {}", place.display()))?;
    // Two links of one file: then rename(2) does nothing and the draft stays.
    fs::remove_file(&draft).ok();
    Ok(place.to_owned())
}

/// The local-path provisioner beside them: it needs the API and nothing of a pod.
pub fn start_storage(host: &Host) -> Result<()> {
    let dir = host.site.path("host/storage");
    let at = |name: &str| dir.join(name).display().to_string();
    let args = vec![
        "start".to_owned(),
        format!("--kubeconfig={}", operator_file(host).display()),
        format!("--namespace={}", storage::NAMESPACE),
        format!("--config={}", at("config.json")),
        "--configmap-name=local-path-config".to_owned(),
        format!("--helper-image={}", host.image("busybox")?),
        format!("--helper-pod-file={}", at("helperPod.yaml")),
        "--service-account-name=default".to_owned(),
    ];
    run(host, "local-path-provisioner", args)
}

fn operator_file(host: &Host) -> PathBuf {
    pki::file(&host.site, "operator.kubeconfig")
}

/// The platform's own client of its host.
pub async fn client(host: &Host) -> Result<Client> {
    from_file(&operator_file(host)).await
}

/// A client by kubeconfig.
pub async fn from_file(file: &Path) -> Result<Client> {
    let config = config(file).await?;
    Client::try_from(config).during("make a client of the host")
}

/// What a kubeconfig says. A proxy that the environment names (`HTTPS_PROXY`) is for downloads: it reaches no host inside this machine, and
/// one that a host needs is named in its kubeconfig (`proxy-url`).
async fn config(file: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(file).during_step(|| format!("read {}", file.display()))?;
    let named = kubeconfig.clusters.iter().filter_map(|cluster| cluster.cluster.as_ref()?.proxy_url.as_ref()).count();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.during_step(|| format!("use {}", file.display()))?;
    if named == 0 {
        config.proxy_url = None;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of its own for the environment it needs: setting it in this one would be unsafe beside other tests.
    #[tokio::test]
    async fn a_proxy_of_the_environment_is_not_the_hosts() {
        const NAME: &str = "control_plane::tests::a_proxy_of_the_environment_is_not_the_hosts";
        if std::env::var("HTTPS_PROXY").as_deref() != Ok("http://192.0.2.9:3128") {
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            let again = again.args(["--exact", NAME]).env("HTTPS_PROXY", "http://192.0.2.9:3128").output().unwrap();
            let said = String::from_utf8_lossy(&again.stdout).into_owned();
            assert!(again.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        let text = |more: &str| {
            format!(
                "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
                 users: [{{name: u, user: {{}}}}], clusters: [{{name: c, cluster: {{server: 'https://100.64.192.2:6443'{more}}}}}]}}"
            )
        };
        fs::write(&file, text("")).unwrap();
        assert_eq!(config(&file).await.unwrap().proxy_url, None);
        fs::write(&file, text(", proxy-url: 'http://192.0.2.8:3128'")).unwrap();
        assert!(
            config(&file).await.unwrap().proxy_url.unwrap().to_string().contains("192.0.2.8"),
            "one that the file names is"
        );
    }

    #[test]
    fn a_program_outlives_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let (cached, place) = (dir.path().join("cached"), dir.path().join("host/bin/etcd"));
        for text in ["one", "one", "two"] {
            fs::write(&cached, text).unwrap();
            own(&cached, &place).unwrap();
            fs::remove_file(&cached).unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), text);
        }
        fs::write(&cached, "three").unwrap();
        own(&cached, &place).unwrap();
        own(&cached, &place).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("host/bin")).unwrap().count(), 1, "a draft is left");
    }
}
