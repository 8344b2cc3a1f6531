//! Running `ip` and `nft`.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::LocalError;

/// Runs a command to its end; its failure carries the end of its standard error.
pub async fn run(argv: &[&str]) -> Result<String, LocalError> {
    run_with_input(argv, "").await
}

/// Like [`run`], with text on standard input.
pub async fn run_with_input(argv: &[&str], input: &str) -> Result<String, LocalError> {
    let (program, args) = argv.split_first().unwrap_or((&"true", &[]));
    let failed = |output: String| LocalError::Tool { command: argv.join(" "), output };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.ok();
    }
    let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
