//! The embedded host's wall between tenants: an nftables table in the host's own network namespace.
//!
//! Pods hang on point-to-point links (CNI `ptp`), so every packet between two of them is routed and passes the forward
//! hook. Everything from or to a pod is dropped but the few ways listed here; a pod nobody has told us about yet reaches
//! nothing. Addresses are compared after kube-proxy's translation, so pairs of pod addresses suffice.

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use crate::error::{DuringStep, Result};
use node_linux::tool::{run_with_input, succeeds};
use tenant_controlplane::component::etcd::CLIENT_PORT;
use tenant_controlplane::isolation::IsolationState;
use tenant_controlplane::spec::API_PORT;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::network::UPLINK;
use crate::site::Site;
use node_linux::files::write_public;

const TABLE: &str = "pilothouse_isolation";
/// Where members of one etcd speak to each other.
const PEER_PORT: u16 = 2380;
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The state last put in force, for the probe of `doctor`.
pub fn load(dir: &Path) -> Option<IsolationState> {
    serde_json::from_slice(&std::fs::read(dir.join("run/isolation.json")).ok()?).ok()
}

/// The wall of one instance.
#[derive(Debug, Clone)]
pub struct Wall {
    site: Site,
    gateway: SocketAddrV4,
}

impl Wall {
    /// A wall that lets pods reach the gateway at `gateway` and nothing else outside.
    pub fn new(site: Site, gateway: SocketAddrV4) -> Self {
        Self { site, gateway }
    }

    /// Puts the wall up before anything can run behind it. One that stands keeps its ways, for an earlier run's pods go on.
    pub async fn raise(&self) -> Result<()> {
        let enter = format!("--net={}", self.site.netns().display());
        let stands = succeeds(&["nsenter", &enter, "--", "nft", "list", "table", "inet", TABLE]).await;
        let known = load(&self.site.dir).filter(|_| stands);
        self.apply(&known.unwrap_or_default()).await
    }

    /// Keeps the wall as `changes` say until nobody sends any more. What failed is tried again: a way that is left open by
    /// mistake may lead to the next owner of an address.
    pub async fn follow(self, changes: watch::Receiver<IsolationState>) {
        let apply = |state| {
            let wall = self.clone();
            async move { wall.apply(&state).await }
        };
        follow(changes, apply).await;
    }

    /// Puts the whole table in force in one transaction.
    pub async fn apply(&self, state: &IsolationState) -> Result<()> {
        let enter = format!("--net={}", self.site.netns().display());
        run_with_input(&["nsenter", &enter, "--", "nft", "-f", "-"], &self.text(state))
            .await
            .during("isolate tenants (nftables)")?;
        Ok(write_public(&self.site.path("run/isolation.json"), &serde_json::to_vec(state)?)?)
    }

    /// The table's text. From the machine itself, on which anybody may have an account, API servers are reached and nothing else: etcd's
    /// health port and kube-proxy's ask nobody who they are. The kubelet's probes come from inside. The first two lines make the third possible whether or not the table exists.
    fn text(&self, state: &IsolationState) -> String {
        let pods = self.site.addresses.pods();
        let (gateway, port) = (self.gateway.ip(), self.gateway.port());
        let (outside, api) = (self.site.addresses.outside(), API_PORT);
        let (etcd, peers) = (CLIENT_PORT, PEER_PORT);
        let pairs: Vec<String> = state.pairs.iter().map(|(from, to)| format!("{from} . {to}")).collect();
        let elements = if pairs.is_empty() { String::new() } else { format!("elements = {{ {} }}", pairs.join(", ")) };
        format!(
            "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{
  set pairs {{ type ipv4_addr . ipv4_addr; {elements} }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    ip saddr {pods} ip saddr . ip daddr @pairs tcp dport {{ {etcd}, {peers} }} accept
    ip saddr {pods} ip daddr {gateway} tcp dport {port} accept
    ip saddr {pods} drop
    ip saddr {outside} ip daddr {pods} tcp dport {api} accept
    ip daddr {pods} drop
    meta nfproto ipv6 drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    ip saddr {pods} drop
    iifname \"veth*\" drop
    iifname \"{UPLINK}\" ip saddr {outside} tcp dport {api} accept
    iifname \"{UPLINK}\" drop
  }}
}}
"
        )
    }
}

async fn follow<F: Future<Output = Result<()>>>(
    mut changes: watch::Receiver<IsolationState>,
    apply: impl Fn(IsolationState) -> F,
) {
    while changes.changed().await.is_ok() {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let state = changes.borrow_and_update().clone();
            let Err(error) = apply(state).await else { break };
            warn!("{error:#}; tried again in {pause:?}");
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    use super::*;
    use crate::HostError;
    use crate::site::Addresses;

    #[tokio::test]
    async fn a_failed_change_is_tried_again_without_another_change() {
        let (sender, changes) = watch::channel(IsolationState::default());
        let tenant = Ipv4Addr::new(100, 65, 0, 2);
        sender.send_modify(|state| state.tenants.extend([tenant]));
        let (sender, tried) = (Mutex::new(Some(sender)), Mutex::new(Vec::new()));
        let apply = |state: IsolationState| {
            let mut tried = tried.lock().unwrap();
            tried.push(state.tenants.contains(&tenant));
            let busy = tried.len() < 2;
            if !busy {
                sender.lock().unwrap().take();
            }
            std::future::ready(if busy { Err(HostError::Unfit("nft is busy".to_owned())) } else { Ok(()) })
        };
        follow(changes, apply).await;
        assert_eq!(*tried.lock().unwrap(), [true, true]);
    }

    #[test]
    fn only_listed_ways_are_open() {
        let site = Site { name: "wall".into(), dir: "/nowhere".into(), addresses: Addresses::of(1) };
        let wall = Wall::new(site, "100.65.192.1:8443".parse().unwrap());
        let mut state = IsolationState::default();
        assert!(!wall.text(&state).contains("elements"));
        state.pairs.insert((Ipv4Addr::new(100, 65, 0, 2), Ipv4Addr::new(100, 65, 0, 3)));
        let text = wall.text(&state);
        assert!(text.contains("elements = { 100.65.0.2 . 100.65.0.3 }"));
        assert!(text.contains("ip daddr 100.65.192.1 tcp dport 8443 accept"));
        assert!(text.contains("ip saddr 100.65.192.1 ip daddr 100.65.0.0/17 tcp dport 6443 accept"), "{text}");
        assert!(
            text.contains(
                "iifname \"uplink\" ip saddr 100.65.192.1 tcp dport 6443 accept\n    iifname \"uplink\" drop"
            )
        );
        let accept = text.find("@pairs tcp dport { 2379, 2380 } accept").unwrap();
        assert!(accept < text.find("ip saddr 100.65.0.0/17 drop").unwrap(), "the drop comes last");
    }
}
