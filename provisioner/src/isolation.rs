//! Who may talk to whom among tenants' pods on the host: for hosts without a NetworkPolicy engine, whose owner keeps a packet filter.
//!
//! Everything not listed between or from tenants' pods is to be dropped.

use std::sync::Arc;

use tenant_controlplane::isolation::IsolationState;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::host::Component;
use crate::host::PodInfo;
use crate::pods::Pods;

/// The state that follows from these pods.
fn allowed(pods: &[PodInfo]) -> IsolationState {
    let mut state = IsolationState::default();
    for destination in pods {
        let Some(to) = destination.address else { continue };
        state.tenants.insert(to);
        if destination.component == Component::Etcd {
            let kin = pods.iter().filter(|source| source.cluster == destination.cluster);
            let sources = kin.filter_map(|source| source.address).filter(|from| *from != to);
            state.pairs.extend(sources.map(|from| (from, to)));
        }
    }
    state
}

/// Keeps the state true until cancelled. While nothing is known the last state stays.
pub async fn publish(pods: Arc<Pods>, state: watch::Sender<IsolationState>, cancel: CancellationToken) {
    let mut changes = pods.changes();
    loop {
        if let Some(all) = pods.all() {
            state.send_if_modified(|old| {
                let new = allowed(&all);
                let different = *old != new;
                *old = new;
                different
            });
        }
        tokio::select! {
            change = changes.recv() => {
                if matches!(change, Err(broadcast::error::RecvError::Closed)) {
                    return;
                }
            }
            () = cancel.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::tests::pod;

    #[test]
    fn only_kin_meet_and_only_towards_etcd() {
        let (etcd, api) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (member, other) = ([10, 0, 0, 3], [10, 0, 0, 9]);
        let pods = [
            pod(1, Component::Etcd, "etcd-0", etcd),
            pod(1, Component::Etcd, "etcd-1", member),
            pod(1, Component::ControlPlane, "control-plane-a", api),
            pod(2, Component::ControlPlane, "control-plane-b", other),
        ];
        let state = allowed(&pods);
        let pair = |from: [u8; 4], to: [u8; 4]| (from.into(), to.into());
        let wanted = [pair(api, etcd), pair(api, member), pair(etcd, member), pair(member, etcd)];
        assert_eq!(state.pairs, wanted.into_iter().collect());
        assert_eq!(state.tenants.len(), 4);
    }
}
