//! Watching an operation: its steps on standard error while they happen, until it ends, time runs out or Ctrl-C.
//!
//! The work belongs to the server. Ending the watch, however it ends, never ends the work; the message says how to watch
//! again. A short loss of the network or of the portal is waited out.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use api_types::{Operation, Step};
use tokio::time::Instant;

use crate::client::{Call, Client};
use crate::duration::took;
use crate::error::{CliError, Result, Stopped};
use crate::terminal::one_line;

/// Failed attempts in a row that are waited out.
const TOLERATED: u32 = 5;
/// How long the server may hold one answer; short, so that steps show as they happen.
const HOLD_SECONDS: u64 = 1;
/// Default bound for `--wait`.
const BOUND: &str = "20m";

/// `--wait[=TIME]`: stay until the work is done.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait until it is done and show its steps; at most TIME (default 20m)
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = BOUND, value_parser = crate::duration::parse)]
    pub wait: Option<Duration>,
}

/// Standard error as a place for progress.
#[derive(Clone, Copy)]
pub struct Screen {
    quiet: bool,
    terminal: bool,
}

impl Screen {
    /// Progress on standard error, or none at all.
    pub fn new(quiet: bool) -> Self {
        Screen { quiet, terminal: std::io::stderr().is_terminal() }
    }

    /// One finished line.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            let clear = if self.terminal { "\r\x1b[2K" } else { "" };
            // Progress that cannot be shown must not stop the work.
            let _ = writeln!(std::io::stderr(), "{clear}{}", one_line(line));
        }
    }

    /// A line that the next one replaces; only where there is a terminal to do so.
    fn hint(&self, line: &str) {
        if !self.quiet && self.terminal {
            let mut err = std::io::stderr();
            let _ = write!(err, "\r\x1b[2K{}", one_line(line)).and_then(|()| err.flush());
        }
    }
}

/// Follows an operation to its end, at most for `bound`.
///
/// # Errors
/// The operation failed or was cancelled; waiting ended first; or the portal stayed away for six attempts.
pub async fn follow(client: &Client, screen: &Screen, operation: &str, bound: Duration) -> Result<Operation> {
    let stopped = |reason| CliError::StoppedWaiting { operation: operation.to_owned(), reason };
    tokio::select! {
        ended = to_the_end(client, screen, operation) => outcome(ended?),
        () = tokio::time::sleep(bound) => Err(stopped(Stopped::Time)),
        _ = tokio::signal::ctrl_c() => { screen.say(""); Err(stopped(Stopped::Interrupt)) }
    }
}

async fn to_the_end(client: &Client, screen: &Screen, id: &str) -> Result<Operation> {
    let mut shown = Shown::default();
    let mut last: Option<Operation> = None;
    let mut failures = 0;
    loop {
        let asked = Instant::now();
        let call = Call::get(format!("/operations/{id}")).wait(HOLD_SECONDS).once();
        match client.send::<Operation>(call).await {
            Ok(operation) => {
                failures = 0;
                shown.update(screen, &operation);
                if operation.is_finished() {
                    return Ok(operation);
                }
                last = Some(operation);
            }
            Err(error) => match gone_with_its_target(&error, last.as_ref()) {
                Some(operation) => return Ok(operation),
                None if error.is_transient() && failures < TOLERATED => {
                    failures += 1;
                    screen.hint(&format!("  … {error}; retrying ({failures} of {TOLERATED})"));
                    tokio::time::sleep(Duration::from_secs(u64::from(failures))).await;
                }
                None => return Err(error),
            },
        }
        // A server that does not hold its answer must not be asked without a pause.
        tokio::time::sleep_until(asked + Duration::from_millis(250)).await;
    }
}

/// A deletion's record may go with the thing deleted; that is its success.
fn gone_with_its_target(error: &CliError, last: Option<&Operation>) -> Option<Operation> {
    let missing = matches!(error, CliError::Refused(problem) if problem.status == 404);
    let last = last.filter(|operation| missing && operation.kind.ends_with(".delete"))?;
    Some(Operation { state: "succeeded".into(), ..last.clone() })
}

fn outcome(operation: Operation) -> Result<Operation> {
    if operation.state == "succeeded" {
        return Ok(operation);
    }
    let step = operation.steps.iter().find(|step| step.state == "failed");
    let at = step.map(|step| format!(" at step {:?}", step.title)).unwrap_or_default();
    Err(CliError::OperationFailed {
        what: format!("{} {}{at}", operation.kind, operation.state),
        problem: operation.error.map(Box::new),
    })
}

/// From so many milliseconds on people ask themselves what a step waits for.
const LONG: u64 = 5000;

/// What has been printed already, so that nothing is printed twice.
#[derive(Default)]
struct Shown {
    states: BTreeMap<String, (String, u32)>,
    wait: String,
    error: String,
}

impl Shown {
    fn update(&mut self, screen: &Screen, operation: &Operation) {
        for step in &operation.steps {
            let now = (step.state.clone(), step.attempt);
            if self.states.insert(step.key.clone(), now.clone()).as_ref() != Some(&now) {
                self.show_step(screen, step);
            }
        }
        self.show_problem(screen, operation);
        if let Some(step) = operation.steps.iter().find(|step| step.state == "running") {
            self.wait(screen, step);
            screen.hint(&running(step));
        }
    }

    /// A step that takes long says what for, whole: the line that is replaced has no room for it.
    fn wait(&mut self, screen: &Screen, step: &Step) {
        let long = step.duration_milliseconds.is_some_and(|time| time >= LONG);
        if long && !step.message.is_empty() && step.message != self.wait {
            self.wait.clone_from(&step.message);
            screen.say(&format!("    {}", step.message));
        }
    }

    fn show_step(&self, screen: &Screen, step: &Step) {
        match step.state.as_str() {
            "done" => screen.say(&format!("  ✔ {:<30} {}", step.title, time_of(step))),
            "failed" => screen.say(&format!("  ✘ {:<30} {}", step.title, step.message)),
            "running" if !screen.terminal => screen.say(&format!("  … {}", step.title)),
            _ => {}
        }
    }

    fn show_problem(&mut self, screen: &Screen, operation: &Operation) {
        let Some(problem) = operation.error.as_ref().filter(|problem| problem.detail != self.error) else { return };
        self.error.clone_from(&problem.detail);
        if !operation.is_finished() {
            screen.say(&format!("  ! {} ({}); retrying", problem.detail, problem.code));
        }
    }
}

fn running(step: &Step) -> String {
    let message = if step.message.is_empty() { String::new() } else { format!("  {}", step.message) };
    let line = format!("  … {:<30} {}{message}", step.title, time_of(step));
    // A line that wraps cannot be replaced.
    line.chars().take(78).collect()
}

fn time_of(step: &Step) -> String {
    step.duration_milliseconds.map(took).unwrap_or_default()
}
