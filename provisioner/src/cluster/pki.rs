//! Certificates and keys of a cluster: made once, kept encrypted; everything else is rendered from what is kept.

use std::sync::Arc;

use migrations::Cluster;
use tenant_controlplane::pki::{ClusterPki, PkiContext, PkiError};
use time::OffsetDateTime;

use crate::context::Context;
use crate::trouble::Trouble;

/// The cluster's certificates and keys. When two make them at once, both get what was stored first.
///
/// # Errors
/// [`Trouble`] of the store or of making keys.
pub async fn ensure(ctx: &Context, cluster: &Cluster) -> Result<ClusterPki, Trouble> {
    if let Some(known) = ctx.store.pki().get(cluster.id).await? {
        return Ok(known);
    }
    let (keys, spec, id) = (Arc::clone(&ctx.keys), cluster.spec.clone(), cluster.id);
    let domain = ctx.facts.domain.clone();
    let make = move || ClusterPki::generate(&PkiContext::new(id, &domain, &spec), OffsetDateTime::now_utc(), &*keys);
    let made = tokio::task::spawn_blocking(make).await.unwrap_or(Err(PkiError::Random))?;
    Ok(ctx.store.pki().put_new(cluster.id, &made).await?)
}
