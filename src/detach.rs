//! `up --detach`: the platform goes on in a process of its own while this one shows its progress and then returns.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use node_linux::log;
use tokio::process::{Child, Command};
use tokio::time::interval;

use crate::instance::Instance;
use crate::options::{Output, UpArgs};
use crate::progress::{Event, Ready, show};
use crate::ready;
use crate::screen::Screen;

/// What a shell shows of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Starts `up` again in the background and follows it until it is ready or has failed.
pub async fn detach(instance: &Instance, args: &UpArgs) -> Result<ExitCode> {
    if instance.running() {
        let ignored = ignored(std::env::args().skip(1));
        if !ignored.is_empty() {
            eprintln!(
                "It runs already, with what it was started with: pass {} again after `pilothouse down`.",
                ignored.join(", ")
            );
        }
        return already(instance, args.output);
    }
    instance.prepare()?;
    // Its own: two that are started at once must not read each other's end.
    let progress = instance.path(&format!("run/progress-{}.jsonl", std::process::id()));
    let mut child = spawn(instance, args, &progress)?;
    let ended = tokio::select! {
        ended = follow(&mut child, &progress) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    // It ends with the setup link; whoever still writes it has it open.
    fs::remove_file(&progress).ok();
    let Some(ended) = ended else {
        eprintln!(
            "It goes on starting in the background: `pilothouse status` shows how it is, `pilothouse down` stops it."
        );
        return Ok(ExitCode::from(INTERRUPTED));
    };
    match ended? {
        Some(ready) => print_ready(&ready, args.output),
        None => bail!("`up` ended before it was ready; its log: {}", instance.path("logs/pilothouse.log").display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Options that count at a start only.
fn ignored(given: impl Iterator<Item = String>) -> Vec<String> {
    const COUNT: [&str; 4] = ["--detach", "--output", "--name", "--data-dir"];
    let options = given.filter(|word| word.starts_with("--"));
    let names = options.map(|word| word.split('=').next().unwrap_or_default().to_owned());
    names.filter(|name| !COUNT.contains(&name.as_str())).collect()
}

fn already(instance: &Instance, output: Output) -> Result<ExitCode> {
    let Ok(ready) = ready::read(instance) else {
        let (name, dir) = (&instance.name, instance.dir.display());
        bail!("instance \"{name}\" is starting: see `pilothouse status --name {name} --data-dir {dir}`");
    };
    print_ready(&ready, output);
    Ok(ExitCode::SUCCESS)
}

/// The same command line without `--detach`, in a session of its own, its output in the log.
fn spawn(instance: &Instance, args: &UpArgs, progress: &Path) -> Result<Child> {
    let log = log::open(&instance.path("logs/pilothouse.log"))?;
    let mut command = Command::new("setsid");
    command
        .arg(std::env::current_exe().context("find this program")?)
        .args(arguments(std::env::args_os().skip(1)))
        .args(["--progress-file".as_ref(), progress.as_os_str()]);
    if let Some(url) = &args.database_url {
        command.env("PILOTHOUSE_DATABASE_URL", url);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("start in the background (setsid, Debian package util-linux)")
}

/// What the process in the background is told: nothing of detaching, and the database's address, which may hold a password,
/// by its environment.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut given = given.filter(|arg| arg != "--detach");
    while let Some(arg) = given.next() {
        if arg == "--database-url" {
            given.next();
        } else if !arg.as_encoded_bytes().starts_with(b"--database-url=") {
            kept.push(arg);
        }
    }
    kept
}

/// Shows events as they are written. Ends with what is ready, or with nothing where the process ended first.
async fn follow(child: &mut Child, progress: &Path) -> Result<Option<Ready>> {
    let (mut at, screen) = (0, Screen::new());
    let mut tick = interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        let ended = child.try_wait()?.is_some();
        for event in read_from(progress, &mut at)? {
            match event {
                Event::Ready(ready) => return Ok(Some(ready)),
                Event::Failed { why } => bail!("{why}"),
                other => show(&screen, &other),
            }
        }
        if ended {
            return Ok(None);
        }
    }
}

/// The whole lines written since the last call.
fn read_from(path: &Path, at: &mut u64) -> Result<Vec<Event>> {
    let file = match File::open(path) {
        // The process in the background makes it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(*at))?;
    let mut events = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        *at += line.len() as u64;
        events.extend(serde_json::from_str(&line).ok());
        line.clear();
    }
    Ok(events)
}

/// The last word of `up`.
pub fn print_ready(ready: &Ready, output: Output) {
    if output == Output::Json {
        println!("{}", serde_json::json!(ready));
        return;
    }
    println!("Pilothouse \"{}\" is ready.", ready.name);
    println!("  portal    {}", ready.portal_url);
    println!("  gateway   https://{}  (CA: {})", ready.gateway, ready.ca_file.display());
    println!("  local machines  {}", ready.local_machines.described());
    if let Some(link) = &ready.setup_url {
        println!("  set up    {link}   (once; makes the first owner)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_no_argument_of_the_process_that_stays() {
        let kept = |line: &str| {
            let words = arguments(line.split(' ').map(OsString::from));
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            kept("up --detach --name a --database-url postgres://u:p@h/d --output json"),
            "up --name a --output json"
        );
        assert_eq!(kept("up --database-url=postgres://u:p@h/d --detach"), "up");
    }
}
