//! Observing a cluster: its pods from the shared watch, its API server by asking it at its pod's address, and the way from outside
//! through the gateway. What could not be seen stays unknown.

use std::sync::Arc;

use futures::future::join_all;
use migrations::Cluster;
use tenant_controlplane::component::etcd::{HEALTH_PORT, is_full};
use tenant_controlplane::diagnosis::BlockingReason;
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::ClusterPki;
use tenant_controlplane::plan::cluster::{self as plan, NodeCount, Observation};
use tenant_controlplane::sni;
use tenant_controlplane::status::NodeState;
use time::OffsetDateTime;

use crate::context::Context;
use crate::error::ReconcileError;
use crate::host::Component;
use crate::host::{Health, Kubernetes, ObjectKey};
use crate::tenants::Identity;

/// The API server to work with, when one serves.
pub type ServingApi = Option<Arc<dyn Kubernetes>>;

/// Observes from inside the host. `current` is the address the gateway uses now; it is kept while its pod lives and nothing better answers.
///
/// # Errors
/// [`ReconcileError`] of the store, or when no client can be made.
pub async fn inside(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    current: Option<&str>,
) -> Result<(Observation, ServingApi), ReconcileError> {
    let pods = ctx.pods.of(cluster.id);
    let addresses = plan::addresses(pods.as_deref().unwrap_or_default(), current);
    let (health, best) = ask(ctx, cluster, pki, &addresses).await?;
    let (serving, api) = best.unzip();
    Ok((Observation::inside(pods.as_deref(), current, health, serving), api))
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
