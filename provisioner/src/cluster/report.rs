//! Telling people: the cluster's row, and the steps of its operation.

use std::time::Duration;

use migrations::{Cluster, ClusterReport, Store};
use tenant_controlplane::plan::cluster::{Observation, Observed, Report, Situation};
use tenant_controlplane::plan::{self, Progress};
use tenant_controlplane::status::Problem;
use time::OffsetDateTime;

use super::Run;
use super::release;
use crate::context::{Context, is_deleting};
use crate::error::ReconcileError;
use crate::steps::Steps;

/// Writes a new address of the API server where the gateway finds it, before anything else is reported.
pub(super) async fn endpoint(run: &mut Run<'_>, endpoint: Option<String>) -> Result<(), ReconcileError> {
    let report = ClusterReport { endpoint, ..run.reported.clone() };
    write_report(run, report).await
}

/// Writes the report if it differs from the last one.
async fn write_report(run: &mut Run<'_>, report: ClusterReport) -> Result<(), ReconcileError> {
    if report != run.reported {
        run.ctx.store.clusters().report(run.cluster.id, report.clone()).await?;
        run.reported = report;
    }
    Ok(())
}

/// What the row holds already.
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

/// Reports an observation, and finishes the operation when everything is there.
///
/// `waited` is how long the present step of a creation has been waiting; none when nothing is being created.
pub(super) async fn report_observation(
    run: &mut Run<'_>,
    observation: &Observation,
    waited: Option<Duration>,
) -> Result<(), ReconcileError> {
    let settled = observation.is_settled();
    let is_late = waited.is_none_or(|waited| waited >= run.ctx.tuning.problem_after);
    let version = run.cluster.spec.version;
    let missing = release::find(run.ctx, run.cluster).is_none().then_some(version);
    let situation = situation(run.cluster, &run.reported, &observation.observed);
    let Report { state, conditions, problem, message } = observation.report(&situation, is_late, missing);
    let report = ClusterReport {
        observed_generation: if settled { run.cluster.generation } else { run.reported.observed_generation },
        state_message: message,
        endpoint: run.reported.endpoint.clone(),
        state,
        conditions,
        problem,
    };
    write_report(run, report).await?;
    let message = waited
        .filter(|waited| *waited >= run.ctx.tuning.step_message_after)
        .map(|_| observation.step_message())
        .unwrap_or_default();
    steps(&mut run.steps, observation, &message).await?;
    if settled && run.steps.is_open() {
        run.steps.finish().await?;
        wake_pools(run.ctx, run.cluster).await?;
    }
    Ok(())
}

/// Pools wait for their cluster.
async fn wake_pools(ctx: &Context, cluster: &Cluster) -> Result<(), ReconcileError> {
    for pool in ctx.store.pools().of_cluster(cluster.id).await? {
        ctx.due(migrations::WorkKind::NodePool, pool.id.uuid()).await?;
    }
    Ok(())
}

fn situation<'a>(cluster: &Cluster, reported: &'a ClusterReport, observed: &'a Observed) -> Situation<'a> {
    Situation {
        observed,
        generation: cluster.generation,
        deleting: is_deleting(cluster),
        state: reported.state,
        conditions: &reported.conditions,
        now: OffsetDateTime::now_utc(),
    }
}

async fn steps(steps: &mut Steps<'_>, observation: &Observation, message: &str) -> Result<(), ReconcileError> {
    for (step, progress) in plan::cluster::create_progress(&observation.observed) {
        match progress {
            Progress::Done => steps.done(step.key).await?,
            Progress::Running => steps.stands(step.key, message).await?,
            Progress::Waiting => {}
        }
    }
    Ok(())
}

/// Reports a failed reconcile on the row and the operation. What cannot be written now is written by the next retry.
pub(super) async fn report_failure(ctx: &Context, cluster: &Cluster, error: &ReconcileError) {
    if let Err(error) = try_report_failure(ctx, cluster, error).await {
        tracing::debug!(cluster = %cluster.id, error = crate::chain(&error), "report a failed reconcile");
    }
}

async fn try_report_failure(ctx: &Context, cluster: &Cluster, error: &ReconcileError) -> Result<(), ReconcileError> {
    let now = ctx.store.clusters().load(cluster.id).await?;
    let state = plan::cluster::state_after_failure(now.state, is_deleting(&now), error.terminal);
    let problem = Some(error.problem.clone());
    let report = ClusterReport { state, problem, state_message: error.problem.detail.clone(), ..repeated(&now) };
    ctx.store.clusters().report(cluster.id, report).await?;
    let mut steps = open(&ctx.store, &now).await?;
    Ok(steps.failed(&error.problem.detail).await?)
}

async fn open<'a>(store: &'a Store, cluster: &Cluster) -> Result<Steps<'a>, ReconcileError> {
    let target = cluster.id.to_string();
    Ok(match is_deleting(cluster) {
        true => Steps::open(store, &target, &["cluster.delete"], &plan::CLUSTER_DELETE).await?,
        false => Steps::open(store, &target, &["cluster.create"], &plan::CLUSTER_CREATE).await?,
    })
}

/// Reports the progress of a deletion.
pub(super) async fn report_deleting(
    ctx: &Context,
    cluster: &Cluster,
    message: &str,
    problem: Option<Problem>,
) -> Result<(), ReconcileError> {
    let unknown = Observed { endpoint: cluster.endpoint.clone(), ..Observed::default() };
    let repeated = repeated(cluster);
    let (state, conditions) = plan::cluster::summarize(&situation(cluster, &repeated, &unknown));
    let report = ClusterReport { state, conditions, state_message: message.to_owned(), problem, ..repeated };
    Ok(ctx.store.clusters().report(cluster.id, report).await?)
}
