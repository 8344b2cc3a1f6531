//! How many control planes this installation keeps running for clusters to come.

use node_linux::resources::memory_bytes;

use crate::options::UpArgs;

/// The most where nobody said.
const MOST: u64 = 2;
/// A machine has one for each so many bytes of memory.
const PER_MEMORY: u64 = 4 << 30;

/// How many: what was said; else as many as this machine easily bears, and none on a host that is somebody else's.
pub fn wanted(args: &UpArgs) -> u8 {
    args.spares.unwrap_or_else(|| if args.host_kubeconfig.is_none() { easily_borne(memory_bytes()) } else { 0 })
}

fn easily_borne(memory: u64) -> u8 {
    // What firmware and kernel take for themselves is not missed here.
    u8::try_from(((memory + PER_MEMORY / 8) / PER_MEMORY).min(MOST)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_keeps_fewer() {
        let gib = |count: u64| easily_borne((count << 30) * 95 / 100);
        assert_eq!([1, 3, 4, 7, 8, 64].map(gib), [0, 0, 1, 1, 2, 2]);
    }
}
