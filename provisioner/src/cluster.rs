//! One tenant's control plane: the phases, and the run that stays with a cluster while it comes up.
//!
//! Everything is applied at once; then the run watches pods and asks the API server itself, many times a second, because a person waits.
//! As soon as it serves, its address goes to the gateway and access is set up; the last word has a probe from outside, through the
//! gateway. A cluster that is well is visited the same way and left after one look; so is one that has not been well for long, less and
//! less often, because others need the place.

mod access;
mod addons;
mod apply;
pub mod clients;
mod departed;
mod hindrance;
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
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::context::{Context, Place, leaving};
use crate::engine::Outcome;
use crate::host::Kubernetes;
use crate::steps::Steps;
use crate::tenants::Identity;
use crate::trouble::{Trouble, present};

use clients::Clients;
use departed::Departed;
use hindrance::Hindrance;
use observe::Look;

/// Between two looks at a cluster that something still has to happen to, when nothing signals.
const ROUTINE_LOOK: Duration = Duration::from_secs(1);
/// The longest between two visits to a cluster that is not well, once it has been so for long.
const LONGEST_LOOK: Duration = Duration::from_secs(30);
/// The same while somebody waits for it to be created.
const CREATING_LOOK: Duration = Duration::from_secs(2);
/// How long people wait.
const CREATING: Duration = Duration::from_secs(120);
/// Between two looks at the host's events.
const EVENTS: Duration = Duration::from_secs(5);
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
    let release =
        if cluster.observed_generation > 0 { release::find(ctx, cluster) } else { Some(release::of(ctx, cluster)?) };
    if release.as_ref().is_some_and(|release| !release.loaded) {
        let reason = format!("the host to load the images of Kubernetes {}", cluster.spec.version);
        steps.running("accepted", &format!("Waiting for {reason}.")).await?;
        return Ok(Outcome::waiting(reason, ROUTINE_LOOK));
    }
    steps.running("accepted", "").await?;
    let pki = pki::ensure(ctx, cluster, release.is_some()).await?;
    let signals = Signals { pods: ctx.pods.changes(), rows: ctx.store.changes(), ending: ctx.ending.clone() };
    if let Some(release) = release {
        apply::control_plane(ctx, cluster, &pki, release).await?;
    }
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
    /// Kubeconfigs whose certificates are accepted and that are not yet known to work.
    granted: Vec<Kubeconfig>,
    access_known: bool,
    clients: Clients,
    /// Whether etcd takes writes: asked once a visit, after what people wait for.
    etcd_writable: Option<Option<bool>>,
    certificates_end: Option<OffsetDateTime>,
    departed: Departed,
    /// What the host's events said, and when.
    heard: Option<(Instant, Option<Hindrance>)>,
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
        // What cannot be applied is taken as it is.
        let furnished = release::find(ctx, cluster).is_none();
        let (access_known, granted) = (false, Vec::new());
        let (etcd_writable, certificates_end) = (None, pki.earliest_end());
        Ok(Self {
            ctx,
            cluster,
            pki,
            steps,
            furnished,
            granted,
            access_known,
            clients: Clients::default(),
            etcd_writable,
            certificates_end,
            departed: Departed::default(),
            heard: None,
            told,
            nodes,
        })
    }

    /// Looks and acts until all is well, the wish changed, or others should have a turn.
    async fn stay(mut self, mut signals: Signals) -> Result<Outcome, Trouble> {
        let begun = Instant::now();
        loop {
            let look = self.pass().await?;
            if look.is_settled() && self.granted.is_empty() && self.clients.settled && self.departed.refused {
                self.ctx.at_rest(self.cluster.id);
                return Ok(Outcome::Done);
            }
            let restless = self.ctx.unrest(self.cluster.id).since.elapsed();
            if restless.max(begun.elapsed()) > self.ctx.tuning.patience {
                return Ok(Outcome::waiting(self.reason(&look), self.absence(restless)));
            }
            match signals.next(self.cluster.id, self.pause(&look, begun)).await {
                Woken::Look => {}
                Woken::Access => self.clients.settled = false,
                Woken::End => return Ok(Outcome::waiting("the next process", Duration::ZERO)),
                Woken::Wish if self.wish_changed().await? => {
                    return Ok(Outcome::waiting("the new spec", Duration::ZERO));
                }
                Woken::Wish => {}
            }
        }
    }

    fn reason(&self, look: &Look) -> String {
        let access = match () {
            () if !self.clients.settled => Some("the API servers to load the kubeconfig CAs"),
            () if !self.departed.refused => Some("the API servers to reject removed nodes"),
            () if !self.granted.is_empty() => Some("Kubernetes to aggregate its roles"),
            () => None,
        };
        access.filter(|_| look.is_settled()).map_or_else(|| look.reason(), ToOwned::to_owned)
    }

    /// When to come back to a cluster that has not been well for so long: signals wake earlier.
    fn absence(&self, restless: Duration) -> Duration {
        let awaited = self.steps.is_open() && restless < CREATING;
        (restless / 8).clamp(ROUTINE_LOOK, if awaited { CREATING_LOOK } else { LONGEST_LOOK })
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
        // First of all: nothing inside the tenant may stand in the way of a revocation.
        if !self.clients.settled {
            self.clients = clients::settle(self.ctx, self.cluster, self.pki).await?;
            self.access_known = false;
        }
        let mut look = observe::inside(self.ctx, self.cluster, self.pki, self.told.endpoint.as_deref()).await?;
        let mut failed = None;
        look.observed.nodes = Some(self.nodes);
        look.observed.certificates_end = self.certificates_end;
        if look.observed.endpoint != self.told.endpoint && look.pods_known {
            report::endpoint(self, look.observed.endpoint.clone()).await?;
        }
        if let Some(api) = look.api.clone() {
            let ctx = self.ctx;
            let refused = std::mem::take(&mut self.clients.refused);
            let listed = ctx.visit(access::list_left_behind(ctx, refused, &*api)).await;
            let set_up = ctx.visit(self.set_up(&look, &*api)).await;
            look.observed.addons = Some(self.furnished).filter(|_| set_up.is_ok());
            let shut_out = ctx.visit(self.departed.visit(ctx, self.cluster, &*api)).await;
            failed = self.failure(set_up.and(listed).and(shut_out), &*api).await?;
            observe::outside(self.ctx, self.cluster, self.pki, &mut look).await?;
        }
        look.observed.etcd_writable = self.is_etcd_writable().await;
        self.forbear(&mut look);
        let waited = self.waited(&look);
        if look.hindrance.is_none()
            && waited.map_or(look.observed.probe == Some(false), |waited| waited >= self.ctx.tuning.murmur)
        {
            look.hindrance = self.warning().await;
        }
        look.problem = failed.as_ref().map(|failed: &Trouble| failed.problem.clone());
        report::seen(self, &look, waited).await?;
        failed.map_or(Ok(look), Err)
    }

    /// What went wrong inside the tenant. Of a cluster that was well once the rest is still seen and told, so that whatever stops its
    /// writes, such as a webhook, hides nothing; a new one is not well before everything is in place.
    async fn failure(&self, ended: Result<(), Trouble>, api: &dyn Kubernetes) -> Result<Option<Trouble>, Trouble> {
        let Err(failed) = ended else { return Ok(None) };
        let explained = admission::explain(failed, api).await;
        if self.cluster.observed_generation == 0 { Err(explained) } else { Ok(Some(explained)) }
    }

    /// How long the present step of a creation has been waiting; none when nothing is being created.
    fn waited(&self, look: &Look) -> Option<Duration> {
        let step = plan::next_step(&look.observed).filter(|_| self.steps.is_open())?;
        Some(self.steps.age(step.key).unwrap_or_default())
    }

    /// What the host's events say, asked now and then.
    async fn warning(&mut self) -> Option<Hindrance> {
        if self.heard.as_ref().is_none_or(|(when, _)| when.elapsed() > EVENTS) {
            self.heard = Some((Instant::now(), observe::warning(self.ctx, self.cluster.id).await));
        }
        self.heard.as_ref().and_then(|(_, hindrance)| hindrance.clone())
    }

    /// What was just applied to a new cluster was written.
    async fn is_etcd_writable(&mut self) -> Option<bool> {
        if self.cluster.observed_generation == 0 {
            return self.furnished.then_some(true);
        }
        if self.etcd_writable.is_none() {
            self.etcd_writable = Some(observe::etcd_writable(self.ctx, self.cluster.id).await);
        }
        self.etcd_writable.flatten()
    }

    /// [`Run::furnish`]; where the platform's own rights were taken away they are given again first.
    async fn set_up(&mut self, look: &Look, api: &dyn Kubernetes) -> Result<(), Trouble> {
        let refused = match self.furnish(api).await {
            Err(trouble) if trouble.is_forbidden() => trouble,
            other => return other,
        };
        let Some(address) = look.observed.endpoint.as_deref() else { return Err(refused) };
        tracing::warn!(cluster = %self.cluster.id, "platform role bindings missing: restoring them");
        let first = self.ctx.tenants.door(self.cluster.id, self.pki, address, Identity::First)?;
        self.ctx.unapply(self.cluster.id, Place::Tenant);
        self.furnished = false;
        self.furnish(&*first).await
    }

    /// Sets up what belongs inside the tenant. Access counts as given only when the bound role is all it should be. In a cluster that was
    /// well once, addons that cannot be applied now, because of a webhook say, keep nobody out: the roles stand since then.
    async fn furnish(&mut self, api: &dyn Kubernetes) -> Result<(), Trouble> {
        if self.cluster.observed_generation == 0 {
            self.apply_addons(api).await?;
            return self.give_access(api).await;
        }
        let given = self.give_access(api).await;
        self.apply_addons(api).await.and(given)
    }

    async fn apply_addons(&mut self, api: &dyn Kubernetes) -> Result<(), Trouble> {
        if !self.furnished {
            addons::apply(self.ctx, self.cluster, api).await?;
            self.furnished = true;
        }
        Ok(())
    }

    async fn give_access(&mut self, api: &dyn Kubernetes) -> Result<(), Trouble> {
        if !self.access_known {
            access::release(self.ctx, self.cluster.id, api).await?;
            self.granted = access::unconfirmed(self.ctx, self.cluster.id, &self.clients.accepted).await?;
            self.access_known = true;
        }
        self.granted = access::confirm(self.ctx, std::mem::take(&mut self.granted), api).await?;
        Ok(())
    }

    /// A cluster that was running is not called broken for one missed answer.
    fn forbear(&self, look: &mut Look) {
        let silent = self.ctx.heard(self.cluster.id, look.observed.probe == Some(true));
        if silent.is_some_and(|since| since.elapsed() < self.ctx.tuning.grace) {
            look.observed.probe = None;
        }
    }
}

#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upkeep_tests;
#[cfg(test)]
mod waiting_tests;
