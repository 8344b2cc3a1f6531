//! Who may hold how many of the places in which things are reconciled: the clusters of one organization, hanging as they may, do not hold
//! them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use migrations::WorkKind;
use tenant_controlplane::id::OrganizationId;

use crate::config::Tuning;

type Key = (WorkKind, OrganizationId);

/// How many places each organization holds at the moment.
#[derive(Debug)]
pub struct Shares {
    permits: [(WorkKind, usize); 3],
    held: Mutex<HashMap<Key, usize>>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    key: Key,
}

impl Shares {
    /// Nobody holds any.
    pub fn new(tuning: &Tuning) -> Arc<Self> {
        Arc::new(Self { permits: tuning.permits(), held: Mutex::default() })
    }

    /// A place for something of that organization; none while it holds half of them, or holds one and only a quarter is free: that is
    /// kept for those who hold none.
    pub fn take(self: &Arc<Self>, kind: WorkKind, organization: OrganizationId) -> Option<Share> {
        let key = (kind, organization);
        let all = self.permits.iter().find(|(known, _)| *known == kind).map_or(0, |(_, permits)| *permits);
        let mut held = self.held();
        let taken: usize = held.iter().filter(|((known, _), _)| *known == kind).map(|(_, count)| count).sum();
        let own = held.get(&key).copied().unwrap_or_default();
        if own > 0 && (own >= (all / 2).max(1) || all.saturating_sub(taken) <= all / 4) {
            return None;
        }
        *held.entry(key).or_default() += 1;
        drop(held);
        Some(Share { of: Arc::clone(self), key })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held();
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization(number: u128) -> OrganizationId {
        OrganizationId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn all(shares: &Arc<Shares>, organization: OrganizationId) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(WorkKind::Cluster, organization)).collect()
    }

    #[test]
    fn one_organization_holds_half_and_two_leave_a_quarter_to_others() {
        let shares = Shares::new(&Tuning::default());
        let one = all(&shares, organization(1));
        let two = all(&shares, organization(2));
        assert_eq!((one.len(), two.len()), (8, 4), "of sixteen");
        let others: Vec<_> = (3..7).flat_map(|number| all(&shares, organization(number))).collect();
        assert_eq!(others.len(), 4, "whoever holds none gets one of the rest");
        assert_eq!(
            shares.take(WorkKind::Node, organization(1)).into_iter().count(),
            1,
            "each kind has places of its own"
        );
        drop(one);
        assert_eq!(all(&shares, organization(3)).len(), 4, "until a quarter is free");
        drop((two, others));
        assert!(shares.held().is_empty());
    }

    #[test]
    fn the_only_place_goes_to_anybody() {
        let shares = Shares::new(&Tuning { concurrency: 1, ..Tuning::default() });
        let one = all(&shares, organization(1));
        assert_eq!(one.len(), 1);
    }
}
