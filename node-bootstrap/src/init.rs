//! The agent as PID 1 of a machine container: a tiny init over a worker.
//!
//! PID 1 inherits every orphan (pods' shims among them) and must reap them, which does not mix with a runtime that waits for its
//! own children. So PID 1 only starts the worker, reaps, passes signals on, and starts the worker again should it die: the worker
//! then adopts what still runs. When PID 1 ends, the kernel ends the whole namespace.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cgroup::Cgroups;

/// The group PID 1 moves itself into: on cgroup version 2 a group with controllers for children may hold no process itself.
pub const LEAF: &str = "/pilothouse-node/agent";

/// The worker's exit code that means: the node was removed, or nothing can be done; do not start again.
pub const FINAL: i32 = 10;

/// The pause before a worker that died is started again.
const PAUSE: Duration = Duration::from_millis(500);

/// What PID 1 does about an ended worker.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    Exit(u8),
}

fn next(status: ExitStatus, stopping: bool) -> Next {
    match status.code() {
        Some(code) if stopping || code == 0 || code == FINAL => Next::Exit(u8::try_from(code).unwrap_or(1)),
        None if stopping => Next::Exit(0),
        _ => Next::Again,
    }
}

/// Moves this process into its own leaf group. Failing is not fatal: version 1 needs none.
pub fn move_to_leaf() {
    let moved = Cgroups::detect().and_then(|cgroups| {
        // Joining first: version 2 hands out controllers only from a group without processes.
        cgroups.create(LEAF)?;
        cgroups.join(LEAF, std::process::id())?;
        cgroups.create(LEAF)
    });
    if let Err(error) = moved {
        tracing::warn!(error = crate::supervise::describe(&error), "not moved into a control group of its own");
    }
}

/// Runs `worker` (arguments for this very program) until it ends for good; returns the exit code.
pub fn run(worker: &[String]) -> std::io::Result<u8> {
    move_to_leaf();
    // Blocked signals are taken one by one below; a child would inherit the mask, so the worker clears it.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGPWR].into_iter().collect();
    let mut stopping = false;
    loop {
        let mut child = Command::new("/proc/self/exe").args(worker).spawn()?;
        signals.thread_block()?;
        let status = attend(Pid::from_raw(child.id().cast_signed()), &signals, &mut stopping);
        let status = status.or_else(|| child.try_wait().ok().flatten()).unwrap_or(ExitStatus::from_raw(1 << 8));
        signals.thread_unblock()?;
        match next(status, stopping) {
            Next::Exit(code) => return Ok(code),
            Next::Again => std::thread::sleep(PAUSE),
        }
    }
}

/// Reaps and passes signals on until the worker has ended.
fn attend(worker: Pid, signals: &SigSet, stopping: &mut bool) -> Option<ExitStatus> {
    loop {
        if let Some(status) = reap(worker) {
            return Some(status);
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(Errno::EINTR) => {}
            Ok(_) => {
                *stopping = true;
                let _ = kill(worker, Signal::SIGTERM);
            }
            Err(_) => return None,
        }
    }
}

/// Takes in every ended child; the worker's status is returned.
fn reap(worker: Pid) -> Option<ExitStatus> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == worker => return Some(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == worker => return Some(ExitStatus::from_raw(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_worker_is_started_again_and_a_final_one_is_not() {
        assert_eq!(next(ExitStatus::from_raw(9), false), Next::Again);
        assert_eq!(next(ExitStatus::from_raw(1 << 8), false), Next::Again);
        assert_eq!(next(ExitStatus::from_raw(0), false), Next::Exit(0));
        assert_eq!(next(ExitStatus::from_raw(FINAL << 8), false), Next::Exit(10));
        assert_eq!(next(ExitStatus::from_raw(9), true), Next::Exit(0));
        assert_eq!(next(ExitStatus::from_raw(1 << 8), true), Next::Exit(1));
    }
}
