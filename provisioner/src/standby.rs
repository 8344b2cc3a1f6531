//! Standby control planes: they run before anybody requests a cluster, so that a request need not wait for one.
//!
//! They are clusters of the platform's own organization and reconciled as all clusters are; the store gives one to the next request that it
//! fits. Here is only how many there should be and when they are made: one after another, while the host's CPUs are idle (or after two
//! minutes without), and not while somebody waits for a cluster.

use std::sync::Arc;
use std::time::Duration;

use migrations::Cluster;
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::standby::{self, Standby};
use tenant_controlplane::version::KubernetesVersion;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, is_deleting};
use crate::error::{ReconcileError, found_or_none};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a host that always works puts one off: longer than a machine takes to boot.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Keeps as many as are wanted until cancelled.
pub async fn run(ctx: Arc<Context>, cancel: CancellationToken) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut was_ok, mut missing_since) = (true, None);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        let kept = maintain(&ctx, &mut missing_since).await;
        // A repeated error is logged once.
        if let (true, Err(error)) = (was_ok, &kept) {
            tracing::warn!(error = crate::chain(error), "maintain standby control planes");
        }
        was_ok = kept.is_ok();
    }
}

/// One look: at most one is begun, and all that are too many or of no use go. `missing_since` is since when one could be begun.
async fn maintain(ctx: &Context, missing_since: &mut Option<Instant>) -> Result<(), ReconcileError> {
    let spec = ClusterSpec::new(KubernetesVersion::default());
    let known = ctx.store.spares().list().await?;
    let known: Vec<&Cluster> = known.iter().filter(|standby| !is_deleting(standby)).collect();
    let standby = known.iter().map(|row| Standby { id: row.id, spec: &row.spec, is_made: row.observed_generation > 0 });
    let plan = standby::plan(&standby.collect::<Vec<_>>(), &spec, ctx.tuning.standby);
    for surplus in plan.surplus {
        // One that has just become somebody's is not ours to remove.
        found_or_none(ctx.store.spares().discard(surplus).await)?;
    }
    if !plan.is_missing {
        *missing_since = None;
    } else if has_time(ctx, &spec, missing_since.get_or_insert_with(Instant::now).elapsed()).await? {
        let begun = ctx.store.spares().begin(spec).await?;
        tracing::info!(cluster = %begun.id, "creating a standby control plane");
    }
    Ok(())
}

/// Whether the host could start one and has nothing better to do, or has had for long, and nobody waits for a cluster of their own.
async fn has_time(ctx: &Context, spec: &ClusterSpec, waited: Duration) -> Result<bool, ReconcileError> {
    let loaded = ctx.installation.releases.borrow().get(&spec.version).is_some_and(|release| release.loaded);
    let cooldown = time::Duration::try_from(ctx.tuning.standby_cooldown).unwrap_or_default();
    let is_idle = *ctx.host_idle.borrow() || waited > LONGEST_WAIT;
    Ok(loaded && is_idle && !ctx.store.spares().are_in_the_way(cooldown).await?)
}

#[cfg(test)]
mod tests {
    use migrations::Actor;
    use tenant_controlplane::status::ClusterState;

    use super::*;
    use crate::engine::Outcome;
    use crate::testing::World;

    const API: [u8; 4] = [100, 64, 0, 3];

    async fn standby(world: &World) -> Vec<Cluster> {
        let all = world.store.spares().list().await.unwrap();
        all.into_iter().filter(|spare| !is_deleting(spare)).collect()
    }

    async fn made(world: &World, spare: &Cluster) {
        world.start_pods(spare.id, API);
        assert_eq!(world.reconcile_cluster(spare.id).await.unwrap(), Outcome::Done);
    }

    #[tokio::test]
    async fn they_are_made_one_after_another() {
        let world = World::tuned(|tuning| tuning.standby = 2).await;
        maintain(&world.ctx, &mut None).await.unwrap();
        maintain(&world.ctx, &mut None).await.unwrap();
        let [first] = &standby(&world).await[..] else { panic!("one at a time") };
        made(&world, first).await;
        maintain(&world.ctx, &mut None).await.unwrap();
        let [_, second] = &standby(&world).await[..] else { panic!("another one") };
        made(&world, second).await;
        maintain(&world.ctx, &mut None).await.unwrap();
        assert!(standby(&world).await.iter().all(|spare| spare.state == ClusterState::Running));
        assert_eq!(standby(&world).await.len(), 2);
    }

    #[tokio::test]
    async fn a_wish_finds_one_that_runs_and_another_is_made_when_there_is_time() {
        let world = World::tuned(|tuning| tuning.standby = 1).await;
        maintain(&world.ctx, &mut None).await.unwrap();
        let spare = standby(&world).await.remove(0);
        made(&world, &spare).await;
        let cluster = world.cluster("demo").await;
        maintain(&world.ctx, &mut None).await.unwrap();
        assert!(standby(&world).await.is_empty(), "somebody waits");
        let before = world.host.names();
        assert_eq!(world.reconcile_cluster(cluster.id).await.unwrap(), Outcome::Done);
        let row = world.store.clusters().load(cluster.id).await.unwrap();
        assert_eq!((cluster.id, row.state, row.observed_generation), (spare.id, ClusterState::Running, 2));
        let operation = world.store.operations().load(row.operation.unwrap()).await.unwrap();
        assert_eq!(
            (operation.state, operation.kind.as_str()),
            (migrations::OperationState::Succeeded, "cluster.create")
        );
        assert_eq!(world.host.names(), before, "it is the same control plane");
        let objects = world.host.objects.lock().unwrap().clone();
        let namespace = objects.iter().find(|(key, _)| key.kind == "Namespace").unwrap().1;
        assert_eq!(namespace["metadata"]["labels"]["pilothouse.dev/cluster-name"], "demo");
        maintain(&world.ctx, &mut None).await.unwrap();
        assert_eq!(standby(&world).await.len(), 1);
    }

