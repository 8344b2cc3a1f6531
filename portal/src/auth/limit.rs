//! Counts attempts to sign in: per address, per account as seen from one address, and per account from everywhere. Whoever
//! guesses runs dry, also from many addresses at once; whoever mistypes twice does not notice. A browser that somebody
//! signed in with before ([`super::device`]) is counted apart, so guessing from elsewhere locks nobody out there. Accounts
//! that do not exist are counted alike. What is counted is lost with the process: guessing costs argon2 anyway.

use super::address::network;
use super::bucket::{Buckets, Limit};
use crate::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tenant_controlplane::id::UserId;

const PER_ADDRESS: Limit = Limit { attempts: 30, refill: Duration::from_secs(20) };
const PER_ACCOUNT: Limit = Limit { attempts: 10, refill: Duration::from_secs(60) };
const PER_ACCOUNT_IN_ALL: Limit = Limit { attempts: 20, refill: Duration::from_secs(60) };

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    /// An account, or anything else with a name, as seen from one address.
    Account(IpAddr, String),
    /// An account from all addresses.
    AccountInAll(String),
    /// An account from browsers that its owner has used before.
    KnownDevice(String),
    /// The present password, asked of somebody who is signed in.
    Password(UserId),
}

impl Key {
    fn limit(&self) -> Limit {
        match self {
            Self::Address(_) => PER_ADDRESS,
            Self::Account(..) | Self::KnownDevice(_) | Self::Password(_) => PER_ACCOUNT,
            Self::AccountInAll(_) => PER_ACCOUNT_IN_ALL,
        }
    }
}

/// The attempts made of late.
#[derive(Default)]
pub struct Limiter(Buckets<Key>);

impl Limiter {
    /// Takes one attempt at `what` from `address`: the setup link, a link that sets a password.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the seconds until the next one.
    pub fn attempt(&self, address: IpAddr, what: &str) -> Result<(), Error> {
        let (now, address) = (Instant::now(), network(address));
        self.take(Key::Address(address), now)?;
        self.take(Key::Account(address, what.to_owned()), now)
    }

    /// Takes one attempt to sign in as `account` (as it was typed) from `address`, from a browser that is known or not.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the seconds until the next one.
    pub fn sign_in(&self, address: IpAddr, account: &str, known_device: bool) -> Result<(), Error> {
        let (now, address, account) = (Instant::now(), network(address), plain(account));
        self.take(Key::Address(address), now)?;
        if known_device {
            return self.take(Key::KnownDevice(account), now);
        }
        self.take(Key::Account(address, account.clone()), now)?;
        self.take(Key::AccountInAll(account), now)
    }

    /// Takes back what a sign-in that succeeded has counted. The other attempts at this account stay counted.
    pub fn succeeded(&self, address: IpAddr, account: &str, known_device: bool) {
        let account = plain(account);
        if known_device {
            return self.0.forget(&Key::KnownDevice(account));
        }
        self.0.forget(&Key::Account(network(address), account.clone()));
        self.0.give_back(&Key::AccountInAll(account), PER_ACCOUNT_IN_ALL);
    }

    /// Takes one attempt at the present password of somebody who is signed in.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the seconds until the next one.
    pub fn password(&self, user: UserId) -> Result<(), Error> {
        self.take(Key::Password(user), Instant::now())
    }

    fn take(&self, key: Key, now: Instant) -> Result<(), Error> {
        let limit = key.limit();
        match self.0.take(key, limit, now).refused {
            Some(wait) => Err(Error::RateLimited { retry_after_seconds: wait.as_secs() + 1 }),
            None => Ok(()),
        }
    }
}

fn plain(account: &str) -> String {
    account.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

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
    fn guesses_from_many_addresses_run_dry_and_a_known_browser_does_not() {
        let limiter = Limiter::default();
        let granted = (0..200).filter(|last| limiter.sign_in(from(*last), "Ana@Example.com ", false).is_ok()).count();
        assert_eq!(granted, 20);
        assert!(limiter.sign_in(from(250), "ana@example.com", false).is_err());
        limiter.sign_in(from(250), "ana@example.com", true).unwrap();
        limiter.sign_in(from(250), "eva@example.com", false).unwrap();
        // Her success gives the guesser nothing back.
        limiter.succeeded(from(250), "ana@example.com", true);
        assert!(limiter.sign_in(from(251), "ana@example.com", false).is_err());
        let known = (0..100).filter(|last| limiter.sign_in(from(*last), "ana@example.com", true).is_ok()).count();
        assert_eq!(known, 10, "a stolen cookie of a browser is no way around");
    }
}
