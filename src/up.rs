//! `pilothouse up`: from a bare machine, or from whatever an earlier run left, to a platform that answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bundle::Cache;
use node_linux::footprint;
use node_linux::tool::run;
use tenant_controlplane::version::KubernetesVersion;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::components;
use crate::detach::{detach, print_ready};
use crate::doctor::{Verdict, checks, ranges};
use crate::identity;
use crate::instance::{DEFAULT_DOMAIN, Instance, Record};
use crate::limits;
use crate::options::{LocalMode, Output, UpArgs};
use crate::platform::sources::{self, KeySource};
use crate::platform::{self, Doors, Means, Platform, machines};
use crate::progress::{Event, Progress, Ready};
use crate::protect;
use crate::ready;
use embedded_host::site::Addresses;
use embedded_host::supervise::rotate_logs;
use embedded_host::{Host, cgroup, node};
use kube::Client;
use provisioner::SystemKeys;

/// Where the gateway listens unless told otherwise.
pub const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);
/// Where the portal answers in plain HTTP.
pub const PORTAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8480);
/// Longest data directory with which containerd's sockets still fit (unix(7): 108 bytes).
const LONGEST_DIR: usize = 55;

/// Starts or resumes, in the foreground or detached.
pub async fn up(args: UpArgs) -> Result<ExitCode> {
    sources::refuse_password(std::env::args_os())?;
    let instance = Instance::new(&args.instance.name, args.instance.data_dir.clone())?;
    refuse(&instance, &args).await?;
    if args.detach {
        return detach(&instance, &args).await;
    }
    let progress = match &args.progress_file {
        Some(file) => Progress::to_file(file)?,
        None => Progress::to_terminal(),
    };
    let ended = stay_up(&instance, &args, &progress).await;
    if let Err(error) = &ended {
        progress.tell(&Event::Failed { why: format!("{error:#}") });
    }
    ended.map(|()| ExitCode::SUCCESS)
}

async fn stay_up(instance: &Instance, args: &UpArgs, progress: &Progress) -> Result<()> {
    let begun = Instant::now();
    packages(instance, args, progress).await?;
    let _lock = instance.lock()?;
    limits::raise();
    ready::remove(instance);
    sources::keep_database_url(instance, args)?;
    let (record, doors) = settle(instance, args).await?;
    let address = checks::address(&record);
    if address.status == Verdict::Warn {
        progress.note(format!("{}; {}", address.observed, address.remediation));
    }
    let start = Start { instance, args, progress, cancel: CancellationToken::new(), begun };
    let mut built = None;
    let ended = tokio::select! {
        ended = start.stay(record, doors, &mut built) => ended,
        name = interrupted() => {
            progress.note(format!("{name}: stopping; pods stay until `pilothouse down`, but nobody reaches them before the next `up`"));
            Ok(())
        }
    };
    start.cancel.cancel();
    if let Some(platform) = built {
        platform.stop(&start.cancel).await;
    }
    if args.host_kubeconfig.is_none() {
        cgroup::stop(&format!("{}/platform", instance.cgroup()), Duration::from_secs(10)).await.ok();
    }
    ready::remove(instance);
    ended
}

/// One `up`: what each of its steps needs.
struct Start<'a> {
    instance: &'a Instance,
    args: &'a UpArgs,
    progress: &'a Progress,
    cancel: CancellationToken,
    begun: Instant,
}

