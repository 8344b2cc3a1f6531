//! `pilothouse down`: stop an instance, and with `--purge` leave the machine as it was before.
//!
//! Everything is done here and not in the running process, so that it also works after that one was killed.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::cgroup;
use crate::host::node;
use crate::instance::{Addresses, Instance, Record};
use crate::network;
use crate::options::DownArgs;
use crate::platform::machines;
use crate::progress::Progress;
use crate::run::run;

/// How long the platform may take to stop by itself.
const GRACE: Duration = Duration::from_secs(20);

/// Stops, and with `--purge` removes.
pub async fn down(args: DownArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir)?;
    let Some(record) = instance.record()? else {
        eprintln!("There is no instance \"{}\" in {}: nothing to stop.", instance.name, instance.dir.display());
        return Ok(ExitCode::SUCCESS);
    };
    if args.purge && !args.yes && !confirmed(&instance)? {
        bail!("nothing was changed: pass --yes, or type the instance's name");
    }
    let progress = Progress::to_terminal();
    let addresses = Addresses::of(record.slot);
    progress.step("stop the platform", stop_platform(&instance)).await?;
    progress.step("stop machines", machines::stop_all(&instance, addresses, args.purge)).await?;
    progress.step("stop the host", stop_host(&instance, addresses)).await?;
    if args.purge {
        progress.step("remove everything of this instance", purge(&instance, &record)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn confirmed(instance: &Instance) -> Result<bool> {
    eprintln!("This removes instance \"{}\": every cluster in it and {}.", instance.name, instance.dir.display());
    eprint!("Type its name to go on: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim() == instance.name)
}

async fn stop_platform(instance: &Instance) -> Result<()> {
    if let (Some(pid), true) = (instance.pid(), instance.running()) {
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        let end = Instant::now() + GRACE;
        while instance.running() {
            if Instant::now() > end {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    fs::remove_file(instance.path("run/ready.json")).ok();
    cgroup::stop(&format!("{}/platform", instance.cgroup()), GRACE).await
}

/// Ends the node's pods and everything else of the host. The namespace goes too: `up` makes it in a moment.
async fn stop_host(instance: &Instance, addresses: Addresses) -> Result<()> {
    node::halt(instance).await?;
    cgroup::stop(&instance.cgroup(), Duration::from_secs(5)).await?;
    network::remove(instance, addresses).await;
    cgroup::remove_everywhere(&instance.cgroup());
    Ok(())
}

async fn purge(instance: &Instance, record: &Record) -> Result<()> {
    let mounted = mounts_below(&instance.dir)?;
    for mount in mounted.iter().rev() {
        run(&["umount", "--lazy", mount]).await.ok();
    }
    if let Some(left) = mounts_below(&instance.dir)?.first() {
        bail!("{left} is still mounted, so {} is not removed: unmount it and run this again", instance.dir.display());
    }
    fs::remove_dir_all(&instance.dir).with_context(|| format!("remove {}", instance.dir.display()))?;
    fs::remove_dir_all(instance.run_dir()).ok();
    instance.release_slot(record.slot);
    for empty in ["/run/pilothouse/slots", "/run/pilothouse"] {
        fs::remove_dir(empty).ok();
    }
    Ok(())
}

/// Mount points at or below a directory, outermost first.
fn mounts_below(dir: &Path) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<String> = points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect();
    below.sort();
    Ok(below)
}
