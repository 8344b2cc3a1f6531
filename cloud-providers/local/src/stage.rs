//! The two stages by which a process becomes a machine.
//!
//! [`run`] stays outside: it enters the machine's cgroups, asks for a process namespace and starts the second stage in it as
//! PID 1, and gives it its wire. [`init`] builds the machine around itself and then *is* the agent. They talk over the
//! second stage's standard input and output: a line each way.

mod devices;
mod root;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use crate::cgroup;
use crate::error::LocalError;
use crate::machine::Spec;

/// Where the agent lies inside a machine.
const AGENT: &str = "/usr/local/bin/pilothouse-node";

/// The first stage: returns when the machine has ended.
pub fn run(file: &Path) -> Result<ExitCode, LocalError> {
    let spec = Spec::load(file)?.ok_or_else(|| LocalError::Unknown { id: file.display().to_string() })?;
    cgroup::enter(&spec.cgroup)?;
    // The platform ranks itself low when memory is short; a machine is like anything else.
    // A process that somebody ranked higher may not go down to it, and is well as it is.
    std::fs::write("/proc/self/oom_score_adj", "0").ok();
    unshare(CloneFlags::CLONE_NEWPID).map_err(LocalError::call("make a process namespace"))?;
    let exe = std::env::current_exe().map_err(LocalError::file("/proc/self/exe"))?;
    let mut child = Command::new(exe)
        .arg("machine-init")
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(LocalError::file("machine-init"))?;
    // Where a cgroup has processes of its own it cannot hand controllers down (v2): leave it to the machine.
    expect_line(child.stdout.take())?;
    cgroup::enter(&format!("{}/launcher", spec.cgroup))?;
    wire(&spec, child.id())?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "wired").map_err(LocalError::file("machine-init"))?;
    }
    let status = child.wait().map_err(LocalError::file("machine-init"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn expect_line(from: Option<impl std::io::Read>) -> Result<(), LocalError> {
    let mut line = String::new();
    if let Some(from) = from {
        BufReader::new(from).read_line(&mut line).map_err(LocalError::file("the other stage"))?;
    }
    if line.is_empty() { Err(LocalError::Ended { console: "it said nothing".to_owned() }) } else { Ok(()) }
}

/// Makes the wire with one end in the machine's namespace, named by its file: `ip` is a child of ours and already counts
/// processes as the machine does, and a pinned name would disturb containerds.
fn wire(spec: &Spec, pid: u32) -> Result<(), LocalError> {
    ip(&["link", "add", &spec.wire, "type", "veth", "peer", "name", "eth0", "netns", &format!("/proc/{pid}/ns/net")])?;
    ip(&["link", "set", &spec.wire, "master", &spec.bridge, "up"])
}

fn ip(args: &[&str]) -> Result<(), LocalError> {
    let failed = |output| LocalError::Tool { command: format!("ip {}", args.join(" ")), output };
    let output = Command::new("ip").args(args).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// The second stage, PID 1 of its namespace: returns only on failure.
pub fn init(file: &Path) -> Result<ExitCode, LocalError> {
    let spec = Spec::load(file)?.ok_or_else(|| LocalError::Unknown { id: file.display().to_string() })?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(LocalError::call("make the machine's namespaces"))?;
    sethostname(&spec.name).map_err(LocalError::call("set the hostname"))?;
    println!("ready");
    expect_line(Some(std::io::stdin()))?;
    network(&spec)?;
    root::build(&spec)?;
    let error = Command::new(AGENT)
        .arg("run")
        .env_clear()
        .env("PATH", "/opt/pilothouse/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("container", "pilothouse")
        .env("HOME", "/root")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .exec();
    Err(LocalError::file(AGENT)(error))
}

fn network(spec: &Spec) -> Result<(), LocalError> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &format!("{}/{}", spec.address, spec.prefix), "dev", "eth0"])?;
    ip(&["link", "set", "eth0", "up"])?;
    ip(&["route", "add", "default", "via", &spec.gateway.to_string()])
}
