//! Lengths of time as people type them (`90s`, `15m`, `24h`, `30d`, `1h30m`) and as they read them.

use std::time::Duration;

/// Reads `90s`, `15m`, `24h`, `30d`, or several of these in a row.
///
/// # Errors
/// A sentence for people when the text is not of that form or is zero.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; use the form 90s, 15m, 24h or 30d");
    let mut total: u64 = 0;
    let mut digits = String::new();
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let amount: u64 = std::mem::take(&mut digits).parse().map_err(|_| wrong())?;
        let seconds = unit(letter).and_then(|unit| amount.checked_mul(unit)).ok_or_else(wrong)?;
        total = total.checked_add(seconds).ok_or_else(wrong)?;
    }
    if !digits.is_empty() || total == 0 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}

fn unit(letter: char) -> Option<u64> {
    match letter {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    }
}

/// Shows milliseconds the way steps are timed: `0.3 s`, `75 s`, `4 min`.
#[must_use]
pub fn took(milliseconds: u64) -> String {
    match milliseconds {
        0..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{} min {} s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
}

/// Shows a span as one number with its unit: `12s`, `4m`, `3h`, `18d`.
#[must_use]
pub fn short(span: time::Duration) -> String {
    let seconds = span.whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_typed() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for wrong in ["", "90", "h", "5w", "0s", "-1h", "99999999999999999999d", "1h2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(took(340), "0.3 s");
        assert_eq!(took(75_000), "1 min 15 s");
        assert_eq!(short(time::Duration::seconds(59)), "59s");
        assert_eq!(short(time::Duration::hours(47)), "47h");
        assert_eq!(short(time::Duration::seconds(-4)), "0s");
    }
}
