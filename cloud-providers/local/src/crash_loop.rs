//! The back-off of a machine that ends by itself again and again: it is started at once, but not for ever.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::LocalError;
use crate::machine::Spec;

/// Ends longer ago than this are forgiven.
pub const WINDOW: Duration = Duration::from_secs(300);
/// So many starts in that time come at once.
const IMMEDIATE: usize = 3;
/// After them, one in this time.
const PAUSE: Duration = Duration::from_secs(60);

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Notes another start at `now`.
///
/// # Errors
/// [`LocalError::CrashLoop`] while it must wait; nothing is noted then.
pub fn note_start(spec: &mut Spec, now: u64) -> Result<(), LocalError> {
    // A clock that was set back forgives too.
    spec.restarts.retain(|at| (0..WINDOW.as_secs()).contains(&now.wrapping_sub(*at)));
    let last = spec.restarts.last().copied().unwrap_or(0);
    if spec.restarts.len() >= IMMEDIATE && now - last < PAUSE.as_secs() {
        return Err(LocalError::CrashLoop { times: spec.restarts.len(), console: spec.console() });
    }
    spec.restarts.push(now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_starts_come_at_once_and_then_one_a_minute() {
        let mut spec = crate::machine::tests::spec();
        for now in [1000, 1001, 1002] {
            note_start(&mut spec, now).unwrap();
        }
        let refused = note_start(&mut spec, 1003).unwrap_err();
        assert!(refused.to_string().contains("3 times within 5 minutes"), "{refused}");
        assert!(note_start(&mut spec, 1061).is_err() && note_start(&mut spec, 1062).is_ok());
        assert!(note_start(&mut spec, 1100).is_err(), "a minute after the last one");
        assert!(note_start(&mut spec, 1062 + 300).is_ok());
        assert_eq!(spec.restarts.len(), 1, "what is long ago is forgiven");
    }
}
