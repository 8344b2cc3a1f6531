//! The Kubernetes version of a cluster: nothing of one is touched while its parts are not here.

use migrations::Cluster;
use tenant_controlplane::status::Class;

use crate::config::Release;
use crate::context::Context;
use crate::trouble::Trouble;

/// What the cluster's version is made of.
///
/// # Errors
/// [`Trouble`] when this installation does not have that version: it had it when the cluster was made.
pub fn of(ctx: &Context, cluster: &Cluster) -> Result<Release, Trouble> {
    let version = cluster.spec.version;
    ctx.facts.releases.borrow().get(&version).cloned().ok_or_else(|| {
        let detail = format!("This installation no longer has Kubernetes {version}: the cluster is left as it is.");
        let remediation =
            format!("Run `pilothouse bundle build --version {version}`, then start `pilothouse up` again.");
        Trouble::new("VERSION_MISSING", Class::Platform, detail, remediation)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tenant_controlplane::status::ClusterState;
    use tokio::sync::watch;

    use super::*;
    use crate::config::{Facts, Releases};
    use crate::context::Parts;
    use crate::engine::Outcome;
    use crate::testing::{World, facts, tuning};

    /// The same world, after the process came back with other versions.
    fn again(world: &World, releases: Releases) -> Arc<Context> {
        let (store, host) = (world.store.clone(), Arc::clone(&world.ctx.host));
        Context::new(Parts {
            store,
            host,
            connector: Arc::new(crate::host::testing::ScriptedConnector::new(Arc::clone(&world.tenant))),
            providers: Vec::new(),
            keys: Arc::clone(&world.ctx.keys),
            facts: Arc::new(Facts { releases, ..facts() }),
            tuning: tuning(),
            leisure: world.leisure.subscribe(),
            ending: world.ctx.ending.clone(),
        })
    }

    #[tokio::test]
    async fn a_cluster_whose_version_is_gone_is_left_alone_and_says_so() {
        let world = World::new().await;
        let cluster = world.cluster("demo").await;
        let ctx = again(&world, watch::channel(BTreeMap::new()).1);
        let trouble = super::super::reconcile(&ctx, cluster.id).await.unwrap_err();
        assert_eq!((trouble.problem.code.as_str(), trouble.lasting), ("VERSION_MISSING", false));
        let row = world.store.clusters().load(cluster.id).await.unwrap();
        let problem = row.problem.unwrap();
        assert!(problem.remediation.contains(&format!("bundle build --version {}", cluster.spec.version)));
        assert_eq!((problem.class, row.state), (Class::Platform, ClusterState::Provisioning));
        assert_eq!(world.host.names(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_version_the_host_still_loads_is_waited_for() {
        let world = World::new().await;
        let cluster = world.cluster("demo").await;
        let all = facts().releases.borrow().clone();
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
