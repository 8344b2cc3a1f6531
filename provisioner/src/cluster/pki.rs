//! Certificates and keys of a cluster: made once, kept encrypted, the control plane's own made anew in time; everything else is rendered
//! from what is kept.

use std::sync::Arc;

use migrations::Cluster;
use tenant_controlplane::pki::{ClusterPki, KeySource, PkiContext, PkiError};
use time::OffsetDateTime;

use crate::context::Context;
use crate::error::ReconcileError;

/// The cluster's certificates and keys, none of them old where they can be rolled out (`renewable`). When two make them at once, both
/// get what was stored first.
///
/// # Errors
/// [`ReconcileError`] of the store or of making keys.
pub async fn ensure(ctx: &Context, cluster: &Cluster, renewable: bool) -> Result<ClusterPki, ReconcileError> {
    let Some(known) = ctx.store.pki().get(cluster.id).await? else {
        let made = make(ctx, cluster, ClusterPki::generate).await?;
        return Ok(ctx.store.pki().put_new(cluster.id, &made).await?);
    };
    let extra_ips = ctx.installation.direct.as_slice();
    let context = PkiContext { extra_ips, ..PkiContext::new(cluster.id, &ctx.installation.domain, &cluster.spec) };
    let due = known.due(&context, OffsetDateTime::now_utc())?;
    let Some((leaf, cause)) = due.filter(|_| renewable) else { return Ok(known) };
    let mut renewed = known.clone();
    let renewed = make(ctx, cluster, move |context, now, keys| {
        renewed.renew_leaves(context, now, keys)?;
        Ok(renewed)
    });
    let kept = ctx.store.pki().replace(cluster.id, &known, &renewed.await?).await?;
    tracing::info!(cluster = %cluster.id, ?leaf, %cause, "renewed the control plane's certificates");
    Ok(kept)
}

/// Keys take processor time: they are made where nobody else waits for it.
async fn make<F>(ctx: &Context, cluster: &Cluster, make: F) -> Result<ClusterPki, ReconcileError>
where
    F: FnOnce(&PkiContext<'_>, OffsetDateTime, &dyn KeySource) -> Result<ClusterPki, PkiError> + Send + 'static,
{
    let (keys, spec, id) = (Arc::clone(&ctx.keys), cluster.spec.clone(), cluster.id);
    let (domain, direct) = (ctx.installation.domain.clone(), ctx.installation.direct.clone());
    let make = move || {
        let context = PkiContext { extra_ips: &direct, ..PkiContext::new(id, &domain, &spec) };
        make(&context, OffsetDateTime::now_utc(), &*keys)
    };
    Ok(tokio::task::spawn_blocking(make).await.unwrap_or(Err(PkiError::Random))?)
}
