//! One child process: started through a trampoline, found again by its pid file, stopped.
//!
//! The trampoline is this very program (`exec-child`): it becomes leader of its own session, joins its control group, writes its
//! own pid file and only then becomes the child. So no instant exists in which the child runs without a pid file, and an agent
//! that was killed finds it and **adopts** it instead of starting a twin. The pid file also says from which configuration the
//! child was started; a child of another configuration is replaced.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_linux::cgroup::Cgroups;
use node_linux::files::{self, FileError};
use node_linux::log;
use serde::{Deserialize, Serialize};

use crate::machine::sha256_hex;
use crate::spec::NodeSpec;

/// What children have of the agent's environment. No join token and no proxy: kubelet and kube-proxy talk to this machine, and to
/// the API server where they are told it is.
const KEPT: [&str; 5] = ["HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// How often an adopted process is looked at (it is nobody's child any more, so nobody tells).
const LOOK: Duration = Duration::from_millis(500);

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// Its name: of the pid file, the log and the control group.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Its arguments. No secrets.
    pub args: Vec<String>,
    /// Extra environment.
    pub env: Vec<(String, String)>,
    /// Its control group; `None`: the agent's own (tests).
    pub cgroup: Option<String>,
    /// Where its output goes, appended.
    pub log: PathBuf,
    /// Its pid file.
    pub pid_file: PathBuf,
    /// Changes whenever it must be started anew.
    pub digest: String,
}

impl ChildSpec {
    /// A child of this node; `contents` are its configuration files' texts.
    pub fn new(name: &'static str, spec: &NodeSpec, args: Vec<String>, contents: &[&str]) -> Self {
        let layout = &spec.layout;
        let digest = [spec.programs_digest.as_str(), &args.join("\0"), &contents.join("\0")].join("\0");
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        Self {
            name,
            program: layout.program(name),
            args,
            env: vec![("PATH".into(), format!("{}:{path}", layout.bin.display()))],
            cgroup: Some(format!("{}/{name}", spec.services_cgroup)),
            log: layout.logs.join(format!("{name}.log")),
            pid_file: layout.pids().join(format!("{name}.json")),
            digest: sha256_hex(digest.as_bytes()),
        }
    }
}

/// A process that was started at one certain moment: a pid alone may be another's by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
    /// Which boot.
    pub boot_id: String,
    /// From which configuration.
    pub digest: String,
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// State letter and start time of a process, from `/proc/<pid>/stat`; the program's name in it may hold anything, even `)`.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

impl Identity {
    /// The identity of a process that runs now.
    pub fn of(pid: u32, digest: &str) -> Option<Self> {
        let (_, start_ticks) = stat(pid)?;
        Some(Self { pid, start_ticks, boot_id: boot_id(), digest: digest.to_owned() })
    }

    /// Reads a pid file; `None` when it is absent, unreadable, or its process is gone.
    pub fn load(pid_file: &Path) -> Option<Self> {
        let identity: Self = files::read_json(pid_file).ok()??;
        identity.alive().then_some(identity)
    }

    /// True while that very process runs (a zombie does not).
    pub fn alive(&self) -> bool {
        let same =
            stat(self.pid).is_some_and(|(state, start)| start == self.start_ticks && !matches!(state, 'Z' | 'X'));
        same && self.boot_id == boot_id()
    }

    /// Sends a signal to that very process.
    pub fn signal(&self, signal: Signal) {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
        }
    }
}

/// A running child.
#[derive(Debug)]
pub enum Running {
    /// Started by this agent.
    Own(Box<tokio::process::Child>, Identity),
    /// Started by an earlier agent.
    Adopted(Identity),
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.identity().pid
    }

    fn identity(&self) -> &Identity {
        match self {
            Self::Own(_, identity) | Self::Adopted(identity) => identity,
        }
    }

    /// Waits for its end and says how it ended.
    pub async fn wait(&mut self) -> String {
        match self {
            Self::Own(child, _) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("lost: {error}"),
            },
            Self::Adopted(identity) => {
                while identity.alive() {
                    tokio::time::sleep(LOOK).await;
                }
                "ended (adopted, so nobody knows how)".into()
            }
        }
    }

    /// Ends it: TERM, then KILL after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        let identity = self.identity().clone();
        identity.signal(Signal::SIGTERM);
        if tokio::time::timeout(grace, self.wait()).await.is_err() {
            identity.signal(Signal::SIGKILL);
            let _ = tokio::time::timeout(Duration::from_secs(5), self.wait()).await;
        }
    }
}

