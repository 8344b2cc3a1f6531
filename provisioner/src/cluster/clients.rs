//! Whom a cluster's API servers believe: the authorities of living file kubeconfigs come into their client-CA bundle and go from it, and
//! what came of it is seen, not assumed.
//!
//! The bundle is a Secret in the host, mounted into the API servers' pods, watched by them and looked at for every request. The kubelet
//! looks at a mounted Secret once a minute, and at once when the pod changes: so the pods are touched, which restarts nothing. A TLS server
//! names the authorities it believes in each handshake (RFC 8446, 4.2.4), and kube-apiserver puts a new bundle to use for its requests
//! before it names it: so its handshake tells for certain, and no key is needed to ask. Nothing here needs anything inside the tenant.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use migrations::{Cluster, Kubeconfig};
use serde_json::{Value, json};
use tenant_controlplane::id::KubeconfigId;
use tenant_controlplane::pki::{ClusterPki, KubeconfigAuthorities, subject_der};
use tenant_controlplane::render::{RenderInput, client_authorities};
use tenant_controlplane::sni;
use tenant_controlplane::spec::API_PORT;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::context::{Context, Place, fingerprint};
use crate::host::facts::Component;
use crate::host::{Announced, PodFact};
use crate::trouble::Trouble;

/// Between two looks at the API servers while a change is on its way.
const LOOK: Duration = Duration::from_millis(40);
/// Between two touches of the pods: the first may come to the kubelet before the Secret does.
const TOUCH: Duration = Duration::from_millis(400);
/// The longest that a visit to a cluster stays for it.
const LONGEST: Duration = Duration::from_secs(8);
/// The annotation by which pods are touched.
const TOUCHED: &str = "pilothouse.dev/client-authorities-at";

/// What is known of the kubeconfigs' authorities.
#[derive(Debug, Default)]
pub struct Clients {
    /// Whether every change has been seen to be in force.
    pub settled: bool,
    /// Those not yet known to work whom every API server believes.
    pub accepted: BTreeSet<KubeconfigId>,
    /// Those that were seen to be refused just now.
    pub refused: Vec<KubeconfigId>,
}

/// The authorities of those that are not revoked.
pub fn living(rows: &[Kubeconfig]) -> KubeconfigAuthorities {
    let living = rows.iter().filter(|row| row.revoked_at.is_none());
    living.filter_map(|row| Some((row.id, row.authority.clone()?))).collect()
}

/// Gives the API servers the authorities of living kubeconfigs, and stays until every change is seen to be in force, at most [`LONGEST`]
/// and no longer than they answer.
///
/// # Errors
/// [`Trouble`] of the store or the host.
pub async fn settle(ctx: &Context, cluster: &Cluster, pki: &ClusterPki) -> Result<Clients, Trouble> {
    let rows = ctx.store.kubeconfigs().with_authority(cluster.id).await?;
    put(ctx, cluster, pki, &living(&rows)).await?;
    let mut open: Vec<Kubeconfig> = rows.into_iter().filter(|row| row.revoked_at.is_some() || !row.bound).collect();
    let (mut clients, mut touched) = (Clients::default(), None);
    let until = Instant::now() + LONGEST.min(ctx.tuning.patience);
    while !open.is_empty() {
        if touched.is_none_or(|touched: Instant| touched.elapsed() > TOUCH) {
            touch(ctx, cluster).await;
            touched = Some(Instant::now());
        }
        let Some(servers) = ask(ctx, cluster, pki).await else { return Ok(clients) };
        let (done, rest) = open.into_iter().partition(|row| is_in_force(row, &servers));
        open = rest;
        note(ctx, &mut clients, done).await?;
        if !open.is_empty() && Instant::now() > until {
            return Ok(clients);
        }
        sleep(if open.is_empty() { Duration::ZERO } else { LOOK }).await;
    }
    clients.settled = true;
    Ok(clients)
}

/// The bundle into the host, unless it is there.
async fn put(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    authorities: &KubeconfigAuthorities,
) -> Result<(), Trouble> {
    let (Cluster { id, name, spec, user_id, .. }, placement) = (cluster, &ctx.facts.placement);
    let input = RenderInput { cluster: *id, name, spec, pki, authorities, user: *user_id, placement };
    let secret = client_authorities(&input);
    let hash = fingerprint([&secret]);
    if !ctx.is_applied(cluster.id, Place::Clients, hash) {
        ctx.host.apply(&secret).await.map_err(|error| Trouble::api("host", error))?;
        ctx.set_applied(cluster.id, Place::Clients, hash);
    }
    Ok(())
}

fn servers(ctx: &Context, cluster: &Cluster) -> Option<Vec<PodFact>> {
    let mut pods = ctx.pods.of(cluster.id)?;
    pods.retain(|pod| pod.component == Component::ControlPlane && pod.address.is_some());
    Some(pods)
}

/// A pod that goes just now, or a host that is slow, is touched again.
async fn touch(ctx: &Context, cluster: &Cluster) {
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos().to_string();
    let namespace = sni::namespace(cluster.id);
    let patch = |pod: &PodFact| -> Value {
        let metadata = json!({"name": pod.name, "namespace": namespace, "annotations": {TOUCHED: now}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    };
    let patches: Vec<Value> = servers(ctx, cluster).iter().flatten().filter(|pod| !pod.leaving).map(patch).collect();
    for touched in join_all(patches.iter().map(|patch| ctx.host.apply(patch))).await {
        if let Err(error) = touched {
            tracing::debug!(cluster = %cluster.id, error = crate::chain(&error), "touch a control plane's pod");
        }
    }
}

/// Whom each API server believes. None while that cannot be told of one of them. (One that is on its way out and does not answer takes no
/// new connections either.)
async fn ask(ctx: &Context, cluster: &Cluster, pki: &ClusterPki) -> Option<Vec<Announced>> {
    let pods = servers(ctx, cluster)?;
    let asked = pods.iter().filter_map(|pod| Some((pod.leaving, format!("{}:{API_PORT}", pod.address?))));
    let answers = asked
        .map(|(leaving, address)| async move { (leaving, ctx.tenants.announced(cluster.id, pki, &address).await) });
    let mut servers = Vec::new();
    for (leaving, answer) in join_all(answers).await {
        match answer {
            Ok(announced) => servers.push(announced),
            Err(_) if leaving => {}
            Err(error) => {
                tracing::debug!(cluster = %cluster.id, error = crate::chain(&error), "ask whom an API server believes");
                return None;
            }
        }
    }
    Some(servers).filter(|servers| !servers.is_empty())
}

/// Whether all API servers do what the row says: believe a living one, and none of them a revoked one.
fn is_in_force(row: &Kubeconfig, servers: &[Announced]) -> bool {
    let Some(subject) = row.authority.as_deref().and_then(subject_der) else { return false };
    let mut believes = servers.iter().map(|server| server.contains(&subject));
    if row.revoked_at.is_some() { !believes.any(|believes| believes) } else { believes.all(|believes| believes) }
}

async fn note(ctx: &Context, clients: &mut Clients, rows: Vec<Kubeconfig>) -> Result<(), Trouble> {
    for row in rows {
        if row.revoked_at.is_none() {
            clients.accepted.insert(row.id);
            continue;
        }
        ctx.store.kubeconfigs().mark_refused(row.id).await?;
        tracing::info!(kubeconfig = %row.id, cluster = %row.cluster, "every API server refuses the revoked kubeconfig");
        clients.refused.push(row.id);
    }
    Ok(())
}
