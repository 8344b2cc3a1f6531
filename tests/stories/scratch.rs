//! A directory for what a story makes beside its platform, and the sweep of what killed runs left: a run that is killed with
//! -9 cannot clean up, so the next one does.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leftovers::processes;
use crate::world::pilothouse;

const PLACE: &str = "/var/tmp";
const PREFIX: &str = "ph-story-";

/// `/var/tmp/ph-story-NAME`, removed at the end. Whoever holds the lock in it lives: the kernel lets go of a dead one's.
pub struct Scratch {
    pub dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// The first one of a run sweeps first.
    pub fn new(name: &str) -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let dir = Path::new(PLACE).join(format!("{PREFIX}{name}"));
        std::fs::create_dir_all(&dir).unwrap();
        let lock = File::create(dir.join("lock")).unwrap();
        lock.try_lock().unwrap();
        let scratch = Self { dir, _lock: lock };
        DirBuilder::new().recursive(true).mode(0o700).create(scratch.home()).unwrap();
        scratch
    }

    /// A path in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The home of whoever runs a program of the story: kubectl keeps what it heard there. Root's alone, as `/root` is.
    pub fn home(&self) -> PathBuf {
        self.at("home")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("PILOTHOUSE_KEEP").is_none() {
            std::fs::remove_dir_all(&self.dir).ok();
        }
    }
}

/// Where the platform of a story of this name lives.
pub fn platform_dir(name: &str) -> PathBuf {
    Path::new(PLACE).join(format!("ph-{name}"))
}

/// Takes down every platform whose story is dead, and removes its files and processes.
fn sweep() {
    for entry in std::fs::read_dir(PLACE).unwrap().flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = file_name.strip_prefix(PREFIX) else { continue };
        let dir = entry.path();
        let free = File::open(dir.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if !free {
            continue;
        }
        eprintln!("sweep: the run of {name} was killed; removing what it left");
        // A neighbor's platform is a guest on its host: it goes first.
        for name in std::fs::read_to_string(dir.join("platforms")).unwrap_or_default().lines().rev() {
            let platform = platform_dir(name);
            let words = ["down", "--purge", "--yes", "--name", name, "--data-dir"];
            pilothouse().args(words).arg(&platform).output().ok();
            end(&platform);
            std::fs::remove_dir_all(&platform).ok();
        }
        end(&dir);
        std::fs::remove_dir_all(&dir).ok();
    }
}

fn end(dir: &Path) {
    for (pid, _) in processes(dir) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}
