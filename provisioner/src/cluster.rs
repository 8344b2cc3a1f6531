//! One tenant's control plane: the phases, and the run that stays with a cluster while it comes up.
//!
//! Everything is applied at once; then the run watches pods and asks the API server itself, many times a second, because a person waits.
//! As soon as it serves, its address goes to the gateway and access is set up; the last word has a probe from outside, through the
//! gateway. A cluster that is well is visited the same way and left after one look; so is one that has not been well for long, less and
//! less often, because others need the place.

mod access;
mod addons;
mod apply;
mod observe;
mod pki;
mod prune;
mod release;
mod removed_nodes;
mod report;
mod teardown;

use std::time::Duration;

use migrations::{Change, ChangeKind, Cluster, ClusterReport, Kubeconfig};
use tenant_controlplane::diagnosis::BlockingReason;
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::ClusterPki;
use tenant_controlplane::plan;
use tenant_controlplane::plan::cluster::{NodeCount, Observation};
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::clients::{self, Clients};
use crate::context::{ApplyTarget, Context, is_deleting};
use crate::engine::Outcome;
use crate::error::{ReconcileError, found_or_none};
use crate::host::Kubernetes;
use crate::steps::Steps;
use crate::tenants::Identity;

use removed_nodes::RemovedNodes;

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

/// Reconciles a cluster.
///
/// # Errors
/// [`ReconcileError`], which has been put on the cluster and its operation already.
pub async fn reconcile(ctx: &Context, id: ClusterId) -> Result<Outcome, ReconcileError> {
    let Some(cluster) = found_or_none(ctx.store.clusters().load(id).await)? else {
        ctx.forget(id);
        return Ok(Outcome::Gone);
    };
    let ended = if is_deleting(&cluster) { teardown::run(ctx, &cluster).await } else { bring_up(ctx, &cluster).await };
    if let Err(error) = &ended {
        report::report_failure(ctx, &cluster, error).await;
    }
    ended
}

async fn bring_up(ctx: &Context, cluster: &Cluster) -> Result<Outcome, ReconcileError> {
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
    Run::begin(ctx, cluster, &pki, steps).await?.run(signals).await
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
    Poll,
    /// The spec may have changed.
    Spec,
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
                    Ok(_) | Err(_) => return Woken::Poll,
                },
                row = self.rows.recv() => match row {
                    Ok(Change { kind: ChangeKind::Kubeconfig, cluster: Some(cluster), .. }) if cluster == id => return Woken::Access,
                    Ok(Change { kind: ChangeKind::Cluster, id: changed, .. }) if changed == id.uuid() => return Woken::Spec,
                    Err(broadcast::error::RecvError::Closed) => tokio::time::sleep_until(until).await,
                    Err(_) => return Woken::Spec,
                    Ok(_) => {}
                },
                () = tokio::time::sleep_until(until) => return Woken::Poll,
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
    addons_installed: bool,
    /// Kubeconfigs whose certificates are accepted and that are not yet known to work.
    pending_access: Vec<Kubeconfig>,
    access_known: bool,
    left_behind_listed: bool,
    clients: Clients,
    /// Whether etcd takes writes: asked once a visit, after what people wait for.
    etcd_writable: Option<Option<bool>>,
    certificates_end: Option<OffsetDateTime>,
    removed_nodes: RemovedNodes,
    /// What the host's events said, and when.
    last_warning: Option<(Instant, Option<BlockingReason>)>,
    /// What the row holds, so that only changes are written.
    reported: ClusterReport,
    nodes: NodeCount,
}

impl<'a> Run<'a> {
    async fn begin(
        ctx: &'a Context,
        cluster: &'a Cluster,
        pki: &'a ClusterPki,
        steps: Steps<'a>,
    ) -> Result<Self, ReconcileError> {
        let (reported, nodes) = (report::repeated(cluster), observe::nodes(ctx, cluster.id).await?);
        // What cannot be applied is taken as it is.
        let addons_installed = release::find(ctx, cluster).is_none();
        let (access_known, pending_access) = (false, Vec::new());
        let (etcd_writable, certificates_end) = (None, pki.earliest_end());
        Ok(Self {
            ctx,
            cluster,
            pki,
            steps,
            addons_installed,
            pending_access,
            access_known,
            left_behind_listed: false,
            clients: Clients::default(),
            etcd_writable,
            certificates_end,
            removed_nodes: RemovedNodes::default(),
            last_warning: None,
            reported,
            nodes,
        })
    }

