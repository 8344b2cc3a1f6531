//! A bucket that holds so much and refills evenly, kept as one moment: when it is full again.

use std::time::{Duration, Instant};

/// What a bucket holds, and how fast it refills.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// So much at once.
    pub at_once: u64,
    /// The time in which one comes back.
    pub every: Duration,
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take(&mut self, limit: Limit, now: Instant) -> Result<(), Duration> {
        self.check(limit, now)?;
        self.spend(limit, 1, now);
        Ok(())
    }

    /// Whether there is one.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn check(&self, limit: Limit, now: Instant) -> Result<(), Duration> {
        let missing = self.full_at.saturating_duration_since(now);
        match (missing + limit.every).checked_sub(times(limit.every, limit.at_once)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Takes so much, though it may not be there: it is then missing for longer.
    pub fn spend(&mut self, limit: Limit, amount: u64, now: Instant) {
        self.full_at = self.full_at.max(now) + times(limit.every, amount);
    }

    /// Whether it is full: then it need not be kept.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

fn times(every: Duration, amount: u64) -> Duration {
    let nanoseconds = every.as_nanos().saturating_mul(u128::from(amount));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { at_once: 3, every: Duration::from_secs(10) };

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_one_at_a_time() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        let taken = (0..9).filter(|_| bucket.take(LIMIT, now).is_ok()).count();
        assert_eq!((taken, bucket.take(LIMIT, now)), (3, Err(LIMIT.every)));
        assert!(!bucket.is_full(now));
        assert_eq!(bucket.take(LIMIT, now + LIMIT.every), Ok(()));
        assert!(bucket.take(LIMIT, now + LIMIT.every).is_err());
        assert!(bucket.is_full(now + 5 * LIMIT.every));
    }

    #[test]
    fn what_was_spent_beyond_is_waited_for() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        bucket.spend(LIMIT, 7, now);
        assert_eq!(bucket.check(LIMIT, now), Err(5 * LIMIT.every));
        assert_eq!(bucket.check(LIMIT, now + 5 * LIMIT.every), Ok(()));
    }
}
