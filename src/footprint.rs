//! What kubelet and libcni keep at fixed places of the machine whatever they are told: an instance that goes takes its own
//! with it and nothing else. containerd gives libcni no directory, so `/var/lib/cni` cannot be moved.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The directories, innermost first.
const PLACES: [&str; 5] = [
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/log/containers",
];
/// libcni's memory of what it attached: one file for each pod.
const RESULTS: &str = "/var/lib/cni/results";
/// Where kubelet waits for device plugins.
const DEVICES: &str = "/var/lib/kubelet/device-plugins";

/// Of libcni's cached results only what says whose they are.
#[derive(Deserialize)]
struct Cached {
    #[serde(rename = "networkName")]
    network: String,
}

/// Which of the places are not there yet: whoever is first to need them removes them in the end.
pub fn missing() -> Vec<PathBuf> {
    PLACES.iter().map(PathBuf::from).filter(|dir| !dir.exists()).collect()
}

/// Removes what belongs to the network `network`, a socket on which nobody listens, and of the directories in `made` those
/// that are empty now.
pub fn remove(network: &str, made: &[PathBuf]) {
    forget_results(Path::new(RESULTS), network);
    forget_devices(Path::new(DEVICES));
    for dir in made {
        fs::remove_dir(dir).ok();
    }
}

fn forget_results(dir: &Path, network: &str) {
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let cached = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok());
        if cached.is_some_and(|cached| cached.network == network) {
            fs::remove_file(&path).ok();
        }
    }
}

/// Another node on this machine may have the place by now: then somebody answers, and it stays.
fn forget_devices(dir: &Path) {
    let socket = dir.join("kubelet.sock");
    let refused = UnixStream::connect(&socket).err();
    if refused.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
        fs::remove_file(&socket).ok();
        fs::remove_file(dir.join("kubelet_internal_checkpoint")).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_results_of_this_network_go() {
        let dir = tempfile::tempdir().unwrap();
        for (file, network) in [("a-b-1-eth0", "a-b"), ("a-2-eth0", "a")] {
            let text = format!("{{\"kind\":\"cniCacheV1\",\"networkName\":\"{network}\"}}");
            fs::write(dir.path().join(file), text).unwrap();
        }
        fs::write(dir.path().join("a-3-eth0"), "not ours to judge").unwrap();
        forget_results(dir.path(), "a");
        assert!(dir.path().join("a-b-1-eth0").exists(), "a network whose name begins alike");
        assert!(!dir.path().join("a-2-eth0").exists());
        assert!(dir.path().join("a-3-eth0").exists());
    }

    #[test]
    fn a_socket_stays_while_somebody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("kubelet.sock");
        let listening = UnixListener::bind(&socket).unwrap();
        forget_devices(dir.path());
        assert!(socket.exists());
        drop(listening);
        forget_devices(dir.path());
        assert!(!socket.exists());
    }
}
