//! Counts of this process for Prometheus, in its text format (version 0.0.4).
//!
//! They are kept whether or not anybody asks; their labels are words of ours, so there are only so many of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of a reconcile's seconds: from one that looks and goes, to one that waits as long as it may.
const SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

static REQUESTS: Mutex<BTreeMap<[String; 3], u64>> = Mutex::new(BTreeMap::new());
static FAILURES: Mutex<BTreeMap<[String; 2], u64>> = Mutex::new(BTreeMap::new());
static RECONCILES: Mutex<BTreeMap<[String; 2], Histogram>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Debug, Default)]
struct Histogram {
    /// How many took at most so long, and more than the bound before.
    within: [u64; SECONDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        if let Some(bucket) = SECONDS.iter().position(|bound| seconds <= *bound) {
            self.within[bucket] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// Counts a request that was answered; `route` is the template of the path.
pub fn count_request(method: &str, route: &str, status: u16) {
    change(&REQUESTS, [method.to_owned(), route.to_owned(), status.to_string()], |count| *count += 1);
}

/// Counts a reconcile and how long it took.
pub fn observe_reconcile(kind: &str, outcome: &str, took: Duration) {
    change(&RECONCILES, [kind.to_owned(), outcome.to_owned()], |histogram| histogram.observe(took.as_secs_f64()));
}

/// Counts a reconcile that failed; `reason` is the code of its error.
pub fn count_failure(kind: &str, reason: &str) {
    change(&FAILURES, [kind.to_owned(), reason.to_owned()], |count| *count += 1);
}

fn change<K: Ord, V: Default>(all: &Mutex<BTreeMap<K, V>>, key: K, change: impl FnOnce(&mut V)) {
    change(all.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
}

fn read<K: Clone, V: Clone>(all: &Mutex<BTreeMap<K, V>>) -> BTreeMap<K, V> {
    all.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What a scrape reads.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// What this module counts.
    pub fn of_process() -> Self {
        let mut text = Self::default();
        text.head("http_server_requests_total", "counter", "HTTP requests that were answered.");
        for ([method, route, status], count) in read(&REQUESTS) {
            let labels = [("method", &*method), ("route", &*route), ("status", &*status)];
            text.sample("http_server_requests_total", &labels, count);
        }
        text.head(
            "pilothouse_reconcile_failures_total",
            "counter",
            "Reconciles that failed, by the code of the error.",
        );
        for ([kind, reason], count) in read(&FAILURES) {
            text.sample("pilothouse_reconcile_failures_total", &[("kind", &*kind), ("reason", &*reason)], count);
        }
        text.head("pilothouse_reconcile_duration_seconds", "histogram", "How long reconciles took, by how they ended.");
        for ([kind, outcome], histogram) in read(&RECONCILES) {
            text.histogram(
                "pilothouse_reconcile_duration_seconds",
                [("kind", &kind), ("outcome", &outcome)],
                histogram,
            );
        }
        text
    }

    /// The head of a family: its type and what it is.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number of a family.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn histogram(&mut self, name: &str, [first, second]: [(&str, &str); 2], histogram: Histogram) {
        let mut until = 0;
        for (bound, within) in SECONDS.iter().zip(histogram.within) {
            until += within;
            self.sample(&format!("{name}_bucket"), &[first, second, ("le", &bound.to_string())], until);
        }
        self.sample(&format!("{name}_bucket"), &[first, second, ("le", "+Inf")], histogram.count);
        self.sample(&format!("{name}_sum"), &[first, second], histogram.sum);
        self.sample(&format!("{name}_count"), &[first, second], histogram.count);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_prometheus_format() {
        count_request("GET", "/api/v1/clusters/{cls}", 200);
        count_request("GET", "/api/v1/clusters/{cls}", 200);
        count_failure("node", "HOST_TIMEOUT");
        observe_reconcile("node", "done", Duration::from_millis(20));
        observe_reconcile("node", "done", Duration::from_secs(60));
        let text = Exposition::of_process().into_text();
        for line in [
            "# TYPE http_server_requests_total counter",
            "http_server_requests_total{method=\"GET\",route=\"/api/v1/clusters/{cls}\",status=\"200\"} 2",
            "pilothouse_reconcile_failures_total{kind=\"node\",reason=\"HOST_TIMEOUT\"} 1",
            "pilothouse_reconcile_duration_seconds_bucket{kind=\"node\",outcome=\"done\",le=\"0.01\"} 0",
            "pilothouse_reconcile_duration_seconds_bucket{kind=\"node\",outcome=\"done\",le=\"0.025\"} 1",
            "pilothouse_reconcile_duration_seconds_bucket{kind=\"node\",outcome=\"done\",le=\"30\"} 1",
            "pilothouse_reconcile_duration_seconds_bucket{kind=\"node\",outcome=\"done\",le=\"+Inf\"} 2",
            "pilothouse_reconcile_duration_seconds_sum{kind=\"node\",outcome=\"done\"} 60.02",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let mut quoted = Exposition::default();
        quoted.sample("a", &[("b", "c\"\\\n")], 1);
        assert_eq!(quoted.into_text(), "a{b=\"c\\\"\\\\\\n\"} 1\n");
    }
}
