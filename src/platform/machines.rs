//! The `local` provider of an instance, and the end of its machines.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bundle::Bundle;
use cloud_local::{Local, LocalConfig, Network};
use cloud_providers::{Provider, ProviderError};
use migrations::Store;
use portal::LocalMachines;
use serde::{Deserialize, Serialize};

use crate::instance::{Addresses, Instance};
use crate::options::{LocalMode, UpArgs};
use crate::progress::Progress;

/// What machine containers an instance offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// None.
    #[default]
    Off,
    /// Those that share this machine's kernel.
    Trusted,
}

impl Mode {
    /// For people: what it means.
    pub const fn described(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Trusted => {
                "trusted: root in one is root on this machine; for the first organization, and its admins alone may work in their clusters"
            }
        }
    }
}

impl From<Mode> for LocalMachines {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Trusted => Self::Trusted,
        }
    }
}

/// What this `up` was asked for, as far as this machine can do it. Without root there are no machine containers.
pub fn mode(args: &UpArgs) -> Result<Mode> {
    let root = nix::unistd::geteuid().is_root();
    match args.local_machines {
        Some(LocalMode::Off) => Ok(Mode::Off),
        Some(LocalMode::Trusted) if !root => {
            bail!("local machines need root: leave out --local-machines, or run as root")
        }
        None if args.no_local_machines || !root => Ok(Mode::Off),
        Some(LocalMode::Trusted) | None => Ok(Mode::Trusted),
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
    /// Why none is started.
    pub closed: Option<String>,
}

/// The provider over what this instance's directory holds.
pub fn provider(instance: &Instance, addresses: Addresses, bundle: &Bundle, making: Making) -> Result<Arc<Local>> {
    let agent = bundle.artefact("pilothouse-node").context("the bundle has no agent: build it again")?;
    Ok(Arc::new(Local::new(LocalConfig {
        lower: making.lower,
        closed: making.closed,
        seed: bundle.cache().blobs(),
        agent: bundle.path(agent),
        launcher: std::env::current_exe().context("find this program")?,
        ..base(instance, addresses)
    })))
}

/// What suffices to stop machines: nothing is started with it.
fn base(instance: &Instance, addresses: Addresses) -> LocalConfig {
    LocalConfig {
        dir: instance.path("machines"),
        lower: PathBuf::new(),
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
        },
    }
}

/// Starts machines that ran before the platform was stopped or the machine rebooted.
pub async fn resume(provider: &dyn Provider, progress: &Progress) -> Result<()> {
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
