//! One running Pilothouse: its name, its data directory and the number that keeps two of them apart on one machine.
//!
//! Whatever is global to a machine (address ranges, bridges, cgroups, tables) follows from the *slot*, a number that an
//! instance takes at its first `up` and keeps for as long as its data directory exists.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use embedded_host::site::{Addresses, SLOTS, Site};
use node_linux::files;
use serde::{Deserialize, Serialize};
use tenant_controlplane::version::KubernetesVersion;

use crate::platform::sources::KeySource;

/// Which instance has which slot. It outlives a reboot: an instance's addresses are in its tenants' data. No instance can have
/// a name that begins with a dot.
pub const SLOTS_DIR: &str = "/var/lib/pilothouse/.slots";
/// `status` and `doctor` hold the lock for a blink to ask whether somebody does; whoever wants to keep it waits that long.
const BLINK: Duration = Duration::from_millis(500);

/// The instance of a command without `--name`, and where the directories of instances are unless told otherwise.
pub const DEFAULT_NAME: &str = "pilothouse";
const DIRS: &str = "/var/lib/pilothouse";

/// The domain of names that nobody resolves: they are asked for by SNI alone (`internal` is reserved for private use).
pub const DEFAULT_DOMAIN: &str = "pilothouse.internal";

/// What an instance remembers between two `up`s, in `instance.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The instance's name, so that a data directory is never used under another one.
    pub name: String,
    /// Its number on this machine, 0 to 63.
    pub slot: u8,
    /// The gateway's address, its port settled: kubeconfigs carry it.
    pub listen: SocketAddr,
    /// The address that people and nodes dial.
    pub advertise: SocketAddr,
    /// Plain HTTP for the portal, on loopback only.
    pub portal: SocketAddr,
    /// The DNS domain under which the gateway's names live.
    pub domain: String,
    /// Kubernetes versions that were asked for beside the default one.
    #[serde(default)]
    pub versions: Vec<String>,
    /// True where the advertised address was given and not found: it need not be an address of this machine.
    #[serde(default)]
    pub advertise_given: bool,
    /// The host on which the clusters live; nothing until it was reached once.
    #[serde(default)]
    pub host: Option<KnownHost>,
    /// Where the key-encryption key is kept, when not in the data directory.
    #[serde(default)]
    pub kek: Option<KeySource>,
    /// Where the next one is, while keys are rotated.
    #[serde(default)]
    pub next_kek: Option<KeySource>,
    /// Ports that clusters may have for their own.
    #[serde(default)]
    pub cluster_ports: Option<PortRange>,
    /// Directories of the machine that kubelet and libcni were first to need: they go with the instance.
    #[serde(default)]
    pub made: Vec<PathBuf>,
}

/// Ports from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first; 1024 at least.
    pub first: u16,
    /// The last; 999 after the first at most.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let (first, last): (u16, u16) = parts.ok_or("write it like 20000-20099")?;
        if first < 1024 || last < first || last - first > 999 {
            return Err("the first is 1024 or more, the last no less than it, and there are at most 1000".to_owned());
        }
        Ok(Self { first, last })
    }
}

/// The host of an instance. On another one every cluster would be made anew, empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHost {
    /// What `--host-kubeconfig` said; nothing for the embedded host.
    pub kubeconfig: Option<PathBuf>,
    /// The UID of its namespace `kube-system`: as good as a name of the cluster, and it never changes.
    pub uid: String,
}

/// An instance on this machine.
#[derive(Debug, Clone)]
pub struct Instance {
    /// DNS label of at most 16 characters.
    pub name: String,
    /// Where all of its state lives.
    pub dir: PathBuf,
}

impl Record {
    /// Whether the operator has given the gateway's names a domain, and so, as `--domain` says, a wildcard record.
    pub fn has_dns(&self) -> bool {
        self.domain != DEFAULT_DOMAIN
    }

    /// The versions asked for that this program knows.
    pub fn wanted(&self) -> Vec<KubernetesVersion> {
        self.versions.iter().filter_map(|text| crate::components::version(text).ok()).collect()
    }
}

