//! `pilothouse logs`: the last lines of every log of an instance, and what is written from then on.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tenant_controlplane::text::without_controls;
use tokio::time::interval;

use crate::instance::Instance;
use crate::options::LogsArgs;

/// How much of a log's end is looked at for its last lines.
const WINDOW: u64 = 256 << 10;

/// Prints, and with `--follow` goes on until interrupted.
pub async fn logs(args: LogsArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir)?;
    instance.existing()?;
    let mut files: Vec<(String, PathBuf, u64)> = Vec::new();
    for path in find(&instance)? {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if args.component.as_ref().is_none_or(|wanted| *wanted == name) {
            files.push((name, path, 0));
        }
    }
    if files.is_empty() {
        let wanted = args.component.unwrap_or_default();
        bail!("no log of \"{wanted}\" in {}: run `pilothouse logs` for all", instance.path("logs").display());
    }
    for (name, path, at) in &mut files {
        print_tail(name, path, args.tail)?;
        *at = fs::metadata(&*path)?.len();
    }
    if args.follow {
        follow(&mut files).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn find(instance: &Instance) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for dir in [instance.path("logs"), instance.path("node/logs")] {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "log")));
    }
    all.sort();
    Ok(all)
}

fn print_tail(name: &str, path: &Path, lines: usize) -> Result<()> {
    let length = fs::metadata(path)?.len();
    let text = read_from(path, length.saturating_sub(WINDOW))?;
    let all: Vec<&str> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        println!("{name}: {}", without_controls(line));
    }
    Ok(())
}

fn read_from(path: &Path, at: u64) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn follow(files: &mut [(String, PathBuf, u64)]) -> Result<()> {
    let mut tick = interval(Duration::from_millis(300));
    loop {
        tick.tick().await;
        for (name, path, at) in files.iter_mut() {
            let length = fs::metadata(&*path).map_or(0, |meta| meta.len());
            // A shorter file was set aside and begun anew.
            let from = if length < *at { 0 } else { *at };
            if length > from {
                read_from(path, from)?.lines().for_each(|line| println!("{name}: {}", without_controls(line)));
            }
            *at = length;
        }
    }
}
