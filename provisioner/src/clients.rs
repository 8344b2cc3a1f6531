//! Whom a cluster's API servers believe: the authorities of living file kubeconfigs come into their client-CA bundle and go from it, and
//! what came of it is seen, not assumed.
//!
//! The bundle is a Secret in the host, mounted into the API servers' pods, watched by them and looked at for every request. The kubelet
//! looks at a mounted Secret once a minute, and at once when the pod changes: so the pods are touched, which restarts nothing. A TLS server
//! names the authorities it believes in each handshake (RFC 8446, 4.2.4), and kube-apiserver puts a new bundle to use for its requests
//! before it names it: so its handshake tells for certain, and no key is needed to ask. Nothing of that needs anything inside the tenant.
//!
//! All that takes two seconds, so the authority of the next kubeconfig is made ahead and believed before anybody asks for the file.
//!
//! Beside the bundle lies the API servers' authorization configuration, with the names of nodes that were removed lately. Whether it is in
//! force is asked by a SubjectAccessReview: a tenant can keep us from knowing, and not from refusing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use migrations::{Cluster, Kubeconfig, PreparedAuthority};
use serde_json::{Value, json};
use tenant_controlplane::id::{ClusterId, KubeconfigId};
use tenant_controlplane::pki::{
    ClusterPki, KubeconfigAuthorities, PkiError, generate_kubeconfig_authority, kubelet_user, subject_der,
};
use tenant_controlplane::render::{RenderInput, client_authorities};
use tenant_controlplane::sni;
use tenant_controlplane::spec::API_PORT;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::context::{ApplyTarget, Context, fingerprint};
use crate::error::ReconcileError;
use crate::host::Component;
use crate::host::{Announced, ApiError, PodInfo};
use crate::tenants::Identity;

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

/// What the API servers of a cluster should believe, and no longer believe.
struct Wanted {
    rows: Vec<Kubeconfig>,
    prepared: Vec<PreparedAuthority>,
}

impl Wanted {
    async fn load(ctx: &Context, cluster: ClusterId) -> Result<Self, ReconcileError> {
        let kubeconfigs = ctx.store.kubeconfigs();
        Ok(Self { prepared: kubeconfigs.prepared(cluster).await?, rows: kubeconfigs.with_authority(cluster).await? })
    }

    /// The authorities of those that are not revoked, and of those to come.
    fn authorities(&self) -> KubeconfigAuthorities {
        let living = self.rows.iter().filter(|row| row.revoked_at.is_none());
        let living = living.filter_map(|row| Some((row.id, row.authority.clone()?)));
        living.chain(self.prepared.iter().map(|next| (next.id, next.certificate.clone()))).collect()
    }

    /// Those whose change is not known to be in force.
    fn open(self) -> Vec<Kubeconfig> {
        self.rows.into_iter().filter(|row| row.revoked_at.is_some() || !row.bound).collect()
    }

    /// Whether all API servers believe the authority of the next kubeconfig.
    fn is_ready(&self, servers: &[Announced]) -> bool {
        self.prepared.iter().any(|next| !next.taken && is_believed(&next.certificate, servers))
    }
}

/// What a cluster's API servers should believe beside its own authority.
///
/// # Errors
/// [`ReconcileError`] of the store.
pub async fn authorities(ctx: &Context, cluster: ClusterId) -> Result<KubeconfigAuthorities, ReconcileError> {
    Ok(Wanted::load(ctx, cluster).await?.authorities())
}

/// Makes the authority of the next kubeconfig, unless there is one. Keys take processor time: they are made where nobody else waits for it.
///
/// # Errors
/// [`ReconcileError`] of the store or of making keys.
pub async fn prepare(ctx: &Context, cluster: ClusterId) -> Result<(), ReconcileError> {
    if ctx.store.kubeconfigs().prepared(cluster).await?.iter().any(|next| !next.taken) {
        return Ok(());
    }
    let (id, keys) = (KubeconfigId::from_uuid(Uuid::now_v7()), Arc::clone(&ctx.keys));
    let make = move || generate_kubeconfig_authority(id, OffsetDateTime::now_utc(), &*keys);
    let authority = tokio::task::spawn_blocking(make).await.unwrap_or(Err(PkiError::Random))?;
    Ok(ctx.store.kubeconfigs().prepare(cluster, id, &authority).await?)
}

