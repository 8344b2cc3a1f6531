//! One tenant's control plane: the phases, and the run that stays with a cluster while it comes up.
//!
//! Everything is applied at once; then the run watches pods and asks the API server itself, many times a second, because a person waits.
//! As soon as it serves, its address goes to the gateway and access is set up; the last word has a probe from outside, through the
//! gateway. A cluster that is well is visited the same way and left after one look.

mod access;
mod addons;
mod apply;
mod observe;
mod pki;
mod prune;
mod release;
mod report;
mod teardown;

use std::time::Duration;

use migrations::{Change, ChangeKind, Cluster, ClusterReport, Kubeconfig};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::ClusterPki;
use tenant_controlplane::plan::{self, NodeCount};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, leaving};
use crate::engine::Outcome;
use crate::steps::Steps;
use crate::trouble::{Trouble, present};

use observe::Look;

/// Between two looks at a cluster that something still has to happen to, when nothing signals.
const ROUTINE_LOOK: Duration = Duration::from_secs(1);
/// After so long nobody counts tenths of seconds any more.
const IMPATIENCE: Duration = Duration::from_secs(12);

/// Makes a cluster so.
///
/// # Errors
/// [`Trouble`], which has been put on the cluster and its operation already.
pub async fn reconcile(ctx: &Context, id: ClusterId) -> Result<Outcome, Trouble> {
    let Some(cluster) = present(ctx.store.clusters().load(id).await)? else {
        ctx.forget(id);
        return Ok(Outcome::Gone);
    };
    let ended = if leaving(&cluster) { teardown::run(ctx, &cluster).await } else { bring_up(ctx, &cluster).await };
    if let Err(trouble) = &ended {
        report::trouble(ctx, &cluster, trouble).await;
    }
    ended
}

async fn bring_up(ctx: &Context, cluster: &Cluster) -> Result<Outcome, Trouble> {
    let target = cluster.id.to_string();
    let mut steps = Steps::open(&ctx.store, &target, &["cluster.create"], &plan::CLUSTER_CREATE).await?;
    if !release::of(ctx, cluster)?.loaded {
        let reason = format!("the host to load the images of Kubernetes {}", cluster.spec.version);
        steps.running("accepted", &format!("Waiting for {reason}.")).await?;
        return Ok(Outcome::waiting(reason, ROUTINE_LOOK));
    }
    steps.running("accepted", "").await?;
    let pki = pki::ensure(ctx, cluster).await?;
    let signals = Signals { pods: ctx.pods.changes(), rows: ctx.store.changes(), ending: ctx.ending.clone() };
    apply::control_plane(ctx, cluster, &pki).await?;
    Run::begin(ctx, cluster, &pki, steps).await?.stay(signals).await
}

/// What may wake a run.
struct Signals {
    pods: broadcast::Receiver<ClusterId>,
    rows: broadcast::Receiver<Change>,
    ending: CancellationToken,
}

/// What woke it.
enum Woken {
    /// Time passed, or pods changed.
    Look,
    /// The wish may have changed.
    Wish,
    /// Kubeconfigs were issued or revoked.
    Access,
    /// The process ends.
    End,
}

impl Signals {
    async fn next(&mut self, id: ClusterId, pause: Duration) -> Woken {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                pod = self.pods.recv() => match pod {
                    Ok(cluster) if cluster != id => {}
                    Err(broadcast::error::RecvError::Closed) => tokio::time::sleep_until(until).await,
                    Ok(_) | Err(_) => return Woken::Look,
                },
                row = self.rows.recv() => match row {
                    Ok(Change { kind: ChangeKind::Kubeconfig, cluster: Some(cluster), .. }) if cluster == id => return Woken::Access,
                    Ok(Change { kind: ChangeKind::Cluster, id: changed, .. }) if changed == id.uuid() => return Woken::Wish,
                    Err(broadcast::error::RecvError::Closed) => tokio::time::sleep_until(until).await,
                    Err(_) => return Woken::Wish,
                    Ok(_) => {}
                },
                () = tokio::time::sleep_until(until) => return Woken::Look,
                () = self.ending.cancelled() => return Woken::End,
            }
        }
    }
}

/// One visit to a cluster.
struct Run<'a> {
    ctx: &'a Context,
    cluster: &'a Cluster,
    pki: &'a ClusterPki,
    steps: Steps<'a>,
    furnished: bool,
    /// Kubeconfigs whose bindings are applied and not yet known to work.
    granted: Vec<Kubeconfig>,
    access_known: bool,
    unwell_since: Option<Instant>,
    /// What the row says, so that only news are written.
    told: ClusterReport,
    nodes: NodeCount,
}

