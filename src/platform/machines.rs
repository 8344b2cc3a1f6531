//! The `local` provider of an instance, and the end of its machines.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use bundle::Bundle;
use cloud_local::{Local, LocalConfig, Network};
use cloud_providers::{Provider, ProviderError};

use crate::instance::{Addresses, Instance};
use crate::progress::Progress;

/// The provider over what this instance's directory holds; `lower` is the machines' Debian tree.
pub fn provider(instance: &Instance, addresses: Addresses, bundle: &Bundle, lower: PathBuf) -> Result<Arc<Local>> {
    let agent = bundle.artefact("pilothouse-node").context("the bundle has no agent: build it again")?;
    Ok(Arc::new(Local::new(LocalConfig {
        lower,
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
