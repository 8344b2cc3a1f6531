//! The pauses between starts of a process that ends again and again.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// A process that ran this long was well: the next failure starts from the shortest pause again.
const WELL: Duration = Duration::from_secs(30);

/// How long to wait before the next start: twice as long each time, up to 15 s.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Backoff {
    /// The pause to make after a process that ran so long (zero: it did not start).
    pub fn pause_after(&mut self, ran: Duration) -> Duration {
        let pause = if ran > WELL { SHORTEST } else { self.next };
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.pause_after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
        assert_eq!(backoff.pause_after(WELL * 2), SHORTEST);
        assert_eq!(backoff.pause_after(WELL), SHORTEST * 2);
    }
}