/// Gives the API servers the authorities of living kubeconfigs and of the next one, and stays until every change is seen to be in force, at
/// most [`LONGEST`] and no longer than they answer. New kubeconfigs that are accepted are answered at once: somebody waits for them.
///
/// # Errors
/// [`ReconcileError`] of the store or the host.
pub async fn settle(ctx: &Context, cluster: &Cluster, pki: &ClusterPki) -> Result<Clients, ReconcileError> {
    let mut clients = accepted(ctx, cluster, pki).await?;
    if !clients.accepted.is_empty() {
        return Ok(clients);
    }
    let (mut touched, until) = (None, Instant::now() + LONGEST.min(ctx.tuning.reconcile_timeout));
    loop {
        prepare(ctx, cluster.id).await?;
        let wanted = Wanted::load(ctx, cluster.id).await?;
        put(ctx, cluster, pki, &wanted.authorities()).await?;
        let Some(servers) = ask(ctx, cluster, pki).await else { return Ok(clients) };
        let is_ready = wanted.is_ready(&servers);
        // One that is starting may have mounted the Secret of before.
        let is_starting = is_starting(ctx, cluster);
        let is_done = |row: &Kubeconfig| is_in_force(row, &servers) && !(is_starting && row.revoked_at.is_some());
        let (done, waiting): (Vec<_>, Vec<_>) = wanted.open().into_iter().partition(is_done);
        note(ctx, &mut clients, done).await?;
        clients.settled = waiting.is_empty() && is_ready;
        let is_over = clients.settled || (waiting.is_empty() && !clients.accepted.is_empty());
        if is_over || Instant::now() > until {
            return Ok(clients);
        }
        if touched.is_none_or(|touched: Instant| touched.elapsed() > TOUCH) {
            touch(ctx, cluster).await;
            touched = Some(Instant::now());
        }
        sleep(LOOK).await;
    }
}

/// New kubeconfigs that are believed already, because their authority was made ahead; only while nothing else is to be done.
async fn accepted(ctx: &Context, cluster: &Cluster, pki: &ClusterPki) -> Result<Clients, ReconcileError> {
    let (mut clients, wanted) = (Clients::default(), Wanted::load(ctx, cluster.id).await?);
    if wanted.rows.iter().all(|row| row.bound) || wanted.rows.iter().any(|row| row.revoked_at.is_some()) {
        return Ok(clients);
    }
    let Some(servers) = ask(ctx, cluster, pki).await else { return Ok(clients) };
    let is_ready = wanted.is_ready(&servers);
    let open = wanted.open();
    if open.iter().all(|row| is_in_force(row, &servers)) {
        note(ctx, &mut clients, open).await?;
        clients.settled = is_ready;
    }
    Ok(clients)
}

