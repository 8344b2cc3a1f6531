//! Counts attempts to sign in, per account and per address, in memory and bounded.
//!
//! A bucket holds some attempts and refills evenly. Whoever guesses runs dry; whoever mistypes twice does not notice.
//! The table holds at most [`MOST_KEYS`] buckets: when it is full, the ones that are full again are dropped, and if
//! that frees nothing, all are — guessing costs argon2 anyway.

use crate::error::Error;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets kept at most.
pub const MOST_KEYS: usize = 20_000;

/// One limit: so many attempts at once, one more each `refill`.
#[derive(Clone, Copy, Debug)]
struct Limit {
    attempts: u32,
    refill: Duration,
}

const PER_ADDRESS: Limit = Limit { attempts: 30, refill: Duration::from_secs(20) };
const PER_ACCOUNT: Limit = Limit { attempts: 10, refill: Duration::from_secs(60) };

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    /// An account as seen from one address, so that nobody can lock somebody else out.
    Account(IpAddr, String),
}

impl Key {
    fn limit(&self) -> Limit {
        match self {
            Self::Address(_) => PER_ADDRESS,
            Self::Account(..) => PER_ACCOUNT,
        }
    }
}

/// The buckets; each is the time at which it will be full again.
#[derive(Default)]
pub struct Limiter {
    full_at: Mutex<HashMap<Key, Instant>>,
}

impl Limiter {
    /// Takes one attempt for `account` from `address`.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the seconds until the next one.
    pub fn attempt(&self, address: IpAddr, account: &str) -> Result<(), Error> {
        let (now, address) = (Instant::now(), network(address));
        self.take(Key::Address(address), now)?;
        self.take(Key::Account(address, account.trim().to_lowercase()), now)
    }

    /// Forgets failures of an account after it signed in.
    pub fn succeeded(&self, address: IpAddr, account: &str) {
        let key = Key::Account(network(address), account.trim().to_lowercase());
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    fn take(&self, key: Key, now: Instant) -> Result<(), Error> {
        let limit = key.limit();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut full_at, now);
        let full = full_at.get(&key).copied().unwrap_or(now).max(now) + limit.refill;
        let over = full.duration_since(now).saturating_sub(limit.refill * limit.attempts);
        if !over.is_zero() {
            return Err(Error::RateLimited { retry_after_seconds: over.as_secs() + 1 });
        }
        full_at.insert(key, full);
        Ok(())
    }
}

/// Whoever has one IPv6 address has its whole /64; IPv4 in IPv6's clothes is IPv4.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
        address => address,
    }
}

fn make_room(full_at: &mut HashMap<Key, Instant>, now: Instant) {
    if full_at.len() >= MOST_KEYS {
        full_at.retain(|_, full| *full > now);
    }
    if full_at.len() >= MOST_KEYS {
        full_at.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_runs_dry_and_refills() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let key = || Key::Account(IpAddr::from([127, 0, 0, 1]), "a@b".into());
        for _ in 0..PER_ACCOUNT.attempts {
            limiter.take(key(), now).unwrap();
        }
        assert!(matches!(limiter.take(key(), now), Err(Error::RateLimited { retry_after_seconds: 60..=61 })));
        limiter.take(key(), now + PER_ACCOUNT.refill).unwrap();
        assert!(limiter.take(key(), now + PER_ACCOUNT.refill).is_err());
    }

    #[test]
    fn neighbours_in_one_network_share_a_bucket() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
    }

    #[test]
    fn the_table_is_bounded() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        for number in 0..(MOST_KEYS as u32 + 10) {
            limiter.take(Key::Address(IpAddr::from(number.to_be_bytes())), now).unwrap();
        }
        assert!(limiter.full_at.lock().unwrap().len() <= MOST_KEYS);
    }
}
