//! A limiter of unauthenticated connections: in all, per address and per network; when it is full, the idlest connection of the largest user is evicted.
//!
//! An address is what one customer has: an IPv4 address, or the /64 of an IPv6 one. Its network is the /24, or the /48, around it.
//! When no permit is left for a new connection, another is evicted at once: of the address or network that has the largest part of its share,
//! the least recently used one. So whoever takes most permits loses them first, even to somebody with a single connection.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// How many connections are allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimiterConfig {
    /// In all.
    pub(crate) total: usize,
    /// Per address.
    pub(crate) per_address: usize,
    /// Per network.
    pub(crate) per_network: usize,
    /// A connection that was used this recently is not evicted.
    pub(crate) min_idle: Duration,
}

/// Limits one kind of connections.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    shares: LimiterConfig,
    begun: Instant,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    held: HashMap<u64, Held>,
    /// Permits held by an address or a network; the two never have the same key.
    counts: HashMap<Prefix, usize>,
}

#[derive(Debug)]
struct Held {
    address: Prefix,
    network: Prefix,
    /// Milliseconds since the limiter was created.
    used: Arc<AtomicU64>,
    cut: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Prefix {
    Address(IpAddr),
    Network(IpAddr),
}

/// A permit, released when it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
    used: Arc<AtomicU64>,
}

/// The result of acquiring a permit.
#[derive(Debug)]
pub(crate) enum Acquired {
    /// A permit, and whether another connection was evicted for it.
    Permit(ConnectionPermit, bool),
    /// None: no connection may be evicted.
    Rejected,
}

impl ConnectionLimiter {
    /// Limits one kind of connections.
    pub(crate) fn new(shares: LimiterConfig) -> Arc<Self> {
        Arc::new(Self { shares, begun: Instant::now(), table: Mutex::default() })
    }

    /// A permit for a connection from this address; cancelling `cut` evicts it.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, cut: CancellationToken) -> Acquired {
        let (address, network) = prefixes(address);
        let now = self.now();
        let mut table = self.table();
        let has_evicted = match table.crowded(&self.shares, address, network) {
            None => false,
            Some(among) => match table.idlest(&self.shares, among, now) {
                Some(victim) => table.evict(victim),
                None => return Acquired::Rejected,
            },
        };
        let used = Arc::new(AtomicU64::new(now));
        let id = table.enter(Held { address, network, used: used.clone(), cut });
        Acquired::Permit(ConnectionPermit { limiter: self.clone(), id, used }, has_evicted)
    }

    /// Evicts the idlest connection of the largest user; false if there is none.
    pub(crate) fn shed(&self) -> bool {
        let mut table = self.table();
        table.idlest(&self.shares, None, self.now()).is_some_and(|victim| table.evict(victim))
    }

    /// True while all are taken.
    pub(crate) fn are_full(&self) -> bool {
        self.table().held.len() >= self.shares.total
    }

    /// True while three quarters are taken.
    pub(crate) fn are_scarce(&self) -> bool {
        self.table().held.len() * 4 > self.shares.total * 3
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Whose permits are exhausted: those of one prefix, or (`Some(None)`) everybody's.
    fn crowded(&self, shares: &LimiterConfig, address: Prefix, network: Prefix) -> Option<Option<Prefix>> {
        if self.count(address) >= shares.per_address {
            return Some(Some(address));
        }
        if self.count(network) >= shares.per_network {
            return Some(Some(network));
        }
        (self.held.len() >= shares.total).then_some(None)
    }

    /// Of those with the largest part of their share (among one prefix, if given), the one used least lately.
    fn idlest(&self, shares: &LimiterConfig, among: Option<Prefix>, now: u64) -> Option<u64> {
        let min_idle = u64::try_from(shares.min_idle.as_millis()).unwrap_or(u64::MAX);
        let within = |held: &Held| among.is_none_or(|prefix| prefix == held.address || prefix == held.network);
        let used = |held: &Held| held.used.load(Relaxed);
        let candidates =
            self.held.iter().filter(|(_, held)| within(held) && now.saturating_sub(used(held)) >= min_idle);
        candidates.max_by_key(|(_, held)| (self.usage_share(shares, held), Reverse(used(held)))).map(|(id, _)| *id)
    }

    /// The part of its share that a connection's address has, or its network, whichever is more; comparable between all.
    fn usage_share(&self, shares: &LimiterConfig, held: &Held) -> usize {
        (self.count(held.address) * shares.per_network).max(self.count(held.network) * shares.per_address)
    }

    fn count(&self, prefix: Prefix) -> usize {
        self.counts.get(&prefix).copied().unwrap_or(0)
    }

    fn enter(&mut self, held: Held) -> u64 {
        for prefix in [held.address, held.network] {
            *self.counts.entry(prefix).or_default() += 1;
        }
        let id = self.next;
        self.next += 1;
        self.held.insert(id, held);
        id
    }

    fn leave(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        for prefix in [held.address, held.network] {
            match self.counts.get_mut(&prefix) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.counts.remove(&prefix)),
            }
        }
        Some(held)
    }

    fn evict(&mut self, id: u64) -> bool {
        self.leave(id).is_some_and(|held| {
            held.cut.cancel();
            true
        })
    }
}