/// Finds a child that an earlier agent started, whatever its configuration.
pub fn adopt(spec: &ChildSpec) -> Option<Running> {
    Identity::load(&spec.pid_file).map(Running::Adopted)
}

/// True when a running child was started from another configuration.
pub fn outdated(running: &Running, spec: &ChildSpec) -> bool {
    running.identity().digest != spec.digest
}

/// Starts a child. `trampoline`: this program's own `exec-child`; without it the child is started plainly (tests).
pub fn start(spec: &ChildSpec, trampoline: bool) -> Result<Running, FileError> {
    let log = log::open(&spec.log)?;
    let errors = log.try_clone().map_err(files::io("open", &spec.log))?;
    let mut command = if trampoline { through_trampoline(spec) } else { tokio::process::Command::new(&spec.program) };
    command.args(&spec.args).stdin(Stdio::null()).stdout(log).stderr(errors);
    command.env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(spec.env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let child = command.spawn().map_err(files::io("start", &spec.program))?;
    let pid = child.id().unwrap_or_default();
    let gone = || files::io("start", &spec.program)(std::io::Error::other("it ended at once"));
    let identity = Identity::of(pid, &spec.digest).ok_or_else(gone)?;
    if !trampoline {
        files::write_json(&spec.pid_file, &identity, 0o644)?;
    }
    Ok(Running::Own(Box::new(child), identity))
}

fn through_trampoline(spec: &ChildSpec) -> tokio::process::Command {
    // Not the path of this program: an update may have replaced the file under it.
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command.arg("exec-child").arg("--pid-file").arg(&spec.pid_file).args(["--digest", &spec.digest]);
    if let Some(cgroup) = &spec.cgroup {
        command.args(["--cgroup", cgroup]);
    }
    command.arg("--").arg(&spec.program);
    command
}

/// The trampoline's own steps; returns only when something failed.
pub fn exec(cgroup: Option<&str>, pid_file: &Path, digest: &str, program: &[String]) -> FileError {
    match prepare(cgroup, pid_file, digest) {
        Err(error) => error,
        Ok(()) => {
            let (name, args) = program.split_first().map_or(("", [].as_slice()), |(name, args)| (name.as_str(), args));
            let failed = std::process::Command::new(name).args(args).exec();
            files::io("execute", Path::new(name))(failed)
        }
    }
}

fn prepare(cgroup: Option<&str>, pid_file: &Path, digest: &str) -> Result<(), FileError> {
    let _ = nix::unistd::setsid();
    if let Some(group) = cgroup {
        Cgroups::detect().join(group, std::process::id())?;
    }
    let me = Identity::of(std::process::id(), digest);
    me.map_or(Ok(()), |me| files::write_json(pid_file, &me, 0o644))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sleeper(dir: &Path, seconds: &str) -> ChildSpec {
        ChildSpec {
            name: "sleeper",
            program: "sleep".into(),
            args: vec![seconds.into()],
            env: Vec::new(),
            cgroup: None,
            log: dir.join("sleeper.log"),
            pid_file: dir.join("sleeper.json"),
            digest: "one".into(),
        }
    }

    #[tokio::test]
    async fn a_running_child_is_adopted_and_a_dead_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let spec = sleeper(dir.path(), "300");
        let first = start(&spec, false).unwrap();
        let again = adopt(&spec).expect("it runs, so it is adopted");
        assert_eq!(first.pid(), again.pid());
        assert!(!outdated(&again, &spec));
        assert!(outdated(&again, &ChildSpec { digest: "two".into(), ..spec.clone() }));
        first.stop(Duration::from_secs(5)).await;
        assert!(adopt(&spec).is_none());
    }

    #[tokio::test]
    async fn a_recycled_pid_is_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        let spec = sleeper(dir.path(), "300");
        let child = start(&spec, false).unwrap();
        let mut identity = Identity::load(&spec.pid_file).unwrap();
        identity.start_ticks += 1;
        assert!(!identity.alive());
        identity.start_ticks -= 1;
        identity.boot_id = "another boot".into();
        assert!(!identity.alive());
        child.stop(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn an_adopted_childs_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let spec = sleeper(dir.path(), "300");
        let own = start(&spec, false).unwrap();
        let mut adopted = adopt(&spec).unwrap();
        let waiting = tokio::spawn(async move { adopted.wait().await });
        own.stop(Duration::from_secs(5)).await;
        assert!(waiting.await.unwrap().contains("adopted"));
    }
}
