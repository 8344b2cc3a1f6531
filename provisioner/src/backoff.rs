//! How long to wait after a failure: doubling between two bounds, spread by jitter so that what failed together does not return together.

use std::time::Duration;

use thiserror::Error;

/// Why a backoff cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BackoffError {
    /// It would never wait.
    #[error("refuse backoff whose shortest wait is zero")]
    Zero,
    /// The bounds are the wrong way round.
    #[error("refuse backoff whose longest wait is shorter than its shortest")]
    Order,
}

/// A checked pair of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Waits from `min` (after the first failure) to `max`.
    ///
    /// # Errors
    /// [`BackoffError`] for bounds that make no sense.
    pub const fn new(min: Duration, max: Duration) -> Result<Self, BackoffError> {
        if min.is_zero() {
            return Err(BackoffError::Zero);
        }
        if max.as_nanos() < min.as_nanos() {
            return Err(BackoffError::Order);
        }
        Ok(Self { min, max })
    }

    /// The wait after that many failures in a row (1 is the first), up to a quarter shorter or longer and never beyond the bounds.
    pub fn after(&self, failures: u32) -> Duration {
        let doubled = self.min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        jitter(doubled.min(self.max)).clamp(self.min, self.max)
    }
}

impl Default for Backoff {
    /// From a quarter of a second to half a minute.
    fn default() -> Self {
        Self { min: Duration::from_millis(250), max: Duration::from_secs(30) }
    }
}

/// The duration, up to a quarter shorter or longer.
pub fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.75..=1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_nonsense() {
        let (zero, one, two) = (Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(Backoff::new(zero, one), Err(BackoffError::Zero));
        assert_eq!(Backoff::new(two, one), Err(BackoffError::Order));
        assert!(Backoff::new(one, one).is_ok());
    }

    #[test]
    fn doubles_within_its_bounds() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10)).unwrap();
        for (failures, middle) in [(1, 100), (2, 200), (4, 800), (8, 10_000), (40, 10_000), (u32::MAX, 10_000)] {
            let middle = Duration::from_millis(middle);
            let waits: Vec<_> = (0..50).map(|_| backoff.after(failures)).collect();
            assert!(waits.iter().all(|wait| *wait >= middle.mul_f64(0.74) && *wait <= middle.mul_f64(1.26)));
            assert!(waits.iter().all(|wait| *wait >= backoff.min && *wait <= backoff.max));
        }
    }
}