    /// Observes and acts until the cluster is settled, its spec changed, or the time is over.
    async fn run(mut self, mut signals: Signals) -> Result<Outcome, ReconcileError> {
        let begun = Instant::now();
        loop {
            let observation = self.reconcile_once().await?;
            if observation.is_settled()
                && self.pending_access.is_empty()
                && self.clients.settled
                && self.removed_nodes.refused
            {
                self.ctx.set_settled(self.cluster.id);
                return Ok(Outcome::Done);
            }
            let unsettled_for = self.ctx.unsettled(self.cluster.id).since.elapsed();
            if unsettled_for.max(begun.elapsed()) > self.ctx.tuning.reconcile_timeout {
                return Ok(Outcome::waiting(self.reason(&observation), self.requeue_after(unsettled_for)));
            }
            match signals.next(self.cluster.id, self.pause(&observation, begun)).await {
                Woken::Poll => {}
                Woken::Access => self.clients.settled = false,
                Woken::End => return Ok(Outcome::waiting("the next process", Duration::ZERO)),
                Woken::Spec if self.spec_changed().await? => {
                    return Ok(Outcome::waiting("the new spec", Duration::ZERO));
                }
                Woken::Spec => {}
            }
        }
    }

    fn reason(&self, observation: &Observation) -> String {
        let access = match () {
            () if !self.clients.settled => Some("the API servers to load the kubeconfig CAs"),
            () if !self.removed_nodes.refused => Some("the API servers to reject removed nodes"),
            () if !self.pending_access.is_empty() => Some("Kubernetes to aggregate its roles"),
            () => None,
        };
        access.filter(|_| observation.is_settled()).map_or_else(|| observation.reason(), ToOwned::to_owned)
    }

    /// When to come back to a cluster that has not been well for so long: signals wake earlier.
    fn requeue_after(&self, unsettled_for: Duration) -> Duration {
        let awaited = self.steps.is_open() && unsettled_for < CREATING;
        (unsettled_for / 8).clamp(ROUTINE_LOOK, if awaited { CREATING_LOOK } else { LONGEST_LOOK })
    }

    /// A pod that has an address is asked again soon; without one the watch will tell.
    fn pause(&self, observation: &Observation, begun: Instant) -> Duration {
        match observation.has_candidate() {
            true if begun.elapsed() > IMPATIENCE => ROUTINE_LOOK / 2,
            // It has work to do, of which every question is a part.
            true if observation.answers() => self.ctx.tuning.probe_every * 2,
            true => self.ctx.tuning.probe_every,
            false => ROUTINE_LOOK,
        }
    }

    async fn spec_changed(&mut self) -> Result<bool, ReconcileError> {
        self.nodes = observe::nodes(self.ctx, self.cluster.id).await?;
        let now = found_or_none(self.ctx.store.clusters().load(self.cluster.id).await)?;
        Ok(now.is_none_or(|now| is_deleting(&now) || now.generation != self.cluster.generation))
    }

    /// One observation, and everything that can be done after it.
    async fn reconcile_once(&mut self) -> Result<Observation, ReconcileError> {
        // First of all: nothing inside the tenant may stand in the way of a revocation.
        if !self.clients.settled {
            self.clients = clients::settle(self.ctx, self.cluster, self.pki).await?;
            self.access_known = false;
        }
        let (mut observation, api) =
            observe::inside(self.ctx, self.cluster, self.pki, self.reported.endpoint.as_deref()).await?;
        let mut failed = None;
        observation.observed.nodes = Some(self.nodes);
        observation.observed.certificates_end = self.certificates_end;
        if observation.observed.endpoint != self.reported.endpoint && observation.pods_known {
            report::endpoint(self, observation.observed.endpoint.clone()).await?;
        }
        if let Some(api) = api {
            let ctx = self.ctx;
            let listed = self.list_left_behind(&*api).await;
            let installed = ctx.with_timeout(self.install_with_repair(&observation, &*api)).await;
            observation.observed.addons = Some(self.addons_installed).filter(|_| installed.is_ok());
            let evicted = ctx.with_timeout(self.removed_nodes.reconcile(ctx, self.cluster, &*api)).await;
            failed = self.failure(installed.and(listed).and(evicted), &*api).await?;
            observe::outside(self.ctx, self.cluster, self.pki, &mut observation).await?;
        }
        observation.observed.etcd_writable = self.is_etcd_writable().await;
        self.debounce_probe(&mut observation);
        let waited = self.waited(&observation);
        if observation.blocking_reason.is_none()
            && waited.map_or(observation.observed.probe == Some(false), |waited| {
                waited >= self.ctx.tuning.step_message_after
            })
        {
            observation.blocking_reason = self.warning().await;
        }
        observation.problem = failed.as_ref().map(|failed: &ReconcileError| failed.problem.clone());
        report::report_observation(self, &observation, waited).await?;
        failed.map_or(Ok(observation), Err)
    }

