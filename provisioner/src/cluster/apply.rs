//! The control plane into the host: namespace, then what everything stands on, then etcd and the control plane together.
//!
//! The answer to applying etcd's service says its address, which the control plane's pods get as a host alias: the embedded host has no
//! DNS. Pods' owners wait for etcd's volume, and nothing waits for etcd to be ready. What an older render made and this one does not goes
//! last.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::try_join_all;
use migrations::Cluster;
use serde_json::Value;
use tenant_controlplane::pki::{ClusterPki, KubeconfigAuthorities};
use tenant_controlplane::render::{
    CLIENT_AUTHORITIES, CLUSTER_LABEL, ETCD, MANAGED_BY_LABEL, Manifests, PRUNED, Placement, RemovedNodes, RenderInput,
    render, shared,
};
use tenant_controlplane::sni;
use tokio::time::{Instant, sleep};

use super::prune::{self, Scope};
use crate::clients;
use crate::config::Release;
use crate::context::{ApplyTarget, Context, fingerprint};
use crate::error::ReconcileError;
use crate::host::Component;
use crate::host::ObjectKey;

/// Between two looks at a claim.
const CLAIM_LOOK: Duration = Duration::from_millis(15);

/// What everything is made from but the placement.
struct Source<'a> {
    cluster: &'a Cluster,
    pki: &'a ClusterPki,
    authorities: KubeconfigAuthorities,
    removed: RemovedNodes,
}

impl Source<'_> {
    fn rendered(&self, placement: &Placement) -> Manifests {
        let Self { cluster, pki, authorities, removed } = self;
        let Cluster { id, name, spec, user_id, .. } = cluster;
        render(&RenderInput { cluster: *id, name, spec, pki, authorities, removed, user: *user_id, placement })
    }
}

/// What changes with every kubeconfig is applied alone ([`crate::clients`]).
fn is_lasting(object: &&Value) -> bool {
    object["metadata"]["name"] != CLIENT_AUTHORITIES
}

/// Applies everything of a cluster that lives in the host, unless this process did so a while ago and it is still there.
///
/// # Errors
/// [`ReconcileError`] of the host.
pub async fn control_plane(
    ctx: &Context,
    cluster: &Cluster,
    pki: &ClusterPki,
    release: Release,
) -> Result<(), ReconcileError> {
    let mut placement = Placement { etcd_ip: None, images: release.images, ..ctx.installation.placement.clone() };
    clients::prepare(ctx, cluster.id).await?;
    let authorities = clients::authorities(ctx, cluster.id).await?;
    let removed = ctx.store.tombstones().recent(cluster.id).await?;
    let source = Source { cluster, pki, authorities, removed };
    let manifests = source.rendered(&placement);
    let hash = fingerprint(manifests.objects.iter().filter(is_lasting));
    if ctx.is_applied(cluster.id, ApplyTarget::Host, hash) && !is_bare(ctx, cluster) {
        return Ok(());
    }
    let (first, rest) = manifests.foundation().split_at(1.min(manifests.foundation().len()));
    let shared = (!ctx.has_shared()).then(shared);
    all(ctx, first.iter().chain(&shared)).await?;
    ctx.set_shared();
    placement.etcd_ip = service_address(&all(ctx, rest).await?);
    bound(ctx, rest).await?;
    all(ctx, source.rendered(&placement).workloads()).await?;
    // One that never was well has nothing from an older render, and a person waits for it.
    if cluster.observed_generation > 0 {
        prune(ctx, cluster, &manifests).await?;
    }
    ctx.set_applied(cluster.id, ApplyTarget::Host, hash);
    let bundle = manifests.objects.iter().filter(|object| !is_lasting(object));
    ctx.set_applied(cluster.id, ApplyTarget::Clients, fingerprint(bundle));
    Ok(())
}

/// Until the claims among `objects` have their volumes, or as long as is waited for that. A pod that comes sooner loses more: a second until
/// the scheduler looks at it again, and ten until the kubelet does, if it comes between the two writes that a binding consists of.
async fn bound(ctx: &Context, objects: &[Value]) -> Result<(), ReconcileError> {
    let until = Instant::now() + ctx.tuning.volume_bind_timeout;
    for claim in objects.iter().filter(|object| object["kind"] == "PersistentVolumeClaim") {
        let is_bound = async || {
            let found = ctx.host.get(&ObjectKey::of(claim)?).await?;
            Ok(found.is_some_and(|claim| claim["status"]["phase"] == "Bound"))
        };
        while Instant::now() < until && !is_bound().await.map_err(ReconcileError::host_api)? {
            sleep(CLAIM_LOOK).await;
        }
    }
    Ok(())
}

/// Whether a part of the control plane was seen to have no pod at all: then somebody may have taken its owner away.
fn is_bare(ctx: &Context, cluster: &Cluster) -> bool {
    let Some(pods) = ctx.pods.of(cluster.id) else { return false };
    let lacks = |component| !pods.iter().any(|pod| pod.component == component);
    lacks(Component::Etcd) || lacks(Component::ControlPlane)
}

async fn prune(ctx: &Context, cluster: &Cluster, manifests: &Manifests) -> Result<(), ReconcileError> {
    let namespace = sni::namespace(cluster.id);
    let labels = format!("{MANAGED_BY_LABEL}=pilothouse,{CLUSTER_LABEL}={}", cluster.id);
    let scope = Scope { kinds: PRUNED, namespaces: &[&namespace], labels: &labels, is_ours: |_| true };
    prune::surplus(&*ctx.host, &scope, &manifests.objects).await.map_err(ReconcileError::host_api)
}

async fn all(ctx: &Context, objects: impl IntoIterator<Item = &Value>) -> Result<Vec<Value>, ReconcileError> {
    let applied = try_join_all(objects.into_iter().map(|object| ctx.host.apply(object))).await;
    applied.map_err(ReconcileError::host_api)
}

/// The address of etcd's service, as the host answered.
fn service_address(applied: &[Value]) -> Option<IpAddr> {
    let service = applied.iter().find(|object| object["kind"] == "Service" && object["metadata"]["name"] == ETCD)?;
    service["spec"]["clusterIP"].as_str()?.parse().ok()
}
