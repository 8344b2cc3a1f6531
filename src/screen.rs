//! Lines on standard error, and what goes on meanwhile: on a terminal in one line that stays in place, elsewhere in a line a minute.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is written of what goes on, where it cannot stay in place.
const BETWEEN_LINES: Duration = Duration::from_secs(60);
/// Length of the bar: a tenth of a percent.
const LENGTH: u64 = 1000;
const WITH_SHARE: &str = "    [{bar:24}] {wide_msg}";
const WITHOUT: &str = "    {spinner} {wide_msg}";

/// Standard error, for a person.
#[derive(Debug)]
pub struct Screen {
    in_place: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Screen {
    /// Finds out whether it is a terminal.
    pub fn new() -> Self {
        let state = State { bar: None, last: Instant::now() };
        Self { in_place: std::io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    /// Writes a line. What went on until then is over.
    pub fn line(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        write_line(text);
        state.last = Instant::now();
    }

    /// Shows what goes on, and how much of it is done, of one, where that is known.
    pub fn working(&self, text: &str, share: Option<f64>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.in_place {
            let bar = state
                .bar
                .get_or_insert_with(|| ProgressBar::with_draw_target(Some(LENGTH), ProgressDrawTarget::stderr()));
            let template = if share.is_some() { WITH_SHARE } else { WITHOUT };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_position((share.unwrap_or_default() * LENGTH as f64) as u64);
            bar.set_message(without_controls(text));
            bar.tick();
        } else if state.is_due(Instant::now()) {
            write_line(&format!("    {text}"));
        }
    }
}

/// Without what would move a terminal: some of what is shown was written by others.
fn without_controls(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control() || ['\n', '\t'].contains(letter)).collect()
}

/// A terminal that was closed takes nothing more, and work goes on without it.
fn write_line(text: &str) {
    writeln!(std::io::stderr().lock(), "{}", without_controls(text)).ok();
}

impl State {
    /// Whether the next line may be written; then it counts as written.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = now.saturating_duration_since(self.last) >= BETWEEN_LINES;
        if due {
            self.last = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elsewhere_than_on_a_terminal_a_line_a_minute_is_enough() {
        let begun = Instant::now();
        let mut state = State { bar: None, last: begun };
        let due: Vec<u64> =
            (0..=200).step_by(5).filter(|seconds| state.is_due(begun + Duration::from_secs(*seconds))).collect();
        assert_eq!(due, [60, 120, 180]);
    }

    #[test]
    fn what_others_wrote_moves_no_terminal() {
        let text = "machine ended:\u{1b}]0;title\u{7}\u{9b}31m red\n  next";
        assert_eq!(without_controls(text), "machine ended:]0;title31m red\n  next");
    }

    #[test]
    fn both_templates_are_understood() {
        for template in [WITH_SHARE, WITHOUT] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