#[cfg(test)]
impl Record {
    /// What a first `up` would write, with every door at `at`.
    pub fn example(name: &str, at: SocketAddr) -> Self {
        Self {
            name: name.into(),
            slot: 0,
            listen: at,
            advertise: at,
            portal: at,
            domain: "x".into(),
            versions: Vec::new(),
            advertise_given: false,
            host: None,
            kek: None,
            next_kek: None,
            cluster_ports: None,
            made: Vec::new(),
        }
    }
}

impl Instance {
    /// Checks the name and settles the data directory.
    pub fn new(name: &str, dir: Option<PathBuf>) -> Result<Self> {
        let fits = !name.is_empty() && name.len() <= 16 && !name.starts_with('-') && !name.ends_with('-');
        if !fits || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            bail!("instance name \"{name}\" is not valid: use 1 to 16 of a-z, 0-9 and -, not at an end");
        }
        let dir = dir.unwrap_or_else(|| Path::new(DIRS).join(name));
        let dir = std::path::absolute(&dir).with_context(|| format!("resolve {}", dir.display()))?;
        Ok(Self { name: name.to_owned(), dir })
    }

    /// Whether it is the one that a command without `--name` and `--data-dir` means.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_NAME && self.dir == Path::new(DIRS).join(DEFAULT_NAME)
    }

    /// What names it on a command line, with a blank before it; nothing for the default one.
    fn arguments(&self) -> String {
        let name = if self.name == DEFAULT_NAME { String::new() } else { format!(" --name {}", self.name) };
        let is_usual = self.dir == Path::new(DIRS).join(&self.name);
        let dir = if is_usual { String::new() } else { format!(" --data-dir {}", self.dir.display()) };
        name + &dir
    }

    /// Its place on this machine, with the addresses of a slot.
    pub fn site(&self, addresses: Addresses) -> Site {
        Site { name: self.name.clone(), dir: self.dir.clone(), addresses }
    }

    /// A path under the data directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }

    /// Machine-wide run-time files of this instance (its network namespace).
    pub fn run_dir(&self) -> PathBuf {
        embedded_host::site::run_dir(&self.name)
    }

    /// The cgroup of this instance, relative to each hierarchy's root.
    pub fn cgroup(&self) -> String {
        embedded_host::site::cgroup(&self.name)
    }

    /// Reads the record, or nothing where this directory never held an instance.
    pub fn record(&self) -> Result<Option<Record>> {
        let path = self.path("instance.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}; are you root?", path.display())),
        };
        let record: Record = serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
        if record.name != self.name {
            bail!(
                "{} belongs to the instance \"{}\", not \"{}\": pass --name {} or another --data-dir",
                self.dir.display(),
                record.name,
                self.name,
                record.name
            );
        }
        Ok(Some(record))
    }

    /// The record of an instance that must exist already.
    pub fn existing(&self) -> Result<Record> {
        self.record()?.with_context(|| self.missing())
    }

    /// That it does not exist, and how to create it.
    pub fn missing(&self) -> String {
        let (name, dir) = (&self.name, self.dir.display());
        format!("there is no instance \"{name}\" in {dir}: create it with `pilothouse up{}`", self.arguments())
    }

    /// Writes the record in one step.
    pub fn save(&self, record: &Record) -> Result<()> {
        Ok(files::write_public(&self.path("instance.json"), serde_json::to_vec_pretty(record)?.as_slice())?)
    }

    /// Makes the data directory and what every start writes into, closed to everybody but their owner: whoever may open the lock can hold
    /// it, and logs name tenants. One that was made open is closed.
    pub fn prepare(&self) -> Result<()> {
        for (dir, mode) in [(self.dir.clone(), 0o700), (self.path("run"), 0o700), (self.path("logs"), 0o750)] {
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(&dir, mode).with_context(|| format!("protect {}", dir.display()))?;
        }
        Ok(())
    }

    /// Holds the data directory for the life of the returned file, which then names this process; a second `up` on it is
    /// refused.
    pub fn lock(&self) -> Result<File> {
        self.prepare()?;
        let path = self.path("run/lock");
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        let end = Instant::now() + BLINK;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < end => sleep(Duration::from_millis(10)),
                Err(TryLockError::WouldBlock) => {
                    bail!("instance \"{}\" is already running: see `pilothouse status --name {}`", self.name, self.name)
                }
                Err(TryLockError::Error(error)) => return Err(error).context("lock the data directory"),
            }
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    /// True while an `up` of this instance runs.
    pub fn running(&self) -> bool {
        let Ok(file) = File::open(self.path("run/lock")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The process that runs this instance, as it wrote itself into the lock; nothing where none runs.
    pub fn pid(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.path("run/lock")).ok()?.trim().parse().ok();
        pid.filter(|_| self.running())
    }

    /// Takes this instance's slot again, or the first free one of `choices`.
    pub fn claim_slot(&self, known: Option<u8>, choices: &[u8]) -> Result<u8> {
        let slots = Path::new(SLOTS_DIR);
        fs::create_dir_all(slots).with_context(|| format!("create {}", slots.display()))?;
        let mine = format!("{}\n{}\n", self.name, self.dir.display());
        let order = known.into_iter().chain(choices.iter().copied());
        for slot in order {
            if take_slot(&slots.join(slot.to_string()), &mine)? {
                return Ok(slot);
            }
            if known == Some(slot) {
                let text = fs::read_to_string(slots.join(slot.to_string())).unwrap_or_default();
                let other = text.lines().collect::<Vec<_>>().join(" in ");
                bail!("slot {slot} of instance \"{}\" is held by the instance {other}: it must go first", self.name);
            }
        }
        bail!("no range of addresses is free on this machine: stop an instance with `pilothouse down --purge`")
    }

    /// The slot that this instance holds, as the machine has it: the record may be missing after an `up` that was cut off, and
    /// an instance on somebody else's host names one in its record that is another's.
    pub fn held_slot(&self) -> Option<u8> {
        let mine = format!("{}\n{}\n", self.name, self.dir.display());
        let slots = Path::new(SLOTS_DIR);
        (0..SLOTS).find(|slot| fs::read_to_string(slots.join(slot.to_string())).is_ok_and(|text| text == mine))
    }

    /// Refuses a name that an instance in another directory has on this machine: cgroups and namespaces go by the name, so each would end the
    /// other's processes.
    pub fn refuse_taken_name(&self) -> Result<()> {
        let Some(other) = self.namesake(Path::new(SLOTS_DIR)) else { return Ok(()) };
        bail!(
            "instance \"{}\" is in {}: pass --data-dir {}, or another --name",
            self.name,
            other.display(),
            other.display()
        )
    }

    /// The directory of another instance of this name that holds a slot.
    fn namesake(&self, slots: &Path) -> Option<PathBuf> {
        let held = (0..SLOTS).filter_map(|slot| fs::read_to_string(slots.join(slot.to_string())).ok());
        let mine = format!("{}\n", self.name);
        let mut dirs = held.filter_map(|text| Some(PathBuf::from(text.strip_prefix(&mine)?.trim_end())));
        dirs.find(|dir| *dir != self.dir && !is_gone(dir))
    }

    /// Gives the slot back.
    pub fn release_slot(&self, slot: u8) {
        let path = Path::new(SLOTS_DIR).join(slot.to_string());
        let mine = fs::read_to_string(&path).is_ok_and(|text| text.lines().next() == Some(self.name.as_str()));
        if mine {
            fs::remove_file(path).ok();
        }
    }
}