impl Start<'_> {
    /// Everything from a settled record on; returns only when something failed. What is to be stopped then lies in `built`.
    async fn stay(&self, mut record: Record, doors: Doors, built: &mut Option<Platform>) -> Result<()> {
        let bundles = components::obtain(self.args, &record.wanted(), self.progress).await?;
        let embedded = self.args.host_kubeconfig.is_none();
        let local = machines::mode(self.instance, &record, self.args, self.progress).await?;
        let means = Means { bundles: bundles.clone(), embedded, local };
        if embedded {
            protect::protect(self.instance);
        }
        let open = Platform::open(self.instance, &record, doors, means, &self.cancel);
        let platform = built.insert(self.progress.step("portal and gateway", open).await?);
        // The key was read where this start says it is, and it fits.
        self.instance.save(&record)?;
        let portal_seconds = self.begun.elapsed().as_secs_f64();
        let (logs, machines) = (self.instance.path("logs"), self.instance.path("machines"));
        tokio::spawn(rotate_logs(logs, machines, self.cancel.clone()));
        let client = match &self.args.host_kubeconfig {
            Some(file) => platform::foreign_host(file).await?,
            None => {
                let wall = platform.wall()?;
                let site = self.instance.site(Addresses::of(record.slot));
                self.start_host(platform.host_on(Host::new(site, bundles.host, Arc::new(SystemKeys), wall))).await?
            }
        };
        identity::recognise(self.instance, &mut record, &client, self.args.host_kubeconfig.as_deref()).await?;
        platform.provision(client, self.args, (&self.cancel, self.progress)).await?;
        self.tell(platform, &record, portal_seconds).await?;
        Err(platform.failed().await)
    }

    /// Brings the embedded host up to where it takes pods.
    async fn start_host(&self, host: &Host) -> Result<Client> {
        let client = host.start().await?;
        self.progress.step("host API server", host.wait_ready(&client, &self.cancel)).await?;
        host.start_storage(&client).await?;
        self.progress.step("host node", node::wait_ready(host, &client, &self.cancel)).await?;
        Ok(client)
    }

    /// The last word of the start, for people and for other processes.
    async fn tell(&self, platform: &Platform, record: &Record, portal_seconds: f64) -> Result<()> {
        let ready = Ready {
            portal_url: format!("http://{}", record.portal),
            gateway: record.advertise.to_string(),
            ca_file: platform.ca_file(),
            setup_url: platform.setup_url(record).await?,
            name: self.instance.name.clone(),
            data_dir: self.instance.dir.clone(),
            pid: std::process::id(),
            portal_seconds,
            ready_seconds: self.begun.elapsed().as_secs_f64(),
            spares: platform::spares::wanted(self.args),
            local_machines: platform.local_mode(),
        };
        ready::write(self.instance, &ready)?;
        if ready.setup_url.is_some() {
            tokio::spawn(ready::drop_used_link(self.instance.clone(), platform.store(), self.cancel.clone()));
        }
        self.progress.tell(&Event::Ready(ready.clone()));
        if self.args.progress_file.is_none() {
            print_ready(&ready, self.args.output);
            if self.args.output == Output::Text {
                eprintln!("Press Ctrl-C to stop.");
            }
        }
        Ok(())
    }
}

/// Refuses early and changes nothing, not even in a directory that is another instance's: every question of `doctor` that
/// decides, and the length of paths.
async fn refuse(instance: &Instance, args: &UpArgs) -> Result<()> {
    let known = instance.record()?;
    match &args.host_kubeconfig {
        Some(file) if !file.is_file() => bail!("--host-kubeconfig: there is no file {}", file.display()),
        Some(_) => {}
        None => instance.refuse_taken_name()?,
    }
    identity::same_kind(known.as_ref().and_then(|record| record.host.as_ref()), args.host_kubeconfig.as_deref())?;
    if let (Some(record), Some(domain)) = (&known, &args.domain)
        && record.domain != *domain
    {
        bail!("this instance's names end in {}, and kubeconfigs carry them: it cannot become {domain}", record.domain);
    }
    if args.host_kubeconfig.is_some() || instance.running() {
        return Ok(());
    }
    let cache = args.cache.clone().unwrap_or_else(Cache::default_dir);
    let all = checks::machine(instance, &cache).await;
    let failed: Vec<_> = all.into_iter().filter(|check| check.status == Verdict::Fail).collect();
    if !failed.is_empty() {
        let lines: Vec<String> =
            failed.iter().map(|check| format!("{}: {}; {}", check.id, check.observed, check.remediation)).collect();
        bail!("this machine cannot be a host yet, and nothing was changed:\n  {}", lines.join("\n  "));
    }
    let length = instance.dir.as_os_str().len();
    if length > LONGEST_DIR {
        bail!(
            "{} is {length} bytes long; sockets below it need a --data-dir of at most {LONGEST_DIR}",
            instance.dir.display()
        );
    }
    Ok(())
}