/// Whether every API server refuses a removed node whatever it asks; they are told of it, and hurried where they do not yet.
///
/// # Errors
/// [`ReconcileError`] of the store or the tenant's API servers.
pub async fn refuse(ctx: &Context, cluster: &Cluster, node: &str) -> Result<bool, ReconcileError> {
    let (Some(pki), Some(pods)) = (ctx.store.pki().get(cluster.id).await?, servers(ctx, cluster)) else {
        return Ok(false);
    };
    // One that is starting may have mounted the Secret of before.
    if is_starting(ctx, cluster) {
        return Ok(false);
    }
    put(ctx, cluster, &pki, &authorities(ctx, cluster.id).await?).await?;
    let refused = ReconcileError::cluster_api;
    for pod in &pods {
        let Some(address) = pod.address else { continue };
        let api = ctx.tenants.client(cluster.id, &pki, &format!("{address}:{API_PORT}"), Identity::Platform)?;
        match api.denies(&kubelet_user(node)).await {
            Ok(true) => {}
            // It takes no new connections either.
            Err(ApiError::Unreachable(_)) if pod.terminating => {}
            Ok(false) => {
                touch(ctx, cluster).await;
                return Ok(false);
            }
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(!pods.is_empty())
}

/// The bundle and the names of removed nodes into the host, unless they are there.
async fn put(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    authorities: &KubeconfigAuthorities,
) -> Result<(), ReconcileError> {
    let removed = &ctx.store.tombstones().recent(cluster.id).await?;
    let (Cluster { id, name, spec, user_id, .. }, placement) = (cluster, &ctx.installation.placement);
    let input = RenderInput { cluster: *id, name, spec, pki, authorities, removed, user: *user_id, placement };
    let secret = client_authorities(&input);
    let hash = fingerprint([&secret]);
    if !ctx.is_applied(cluster.id, ApplyTarget::Clients, hash) {
        ctx.host.apply(&secret).await.map_err(ReconcileError::host_api)?;
        ctx.set_applied(cluster.id, ApplyTarget::Clients, hash);
    }
    Ok(())
}

fn servers(ctx: &Context, cluster: &Cluster) -> Option<Vec<PodInfo>> {
    let mut pods = ctx.pods.of(cluster.id)?;
    pods.retain(|pod| pod.component == Component::ControlPlane && pod.address.is_some());
    Some(pods)
}

/// Whether an API server has no address yet, so that it cannot be asked whom it believes.
fn is_starting(ctx: &Context, cluster: &Cluster) -> bool {
    let starts = |pod: &PodInfo| pod.component == Component::ControlPlane && !pod.terminating && pod.address.is_none();
    ctx.pods.of(cluster.id).is_some_and(|pods| pods.iter().any(starts))
}

/// A pod that goes just now, or a host that is slow, is touched again.
async fn touch(ctx: &Context, cluster: &Cluster) {
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos().to_string();
    let namespace = sni::namespace(cluster.id);
    let patch = |pod: &PodInfo| -> Value {
        let metadata = json!({"name": pod.name, "namespace": namespace, "annotations": {TOUCHED: now}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    };
    let patches: Vec<Value> =
        servers(ctx, cluster).iter().flatten().filter(|pod| !pod.terminating).map(patch).collect();
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
    let asked = pods.iter().filter_map(|pod| Some((pod.terminating, format!("{}:{API_PORT}", pod.address?))));
    let answers = asked.map(|(terminating, address)| async move {
        (terminating, ctx.tenants.announced(cluster.id, pki, &address).await)
    });
    let mut servers = Vec::new();
    for (terminating, answer) in join_all(answers).await {
        match answer {
            Ok(announced) => servers.push(announced),
            Err(_) if terminating => {}
            Err(error) => {
                tracing::debug!(cluster = %cluster.id, error = crate::chain(&error), "read an API server's client CAs");
                return None;
            }
        }
    }
    Some(servers).filter(|servers| !servers.is_empty())
}

/// Whether all API servers do what the row says: believe a living one, and none of them a revoked one.
fn is_in_force(row: &Kubeconfig, servers: &[Announced]) -> bool {
    let Some(authority) = row.authority.as_deref() else { return false };
    if row.revoked_at.is_none() {
        return is_believed(authority, servers);
    }
    let Some(subject) = subject_der(authority) else { return false };
    !servers.iter().any(|server| server.contains(&subject))
}

/// Whether all API servers believe an authority, PEM.
fn is_believed(authority: &str, servers: &[Announced]) -> bool {
    let Some(subject) = subject_der(authority) else { return false };
    servers.iter().all(|server| server.contains(&subject))
}

async fn note(ctx: &Context, clients: &mut Clients, rows: Vec<Kubeconfig>) -> Result<(), ReconcileError> {
    for row in rows {
        if row.revoked_at.is_none() {
            clients.accepted.insert(row.id);
            continue;
        }
        ctx.store.kubeconfigs().mark_refused(row.id).await?;
        tracing::info!(kubeconfig = %row.id, cluster = %row.cluster, "every API server rejects the revoked kubeconfig");
        clients.refused.push(row.id);
    }
    Ok(())
}
