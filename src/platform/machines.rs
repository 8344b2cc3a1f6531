//! The `local` provider of an instance, and the end of its machines.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bundle::{Bundle, Cache};
use cloud_local::{Local, LocalConfig, Network, Ranges};
use cloud_providers::{Provider, ProviderError};
use migrations::Store;
use portal::LocalMachines;
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, Record};
use crate::options::{LocalMode, UpArgs};
use crate::progress::Progress;
use embedded_host::site::Addresses;

/// What machine containers an instance offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// None.
    #[default]
    Off,
    /// Those that share this machine's kernel.
    Trusted,
    /// Those with user namespaces of their own.
    Isolated,
}

impl Mode {
    /// For people: what it means.
    pub const fn described(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Trusted => {
                "trusted: root in one is root on this machine; for the first organization, and its admins alone may work in their clusters"
            }
            Self::Isolated => {
                "isolated: each in a user namespace of its own, and nothing of this machine answers it but the gateway and DNS"
            }
        }
    }
}

impl From<Mode> for LocalMachines {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Trusted => Self::Trusted,
            Mode::Isolated => Self::Isolated,
        }
    }
}

/// What this `up` was asked for, as far as this machine can do it; what it can is found by trying. Without root there are no machine
/// containers.
pub async fn mode(instance: &Instance, record: &Record, args: &UpArgs, progress: &Progress) -> Result<Mode> {
    let root = nix::unistd::geteuid().is_root();
    match args.local_machines {
        Some(LocalMode::Off) => return Ok(Mode::Off),
        None if args.no_local_machines || !root => return Ok(Mode::Off),
        Some(_) if !root => bail!("local machines need root: leave out --local-machines, or run as root"),
        Some(_) if record.listen.ip().is_loopback() => {
            bail!(
                "the gateway listens on {}, where no local machine reaches it: choose another --listen",
                record.listen
            )
        }
        None if record.listen.ip().is_loopback() => {
            progress.note(format!("no local machines: the gateway listens on {} only", record.listen));
            return Ok(Mode::Off);
        }
        Some(LocalMode::Trusted) => return Ok(Mode::Trusted),
        Some(LocalMode::Isolated) | None => {}
    }
    match isolation(instance, record, args).await {
        Ok(()) => Ok(Mode::Isolated),
        Err(error) if args.local_machines.is_some() => {
            bail!("{error:#}; or choose --local-machines trusted or off")
        }
        Err(error) => {
            progress.note(format!("local machines are trusted, not isolated: {error:#}"));
            Ok(Mode::Trusted)
        }
    }
}

/// Tries to isolate a machine, over the file system that the machines' tree is on.
async fn isolation(instance: &Instance, record: &Record, args: &UpArgs) -> Result<()> {
    gateway(record)?;
    let addresses = Addresses::of(record.slot);
    let trial = Local::new(LocalConfig {
        lower: args.cache.clone().unwrap_or_else(Cache::default_dir),
        launcher: std::env::current_exe().context("find this program")?,
        ..base(instance, addresses)
    });
    trial.try_isolation(Ranges::of_slot(record.slot)).await.map_err(explain)
}

/// Where a local machine finds the gateway: where everybody does, but for a server without a network, which is advertised on its loopback
/// interface. A machine has one of its own, so it dials the bridge.
pub fn dialed(record: &Record) -> SocketAddr {
    if record.advertise.ip().is_loopback() {
        return SocketAddr::new(Addresses::of(record.slot).machines_gateway().into(), record.advertise.port());
    }
    record.advertise
}

/// What isolated machines may dial.
fn gateway(record: &Record) -> Result<SocketAddrV4> {
    match dialed(record) {
        SocketAddr::V4(gateway) => Ok(gateway),
        SocketAddr::V6(gateway) => bail!("the gateway is advertised at {gateway}, and local machines have IPv4 only"),
    }
}

