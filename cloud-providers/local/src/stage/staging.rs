//! What an isolated machine is made of, laid out where its root may look: below [`PLACE`], in the first stage's own mount namespace.
//!
//! Root of a user namespace is nobody outside, and cannot even walk to its own directory through the platform's. What all machines
//! share is shown read-only with its owners mapped, and because the outside made those mounts, the inside can neither change nor lift them.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::root::attach;
use crate::error::LocalError;
use crate::kernel::{attach_mount, copy_mount, map_owners};
use crate::machine::Spec;

/// A directory that every machine has; the machine sees its own root in its place later.
pub const PLACE: &str = "/tmp";

/// The program of the stages.
pub fn launcher() -> PathBuf {
    Path::new(PLACE).join("launcher")
}

/// The specification as the inside reads it.
pub fn spec_file() -> PathBuf {
    Path::new(PLACE).join("machine.json")
}

/// Lays everything out for the machine whose user namespace this is.
pub fn build(spec: &Spec, users: &OwnedFd) -> Result<(), LocalError> {
    let place = Path::new(PLACE);
    let exe = std::env::current_exe().map_err(LocalError::file("/proc/self/exe"))?;
    let shared = [(&spec.lower, "lower"), (&spec.seed, "seed"), (&spec.agent, "agent"), (&exe, "launcher")];
    // Taken up before anything is mounted: one of them may lie below the place itself.
    let shared = shared.map(|(source, name)| part(source, Some(users)).map(|part| (part, place.join(name))));
    let machine = (part(&spec.dir, None)?, place.join("machine"));
    attach("tmpfs", place, MsFlags::empty(), Some("mode=0755"))?;
    for ready in shared.into_iter().chain([Ok(machine)]) {
        let ((mount, is_dir), target) = ready?;
        let made = if is_dir { fs::create_dir(&target) } else { fs::write(&target, "") };
        made.map_err(LocalError::file(&target))?;
        attach_mount(&mount, &target)?;
    }
    let inside = Spec {
        dir: place.join("machine"),
        lower: place.join("lower"),
        seed: place.join("seed"),
        agent: place.join("agent"),
        ..spec.clone()
    };
    let text = serde_json::to_vec(&inside).map_err(|source| LocalError::Corrupt { path: spec_file(), source })?;
    // Whatever the umask: the inside is another user.
    let written =
        fs::write(spec_file(), text).and_then(|()| fs::set_permissions(spec_file(), Permissions::from_mode(0o644)));
    written.map_err(LocalError::file(spec_file()))
}

/// A copy of what shows a file or directory, and whether it is a directory; with a user namespace read-only and as if its own.
fn part(source: &Path, users: Option<&OwnedFd>) -> Result<(OwnedFd, bool), LocalError> {
    let mount = copy_mount(source)?;
    users.map_or(Ok(()), |users| map_owners(&mount, users, source))?;
    Ok((mount, source.is_dir()))
}