impl ConnectionPermit {
    /// Records that the connection is used now.
    pub(crate) fn touch(&self) {
        self.used.store(self.limiter.now(), Relaxed);
    }

    /// The limiter it belongs to.
    pub(crate) fn limiter(&self) -> &Arc<ConnectionLimiter> {
        &self.limiter
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limiter.table().leave(self.id);
    }
}

fn prefixes(address: IpAddr) -> (Prefix, Prefix) {
    let (address, network) = match address.to_canonical() {
        IpAddr::V4(v4) => (v4.into(), Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into()),
        IpAddr::V6(v6) => {
            let keep = |bits: u32| Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - bits))).into();
            (keep(64), keep(48))
        }
    };
    (Prefix::Address(address), Prefix::Network(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(total: usize, per_address: usize, per_network: usize) -> Arc<ConnectionLimiter> {
        ConnectionLimiter::new(LimiterConfig { total, per_address, per_network, min_idle: Duration::ZERO })
    }

    struct Guest(CancellationToken, ConnectionPermit);

    fn enter(limiter: &Arc<ConnectionLimiter>, address: &str) -> Guest {
        let cut = CancellationToken::new();
        match limiter.take(address.parse().unwrap(), cut.clone()) {
            Acquired::Permit(permit, _) => Guest(cut, permit),
            Acquired::Rejected => panic!("no place for {address}"),
        }
    }

    /// Makes `guest` the one used least lately.
    fn age(guest: &Guest, milliseconds: u64) {
        guest.1.used.store(0, Relaxed);
        assert!(milliseconds > 0);
        for held in guest.1.limiter.table().held.values() {
            if !Arc::ptr_eq(&held.used, &guest.1.used) {
                held.used.fetch_add(milliseconds, Relaxed);
            }
        }
    }

    #[test]
    fn beyond_its_share_an_address_loses_its_own_idlest() {
        let limiter = limiter(8, 2, 8);
        let (one, two, other) =
            (enter(&limiter, "192.0.2.1"), enter(&limiter, "::ffff:192.0.2.1"), enter(&limiter, "192.0.2.2"));
        age(&one, 10);
        age(&other, 10);
        let three = enter(&limiter, "192.0.2.1");
        assert!(one.0.is_cancelled() && ![&two, &other, &three].iter().any(|guest| guest.0.is_cancelled()));
        let sixes = [enter(&limiter, "2001:db8::1"), enter(&limiter, "2001:db8::2")];
        let _third = enter(&limiter, "2001:db8::3");
        assert!(sixes.iter().any(|guest| guest.0.is_cancelled()), "a customer's /64 is one");
    }

    #[test]
    fn the_greediest_makes_room_for_everybody_else() {
        let limiter = limiter(6, 4, 4);
        let greedy: Vec<_> = (0..4).map(|_| enter(&limiter, "192.0.2.1")).collect();
        let modest = [enter(&limiter, "198.51.100.1"), enter(&limiter, "203.0.113.1")];
        age(&modest[0], 50);
        let newcomer = enter(&limiter, "203.0.113.9");
        let gone = greedy.iter().filter(|guest| guest.0.is_cancelled()).count();
        assert_eq!(gone, 1, "though another was idle for longer");
        assert!(![&modest[0], &modest[1], &newcomer].iter().any(|guest| guest.0.is_cancelled()));
    }

    #[test]
    fn a_network_of_many_addresses_is_greedy_too() {
        let limiter = limiter(6, 4, 5);
        let spread: Vec<_> = (0..4).map(|at| enter(&limiter, &format!("2001:db8:7:{at}::1"))).collect();
        let two = [enter(&limiter, "192.0.2.1"), enter(&limiter, "192.0.2.1")];
        let _newcomer = enter(&limiter, "198.51.100.1");
        assert_eq!(spread.iter().filter(|guest| guest.0.is_cancelled()).count(), 1, "its /48 has the most");
        assert!(!two.iter().any(|guest| guest.0.is_cancelled()));
    }

    #[test]
    fn who_was_used_just_now_may_be_spared() {
        let shares = LimiterConfig { total: 2, per_address: 2, per_network: 2, min_idle: Duration::from_secs(60) };
        let limiter = ConnectionLimiter::new(shares);
        let held = [enter(&limiter, "192.0.2.1"), enter(&limiter, "192.0.2.1")];
        assert!(matches!(limiter.take([192, 0, 2, 9].into(), CancellationToken::new()), Acquired::Rejected));
        assert!(limiter.are_scarce() && !limiter.shed());
        drop(held);
        let table = limiter.table();
        assert!(table.held.is_empty() && table.counts.is_empty());
    }

    #[test]
    fn an_evicted_place_is_given_back_once() {
        let limiter = limiter(1, 1, 1);
        let first = enter(&limiter, "192.0.2.1");
        let second = enter(&limiter, "192.0.2.2");
        assert!(first.0.is_cancelled());
        drop(first);
        assert_eq!(limiter.table().held.len(), 1);
        second.1.touch();
        drop(second);
        assert!(limiter.table().counts.is_empty());
    }
}
