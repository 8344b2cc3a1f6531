//! Standby clusters: which one fits a request, and which are missing or too many.

use std::collections::BTreeMap;

use crate::id::ClusterId;
use crate::spec::ClusterSpec;
use crate::status::ClusterState;

/// Those that run or are on their way. One that broke is being recovered, which may take longer than a new one.
pub const TAKEABLE: [ClusterState; 3] = [ClusterState::Pending, ClusterState::Provisioning, ClusterState::Running];

/// Whether a standby cluster is what the request asks for. Labels are the owner's words: nothing is made of them.
pub fn fits(standby: &ClusterSpec, requested: &ClusterSpec) -> bool {
    *standby == ClusterSpec { labels: BTreeMap::new(), ..requested.clone() }
}

/// A standby cluster that is not on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Standby<'a> {
    /// Its id.
    pub id: ClusterId,
    /// What it is.
    pub spec: &'a ClusterSpec,
    /// Whether it has been made.
    pub is_made: bool,
}

/// What to do about standby clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandbyPlan {
    /// Those that are too many or of no use.
    pub surplus: Vec<ClusterId>,
    /// Whether one may be begun: some are missing, and all there are have been made.
    pub is_missing: bool,
}

/// Of those there are, `desired` of that spec stay, the made and then the oldest ones first.
pub fn plan(known: &[Standby<'_>], spec: &ClusterSpec, desired: usize) -> StandbyPlan {
    let (mut fit, mut surplus): (Vec<&Standby<'_>>, Vec<_>) = known.iter().partition(|standby| standby.spec == spec);
    fit.sort_by_key(|standby| (!standby.is_made, standby.id));
    surplus.extend(fit.drain(fit.len().min(desired)..));
    let is_missing = fit.len() < desired && fit.iter().all(|standby| standby.is_made);
    StandbyPlan { surplus: surplus.into_iter().map(|standby| standby.id).collect(), is_missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::KubernetesVersion;

    fn id(number: u128) -> ClusterId {
        ClusterId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn spec() -> ClusterSpec {
        ClusterSpec::new(KubernetesVersion::default())
    }

    #[test]
    fn labels_do_not_keep_a_standby_cluster_from_fitting() {
        let requested = ClusterSpec { labels: BTreeMap::from([("team".into(), "a".into())]), ..spec() };
        assert!(fits(&spec(), &requested) && fits(&spec(), &spec()));
        assert!(!fits(&spec(), &spec().with_replicas(3).unwrap()));
    }

    #[test]
    fn the_made_and_the_oldest_stay_and_what_does_not_fit_goes() {
        let (spec, other) = (spec(), spec().with_replicas(3).unwrap());
        let standby = |number, spec, is_made| Standby { id: id(number), spec, is_made };
        let known =
            [standby(1, &spec, false), standby(2, &spec, true), standby(3, &spec, true), standby(4, &other, true)];
        assert_eq!(plan(&known, &spec, 1), StandbyPlan { surplus: vec![id(4), id(3), id(1)], is_missing: false });
        assert_eq!(
            plan(&known, &spec, 4),
            StandbyPlan { surplus: vec![id(4)], is_missing: false },
            "one is being made"
        );
        assert!(plan(&known[1..], &spec, 3).is_missing && plan(&[], &spec, 1).is_missing);
        assert_eq!(plan(&[], &spec, 0), StandbyPlan::default());
    }
}
