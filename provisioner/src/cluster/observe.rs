//! Observing a cluster: its pods from the shared watch, its API server by asking it at its pod's address, and the way from outside
//! through the gateway. What could not be seen stays unknown.

use std::sync::Arc;

use futures::future::join_all;
use migrations::Cluster;
use tenant_controlplane::component::etcd::{HEALTH_PORT, is_full};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::ClusterPki;
use tenant_controlplane::plan::{NodeCount, Observed};
use tenant_controlplane::sni;
use tenant_controlplane::spec::API_PORT;
use tenant_controlplane::status::{NodeState, Problem};
use time::OffsetDateTime;

use super::diagnosis::BlockingReason;
use crate::context::Context;
use crate::error::ReconcileError;
use crate::host::info::Component;
use crate::host::{Health, Kubernetes, ObjectKey, PodInfo};
use crate::tenants::Identity;

/// What one observation found.
pub struct Observation {
    /// In the domain's words.
    pub observed: Observed,
    /// Whether the watch of pods knows anything yet.
    pub pods_known: bool,
    /// The API server to work with, when one serves.
    pub api: Option<Arc<dyn Kubernetes>>,
    /// Why it does not come up, quoted from the host.
    pub blocking_reason: Option<BlockingReason>,
    /// What went wrong inside the tenant.
    pub problem: Option<Problem>,
    health: Option<Health>,
    candidates: usize,
}

impl Observation {
    /// Whether nothing is left to do: it answers from outside and its add-ons are installed.
    pub fn is_settled(&self) -> bool {
        self.observed.probe == Some(true) && self.observed.addons == Some(true)
    }

    /// Whether there is an address to ask.
    pub const fn has_candidate(&self) -> bool {
        self.candidates > 0
    }

    /// Whether something answers at that address, ready or not.
    pub const fn answers(&self) -> bool {
        matches!(self.health, Some(Health::Starting(_)))
    }

    /// What is waited for.
    pub fn reason(&self) -> String {
        match &self.health {
            _ if self.blocking_reason.is_some() => {
                self.blocking_reason.iter().map(|blocking_reason| blocking_reason.text.clone()).collect()
            }
            _ if !self.pods_known => "the list of the host's pods".to_owned(),
            None => "a control plane pod with an IP address".to_owned(),
            Some(Health::Down(why)) => format!("the API server: {why}"),
            Some(Health::Starting(what)) => format!("the API server: {what}"),
            Some(Health::Serving | Health::Ready) => {
                self.observed.last_error.clone().unwrap_or_else(|| "the endpoint through the gateway".to_owned())
            }
        }
    }
}

fn address(pod: &PodInfo) -> Option<String> {
    pod.address
        .filter(|_| pod.component == Component::ControlPlane && !pod.terminating)
        .map(|ip| format!("{ip}:{API_PORT}"))
}

/// Observes from inside the host. `current` is the address the gateway uses now; it is kept while its pod lives and nothing better answers.
///
/// # Errors
/// [`ReconcileError`] of the store, or when no client can be made.
pub async fn inside(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    current: Option<&str>,
) -> Result<Observation, ReconcileError> {
    let pods = ctx.pods.of(cluster.id);
    let pod_list = pods.as_deref().unwrap_or_default();
    let mut addresses: Vec<String> = pod_list.iter().filter_map(address).collect();
    addresses.sort_by_key(|address| Some(address.as_str()) != current);
    let (health, best) = ask(ctx, cluster, pki, &addresses).await?;
    let serving = best.as_ref().map(|(address, _)| address.clone());
    let kept = || {
        current
            .filter(|current| pods.is_none() || addresses.iter().any(|pod_list| pod_list == current))
            .map(ToOwned::to_owned)
    };
    let observed = Observed {
        namespace: Some(true),
        etcd_writable: None,
        etcd_ready: if best.is_some() { Some(true) } else { pods.as_deref().map(quorum) },
        control_plane_ready: health.as_ref().map(Health::serves).or(pods.as_ref().map(|_| false)),
        endpoint: serving.or_else(kept),
        probe: if pods.is_some() { Some(false) } else { None },
        addons: None,
        nodes: None,
        certificates_end: None,
        last_error: None,
    };
    let blocking_reason = BlockingReason::of(pod_list);
    let api = best.map(|(_, api)| api);
    let (pods_known, candidates) = (pods.is_some(), addresses.len());
    Ok(Observation { observed, pods_known, api, blocking_reason, problem: None, health, candidates })
}

