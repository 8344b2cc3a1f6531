//! Buckets that hold some attempts and refill evenly, in memory and bounded.
//!
//! A bucket is one number: the time at which it will be full again. The table holds at most [`MOST_KEYS`] of them: when
//! it is full, the ones that are full again are dropped, and if that frees nothing, a few that will be full soonest.
//! Whoever fills the table with keys of one attempt each loses those, and fills nobody's dry bucket.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets kept at most.
pub const MOST_KEYS: usize = 20_000;
/// Buckets dropped at once where none is full again.
const EVICTED: usize = MOST_KEYS / 16;

/// One limit: so many attempts at once, one more each `refill`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// What a full bucket holds.
    pub attempts: u32,
    /// The time in which one attempt comes back.
    pub refill: Duration,
}

impl Limit {
    /// So many in a minute, all of them at once if need be; at least one.
    pub fn per_minute(attempts: u32) -> Self {
        let attempts = attempts.max(1);
        Self { attempts, refill: Duration::from_secs(60) / attempts }
    }
}

/// A bucket after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Attempts left.
    pub left: u32,
    /// The time until it is full again.
    pub full_in: Duration,
    /// For an attempt that was not granted: the time until the next one is.
    pub refused: Option<Duration>,
}

/// The buckets by key.
pub struct Buckets<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Takes one attempt out of a bucket, if there is one.
    pub fn take(&self, key: K, limit: Limit, now: Instant) -> Level {
        let mut full_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut full_at, now);
        let before = full_at.get(&key).map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        let (size, after) = (limit.refill * limit.attempts, before + limit.refill);
        if after > size {
            return Level { left: 0, full_in: before, refused: Some(after - size) };
        }
        full_at.insert(key, now + after);
        let left = (size - after).as_nanos() / limit.refill.as_nanos().max(1);
        Level { left: u32::try_from(left).unwrap_or(limit.attempts), full_in: after, refused: None }
    }

    /// Puts an attempt back.
    pub fn give_back(&self, key: &K, limit: Limit) {
        if let Some(full) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key) {
            *full = full.checked_sub(limit.refill).unwrap_or(*full);
        }
    }

    /// Fills a bucket.
    pub fn forget(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

fn make_room<K: Eq + Hash>(full_at: &mut HashMap<K, Instant>, now: Instant) {
    if full_at.len() >= MOST_KEYS {
        full_at.retain(|_, full| *full > now);
    }
    if full_at.len() < MOST_KEYS {
        return;
    }
    let mut ends: Vec<Instant> = full_at.values().copied().collect();
    let (_, last, _) = ends.select_nth_unstable(EVICTED);
    let (last, mut surplus) = (*last, EVICTED);
    full_at.retain(|_, full| {
        let evict = surplus > 0 && *full <= last;
        surplus -= usize::from(evict);
        !evict
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_runs_dry_and_refills() {
        let (buckets, limit, now) = (Buckets::default(), Limit::per_minute(6), Instant::now());
        let lefts: Vec<u32> = (0..6).map(|_| buckets.take("a", limit, now).left).collect();
        assert_eq!(lefts, [5, 4, 3, 2, 1, 0]);
        let dry = buckets.take("a", limit, now);
        assert_eq!((dry.refused, dry.full_in), (Some(Duration::from_secs(10)), Duration::from_secs(60)));
        assert_eq!(buckets.take("b", limit, now).refused, None);
        assert_eq!(buckets.take("a", limit, now + limit.refill).refused, None);
        assert!(buckets.take("a", limit, now + limit.refill).refused.is_some());
        buckets.forget(&"a");
        assert_eq!(buckets.take("a", limit, now).left, 5);
    }

    #[test]
    fn the_table_is_bounded_and_a_dry_bucket_stays_dry() {
        let (buckets, limit, now) = (Buckets::default(), Limit::per_minute(2), Instant::now());
        let guesser = usize::MAX;
        while buckets.take(guesser, limit, now).refused.is_none() {}
        for number in 0..(3 * MOST_KEYS) {
            assert_eq!(buckets.take(number, limit, now).refused, None);
        }
        assert!(buckets.0.lock().unwrap().len() <= MOST_KEYS);
        assert!(buckets.take(guesser, limit, now).refused.is_some(), "others' keys filled it");
    }

    #[test]
    fn an_attempt_can_be_given_back() {
        let (buckets, limit, now) = (Buckets::default(), Limit::per_minute(2), Instant::now());
        assert_eq!((buckets.take("a", limit, now).left, buckets.take("a", limit, now).left), (1, 0));
        buckets.give_back(&"a", limit);
        assert_eq!(buckets.take("a", limit, now).refused, None);
        buckets.give_back(&"b", limit);
    }
}
