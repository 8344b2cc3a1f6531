//! This process's gateway among all that share a database: they know it for as long as it lives, reach the nodes that are linked to it
//! through it, and note that these links are down when it has ended.
//!
//! On SQLite there is one gateway, known until the next start.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::{Gateway, Peers};
use migrations::{GatewayInfo, Store, StoreError};
use tenant_controlplane::id::NodeId;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::directory::certificates;

/// How often a gateway says that it is alive, and how long that holds.
const PACE: Pace = Pace { every: Duration::from_secs(5), lease: Duration::from_secs(20) };
/// How long it holds where there is no other gateway.
const ALONE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How often, and for how long.
#[derive(Clone, Copy)]
struct Pace {
    every: Duration,
    lease: Duration,
}

/// Makes a new gateway of `instance` known, which others reach at `address`, and notes of links of an earlier run that they are down.
pub async fn start(store: &Store, instance: Uuid, address: SocketAddr) -> Result<GatewayInfo> {
    let info = GatewayInfo { id: Uuid::now_v7(), instance, address };
    let lease = if store.is_shared() { PACE.lease } else { ALONE };
    store.gateways().start(&info, lease).await.context("make the gateway known")?;
    store.gateways().sweep().await.context("forget links of an earlier run")?;
    Ok(info)
}

/// How other gateways reach this one, where there may be any; their certificates are by the platform's CA.
pub fn peers(store: &Store, info: &GatewayInfo, ca_pem: &str) -> Option<Peers> {
    store.is_shared().then(|| Peers { id: info.id.simple().to_string(), trust: certificates(ca_pem) })
}

/// Keeps the gateway known until `cancel`.
pub async fn follow(store: Store, info: GatewayInfo, gateway: Gateway, cancel: CancellationToken) {
    if !store.is_shared() {
        return cancel.cancelled().await;
    }
    cancel.run_until_cancelled(keep(&store, &info, &gateway, PACE)).await;
    if let Err(error) = store.gateways().stop(info.id).await {
        warn!("tell other gateways that this one ends: {error}");
    }
}

async fn keep(store: &Store, info: &GatewayInfo, gateway: &Gateway, pace: Pace) {
    let mut beats = interval(pace.every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    loop {
        beats.tick().await;
        // One that could not reach the database cannot tell who has ended from who could not either.
        let may_judge = renewed.elapsed() < pace.lease;
        match beat(store, info, pace.lease).await {
            Ok(()) => renewed = Instant::now(),
            Err(error) => {
                warn!("keep this gateway known to others: {error}");
                continue;
            }
        }
        if let Err(error) = tend_links(store, info, gateway, may_judge).await {
            warn!("compare links with the store: {error}");
        }
    }
}

async fn beat(store: &Store, info: &GatewayInfo, lease: Duration) -> Result<(), StoreError> {
    if store.gateways().renew(info.id, lease).await? { Ok(()) } else { store.gateways().start(info, lease).await }
}

/// Notes that links of ended gateways are down, and has every link reported again of which the store says something else than is so here.
/// Another gateway's word about a node is left alone.
async fn tend_links(store: &Store, info: &GatewayInfo, gateway: &Gateway, may_judge: bool) -> Result<(), StoreError> {
    if may_judge {
        store.gateways().sweep().await?;
    }
    let noted = store.gateways().links(info.id).await?.into_iter();
    let noted: HashSet<_> = noted.map(|(cluster, node)| (cluster.to_string(), node.to_string())).collect();
    let here: HashSet<_> = gateway.linked().into_iter().collect();
    noted.difference(&here).for_each(|(cluster, node)| gateway.report_link(cluster, node));
    for (cluster, node) in here.difference(&noted) {
        let Ok(id) = node.parse::<NodeId>() else { continue };
        if store.nodes().link_gateway(id).await?.is_none() {
            gateway.report_link(cluster, node);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