/// As whom to come: before everything is in place nothing else is let in, and afterwards nobody needs it.
const fn identity(cluster: &Cluster) -> Identity {
    if cluster.observed_generation == 0 { Identity::First } else { Identity::Platform }
}

type Answering = (String, Arc<dyn Kubernetes>);

/// Asks every address; answers the best health seen and, when it serves, who that was. The first address wins a tie.
async fn ask(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    addresses: &[String],
) -> Result<(Option<Health>, Option<Answering>), ReconcileError> {
    let clients = addresses.iter().map(|address| {
        let api = ctx.tenants.client(cluster.id, pki, address, identity(cluster))?;
        Ok((address.clone(), api))
    });
    let clients: Vec<Answering> = clients.collect::<Result<_, ReconcileError>>()?;
    let answers = join_all(clients.iter().map(|(_, api)| api.health())).await;
    let rank = |health: &Health| match health {
        Health::Ready => 0,
        Health::Serving => 1,
        Health::Starting(_) => 2,
        Health::Down(_) => 3,
    };
    let best = answers.into_iter().zip(clients).min_by_key(|(health, _)| rank(health));
    Ok(match best {
        Some((health, client)) if health.serves() => (Some(health), Some(client)),
        Some((health, _)) => (Some(health), None),
        None => (None, None),
    })
}

/// Whether more than half of etcd's members are ready.
fn quorum(pods: &[PodInfo]) -> bool {
    let members = || pods.iter().filter(|pod| pod.component == Component::Etcd);
    members().filter(|pod| pod.ready).count() * 2 > members().count()
}

/// How many nodes are ready, as their rows say.
///
/// # Errors
/// [`ReconcileError`] of the store.
pub async fn nodes(ctx: &Context, cluster: ClusterId) -> Result<NodeCount, ReconcileError> {
    let nodes = ctx.store.nodes().of_cluster(cluster).await?;
    let ready = nodes.iter().filter(|node| node.state == NodeState::Ready).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(NodeCount { ready: count(ready), total: count(nodes.len()) })
}

/// Whether etcd accepts writes; `None`: unknown.
pub async fn etcd_writable(ctx: &Context, cluster: ClusterId) -> Option<bool> {
    let pods = ctx.pods.of(cluster)?;
    let etcd = pods.iter().find(|pod| pod.component == Component::Etcd && pod.ready && !pod.terminating)?;
    let pod = ObjectKey::namespaced("v1", "Pod", &sni::namespace(cluster), &etcd.name);
    // Its health port asks nobody who they are, so it is open to the host's API server and kubelet only.
    let (_, answer) = ctx.host.ask_pod(&pod, HEALTH_PORT, "/health").await.ok()?;
    is_full(&answer).map(|full| !full)
}

/// The host's latest warning about the cluster's pods. What cannot be asked is not told.
pub async fn warning(ctx: &Context, cluster: ClusterId) -> Option<BlockingReason> {
    let pods = ctx.pods.of(cluster).unwrap_or_default();
    match ctx.host.select("v1", "Event", Some(&sni::namespace(cluster)), "").await {
        Ok(events) => BlockingReason::latest(&events, &pods, OffsetDateTime::now_utc()),
        Err(error) => {
            tracing::debug!(%cluster, error = crate::chain(&error), "ask for the host's events");
            None
        }
    }
}

/// Observes from outside: through the gateway, by name, with a client certificate of the cluster's own CA.
///
/// # Errors
/// [`ReconcileError`] when no client can be made.
pub async fn outside(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    observation: &mut Observation,
) -> Result<(), ReconcileError> {
    let gateway = ctx.installation.gateway.to_string();
    let api = ctx.tenants.client(cluster.id, pki, &gateway, Identity::Platform)?;
    let answer = api.answers().await;
    observation.observed.probe = Some(answer.is_ok());
    observation.observed.last_error = answer.err().map(|error| format!("through the gateway: {error}"));
    Ok(())
}
