//! What a build tells while it runs, and how that reads on a terminal.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::effort::Overall;

/// Where progress goes. Called from the thread that builds; it must not block for long.
pub type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// One thing worth telling. `Display` gives a line for people.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// Which source was picked, and why.
    Source {
        /// `release` or `modules`.
        source: &'static str,
        /// Why this one.
        reason: String,
    },
    /// The disk was looked at and is large enough.
    Space {
        /// A path on that disk.
        path: PathBuf,
        /// Bytes needed at most.
        need: u64,
        /// Bytes free.
        free: u64,
    },
    /// Work on one part began.
    Started {
        /// The part.
        name: String,
        /// What is done to it: `build`, `fetch`, `pack` …
        action: &'static str,
    },
    /// Work on one part goes on; sent every few seconds.
    Working {
        /// The part.
        name: String,
        /// Since its start.
        elapsed: Duration,
        /// What is known: packages compiled, bytes fetched.
        detail: String,
        /// Packages or crates compiled so far.
        count: u32,
        /// How far everything has come, where that can be said.
        overall: Option<Overall>,
    },
    /// One part is ready.
    Done {
        /// The part.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// What it took.
        elapsed: Duration,
        /// It was there already.
        cached: bool,
    },
    /// All is ready.
    Finished {
        /// What: a bundle's id, or the node image's.
        what: String,
        /// How many parts it has.
        parts: usize,
        /// Bytes in all.
        size: u64,
        /// What it took.
        elapsed: Duration,
    },
    /// Something else a person wants to know.
    Note(String),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Progress::Source { source, reason } => write!(f, "source: {source} ({reason})"),
            Progress::Space { path, need, free } => {
                write!(f, "disk: {} free at {}, at most {} needed", bytes(*free), path.display(), bytes(*need))
            }
            Progress::Started { name, action } => write!(f, "{name}: {action}"),
            Progress::Working { name, elapsed, detail, overall: None, .. } => {
                write!(f, "{name}: {}, {detail}", seconds(*elapsed))
            }
            Progress::Working { name, elapsed, detail, overall: Some(all), .. } => {
                let percent = (all.share * 100.0).floor();
                write!(f, "{percent:>3} %, {}: {name}: {}, {detail}", left(all.left), seconds(*elapsed))
            }
            Progress::Done { name, size, cached: true, .. } => write!(f, "{name}: {} (cached)", bytes(*size)),
            Progress::Done { name, size, elapsed, .. } => {
                write!(f, "{name}: {} in {}", bytes(*size), seconds(*elapsed))
            }
            Progress::Finished { what, parts, size, elapsed } => {
                write!(f, "{what}: {parts} parts, {} in {}", bytes(*size), seconds(*elapsed))
            }
            Progress::Note(text) => f.write_str(text),
        }
    }
}

/// A size for people, decimal units: `84.4 MB`.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if size < 1000 {
        return format!("{size} B");
    }
    let (mut value, mut unit) = (size as f64 / 1000.0, 0);
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time for people: `0.4 s`, `2 min 05 s`.
pub(crate) fn seconds(elapsed: Duration) -> String {
    let whole = elapsed.as_secs();
    if whole >= 60 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{:.1} s", elapsed.as_secs_f64())
    }
}

/// What is left, for people, no more exact than an estimate is: `about 9 min left`.
pub fn left(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 90.. => format!("about {} min left", (seconds + 30) / 60),
        seconds @ 20.. => format!("about {} s left", seconds / 10 * 10),
        _ => "nearly done".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_part_says_how_far_all_has_come() {
        let overall = Some(Overall { share: 0.427, left: Duration::from_secs(500) });
        let (elapsed, detail) = (Duration::from_secs(70), "370 packages compiled".to_owned());
        let event = Progress::Working { name: "etcd".into(), elapsed, detail, count: 370, overall };
        assert_eq!(event.to_string(), " 42 %, about 8 min left: etcd: 1 min 10 s, 370 packages compiled");
        assert_eq!([left(Duration::from_secs(44)), left(Duration::ZERO)], ["about 40 s left", "nearly done"]);
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(
            [bytes(12), bytes(1_500), bytes(84_426_914), bytes(8_000_000_000)],
            ["12 B", "1.5 kB", "84.4 MB", "8.0 GB"]
        );
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!([seconds(Duration::from_millis(420)), seconds(Duration::from_secs(125))], ["0.4 s", "2 min 05 s"]);
    }
}
