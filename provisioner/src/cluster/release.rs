//! The Kubernetes version of a cluster. While its parts are not here nothing of it is applied: a cluster that ran before is observed,
//! reached and deleted as any other, and one that never ran waits.

use migrations::Cluster;
use tenant_controlplane::plan::cluster::version_missing;

use crate::config::Release;
use crate::context::Context;
use crate::error::ReconcileError;

/// What the cluster's version is made of; `None` when this installation does not have that version: it had it when the cluster was made.
pub fn find(ctx: &Context, cluster: &Cluster) -> Option<Release> {
    ctx.installation.releases.borrow().get(&cluster.spec.version).cloned()
}

/// The same, for whoever can do nothing without.
///
/// # Errors
/// [`ReconcileError`] with [`version_missing`].
pub fn of(ctx: &Context, cluster: &Cluster) -> Result<Release, ReconcileError> {
    find(ctx, cluster).ok_or_else(|| version_missing(cluster.spec.version).into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use tenant_controlplane::status::{Class, ClusterState};
    use tokio::sync::watch;

    use super::*;
    use crate::config::{InstallationInfo, Releases, Tuning};
    use crate::context::Dependencies;
    use crate::engine::Outcome;
    use crate::testing::{World, installation, tuning};

    /// The same world, after the process came back with other versions.
    fn again(world: &World, releases: Releases) -> Arc<Context> {
        let (store, host) = (world.store.clone(), Arc::clone(&world.ctx.host));
        Context::new(Dependencies {
            store,
            host,
            connector: Arc::new(crate::host::testing::ScriptedConnector::new(
                Arc::clone(&world.tenant),
                Arc::clone(&world.host),
            )),
            providers: Vec::new(),
            keys: Arc::clone(&world.ctx.keys),
            installation: Arc::new(InstallationInfo { releases, ..installation() }),
            // Also on a busy machine.
            tuning: Tuning { reconcile_timeout: Duration::from_secs(1), ..tuning() },
            host_idle: world.host_idle.subscribe(),
            ending: world.ctx.ending.clone(),
        })
    }

    #[tokio::test]
    async fn a_cluster_whose_version_is_gone_is_left_alone_and_says_so() {
        let world = World::new().await;
        let cluster = world.cluster("demo").await;
        let ctx = again(&world, watch::channel(BTreeMap::new()).1);
        let error = super::super::reconcile(&ctx, cluster.id).await.unwrap_err();
        assert_eq!((error.problem.code.as_str(), error.terminal), ("VERSION_MISSING", false));
        let row = world.store.clusters().load(cluster.id).await.unwrap();
        let problem = row.problem.unwrap();
        assert!(problem.remediation.contains(&format!("bundle build --version {}", cluster.spec.version)));
        assert_eq!((problem.class, row.state), (Class::Platform, ClusterState::Provisioning));
        assert_eq!(world.host.names(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_running_cluster_of_a_dropped_version_is_looked_after_and_deleted() {
        let world = World::new().await;
        let cluster = world.cluster("demo").await;
        world.start_pods(cluster.id, [100, 64, 0, 3]);
        world.reconcile_cluster(cluster.id).await.unwrap();
        let before = world.host.names();
        let ctx = again(&world, watch::channel(BTreeMap::new()).1);
        // The pods as the new process sees them.
        ctx.pods.take(crate::host::WatchEvent::All(world.ctx.pods.of(cluster.id).unwrap()));
        let kubeconfig = world.kubeconfig(cluster.id, tenant_controlplane::status::AccessRole::Admin).await;
        assert_eq!(super::super::reconcile(&ctx, cluster.id).await.unwrap(), Outcome::Done);
        let row = world.store.clusters().load(cluster.id).await.unwrap();
        assert_eq!((row.state, row.problem.unwrap().code.as_str()), (ClusterState::Running, "VERSION_MISSING"));
        // The pods are touched, so that they take up the new kubeconfig at once.
        let terminal = |name: &String| !name.starts_with("Pod ");
        assert_eq!(world.host.names().into_iter().filter(terminal).collect::<Vec<_>>(), before, "nothing is applied");
        let given = world.store.kubeconfigs().load(kubeconfig.id).await.unwrap();
        assert!(given.bound, "access is given");
        world
            .store
            .clusters()
            .request_deletion(cluster.organization, cluster.id, migrations::Actor::System)
            .await
            .unwrap();
        super::super::reconcile(&ctx, cluster.id).await.unwrap();
        assert!(world.host.names().len() < before.len(), "and it goes");
    }

    #[tokio::test]
    async fn a_version_the_host_still_loads_is_waited_for() {
        let world = World::new().await;
        let cluster = world.cluster("demo").await;
        let all = installation().releases.borrow().clone();
        let loading = all.into_iter().map(|(version, release)| (version, Release { loaded: false, ..release }));
        let (sender, releases) = watch::channel(loading.collect());
        let ctx = again(&world, releases);
        let waiting = super::super::reconcile(&ctx, cluster.id).await.unwrap();
        assert!(matches!(waiting, Outcome::Waiting { ref reason, .. } if reason.contains("load the images")));
        assert_eq!(world.host.names(), Vec::<String>::new());
        sender.send_modify(|all| all.values_mut().for_each(|release| release.loaded = true));
        super::super::reconcile(&ctx, cluster.id).await.unwrap();
        assert_ne!(world.host.names(), Vec::<String>::new());
    }
}
