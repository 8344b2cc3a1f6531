//! The stages of a machine with a user namespace of its own.
//!
//! The first stage stays outside, as root. The second, `machine-users`, makes the user namespace, is given its ids by the first, becomes
//! root in it and makes all other namespaces, which therefore belong to it; its only child is the machine's PID 1 ([`super::init`]).

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use node_linux::cgroup::Cgroups;

use super::peer::{self, Peer};
use super::{staging, wire};
use crate::cgroup;
use crate::error::LocalError;
use crate::machine::Spec;
use crate::users::Users;

/// The first stage: returns when the machine has ended.
pub fn run(spec: &Spec, users: Users) -> Result<ExitCode, LocalError> {
    cgroup::limit_devices(&spec.cgroup)?;
    // What is ours stays beside what the machine arranges: its root may hand no controller down to processes it may not schedule (v2, cpuset).
    cgroup::enter(&launcher(spec))?;
    cgroup::limit_tree(&inner(spec))?;
    cgroup::delegate(&inner(spec), users)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(LocalError::call("make a mount namespace"))?;
    super::root::set(Path::new("/"), MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
    let exe = std::env::current_exe().map_err(LocalError::file("/proc/self/exe"))?;
    let mut child = Command::new(exe)
        .arg("machine-users")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(LocalError::file("machine-users"))?;
    let mut peer = Peer::of(&mut child);
    let ended = attend(spec, users, &mut child, &mut peer);
    if ended.is_err() {
        // Half a machine is none; its own words are on its console.
        drop(peer);
        child.kill().ok();
    }
    let status = child.wait().map_err(LocalError::file("machine-users"))?;
    ended?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cgroup of the stages that stay outside.
fn launcher(spec: &Spec) -> String {
    format!("{}/launcher", spec.cgroup)
}

/// The cgroup that is the root of the machine's own.
fn inner(spec: &Spec) -> String {
    format!("{}/machine", spec.cgroup)
}

/// What the inside cannot do for itself: its ids, the mounts of what is shared, and the wire.
fn attend(spec: &Spec, users: Users, child: &mut Child, peer: &mut Peer) -> Result<(), LocalError> {
    peer.receive()?;
    let namespace = map(child.id(), users)?;
    staging::build(spec, &namespace)?;
    // Its cgroup namespace begins where it is when it makes it, and its child stays there.
    Cgroups::detect().join(&inner(spec), child.id())?;
    peer.send("mapped")?;
    peer.receive()?;
    Cgroups::detect().join(&launcher(spec), child.id())?;
    if !spec.trial {
        wire(spec, child.id())?;
    }
    peer.send("wired")
}

/// Gives a user namespace its ids, and the descriptor by which mounts are mapped to it.
fn map(pid: u32, users: Users) -> Result<OwnedFd, LocalError> {
    for name in ["uid_map", "gid_map"] {
        let file = format!("/proc/{pid}/{name}");
        fs::write(&file, users.map()).map_err(LocalError::file(file))?;
    }
    let file = format!("/proc/{pid}/ns/user");
    File::open(&file).map(OwnedFd::from).map_err(LocalError::file(file))
}

/// The second stage: returns when the machine has ended.
pub fn users() -> Result<ExitCode, LocalError> {
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(LocalError::call("make a user namespace (sysctl user.max_user_namespaces)"))?;
    peer::send("users")?;
    peer::receive()?;
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).map_err(LocalError::call("leave all groups"))?;
    setresgid(group, group, group).map_err(LocalError::call("become the group root"))?;
    setresuid(user, user, user).map_err(LocalError::call("become root of the user namespace"))?;
    unshare(CloneFlags::CLONE_NEWPID | super::NAMESPACES).map_err(LocalError::call("make the machine's namespaces"))?;
    let status = Command::new(staging::launcher()).arg("machine-init").arg(staging::spec_file()).status();
    let status = status.map_err(LocalError::file(staging::launcher()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
