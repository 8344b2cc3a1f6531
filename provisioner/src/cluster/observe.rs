//! Looking at a cluster: its pods from the shared watch, its API server by asking it at its pod's address, and the way from outside
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

use super::hindrance::Hindrance;
use crate::context::Context;
use crate::host::facts::Component;
use crate::host::{Health, Kubernetes, ObjectKey, PodFact};
use crate::tenants::Identity;
use crate::trouble::Trouble;

/// What one look saw.
pub struct Look {
    /// In the domain's words.
    pub observed: Observed,
    /// Whether the watch of pods knows anything yet.
    pub pods_known: bool,
    /// The API server to work with, when one serves.
    pub api: Option<Arc<dyn Kubernetes>>,
    /// What is in the way, as the host says it.
    pub hindrance: Option<Hindrance>,
    /// What went wrong inside the tenant.
    pub problem: Option<Problem>,
    health: Option<Health>,
    candidates: usize,
}

impl Look {
    /// Whether nothing is left to do: it answers from outside and is furnished.
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
            _ if self.hindrance.is_some() => self.hindrance.iter().map(|hindrance| hindrance.text.clone()).collect(),
            _ if !self.pods_known => "the list of the host's pods".to_owned(),
            None => "a control plane pod with an IP address".to_owned(),
            Some(Health::Down(why)) => format!("the API server: {why}"),
            Some(Health::Starting(what)) => format!("the API server: {what}"),
            Some(Health::Serving | Health::Ready) => {
                self.observed.trouble.clone().unwrap_or_else(|| "the endpoint through the gateway".to_owned())
            }
        }
    }
}

fn address(pod: &PodFact) -> Option<String> {
    pod.address
        .filter(|_| pod.component == Component::ControlPlane && !pod.leaving)
        .map(|ip| format!("{ip}:{API_PORT}"))
}

/// Looks from inside the host. `current` is the address the gateway uses now; it is kept while its pod lives and nothing better answers.
///
/// # Errors
/// [`Trouble`] of the store, or when no client can be made.
pub async fn inside(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    current: Option<&str>,
) -> Result<Look, Trouble> {
    let pods = ctx.pods.of(cluster.id);
    let known = pods.as_deref().unwrap_or_default();
    let mut addresses: Vec<String> = known.iter().filter_map(address).collect();
    addresses.sort_by_key(|address| Some(address.as_str()) != current);
    let (health, best) = ask(ctx, cluster, pki, &addresses).await?;
    let serving = best.as_ref().map(|(address, _)| address.clone());
    let kept = || {
        current
            .filter(|current| pods.is_none() || addresses.iter().any(|known| known == current))
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
        trouble: None,
    };
    let hindrance = Hindrance::of(known);
    let api = best.map(|(_, api)| api);
    let (pods_known, candidates) = (pods.is_some(), addresses.len());
    Ok(Look { observed, pods_known, api, hindrance, problem: None, health, candidates })
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
) -> Result<(Option<Health>, Option<Answering>), Trouble> {
    let doors = addresses.iter().map(|address| {
        let api = ctx.tenants.door(cluster.id, pki, address, identity(cluster))?;
        Ok((address.clone(), api))
    });
    let doors: Vec<Answering> = doors.collect::<Result<_, Trouble>>()?;
    let answers = join_all(doors.iter().map(|(_, api)| api.health())).await;
    let rank = |health: &Health| match health {
        Health::Ready => 0,
        Health::Serving => 1,
        Health::Starting(_) => 2,
        Health::Down(_) => 3,
    };
    let best = answers.into_iter().zip(doors).min_by_key(|(health, _)| rank(health));
    Ok(match best {
        Some((health, door)) if health.serves() => (Some(health), Some(door)),
        Some((health, _)) => (Some(health), None),
        None => (None, None),
    })
}

/// Whether more than half of etcd's members are ready.
fn quorum(pods: &[PodFact]) -> bool {
    let members = || pods.iter().filter(|pod| pod.component == Component::Etcd);
    members().filter(|pod| pod.ready).count() * 2 > members().count()
}

/// How many nodes are ready, as their rows say.
///
/// # Errors
/// [`Trouble`] of the store.
pub async fn nodes(ctx: &Context, cluster: ClusterId) -> Result<NodeCount, Trouble> {
    let nodes = ctx.store.nodes().of_cluster(cluster).await?;
    let ready = nodes.iter().filter(|node| node.state == NodeState::Ready).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(NodeCount { ready: count(ready), total: count(nodes.len()) })
}

/// Whether etcd takes writes. `None` when that cannot be told.
pub async fn etcd_writable(ctx: &Context, cluster: ClusterId) -> Option<bool> {
    let pods = ctx.pods.of(cluster)?;
    let etcd = pods.iter().find(|pod| pod.component == Component::Etcd && pod.ready && !pod.leaving)?;
    let pod = ObjectKey::namespaced("v1", "Pod", &sni::namespace(cluster), &etcd.name);
    // Its health port asks nobody who they are, so it is open to the host's API server and kubelet only.
    let (_, answer) = ctx.host.ask_pod(&pod, HEALTH_PORT, "/health").await.ok()?;
    is_full(&answer).map(|full| !full)
}

/// The host's latest warning about the cluster's pods. What cannot be asked is not told.
pub async fn warning(ctx: &Context, cluster: ClusterId) -> Option<Hindrance> {
    let pods = ctx.pods.of(cluster).unwrap_or_default();
    match ctx.host.select("v1", "Event", Some(&sni::namespace(cluster)), "").await {
        Ok(events) => Hindrance::latest(&events, &pods, OffsetDateTime::now_utc()),
        Err(error) => {
            tracing::debug!(%cluster, error = crate::chain(&error), "ask for the host's events");
            None
        }
    }
}

/// Looks from outside: through the gateway, by name, with a client certificate of the cluster's own CA.
///
/// # Errors
/// [`Trouble`] when no client can be made.
pub async fn outside(ctx: &Context, cluster: &Cluster, pki: &ClusterPki, look: &mut Look) -> Result<(), Trouble> {
    let gateway = ctx.facts.gateway.to_string();
    let api = ctx.tenants.door(cluster.id, pki, &gateway, Identity::Platform)?;
    let answer = api.answers().await;
    look.observed.probe = Some(answer.is_ok());
    look.observed.trouble = answer.err().map(|error| format!("through the gateway: {error}"));
    Ok(())
}