/// Why no machine is started although there may be pools: clusters that must not share this machine's kernel have some.
pub async fn closed(store: &Store, mode: Mode) -> Result<Option<String>> {
    let unfit = store.pools().unfit_to_share_kernel().await.context("look at clusters with local machines")?;
    if mode != Mode::Trusted || unfit.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "no local machine is started: they would share this machine's kernel with clusters of another organization, or to which somebody \
         below admin was given access ({}); delete the local pools there",
        unfit.join(", ")
    )))
}

/// What new machines are made of.
pub struct Making {
    /// The machines' Debian tree.
    pub lower: PathBuf,
    /// What keeps them from this machine.
    pub mode: Mode,
    /// Why none is started.
    pub closed: Option<String>,
}

/// The provider over what this instance's directory holds.
pub fn provider(instance: &Instance, record: &Record, bundle: &Bundle, making: Making) -> Result<Arc<Local>> {
    let agent = bundle.artefact("pilothouse-node").context("the bundle has no agent: build it again")?;
    let isolated = making.mode == Mode::Isolated;
    let base = base(instance, Addresses::of(record.slot));
    let only = isolated.then(|| gateway(record)).transpose()?;
    Ok(Arc::new(Local::new(LocalConfig {
        lower: making.lower,
        closed: making.closed,
        seed: bundle.cache().blobs(),
        agent: bundle.path(agent),
        launcher: std::env::current_exe().context("find this program")?,
        users: isolated.then(|| Ranges::of_slot(record.slot)),
        network: Network { only, ..base.network },
        ..base
    })))
}

/// What suffices to stop machines: nothing is started with it.
fn base(instance: &Instance, addresses: Addresses) -> LocalConfig {
    LocalConfig {
        dir: instance.path("machines"),
        lower: PathBuf::new(),
        users: None,
        closed: None,
        seed: PathBuf::new(),
        agent: PathBuf::new(),
        launcher: PathBuf::new(),
        cgroup: format!("{}/machines", instance.cgroup()),
        wire: addresses.bridge().replace("br", ""),
        network: Network {
            bridge: addresses.bridge(),
            subnet: addresses.machines(),
            table: format!("pilothouse_{}", instance.name.replace('-', "_")),
            only: None,
        },
    }
}

/// Starts machines that ran before the platform was stopped or the machine rebooted.
pub async fn resume(provider: &Local, progress: &Progress) -> Result<()> {
    // What is not let run is named below, with the reason.
    provider.end_unisolated().await.map_err(explain)?;
    for machine in provider.list().await.map_err(explain)? {
        if matches!(machine.state, cloud_providers::MachineState::Failed(_)) {
            // One that does not come is not to keep the platform from coming.
            match provider.start(&machine.id).await.map_err(explain) {
                Ok(()) => progress.note(format!("machine {} started again", machine.name)),
                Err(error) => progress.note(format!("machine {} does not start: {error:#}", machine.name)),
            }
        }
    }
    Ok(())
}

/// Ends every machine's processes; for good with `remove`.
pub async fn stop_all(instance: &Instance, addresses: Addresses, remove: bool) -> Result<()> {
    let provider = Local::new(base(instance, addresses));
    for machine in provider.list().await.map_err(explain)? {
        if remove {
            provider.remove(&machine.id).await.map_err(explain)?;
        } else {
            provider.halt(&machine.id).await.map_err(explain)?;
        }
    }
    provider.dismantle().await;
    Ok(())
}

fn explain(error: ProviderError) -> anyhow::Error {
    anyhow!("{}; {}", error.message, error.remediation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_host::site::SLOTS;

    #[test]
    fn no_machine_has_the_user_of_a_control_plane() {
        for slot in 0..SLOTS {
            let machines = Ranges::of_slot(slot).ids();
            assert!(i64::from(machines.start) >= migrations::CLUSTER_USERS.end, "slot {slot}: {machines:?}");
        }
    }
}
