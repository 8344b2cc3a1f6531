//! Places of the machine that kubelet and libcni use whatever they are told. Who is first to need one takes it away in the end.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::config::Paths;

/// libcni's memory of what it attached; kubelet's meeting place with device plugins; its links to containers' logs.
const PLACES: [&str; 5] = [
    "/var/lib/cni",
    "/var/lib/cni/results",
    "/var/lib/kubelet",
    "/var/lib/kubelet/device-plugins",
    "/var/log/containers",
];

/// What kubelet leaves among device plugins' sockets; the first is its own socket.
const DEVICES: [&str; 2] = ["kubelet.sock", "kubelet_internal_checkpoint"];

/// Those that are not there yet.
pub fn missing(paths: &Paths) -> Vec<PathBuf> {
    PLACES.iter().map(|place| paths.at(place)).filter(|place| !place.exists()).collect()
}

/// Removes what kubelet left among the device plugins' sockets, unless another kubelet listens there by now.
pub fn forget_devices(paths: &Paths) {
    let dir = paths.at("/var/lib/kubelet/device-plugins");
    if is_deserted(&dir.join(DEVICES[0])) {
        for name in DEVICES {
            let _ = fs::remove_file(dir.join(name));
        }
    }
}

fn is_deserted(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn another_kubelets_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        assert_eq!(missing(&paths).len(), PLACES.len());
        let devices = paths.at("/var/lib/kubelet/device-plugins");
        fs::create_dir_all(&devices).unwrap();
        assert_eq!(missing(&paths).len(), PLACES.len() - 2);
        let listening = UnixListener::bind(devices.join("kubelet.sock")).unwrap();
        fs::write(devices.join("kubelet_internal_checkpoint"), "{}").unwrap();
        forget_devices(&paths);
        assert_eq!(fs::read_dir(&devices).unwrap().count(), 2);
        drop(listening);
        forget_devices(&paths);
        assert_eq!(fs::read_dir(&devices).unwrap().count(), 0);
    }
}
