//! Places for strangers: so many in all, and of those so many for one address, so that one host alone never takes them all.
//!
//! An address is what one customer has: an IPv4 address, or the /64 of an IPv6 one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The low half of an IPv6 address, which its owner chooses freely.
const CHOSEN: u128 = u64::MAX as u128;

/// Places of one kind.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    total: usize,
    each: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    owner: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// `total` places, at most `each` of them for one address.
    pub(crate) fn new(total: usize, each: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(total));
        Arc::new(Self { all, total, each, taken: Mutex::default() })
    }

    /// Waits for a place whose owner is not known yet; `None` never comes while the gateway lives.
    pub(crate) async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        self.all.clone().acquire_owned().await.ok()
    }

    /// A place for this address now, or none.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        self.give(permit, address)
    }

    /// Gives a place that was waited for to this address, unless that has its share already.
    pub(crate) fn give(self: &Arc<Self>, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let owner = owner(address);
        let mut taken = self.taken();
        let count = taken.get(&owner).copied().unwrap_or(0);
        if count >= self.each {
            return None;
        }
        taken.insert(owner, count + 1);
        Some(Place { places: self.clone(), owner, _permit: permit })
    }

    /// True while three quarters are taken.
    pub(crate) fn are_scarce(&self) -> bool {
        self.all.available_permits() * 4 < self.total
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        match taken.get_mut(&self.owner) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.owner)),
        }
    }
}

fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !CHOSEN).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_and_no_more() {
        let places = Places::new(8, 2);
        let take = |address: &str| places.take(address.parse().unwrap());
        let (first, _second) = (take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap());
        assert!(take("192.0.2.1").is_none());
        let _sixes = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none() && take("2001:db8:0:1::3").is_some(), "a customer's /64 is one");
        drop(first);
        assert!(take("192.0.2.1").is_some());
    }

    #[test]
    fn all_together_have_no_more_than_there_are() {
        let places = Places::new(4, 4);
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let held: Vec<_> = (0..4).filter_map(|last| places.take(address(last))).collect();
        assert!(places.take(address(9)).is_none() && places.are_scarce());
        drop(held);
        assert!(places.taken().is_empty() && !places.are_scarce());
    }
}