/// Creates the slot's file, or accepts one that is ours, or one whose instance no longer exists.
fn take_slot(path: &Path, mine: &str) -> Result<bool> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(mine.as_bytes())?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = fs::read_to_string(path).unwrap_or_default();
            let gone = text.lines().nth(1).is_none_or(|dir| is_gone(Path::new(dir)));
            if text == mine {
                return Ok(true);
            }
            if gone && !text.is_empty() {
                fs::write(path, mine)?;
                return Ok(true);
            }
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("take {}", path.display())),
    }
}

/// No instance is in this directory, nor is one about to be: an `up` takes its slot before it writes its record.
fn is_gone(dir: &Path) -> bool {
    let starting = Instance { name: String::new(), dir: dir.to_owned() }.running();
    !dir.join("instance.json").exists() && !starting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_another_directory_has_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (slots, theirs) = (dir.path().join("slots"), dir.path().join("theirs"));
        fs::create_dir_all(&slots).unwrap();
        fs::create_dir_all(&theirs).unwrap();
        fs::write(slots.join("3"), format!("a\n{}\n", theirs.display())).unwrap();
        let here = Instance::new("a", Some(dir.path().join("mine"))).unwrap();
        assert_eq!(here.namesake(&slots), None, "it is gone");
        fs::write(theirs.join("instance.json"), "{}").unwrap();
        assert_eq!(here.namesake(&slots), Some(theirs.clone()));
        assert_eq!(Instance::new("a", Some(theirs)).unwrap().namesake(&slots), None, "its own");
        assert_eq!(Instance::new("ab", Some(dir.path().join("mine"))).unwrap().namesake(&slots), None);
    }

    #[test]
    fn an_instance_that_is_missing_is_named_as_it_would_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let missing = |instance: Instance| instance.existing().unwrap_err().to_string();
        let text = missing(Instance::new("nothere", None).unwrap());
        assert!(text.ends_with("create it with `pilothouse up --name nothere`"), "{text}");
        let elsewhere = Instance::new(DEFAULT_NAME, Some(dir.path().to_owned())).unwrap();
        assert!(!elsewhere.is_default() && Instance::new(DEFAULT_NAME, None).unwrap().is_default());
        let text = missing(elsewhere);
        assert!(text.ends_with(&format!("`pilothouse up --data-dir {}`", dir.path().display())), "{text}");
    }

    #[test]
    fn names_are_labels() {
        assert!(Instance::new("a-1", None).is_ok());
        for bad in ["", "-a", "a-", "A", "a_b", "abcdefghijklmnopq"] {
            assert!(Instance::new(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_instances_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let one = Instance::new("one", Some(dir.path().to_owned())).unwrap();
        one.save(&Record::example("one", "127.0.0.1:1".parse().unwrap())).unwrap();
        let two = Instance::new("two", Some(dir.path().to_owned())).unwrap();
        assert!(two.record().unwrap_err().to_string().contains("belongs to the instance \"one\""));
        assert!(one.record().unwrap().is_some());
    }

    #[test]
    fn a_running_instance_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let one = Instance::new("one", Some(dir.path().to_owned())).unwrap();
        let held = one.lock().unwrap();
        assert!(one.running());
        assert_eq!(one.pid(), Some(std::process::id().cast_signed()));
        assert!(one.lock().is_err());
        drop(held);
        assert!(!one.running());
        assert_eq!(one.pid(), None);
    }

    #[test]
    fn a_slot_is_free_once_its_instance_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let one = Instance::new("one", Some(dir.path().join("one"))).unwrap();
        let mine = format!("one\n{}\n", one.dir.display());
        let file = dir.path().join("0");
        let starting = one.lock().unwrap();
        assert!(take_slot(&file, &mine).unwrap());
        assert!(!take_slot(&file, "two\n/two\n").unwrap(), "its first `up` has not come to the record yet");
        fs::write(one.path("instance.json"), "{}").unwrap();
        drop(starting);
        assert!(!take_slot(&file, "two\n/two\n").unwrap(), "it is stopped, not gone");
        fs::remove_dir_all(&one.dir).unwrap();
        assert!(take_slot(&file, "two\n/two\n").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "two\n/two\n");
    }

    #[test]
    fn asking_does_not_keep_an_instance_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let one = Instance::new("one", Some(dir.path().to_owned())).unwrap();
        drop(one.lock().unwrap());
        let asking = File::open(one.path("run/lock")).unwrap();
        asking.lock_shared().unwrap();
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| one.lock().map(drop));
            sleep(BLINK / 10);
            drop(asking);
            starting.join().unwrap().unwrap();
        });
    }
}
