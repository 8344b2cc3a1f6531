//! The two stages by which a process becomes a machine.
//!
//! [`run`] stays outside: it enters the machine's cgroups, asks for a process namespace and starts the second stage in it as
//! PID 1, and gives it its wire. [`init`] builds the machine around itself and then *is* the agent. With a user namespace [`users`] stands
//! between them.

mod devices;
mod isolated;
mod peer;
mod root;
mod staging;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use node_linux::tool::run_blocking;

pub use devices::DEVICES;
pub use isolated::users;
use peer::Peer;

use crate::cgroup;
use crate::confine::confine;
use crate::error::LocalError;
use crate::machine::Spec;

/// Where the agent lies inside a machine.
const AGENT: &str = "/usr/local/bin/pilothouse-node";

/// The first stage: returns when the machine has ended.
pub fn run(file: &Path) -> Result<ExitCode, LocalError> {
    let spec = Spec::load(file)?.ok_or_else(|| LocalError::Unknown { id: file.display().to_string() })?;
    // The platform ranks itself low when memory is short; a machine is like anything else.
    // A process that somebody ranked higher may not go down to it, and is well as it is.
    std::fs::write("/proc/self/oom_score_adj", "0").ok();
    if let Some(users) = spec.users {
        return isolated::run(&spec, users);
    }
    cgroup::enter(&spec.cgroup)?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(LocalError::call("make a process namespace"))?;
    let exe = std::env::current_exe().map_err(LocalError::file("/proc/self/exe"))?;
    let mut child = Command::new(exe)
        .arg("machine-init")
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(LocalError::file("machine-init"))?;
    let mut peer = Peer::of(&mut child);
    // Where a cgroup has processes of its own it cannot hand controllers down (v2): leave it to the machine.
    peer.receive()?;
    cgroup::enter(&format!("{}/launcher", spec.cgroup))?;
    wire(&spec, child.id())?;
    peer.send("wired")?;
    let status = child.wait().map_err(LocalError::file("machine-init"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the wire with one end in the machine's namespace, named by its file: `ip` is a child of ours and already counts
/// processes as the machine does, and a pinned name would disturb containerds.
fn wire(spec: &Spec, pid: u32) -> Result<(), LocalError> {
    let (wire, mac, namespace) = (spec.wire.as_str(), spec.mac(), format!("/proc/{pid}/ns/net"));
    ip(&["link", "add", wire, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", &namespace])?;
    ip(&["link", "set", wire, "master", &spec.bridge])?;
    // Machines do not know each other: the bridge passes nothing between isolated ports (bridge(8)), and learns nothing from what their root
    // sends, who could take another's traffic by its MAC or IP address. Where they are is written down here.
    let flags = ["isolated", "on", "learning", "off", "flood", "off", "mcast_flood", "off"];
    ip(&[&["link", "set", wire, "type", "bridge_slave"][..], &flags].concat())?;
    tool("bridge", &["fdb", "replace", &mac, "dev", wire, "master", "static"])?;
    let address = spec.address.to_string();
    ip(&["neighbor", "replace", &address, "lladdr", &mac, "dev", &spec.bridge, "nud", "permanent"])?;
    // Frames under another MAC address are dropped as well, since Linux 5.18.
    ip(&["link", "set", wire, "type", "bridge_slave", "locked", "on"]).ok();
    ip(&["link", "set", wire, "up"])
}

fn ip(args: &[&str]) -> Result<(), LocalError> {
    tool("ip", args)
}

fn tool(program: &str, args: &[&str]) -> Result<(), LocalError> {
    Ok(run_blocking(&[&[program][..], args].concat(), "").map(drop)?)
}

/// The namespaces of a machine besides those of processes and users.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// The last stage, PID 1 of its namespace: returns only on failure, or at the end of a trial.
pub fn init(file: &Path) -> Result<ExitCode, LocalError> {
    let spec = Spec::load(file)?.ok_or_else(|| LocalError::Unknown { id: file.display().to_string() })?;
    let isolated = spec.users.is_some();
    if !isolated {
        unshare(NAMESPACES).map_err(LocalError::call("make the machine's namespaces"))?;
    }
    sethostname(&spec.name).map_err(LocalError::call("set the hostname"))?;
    peer::send("ready")?;
    peer::receive()?;
    if !spec.trial {
        network(&spec)?;
    }
    root::build(&spec)?;
    if isolated {
        confine()?;
    }
    if spec.trial {
        return Ok(ExitCode::SUCCESS);
    }
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
