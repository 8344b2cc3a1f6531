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
use node_linux::cgroup::Cgroups;
use node_linux::mounts;
use node_linux::tool::run;
use node_linux::{footprint, surroundings, sysctl};
use tokio::time::{Instant, sleep};

use crate::instance::{Instance, Record, SLOTS_DIR};
use crate::options::DownArgs;
use crate::platform::machines;
use crate::progress::Progress;
use crate::ready;
use embedded_host::site::{Addresses, SYSCTLS};
use embedded_host::{cgroup, network, node};

/// What `up` makes in a data directory before it writes its record, and of the record itself the draft.
const BEGUN: [&str; 5] = ["run", "logs", "database.url", "kek", "instance.json"];
/// How long the platform may take to stop by itself.
/// 10 s of work in flight, the agent's 20 s and etcd's 10 s, one after the other, and a little more.
const GRACE: Duration = Duration::from_secs(45);

/// Stops, and with `--purge` removes.
pub async fn down(args: DownArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir)?;
    let record = instance.record()?;
    if record.is_none() {
        instance.refuse_taken_name()?;
    }
    if record.is_none() && (!args.purge || !half_made(&instance)?) {
        eprintln!("There is no instance \"{}\" in {}: nothing to stop.", instance.name, instance.dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let slot = instance.held_slot();
    if args.purge && !args.yes && !confirmed(&instance)? {
        bail!("nothing was changed: pass --yes, or type the instance's name");
    }
    let progress = Progress::to_terminal();
    progress.step("stop the platform", stop_platform(&instance)).await?;
    if let Some(addresses) = slot.map(Addresses::of) {
        progress.step("stop machines", machines::stop_all(&instance, addresses, args.purge)).await?;
        progress.step("stop the host", stop_host(&instance, addresses)).await?;
    }
    if args.purge {
        progress.step("remove everything of this instance", purge(&instance, slot, record)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a directory without a record is what an `up` that was cut off left. Anybody else's directory is not touched.
fn half_made(instance: &Instance) -> Result<bool> {
    let names = match fs::read_dir(&instance.dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("read {}", instance.dir.display())),
    };
    let stranger = names.iter().find(|name| !is_begun(&name.to_string_lossy()));
    match stranger {
        None => Ok(true),
        Some(name) => bail!(
            "{} holds no instance but {}: nothing was removed; is --data-dir right?",
            instance.dir.display(),
            name.display()
        ),
    }
}

/// Whether a file is one of those, or the draft of one (`node_linux::files`).
fn is_begun(name: &str) -> bool {
    BEGUN.contains(&name.split_once(".new").map_or(name, |(file, _)| file))
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
    ready::remove(instance);
    for group in ["platform", "main"] {
        cgroup::stop(&format!("{}/{group}", instance.cgroup()), GRACE).await?;
    }
    Ok(())
}

/// Ends the node's pods and everything else of the host. The namespace goes too: `up` makes it in a moment.
async fn stop_host(instance: &Instance, addresses: Addresses) -> Result<()> {
    node::halt(&instance.site(addresses)).await?;
    cgroup::stop(&instance.cgroup(), Duration::from_secs(5)).await?;
    network::remove(&instance.site(addresses)).await;
    Cgroups::detect().prune(&instance.cgroup());
    Ok(())
}

async fn purge(instance: &Instance, slot: Option<u8>, record: Option<Record>) -> Result<()> {
    mounts::unmount(&mounts::points_at_or_below(&instance.dir)?);
    if let Some(left) = mounts::points_at_or_below(&instance.dir)?.first() {
        let left = left.display();
        bail!("{left} is still mounted, so {} is not removed: unmount it and run this again", instance.dir.display());
    }
    footprint::remove_cni_results(Path::new("/"), &instance.cgroup());
    footprint::remove_device_files(Path::new("/"));
    footprint::remove_empty(&record.map(|record| record.made).unwrap_or_default());
    remove_all_but_record(instance).await?;
    fs::remove_dir_all(instance.run_dir()).ok();
    if let Some(slot) = slot {
        instance.release_slot(slot);
    }
    // The kubelet of another node on this machine may live by the same values by now: then they stay.
    if fs::remove_dir(SLOTS_DIR).is_ok() && surroundings::find_other_node().is_none() {
        sysctl::restore(Path::new(SYSCTLS));
    }
    fs::remove_dir("/run/pilothouse").ok();
    fs::remove_dir_all(&instance.dir).with_context(|| format!("remove {}", instance.dir.display()))?;
    fs::remove_dir("/var/lib/pilothouse").ok();
    Ok(())
}

/// The record stays until the end: a purge that was cut off is repeated by it.
async fn remove_all_but_record(instance: &Instance) -> Result<()> {
    let entries = fs::read_dir(&instance.dir).with_context(|| format!("read {}", instance.dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "instance.json") {
            continue;
        }
        // Local machines made some of it as deep as they liked: a walk that recurses would not come to its end.
        run(&["rm", "-rf", "--one-file-system", "--", &path.to_string_lossy()]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_up_began_counts_as_half_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| Instance::new("half", Some(dir.path().join(name))).unwrap();
        assert!(!half_made(&at("absent")).unwrap());
        fs::create_dir_all(dir.path().join("begun/run")).unwrap();
        fs::create_dir_all(dir.path().join("begun/logs")).unwrap();
        fs::write(dir.path().join("begun/instance.json.new-7-0"), "").unwrap();
        assert!(half_made(&at("begun")).unwrap());
        fs::create_dir_all(dir.path().join("home/run")).unwrap();
        fs::write(dir.path().join("home/thesis.txt"), "").unwrap();
        assert!(half_made(&at("home")).unwrap_err().to_string().contains("thesis.txt"));
    }

    #[tokio::test]
    async fn the_record_is_the_last_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new("last", Some(dir.path().to_owned())).unwrap();
        fs::create_dir_all(instance.path("volumes/etcd")).unwrap();
        for file in ["instance.json", "kek", "volumes/etcd/db"] {
            fs::write(instance.path(file), "").unwrap();
        }
        std::os::unix::fs::symlink(instance.path("volumes"), instance.path("link")).unwrap();
        remove_all_but_record(&instance).await.unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["instance.json"]);
    }
}
