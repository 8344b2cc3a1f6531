//! Running the machine's own tools (`ip`, `nft`, `systemctl` …): one place for what they read, print and complain of.

use std::io::{self, Write};
use std::process::{self, ExitStatus, Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The most of a tool's standard error that is kept, bytes: its end, where the reason stands.
const TAIL: usize = 600;

/// A tool that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is missing, or could not be started.
    #[error("start {program} (is its Debian package installed?)")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its end was not seen.
    #[error("wait for {program}")]
    Wait {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran and refused.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
}

/// Runs `argv` to its end and returns its standard output. Dropped before, it ends the tool.
///
/// # Errors
/// [`ToolError`]: it could not be run, or refused.
pub async fn run(argv: &[&str]) -> Result<String, ToolError> {
    run_with_input(argv, "").await
}

/// Like [`run`], for tools that read their orders from standard input, such as `nft -f -`.
///
/// # Errors
/// [`ToolError`]: it could not be run, or refused.
pub async fn run_with_input(argv: &[&str], input: &str) -> Result<String, ToolError> {
    let (program, args) = split(argv);
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| ToolError::Start { program: program.to_owned(), source })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that reads nothing ends before all is written; how it ended tells.
        stdin.write_all(input.as_bytes()).await.ok();
    }
    judge(argv, child.wait_with_output().await)
}

/// True where the command can be started and ends well.
pub async fn succeeds(argv: &[&str]) -> bool {
    run(argv).await.is_ok()
}

/// [`run_with_input`] for callers without a runtime, or on a thread that may block.
///
/// # Errors
/// [`ToolError`]: it could not be run, or refused.
pub fn run_blocking(argv: &[&str], input: &str) -> Result<String, ToolError> {
    let (program, args) = split(argv);
    let mut command = process::Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| ToolError::Start { program: program.to_owned(), source })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).ok();
    }
    judge(argv, child.wait_with_output())
}

fn split<'a>(argv: &'a [&'a str]) -> (&'a str, &'a [&'a str]) {
    argv.split_first().map_or(("", &[]), |(program, args)| (*program, args))
}

fn judge(argv: &[&str], ended: io::Result<Output>) -> Result<String, ToolError> {
    let output = ended.map_err(|source| ToolError::Wait { program: split(argv).0.to_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = tail(String::from_utf8_lossy(&output.stderr).trim(), TAIL).to_owned();
    Err(ToolError::Failed { command: argv.join(" "), status: output.status, stderr })
}

/// The last `limit` bytes of a text, cut at a character.
fn tail(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_tool_reads_prints_and_complains_of_is_told() {
        assert_eq!(run_with_input(&["cat"], "orders").await.unwrap(), "orders");
        assert_eq!(run_blocking(&["cat"], "orders").unwrap(), "orders");
        let refuses = ["sh", "-c", "echo no >&2; exit 3"];
        for error in [run(&refuses).await.unwrap_err(), run_blocking(&refuses, "").unwrap_err()] {
            assert_eq!(error.to_string(), "`sh -c echo no >&2; exit 3` failed (exit status: 3): no");
        }
        assert!(matches!(run(&["/no/such/tool"]).await, Err(ToolError::Start { .. })));
        assert!(succeeds(&["true"]).await && !succeeds(&["false"]).await && !succeeds(&[]).await);
    }

    #[test]
    fn the_end_of_a_complaint_is_kept() {
        assert_eq!(tail("abcdef", 3), "def");
        assert_eq!(tail("äöü", 3), "ü", "a character is not cut");
        assert_eq!(tail("ab", 3), "ab");
    }
}
