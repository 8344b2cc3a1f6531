//! Running the machine's own tools (`ip`, `nft`, `nsenter` …): one place for their output and their failures.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs `argv` to its end and returns its standard output. A failure carries the last lines of its standard error.
pub async fn run(argv: &[&str]) -> Result<String> {
    run_with_input(argv, "").await
}

/// Like [`run`], for tools that read their orders from standard input, such as `nft -f -`.
pub async fn run_with_input(argv: &[&str], input: &str) -> Result<String> {
    let (program, args) = argv.split_first().context("no command given")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {program}; install its Debian package, or run `pilothouse doctor`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.ok();
    }
    let output = child.wait_with_output().await.with_context(|| format!("wait for {program}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", argv.join(" "), output.status, tail(text.trim(), 600));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// True where the command can be started and ends well.
pub async fn succeeds(argv: &[&str]) -> bool {
    run(argv).await.is_ok()
}

/// The last `limit` bytes of a text, cut at a character.
fn tail(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