/// Installs the Debian packages that are missing, or names them.
async fn packages(instance: &Instance, args: &UpArgs, progress: &Progress) -> Result<()> {
    if args.host_kubeconfig.is_some() {
        return Ok(());
    }
    let mut wanted = instance.record()?.map(|record| record.wanted()).unwrap_or_default();
    wanted.extend(&args.with_version);
    let cache = args.cache.clone().unwrap_or_else(Cache::default_dir);
    let machines = !args.no_local_machines && args.local_machines != Some(LocalMode::Off);
    let complete = components::are_complete(&cache, &wanted) && (!machines || components::has_node_tree(&cache));
    let missing = checks::missing_packages(!complete);
    if missing.is_empty() {
        return Ok(());
    }
    if args.no_install {
        bail!("Debian packages are missing: apt-get install -y {}", missing.join(" "));
    }
    progress.step(&format!("install {}", missing.join(" ")), install(&missing)).await
}

async fn install(packages: &[&str]) -> Result<()> {
    run(&["apt-get", "update", "-qq"]).await?;
    let mut argv =
        vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    argv.extend(packages);
    run(&argv).await?;
    Ok(())
}

/// Settles what is decided once and kept: slot, ports and the address that kubeconfigs carry. Ports are bound here, so that a
/// taken one is known before anything is started.
async fn settle(instance: &Instance, args: &UpArgs) -> Result<(Record, Doors)> {
    let known = instance.record()?;
    let slot = match &args.host_kubeconfig {
        // Without root there are no machine containers, and nothing else of a slot is used on somebody else's host.
        Some(_) if !nix::unistd::geteuid().is_root() => known.as_ref().map_or(0, |record| record.slot),
        _ => {
            let choices = ranges::choices(&ranges::foreign().await);
            instance.claim_slot(known.as_ref().map(|record| record.slot), &choices)?
        }
    };
    let gateway = bind(args.listen.or(known.as_ref().map(|record| record.listen)), GATEWAY).await?;
    // Nothing remembers the portal's port, so it gives way.
    let portal = bind(None, known.as_ref().map_or(PORTAL, |record| record.portal)).await?;
    let listen = gateway.local_addr()?;
    let versions = versions(known.as_ref(), &args.with_version);
    let kept = known.as_ref().map(|record| record.advertise.ip());
    let ip = match args.advertise.or(kept) {
        Some(ip) => ip,
        None if listen.ip().is_unspecified() => own_address()?,
        None => listen.ip(),
    };
    let record = Record {
        name: instance.name.clone(),
        slot,
        listen,
        advertise: SocketAddr::new(ip, listen.port()),
        portal: portal.local_addr()?,
        domain: known
            .as_ref()
            .map(|record| record.domain.clone())
            .or_else(|| args.domain.clone())
            .unwrap_or_else(|| DEFAULT_DOMAIN.to_owned()),
        versions,
        advertise_given: args.advertise.is_some() || known.as_ref().is_some_and(|record| record.advertise_given),
        cluster_ports: args.cluster_ports.or(known.as_ref().and_then(|record| record.cluster_ports)),
        host: known.as_ref().and_then(|record| record.host.clone()),
        kek: key_source(known.as_ref(), args)?,
        next_kek: known.as_ref().and_then(|record| record.next_kek.clone()),
        made: known.as_ref().map_or_else(|| footprint::missing(Path::new("/")), |record| record.made.clone()),
    };
    let mut kept = record.clone();
    match &known {
        // Before the record: where that exists, a missing key is a lost key.
        None => drop(KeySource::of(instance, &record).read_or_create().await.context("make the key-encryption key")?),
        // Another place counts once its key was seen to fit.
        Some(known) => kept.kek.clone_from(&known.kek),
    }
    instance.save(&kept)?;
    let metrics = match args.metrics {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| format!("--metrics {address}"))?),
        None => None,
    };
    Ok((record, Doors { gateway, portal, metrics }))
}