impl<'a> Run<'a> {
    async fn begin(
        ctx: &'a Context,
        cluster: &'a Cluster,
        pki: &'a ClusterPki,
        steps: Steps<'a>,
    ) -> Result<Self, Trouble> {
        let (told, nodes) = (report::repeated(cluster), observe::nodes(ctx, cluster.id).await?);
        let (furnished, access_known, granted) = (false, false, Vec::new());
        Ok(Self { ctx, cluster, pki, steps, furnished, granted, access_known, unwell_since: None, told, nodes })
    }

    /// Looks and acts until all is well, the wish changed, or others should have a turn.
    async fn stay(mut self, mut signals: Signals) -> Result<Outcome, Trouble> {
        let begun = Instant::now();
        loop {
            let look = self.pass().await?;
            if look.is_settled() && self.granted.is_empty() {
                return Ok(Outcome::Done);
            }
            if begun.elapsed() > self.ctx.tuning.patience {
                let roles = (!self.granted.is_empty()).then(|| "Kubernetes to fill its roles".to_owned());
                let reason = roles.filter(|_| look.is_settled()).unwrap_or_else(|| look.reason());
                return Ok(Outcome::waiting(reason, ROUTINE_LOOK));
            }
            match signals.next(self.cluster.id, self.pause(&look, begun)).await {
                Woken::Look => {}
                Woken::Access => self.access_known = false,
                Woken::End => return Ok(Outcome::waiting("the next process", Duration::ZERO)),
                Woken::Wish if self.wish_changed().await? => {
                    return Ok(Outcome::waiting("the new wish", Duration::ZERO));
                }
                Woken::Wish => {}
            }
        }
    }

    /// A pod that has an address is asked again soon; without one the watch will tell.
    fn pause(&self, look: &Look, begun: Instant) -> Duration {
        match look.has_candidate() {
            true if begun.elapsed() > IMPATIENCE => ROUTINE_LOOK / 2,
            // It has work to do, of which every question is a part.
            true if look.answers() => self.ctx.tuning.probe_every * 2,
            true => self.ctx.tuning.probe_every,
            false => ROUTINE_LOOK,
        }
    }

    async fn wish_changed(&mut self) -> Result<bool, Trouble> {
        self.nodes = observe::nodes(self.ctx, self.cluster.id).await?;
        let now = present(self.ctx.store.clusters().load(self.cluster.id).await)?;
        Ok(now.is_none_or(|now| leaving(&now) || now.generation != self.cluster.generation))
    }

    /// One look, and everything that can be done after it.
    async fn pass(&mut self) -> Result<Look, Trouble> {
        let mut look = observe::inside(self.ctx, self.cluster, self.pki, self.told.endpoint.as_deref()).await?;
        look.observed.nodes = Some(self.nodes);
        look.observed.certificates_end = self.pki.earliest_end();
        if look.observed.endpoint != self.told.endpoint && look.pods_known {
            report::endpoint(self, look.observed.endpoint.clone()).await?;
        }
        if let Some(api) = look.api.clone() {
            self.furnish(&look, &*api).await?;
            look.observed.addons = Some(self.furnished);
            if look.is_ready() {
                observe::outside(self.ctx, self.cluster, self.pki, &mut look).await?;
            }
        }
        self.forbear(&mut look);
        report::seen(self, &look).await?;
        Ok(look)
    }

    /// Sets up what belongs inside the tenant. Access counts as given only when roles are there to be bound.
    async fn furnish(&mut self, look: &Look, api: &dyn crate::host::Kubernetes) -> Result<(), Trouble> {
        if !self.furnished {
            addons::apply(self.ctx, self.cluster, api).await?;
            self.furnished = true;
        }
        if !self.access_known {
            self.granted = access::apply(self.ctx, self.cluster.id, api).await?;
            self.access_known = true;
        }
        if look.is_ready() {
            self.granted = access::confirm(self.ctx, std::mem::take(&mut self.granted), api).await?;
        }
        Ok(())
    }

    /// A cluster that was running is not called broken for one missed answer.
    fn forbear(&mut self, look: &mut Look) {
        if look.observed.probe == Some(true) {
            self.unwell_since = None;
            return;
        }
        let since = *self.unwell_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.ctx.tuning.grace {
            look.observed.probe = None;
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod upkeep_tests;
