//! Runs one child process with everything it starts: heard line by line, never without a sign of life, and ended
//! with its whole process group when the future is dropped.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::error::At;
use crate::{BundleError, Progress, Report, Result};

const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
const TAIL: usize = 30;

/// What a line of the child's says of how far it is.
pub(crate) struct Step {
    /// For people.
    pub(crate) text: String,
    /// Packages or crates compiled so far; 0 where that is not known.
    pub(crate) count: u32,
}

impl From<String> for Step {
    fn from(text: String) -> Self {
        Self { text, count: 0 }
    }
}

/// Makes a step of a line the child wrote; `None` keeps the line for the error message.
pub(crate) type Describe<'a> = &'a mut (dyn FnMut(&str) -> Option<Step> + Send);

/// Ends the whole group on drop: `go build` and `mmdebstrap` have children of their own.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // The group may be gone already; there is nobody to tell.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// Runs to the end. `name` is what progress is reported under and what the error says failed.
pub(crate) async fn run(mut command: Command, name: &str, report: Report<'_>, describe: Describe<'_>) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let program = std::path::PathBuf::from(command.as_std().get_program());
    let mut child = command.spawn().at("start", &program)?;
    let mut group = Group(child.id().map(|id| Pid::from_raw(id.cast_signed())));
    let tail = match child.stderr.take() {
        Some(stderr) => listen(stderr, name, report, describe).await.at("read from", &program)?,
        None => VecDeque::new(),
    };
    let status = child.wait().await.at("wait for", &program)?;
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    let tail = tail.into_iter().collect::<Vec<_>>().join("\n");
    Err(BundleError::Command { what: name.to_owned(), status: status.to_string(), tail })
}

/// Reads until the child closes its standard error; returns the last lines that were not progress.
async fn listen(
    stderr: tokio::process::ChildStderr,
    name: &str,
    report: Report<'_>,
    describe: Describe<'_>,
) -> std::io::Result<VecDeque<String>> {
    let mut lines = BufReader::new(stderr).split(b'\n');
    let (mut tail, mut step) = (VecDeque::new(), Step::from(String::from("starting")));
    let begun = Instant::now();
    let mut tick = tokio::time::interval(SIGN_OF_LIFE);
    tick.tick().await;
    loop {
        tokio::select! {
            line = lines.next_segment() => {
                let Some(line) = line? else { return Ok(tail) };
                let line = String::from_utf8_lossy(&line);
                match describe(line.trim_end()) {
                    Some(next) => step = Step { count: next.count.max(step.count), ..next },
                    None => tail.push_back(line.trim_end().to_owned()),
                }
                if tail.len() > TAIL {
                    tail.pop_front();
                }
            }
            _ = tick.tick() => {
                let (name, detail) = (name.to_owned(), step.text.clone());
                report(Progress::Working { name, elapsed: begun.elapsed(), detail, count: step.count, overall: None });
            }
        }
    }
}

/// Runs a quick command and returns what it printed.
pub(crate) async fn output(mut command: Command, what: &str) -> Result<String> {
    let program = std::path::PathBuf::from(command.as_std().get_program());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.at("start", &program)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let tail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BundleError::Command { what: what.to_owned(), status: output.status.to_string(), tail })
}

/// The first directory of `PATH` that holds this program.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_failure_shows_its_last_words_without_the_progress() {
        let command = shell("echo step >&2; echo 'it broke' >&2; exit 3");
        let mut describe = |line: &str| (line == "step").then(|| Step::from(line.to_owned()));
        let error = run(command, "thing", &|_| {}, &mut describe).await.unwrap_err().to_string();
        assert_eq!(error, "thing failed (exit status: 3):\nit broke");
    }

    #[tokio::test]
    async fn dropping_the_future_ends_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let command = shell(&format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display()));
        let report = |_: Progress| {};
        let mut describe = |_: &str| None;
        let future = run(command, "sleeper", &report, &mut describe);
        let written = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! { _ = future => panic!("it ended by itself"), () = written => {} }
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        // A zombie that init has not reaped yet is as dead as one that is gone.
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        tokio::time::timeout(Duration::from_secs(10), async {
            while !gone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }
}
