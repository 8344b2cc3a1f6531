//! How far a build has come and how long it will go on, from what each part took on a reference machine: the parts' proportions are
//! taken from there, the speed from this machine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::{BundleError, Progress, Result};

const TABLE: &str = include_str!("../data/effort.toml");
/// What a part that the table does not know takes: a file that is fetched.
const OTHER: Effort = Effort { seconds: 5.0, steps: 0 };
/// Before this share is done, this machine's own speed says less than the reference machine's.
const TELLING: f64 = 0.05;

/// How far all of it has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overall {
    /// Done, of one.
    pub share: f64,
    /// How long it will take from now on, about.
    pub left: Duration,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Effort {
    seconds: f64,
    steps: u32,
}

/// The build's estimate of itself.
pub(crate) struct Estimate {
    table: HashMap<String, Effort>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: Option<Instant>,
    /// Parts that were announced, and those of them that are done; seconds of the reference machine.
    expected: HashMap<String, f64>,
    done: f64,
}

impl Estimate {
    pub(crate) fn new() -> Result<Self> {
        let malformed = |error: toml::de::Error| BundleError::Table {
            path: PathBuf::from("data/effort.toml"),
            reason: error.message().to_owned(),
        };
        let table = toml::from_str(TABLE).map_err(malformed)?;
        Ok(Self { table, state: Mutex::default() })
    }

    fn of(&self, name: &str) -> Effort {
        self.table.get(name).copied().unwrap_or(OTHER)
    }

    /// Announces parts that will be compiled. Those already announced count once.
    pub(crate) fn plan_builds<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.announce(names.into_iter().map(|name| (name.to_owned(), self.of(name).seconds)));
    }

    /// Announces parts that will be fetched.
    pub(crate) fn plan_files<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.announce(names.into_iter().map(|name| (name.to_owned(), OTHER.seconds)));
    }

    fn announce(&self, parts: impl Iterator<Item = (String, f64)>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.begun.get_or_insert_with(Instant::now);
        state.expected.extend(parts);
    }

    /// Takes note of an event, and says in it how far all has come.
    pub(crate) fn annotate(&self, event: Progress) -> Progress {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Progress::Working { name, elapsed, detail, count, .. } => {
                let overall = state.overall(&name, self.of(&name), count, Instant::now());
                Progress::Working { name, elapsed, detail, count, overall }
            }
            Progress::Done { ref name, cached: false, .. } => {
                state.done += state.expected.get(name).copied().unwrap_or_default();
                event
            }
            event => event,
        }
    }
}

impl State {
    fn overall(&self, name: &str, effort: Effort, count: u32, now: Instant) -> Option<Overall> {
        let total: f64 = self.expected.values().sum();
        let weight = *self.expected.get(name)?;
        // The last of a part is its linking, which names nothing.
        let within = if effort.steps == 0 { 0.0 } else { (f64::from(count) / f64::from(effort.steps)).min(0.95) };
        let share = ((self.done + weight * within) / total).clamp(0.0, 0.999);
        let elapsed = (now - self.begun?).as_secs_f64();
        let whole = if share < TELLING { total.max(elapsed) } else { elapsed / share };
        Some(Overall { share, left: Duration::from_secs_f64((whole - elapsed).max(0.0)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;
    use crate::catalog::Catalog;

    #[test]
    fn every_program_of_the_catalog_has_an_effort() {
        let (estimate, catalog) = (Estimate::new().unwrap(), Catalog::load(Version::default()).unwrap());
        let names = catalog.programs().map(|(_, program)| program.name.as_str());
        let unknown: Vec<&str> = names.filter(|name| !estimate.table.contains_key(*name)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    #[test]
    fn what_is_left_follows_the_speed_of_this_machine() {
        let estimate = Estimate::new().unwrap();
        estimate.plan_builds(["etcd", "containerd"]);
        let mut state = estimate.state.into_inner().unwrap();
        let begun = state.begun.unwrap();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let effort = Effort { seconds: 35.0, steps: 446 };
        let first = state.overall("etcd", effort, 0, at(5)).unwrap();
        assert_eq!(
            (first.share, first.left.as_secs()),
            (0.0, 110),
            "the reference machine's time until this one's is known"
        );
        state.done = 35.0;
        let later = state.overall("containerd", Effort { seconds: 80.0, steps: 760 }, 380, at(150)).unwrap();
        assert!((later.share - 75.0 / 115.0).abs() < 1e-9, "{later:?}");
        assert_eq!(later.left.as_secs(), 80, "twice as slow as there");
        let linking = state.overall("containerd", Effort { seconds: 80.0, steps: 760 }, 9000, at(150)).unwrap();
        assert!(linking.share < 1.0);
        assert_eq!(state.overall("unheard of", OTHER, 0, at(9)), None);
    }
}
