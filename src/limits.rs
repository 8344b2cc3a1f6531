//! How many files and sockets one process may have open. A shell's usual 1024 is about five hundred connections for the whole
//! platform, since each one that is passed through takes two.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Fewer descriptors than this are too few for a gateway.
pub const WANTED: u64 = 65_536;

/// Takes as many as the machine allows this process.
pub fn raise() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!("the limit of open files stays as it is: {error}");
    }
}

/// How many this process could have; nothing where the kernel does not say.
pub fn highest() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard)
}
