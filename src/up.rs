//! `pilothouse up`: from a bare machine, or from whatever an earlier run left, to a platform that answers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cgroup;
use crate::components;
use crate::detach::{detach, print_ready};
use crate::doctor::{Verdict, checks};
use crate::host::Host;
use crate::instance::{Addresses, Instance, Record, write_atomic};
use crate::options::{Output, UpArgs};
use crate::platform::{self, Doors, Platform};
use crate::progress::{Event, Progress, Ready};
use crate::run::run;

/// Longest data directory with which containerd's sockets still fit (unix(7): 108 bytes).
const LONGEST_DIR: usize = 55;

/// Starts or resumes, in the foreground or detached.
pub async fn up(args: UpArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir.clone())?;
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
    preflight(instance, args, progress).await?;
    let _lock = instance.lock()?;
    write_atomic(&instance.path("run/pid"), std::process::id().to_string().as_bytes())?;
    fs::remove_file(instance.path("run/ready.json")).ok();
    platform::keep_database_url(instance, args.database_url.as_deref())?;
    let (record, doors) = settle(instance, args).await?;
    let cancel = CancellationToken::new();
    let ended = tokio::select! {
        ended = start(instance, args, (record, doors), (&cancel, progress, begun)) => ended,
        name = interrupted() => { progress.note(format!("{name}: stopping")); Ok(None) }
    };
    if !matches!(ended, Ok(Some(_))) {
        cancel.cancel();
        cgroup::stop(&format!("{}/platform", instance.cgroup()), Duration::from_secs(10)).await.ok();
    }
    if let Some(platform) = ended? {
        let name = interrupted().await;
        progress.note(format!("{name}: stopping; clusters keep running until `pilothouse down`"));
        platform.stop(&cancel).await;
    }
    cancel.cancel();
    fs::remove_file(instance.path("run/ready.json")).ok();
    Ok(())
}

/// Everything between a settled record and "ready".
async fn start(
    instance: &Instance,
    args: &UpArgs,
    (record, doors): (Record, Doors),
    (cancel, progress, begun): (&CancellationToken, &Progress, Instant),
) -> Result<Option<Platform>> {
    let addresses = Addresses::of(record.slot);
    let bundle = Arc::new(components::obtain(args, progress).await?);
    let mut platform = progress
        .step(
            "portal and gateway",
            Platform::open(instance, &record, doors, (bundle.clone(), args.host_kubeconfig.is_none()), cancel),
        )
        .await?;
    let portal_seconds = begun.elapsed().as_secs_f64();
    let client = match &args.host_kubeconfig {
        Some(file) => platform::foreign_host(file).await?,
        None => platform.host_on(Host::new(instance, addresses, bundle)).start(cancel, progress).await?,
    };
    platform.provision(client, args, (cancel, progress)).await?;
    let ready = Ready {
        portal_url: format!("http://{}", record.portal),
        gateway: record.advertise.to_string(),
        ca_file: platform.ca_file(),
        setup_url: platform.setup_url(&record).await?,
        name: instance.name.clone(),
        data_dir: instance.dir.clone(),
        pid: std::process::id(),
        portal_seconds,
        ready_seconds: begun.elapsed().as_secs_f64(),
    };
    write_atomic(&instance.path("run/ready.json"), &serde_json::to_vec(&ready)?)?;
    progress.tell(&Event::Ready(ready.clone()));
    if args.progress_file.is_none() {
        print_ready(&ready, args.output);
        if args.output == Output::Text {
            eprintln!("Press Ctrl-C to stop.");
        }
    }
    Ok(Some(platform))
}

/// Refuses early and changes nothing: every question of `doctor` that decides, and the length of paths.
async fn preflight(instance: &Instance, args: &UpArgs, progress: &Progress) -> Result<()> {
    instance.record()?;
    if args.host_kubeconfig.is_some() {
        return Ok(());
    }
    let failed: Vec<_> = checks::machine(instance).into_iter().filter(|check| check.status == Verdict::Fail).collect();
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
    let missing = checks::missing_packages();
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
        _ => instance.claim_slot(known.as_ref().map(|record| record.slot))?,
    };
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let gateway = bind(args.listen.or(known.as_ref().map(|record| record.listen)), (any, 8443)).await?;
    let portal = bind(known.as_ref().map(|record| record.portal), (Ipv4Addr::LOCALHOST.into(), 8480)).await?;
    let listen = gateway.local_addr()?;
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
        domain: known.map_or_else(|| args.domain.clone(), |record| record.domain),
    };
    instance.save(&record)?;
    Ok((record, Doors { gateway, portal }))
}

/// Binds the address that was asked for or kept; a default that is taken gives way to a free port.
async fn bind(wanted: Option<SocketAddr>, default: (IpAddr, u16)) -> Result<TcpListener> {
    let address = wanted.unwrap_or_else(|| default.into());
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if wanted.is_none() && error.kind() == std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((default.0, 0)).await.context("find a free port")
        }
        Err(error) => Err(error)
            .with_context(|| format!("listen on {address}; is the port taken? See: ss -ltnp, or pass --listen")),
    }
}

/// The address by which this machine would reach others. Nothing is sent: a datagram socket only chooses a route.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let chosen = socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).and_then(|()| socket.local_addr());
    Ok(chosen.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip()))
}

async fn interrupted() -> &'static str {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupted",
    }
}
