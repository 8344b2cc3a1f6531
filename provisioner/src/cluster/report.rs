//! Telling people: the cluster's row, and the steps of its operation.

use std::time::Duration;

use migrations::{Cluster, ClusterReport, Store};
use tenant_controlplane::plan::{self, Observed, Progress, Situation};
use tenant_controlplane::status::{Class, ClusterState, Condition, Problem};
use time::OffsetDateTime;

use super::Run;
use super::observe::Look;
use super::release;
use crate::context::{Context, leaving};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// Puts a new address of the API server where the gateway finds it, before anything else is told.
pub(super) async fn endpoint(run: &mut Run<'_>, endpoint: Option<String>) -> Result<(), Trouble> {
    let report = ClusterReport { endpoint, ..run.told.clone() };
    tell(run, report).await
}

/// Writes news, and nothing when there are none.
async fn tell(run: &mut Run<'_>, report: ClusterReport) -> Result<(), Trouble> {
    if report != run.told {
        run.ctx.store.clusters().report(run.cluster.id, report.clone()).await?;
        run.told = report;
    }
    Ok(())
}

/// What the row says already.
pub(super) fn repeated(cluster: &Cluster) -> ClusterReport {
    ClusterReport {
        observed_generation: cluster.observed_generation,
        state: cluster.state,
        state_message: cluster.state_message.clone(),
        conditions: cluster.conditions.clone(),
        endpoint: cluster.endpoint.clone(),
        problem: cluster.problem.clone(),
    }
}

/// Tells what a look saw, and closes the operation when everything is there.
///
/// `waited` is how long the present step of a creation has been waiting; none when nothing is being created.
pub(super) async fn seen(run: &mut Run<'_>, look: &Look, waited: Option<Duration>) -> Result<(), Trouble> {
    let (state, conditions) = summary(run.cluster, &run.told, &look.observed);
    let settled = look.is_settled();
    let long_enough = waited.is_none_or(|waited| waited >= run.ctx.tuning.alarm);
    let problem = problem(look, state, long_enough)
        .or_else(|| release::find(run.ctx, run.cluster).is_none().then(|| release::missing(run.cluster.spec.version)));
    let report = ClusterReport {
        observed_generation: if settled { run.cluster.generation } else { run.told.observed_generation },
        state_message: headline(&conditions, problem.as_ref()),
        endpoint: run.told.endpoint.clone(),
        state,
        conditions,
        problem,
    };
    tell(run, report).await?;
    let words = waited.filter(|waited| *waited >= run.ctx.tuning.murmur).map(|_| wait(look)).unwrap_or_default();
    steps(&mut run.steps, look, &words).await?;
    if settled && run.steps.is_open() {
        run.steps.finish().await?;
        wake_pools(run.ctx, run.cluster).await?;
    }
    Ok(())
}

/// Pools wait for their cluster.
async fn wake_pools(ctx: &Context, cluster: &Cluster) -> Result<(), Trouble> {
    for pool in ctx.store.pools().of_cluster(cluster.id).await? {
        ctx.due(migrations::WorkKind::NodePool, pool.id.uuid()).await?;
    }
    Ok(())
}

fn summary(cluster: &Cluster, told: &ClusterReport, observed: &Observed) -> (ClusterState, Vec<Condition>) {
    plan::summarize(&Situation {
        observed,
        generation: cluster.generation,
        deleting: leaving(cluster),
        state: told.state,
        conditions: &told.conditions,
        now: OffsetDateTime::now_utc(),
    })
}

fn headline(conditions: &[Condition], problem: Option<&Problem>) -> String {
    let ready = conditions.iter().find(|condition| condition.kind == "Ready");
    let ready = || ready.map(|condition| condition.message.clone()).unwrap_or_default();
    problem.map_or_else(ready, |problem| problem.detail.clone())
}

