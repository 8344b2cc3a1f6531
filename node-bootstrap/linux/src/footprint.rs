//! What kubelet and libcni keep at fixed places of the machine whatever they are told: whoever is first to need a place takes it away in the
//! end, and nothing of others with it. containerd gives libcni no directory, so `/var/lib/cni` cannot be moved.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The directories, innermost first: libcni's memory of what it attached, a file for each pod; where kubelet waits for device plugins; its
/// links to containers' logs.
const PLACES: [&str; 5] =
    ["var/lib/cni/results", "var/lib/cni", "var/lib/kubelet/device-plugins", "var/lib/kubelet", "var/log/containers"];
/// What kubelet leaves among device plugins' sockets; the first is its own socket.
const DEVICE_FILES: [&str; 2] = ["kubelet.sock", "kubelet_internal_checkpoint"];

/// Of libcni's cached results only what says whose they are.
#[derive(Deserialize)]
struct Cached {
    #[serde(rename = "networkName")]
    network: String,
}

/// Which of the places below `root` (`/`) are not there yet, innermost first.
pub fn missing(root: &Path) -> Vec<PathBuf> {
    PLACES.iter().map(|place| root.join(place)).filter(|place| !place.exists()).collect()
}

/// Removes what libcni remembers about the containers of the network `network`, by its name.
pub fn remove_cni_results(root: &Path, network: &str) {
    let entries = fs::read_dir(root.join(PLACES[0])).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let cached = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok());
        if cached.is_some_and(|cached| cached.network == network) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Removes what kubelet left among the device plugins' sockets. Another node on this machine may have the place by now: then somebody answers,
/// and it stays.
pub fn remove_device_files(root: &Path) {
    let dir = root.join(PLACES[2]);
    let refused = UnixStream::connect(dir.join(DEVICE_FILES[0])).err();
    if refused.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
        for name in DEVICE_FILES {
            let _ = fs::remove_file(dir.join(name));
        }
    }
}

/// Removes kubelet's links to the logs of pods that logged below `pod_logs`.
pub fn remove_log_links(root: &Path, pod_logs: &Path) {
    let entries = fs::read_dir(root.join(PLACES[4])).into_iter().flatten().flatten();
    for link in entries.map(|entry| entry.path()) {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(pod_logs)) {
            let _ = fs::remove_file(link);
        }
    }
}

/// Removes those of the directories `made` that are empty now; inner ones come first.
pub fn remove_empty<'a>(made: impl IntoIterator<Item = &'a PathBuf>) {
    for dir in made {
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn make(root: &Path, place: &str) -> PathBuf {
        fs::create_dir_all(root.join(place)).unwrap();
        root.join(place)
    }

    #[test]
    fn only_the_results_of_this_network_go() {
        let root = tempfile::tempdir().unwrap();
        let dir = make(root.path(), "var/lib/cni/results");
        for (file, network) in [("a-b-1-eth0", "a-b"), ("a-2-eth0", "a")] {
            let text = format!("{{\"kind\":\"cniCacheV1\",\"networkName\":\"{network}\"}}");
            fs::write(dir.join(file), text).unwrap();
        }
        fs::write(dir.join("a-3-eth0"), "not ours to judge").unwrap();
        remove_cni_results(root.path(), "a");
        assert!(dir.join("a-b-1-eth0").exists(), "a network whose name begins alike");
        assert!(!dir.join("a-2-eth0").exists());
        assert!(dir.join("a-3-eth0").exists());
    }

    #[test]
    fn another_kubelets_socket_stays() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(missing(root.path()).len(), PLACES.len());
        let devices = make(root.path(), "var/lib/kubelet/device-plugins");
        assert_eq!(missing(root.path()).len(), PLACES.len() - 2);
        let listening = UnixListener::bind(devices.join("kubelet.sock")).unwrap();
        fs::write(devices.join("kubelet_internal_checkpoint"), "{}").unwrap();
        remove_device_files(root.path());
        assert_eq!(fs::read_dir(&devices).unwrap().count(), 2);
        drop(listening);
        remove_device_files(root.path());
        assert_eq!(fs::read_dir(&devices).unwrap().count(), 0);
    }

    #[test]
    fn only_links_to_these_pods_logs_go() {
        let root = tempfile::tempdir().unwrap();
        let dir = make(root.path(), "var/log/containers");
        std::os::unix::fs::symlink("/data/pods/x/0.log", dir.join("ours.log")).unwrap();
        std::os::unix::fs::symlink("/elsewhere/pods/x/0.log", dir.join("theirs.log")).unwrap();
        remove_log_links(root.path(), Path::new("/data/pods"));
        assert!(!dir.join("ours.log").is_symlink() && dir.join("theirs.log").is_symlink());
        remove_empty([&dir]);
        assert!(dir.exists(), "others have something in it");
    }
}
