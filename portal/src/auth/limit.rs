//! Counts attempts to sign in, per account and per address. Whoever guesses runs dry; whoever mistypes twice does not
//! notice. What is counted is lost with the process: guessing costs argon2 anyway.

use super::bucket::{Buckets, Limit};
use crate::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant};

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

/// The attempts made of late.
#[derive(Default)]
pub struct Limiter(Buckets<Key>);

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
        self.0.forget(&Key::Account(network(address), account.trim().to_lowercase()));
    }

    fn take(&self, key: Key, now: Instant) -> Result<(), Error> {
        let limit = key.limit();
        match self.0.take(key, limit, now).refused {
            Some(wait) => Err(Error::RateLimited { retry_after_seconds: wait.as_secs() + 1 }),
            None => Ok(()),
        }
    }
}

/// Whoever has one IPv6 address has its whole /64; IPv4 in IPv6's clothes is IPv4.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
        address => address,
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
}