/// What to tell people is wrong: that nothing can be written, what the host complains of once it is `late`, or that a running cluster no
/// longer answers.
fn problem(look: &Look, state: ClusterState, late: bool) -> Option<Problem> {
    match (&look.hindrance, state) {
        (_, ClusterState::Running) if look.observed.etcd_writable == Some(false) => Some(full()),
        (_, ClusterState::Running) => look.problem.clone(),
        (Some(hindrance), _) if late => Some(hindrance.problem()),
        (None, ClusterState::Degraded) => Some(unreachable(look)),
        _ => None,
    }
}

fn full() -> Problem {
    Problem {
        code: "DATASTORE_FULL".to_owned(),
        class: Class::User,
        detail: "etcd is full: the cluster rejects writes until space is freed.".to_owned(),
        remediation:
            "Delete unused objects. Platform operator: then restart the pod etcd-0, which defragments etcd, and clear \
                      the alarm with `etcdctl alarm disarm`."
                .to_owned(),
    }
}

fn unreachable(look: &Look) -> Problem {
    Problem {
        code: "CLUSTER_UNREACHABLE".to_owned(),
        class: Class::Platform,
        detail: format!("The cluster is not responding; waiting for {}", look.reason()),
        remediation:
            "No action needed; Pilothouse is recovering it. If it persists, platform operator: check the host's pods."
                .to_owned(),
    }
}

/// What a step that has been waiting for a while says.
fn wait(look: &Look) -> String {
    look.hindrance.as_ref().map_or_else(|| format!("waiting for {}", look.reason()), |found| found.problem().detail)
}

async fn steps(steps: &mut Steps<'_>, look: &Look, words: &str) -> Result<(), Trouble> {
    for (step, progress) in plan::create_progress(&look.observed) {
        match progress {
            Progress::Done => steps.done(step.key).await?,
            Progress::Running => steps.stands(step.key, words).await?,
            Progress::Waiting => {}
        }
    }
    Ok(())
}

/// Puts a failed reconcile on the row and the operation. What cannot be told now is told by the next try.
pub(super) async fn trouble(ctx: &Context, cluster: &Cluster, trouble: &Trouble) {
    if let Err(error) = try_trouble(ctx, cluster, trouble).await {
        tracing::debug!(cluster = %cluster.id, error = crate::chain(&error), "report a failed reconcile");
    }
}

async fn try_trouble(ctx: &Context, cluster: &Cluster, trouble: &Trouble) -> Result<(), Trouble> {
    let now = ctx.store.clusters().load(cluster.id).await?;
    let state = match now.state {
        _ if leaving(&now) => ClusterState::Deleting,
        ClusterState::Pending => ClusterState::Provisioning,
        _ if trouble.lasting => ClusterState::Error,
        other => other,
    };
    let problem = Some(trouble.problem.clone());
    let report = ClusterReport { state, problem, state_message: trouble.problem.detail.clone(), ..repeated(&now) };
    ctx.store.clusters().report(cluster.id, report).await?;
    let mut steps = open(&ctx.store, &now).await?;
    Ok(steps.failed(&trouble.problem.detail).await?)
}

async fn open<'a>(store: &'a Store, cluster: &Cluster) -> Result<Steps<'a>, Trouble> {
    let target = cluster.id.to_string();
    Ok(match leaving(cluster) {
        true => Steps::open(store, &target, &["cluster.delete"], &plan::CLUSTER_DELETE).await?,
        false => Steps::open(store, &target, &["cluster.create"], &plan::CLUSTER_CREATE).await?,
    })
}

/// Tells that a cluster is going.
pub(super) async fn going(
    ctx: &Context,
    cluster: &Cluster,
    message: &str,
    problem: Option<Problem>,
) -> Result<(), Trouble> {
    let unknown = Observed { endpoint: cluster.endpoint.clone(), ..Observed::default() };
    let (state, conditions) = summary(cluster, &repeated(cluster), &unknown);
    let state_message = message.to_owned();
    let report = ClusterReport { state, conditions, state_message, problem, ..repeated(cluster) };
    Ok(ctx.store.clusters().report(cluster.id, report).await?)
}