/// Where the key-encryption key is: where this start says, or any earlier one.
fn key_source(known: Option<&Record>, args: &UpArgs) -> Result<Option<KeySource>> {
    let kept = known.and_then(|record| record.kek.clone());
    let given = KeySource::given(args.kek_file.as_deref(), args.kek_command.as_deref())?;
    if given.is_some() && given != kept && known.is_some_and(|record| record.next_kek.is_some()) {
        bail!("a rotation of the key was begun and not finished: run `pilothouse admin kek rotate` first");
    }
    Ok(given.or(kept))
}

/// The versions asked for now and at any earlier `up`.
fn versions(known: Option<&Record>, wanted: &[KubernetesVersion]) -> Vec<String> {
    let mut all = known.map(|record| record.versions.clone()).unwrap_or_default();
    all.extend(wanted.iter().map(ToString::to_string));
    all.sort();
    all.dedup();
    all
}

/// Binds the address that was asked for or kept; a default that is taken gives way to a free port.
async fn bind(wanted: Option<SocketAddr>, default: SocketAddr) -> Result<TcpListener> {
    let address = wanted.unwrap_or(default);
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if wanted.is_none() && error.kind() == std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((default.ip(), 0)).await.context("find a free port")
        }
        Err(error) => Err(error)
            .with_context(|| format!("listen on {address}; is the port taken? See: ss -ltnp, or pass --listen")),
    }
}

/// The address by which this machine would reach others; without a way out, any that others could reach it by, or else loopback.
/// Nothing is sent: a datagram socket only chooses a route.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let chosen = socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).and_then(|()| socket.local_addr());
    let own = || nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|one| one.address);
    let any = || own().filter_map(|one| Some(one.as_sockaddr_in()?.ip())).find(|ip| is_reachable(*ip));
    let fallback = || any().unwrap_or(Ipv4Addr::LOCALHOST);
    Ok(chosen.map_or_else(|_| IpAddr::V4(fallback()), |address| address.ip()))
}

/// Whether others can have a way to this address: not loopback, link-local or of the ranges that instances use among themselves.
fn is_reachable(ip: Ipv4Addr) -> bool {
    let is_instances = (0..=64).any(|slot| Addresses::of(slot).all().contains(&ip));
    !(ip.is_loopback() || ip.is_link_local() || is_instances)
}

async fn interrupted() -> &'static str {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupted",
        _ = hangup.recv() => "the terminal was closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_not_advertised_where_nobody_reaches_it() {
        let reachable = |text: &str| is_reachable(text.parse().unwrap());
        assert!(["10.0.2.15", "192.168.1.7", "203.0.113.9"].into_iter().all(reachable));
        assert!(!["127.0.0.1", "169.254.9.9", "100.64.192.1", "198.19.208.1"].into_iter().any(reachable));
    }

    #[test]
    fn versions_asked_for_once_are_kept() {
        let versions = vec!["1.35.4".to_owned()];
        let known = Record { versions, ..Record::example("a", PORTAL) };
        assert_eq!(super::versions(Some(&known), &[]), ["1.35.4"]);
        assert_eq!(super::versions(Some(&known), &[KubernetesVersion::parse("1.35.4").unwrap()]), ["1.35.4"]);
        assert_eq!(super::versions(None, &[]), Vec::<String>::new());
        assert_eq!(known.wanted(), [KubernetesVersion::parse("1.35.4").unwrap()]);
    }
}