    #[tokio::test]
    async fn one_that_is_being_made_becomes_the_cluster() {
        let world = World::tuned(|tuning| tuning.standby = 1).await;
        maintain(&world.ctx, &mut None).await.unwrap();
        let spare = standby(&world).await.remove(0);
        assert!(matches!(world.reconcile_cluster(spare.id).await.unwrap(), Outcome::Waiting { .. }));
        let cluster = world.cluster("demo").await;
        made(&world, &cluster).await;
        let row = world.store.clusters().load(spare.id).await.unwrap();
        assert_eq!((row.organization, row.observed_generation), (world.organization.id, 2));
    }

    #[tokio::test]
    async fn a_run_that_makes_one_hears_that_it_is_somebodys() {
        let world =
            World::tuned(|tuning| (tuning.standby, tuning.reconcile_timeout) = (1, Duration::from_secs(60))).await;
        maintain(&world.ctx, &mut None).await.unwrap();
        let spare = standby(&world).await.remove(0);
        let (ended, cluster) = tokio::join!(world.reconcile_cluster(spare.id), async {
            while world.host.names().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            world.cluster("demo").await
        });
        assert_eq!(ended.unwrap(), Outcome::waiting("the new spec", Duration::ZERO));
        made(&world, &cluster).await;
    }

    #[tokio::test]
    async fn wherever_the_making_was_dropped_the_cluster_comes_up() {
        for look in 0..25 {
            let world = World::tuned(|tuning| tuning.standby = 1).await;
            maintain(&world.ctx, &mut None).await.unwrap();
            let spare = standby(&world).await.remove(0);
            world.start_pods(spare.id, API);
            world.cancel_at.set(look);
            let whole = world.cancel_at.over(world.reconcile_cluster(spare.id)).await;
            let cluster = world.cluster("demo").await;
            world.converge().await;
            let row = world.store.clusters().load(cluster.id).await.unwrap();
            assert_eq!((row.id, row.state, row.observed_generation), (spare.id, ClusterState::Running, 2), "{look}");
            assert!(whole.is_none() || look > 10, "it was not dropped at {look}");
        }
    }

    #[tokio::test]
    async fn what_is_too_many_or_of_no_use_goes() {
        let world = World::tuned(|tuning| tuning.standby = 1).await;
        let spec = ClusterSpec::new(KubernetesVersion::default());
        let useless = world.store.spares().begin(spec.clone().with_replicas(3).unwrap()).await.unwrap();
        let begun = world.store.spares().begin(spec.clone()).await.unwrap();
        let ready = world.store.spares().begin(spec).await.unwrap();
        made(&world, &ready).await;
        maintain(&world.ctx, &mut None).await.unwrap();
        assert_eq!(standby(&world).await.iter().map(|spare| spare.id).collect::<Vec<_>>(), [ready.id]);
        world.start_pods(ready.id, API);
        world.converge().await;
        for gone in [useless, begun] {
            assert!(world.store.clusters().load(gone.id).await.is_err());
        }
        let cluster = world.cluster("demo").await;
        maintain(&world.ctx, &mut None).await.unwrap();
        assert_eq!(
            world.store.clusters().load(cluster.id).await.unwrap().deletion_requested_at,
            None,
            "it is somebody's"
        );
        world.store.clusters().request_deletion(world.organization.id, cluster.id, Actor::System).await.unwrap();
    }

    #[tokio::test]
    async fn none_is_made_where_nobody_wants_any_or_the_host_works() {
        let world = World::new().await;
        maintain(&world.ctx, &mut None).await.unwrap();
        assert!(standby(&world).await.is_empty());
        let world = World::tuned(|tuning| tuning.standby = 1).await;
        world.host_idle.send_replace(false);
        maintain(&world.ctx, &mut None).await.unwrap();
        assert!(standby(&world).await.is_empty());
        world.host_idle.send_replace(true);
        maintain(&world.ctx, &mut None).await.unwrap();
        assert_eq!(standby(&world).await.len(), 1);
        let world = World::tuned(|tuning| tuning.standby = 1).await;
        world.host_idle.send_replace(false);
        let (mut now, mut long_ago) = (None, Instant::now().checked_sub(LONGEST_WAIT * 2));
        maintain(&world.ctx, &mut now).await.unwrap();
        assert!(now.is_some() && standby(&world).await.is_empty());
        maintain(&world.ctx, &mut long_ago).await.unwrap();
        assert_eq!(standby(&world).await.len(), 1, "a host that always works has some too");
    }
}