    /// What went wrong inside the tenant. Of a cluster that was well once the rest is still observed and reported, so that whatever stops its
    /// writes, such as a webhook, hides nothing; a new one is not well before everything is in place.
    async fn failure(
        &self,
        ended: Result<(), ReconcileError>,
        api: &dyn Kubernetes,
    ) -> Result<Option<ReconcileError>, ReconcileError> {
        let Err(failed) = ended else { return Ok(None) };
        let explained = admission::explain(failed, api).await;
        if self.cluster.observed_generation == 0 { Err(explained) } else { Ok(Some(explained)) }
    }

    /// How long the present step of a creation has been waiting; none when nothing is being created.
    fn waited(&self, observation: &Observation) -> Option<Duration> {
        let step = plan::cluster::next_step(&observation.observed).filter(|_| self.steps.is_open())?;
        Some(self.steps.age(step.key).unwrap_or_default())
    }

    /// What the host's events say, asked now and then.
    async fn warning(&mut self) -> Option<BlockingReason> {
        if self.last_warning.as_ref().is_none_or(|(when, _)| when.elapsed() > EVENTS) {
            self.last_warning = Some((Instant::now(), observe::warning(self.ctx, self.cluster.id).await));
        }
        self.last_warning.as_ref().and_then(|(_, diagnosis)| diagnosis.clone())
    }

    /// What was just applied to a new cluster was written.
    async fn is_etcd_writable(&mut self) -> Option<bool> {
        if self.cluster.observed_generation == 0 {
            return self.addons_installed.then_some(true);
        }
        if self.etcd_writable.is_none() {
            self.etcd_writable = Some(observe::etcd_writable(self.ctx, self.cluster.id).await);
        }
        self.etcd_writable.flatten()
    }

    /// [`Run::install`]; where the platform's own rights were taken away they are given again first.
    async fn install_with_repair(
        &mut self,
        observation: &Observation,
        api: &dyn Kubernetes,
    ) -> Result<(), ReconcileError> {
        let refused = match self.install(api).await {
            Err(error) if error.is_forbidden() => error,
            other => return other,
        };
        let Some(address) = observation.observed.endpoint.as_deref() else { return Err(refused) };
        tracing::warn!(cluster = %self.cluster.id, "platform role bindings missing: restoring them");
        let first = self.ctx.tenants.client(self.cluster.id, self.pki, address, Identity::First)?;
        self.ctx.unapply(self.cluster.id, ApplyTarget::Tenant);
        self.addons_installed = false;
        self.install(&*first).await
    }

    /// Sets up what belongs inside the tenant. Access counts as given only when the bound role is all it should be. In a cluster that was
    /// well once, addons that cannot be applied now, because of a webhook say, keep nobody out: the roles stand since then.
    async fn install(&mut self, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
        if self.cluster.observed_generation == 0 {
            self.apply_addons(api).await?;
            return self.give_access(api).await;
        }
        let given = self.give_access(api).await;
        self.apply_addons(api).await.and(given)
    }

    async fn apply_addons(&mut self, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
        if !self.addons_installed {
            addons::apply(self.ctx, self.cluster, api).await?;
            self.addons_installed = true;
        }
        Ok(())
    }

    /// Once a visit, and after each revocation that was seen to be in force.
    async fn list_left_behind(&mut self, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
        if self.left_behind_listed && self.clients.refused.is_empty() {
            return Ok(());
        }
        (self.left_behind_listed, self.clients.refused) = (true, Vec::new());
        access::list_left_behind(self.ctx, self.cluster.id, api).await
    }

    async fn give_access(&mut self, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
        if !self.access_known {
            access::release(self.ctx, self.cluster.id, api).await?;
            self.pending_access = access::unconfirmed(self.ctx, self.cluster.id, &self.clients.accepted).await?;
            self.access_known = true;
        }
        self.pending_access = access::confirm(self.ctx, std::mem::take(&mut self.pending_access), api).await?;
        Ok(())
    }

    /// A cluster that was running is not called broken for one missed answer.
    fn debounce_probe(&self, observation: &mut Observation) {
        let unreachable_since = self.ctx.record_probe(self.cluster.id, observation.observed.probe == Some(true));
        if unreachable_since.is_some_and(|since| since.elapsed() < self.ctx.tuning.probe_grace) {
            observation.observed.probe = None;
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
