//! The pauses between attempts at what fails again and again: twice as long each time, up to a limit.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// A process that ran this long was well: the next failure starts from the shortest pause again.
const WELL: Duration = Duration::from_secs(30);

/// How long to wait before the next attempt: from 0.2 s to a limit.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    /// Up to 15 s.
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Backoff {
    /// Up to `longest`.
    pub const fn up_to(longest: Duration) -> Self {
        Self { next: SHORTEST, longest }
    }

    /// The pause to make now, between half of the present step and all of it: a thousand agents shall not come at once.
    pub fn pause(&mut self) -> Duration {
        self.step().mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// The pause to make after a process that ran so long (zero: it did not start): the whole step, for it is alone.
    pub fn pause_after(&mut self, ran: Duration) -> Duration {
        if ran > WELL {
            self.reset();
        }
        self.step()
    }

    /// It worked: begin small next time.
    pub fn reset(&mut self) {
        self.next = SHORTEST;
    }

    fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step
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

    #[test]
    fn jittered_pauses_stay_within_their_step() {
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        for step in [200, 400, 800, 1000, 1000] {
            let pause = backoff.pause().as_micros();
            assert!((step * 500..=step * 1000).contains(&pause), "{pause} of {step} ms");
        }
        backoff.reset();
        assert!(backoff.pause() <= SHORTEST);
    }
}
