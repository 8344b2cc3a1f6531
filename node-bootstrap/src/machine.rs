//! What this machine is: facts for the platform, and the fingerprint that binds a token to it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};
use nix::net::if_::InterfaceFlags;
use node_linux::files::{self, FileError};
use node_linux::resources;
use node_protocol::MachineFacts;

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of some bytes, lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Reads the facts below `root` (`/` in real life).
pub fn facts(root: &Path) -> MachineFacts {
    let uname = nix::sys::utsname::uname().ok();
    let kernel = uname.as_ref().map(|name| name.release().to_string_lossy().into_owned());
    MachineFacts {
        hostname: hostname(),
        os: os_name(&fs::read_to_string(root.join("etc/os-release")).unwrap_or_default()),
        kernel: kernel.unwrap_or_default(),
        arch: arch().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_bytes: resources::memory_bytes(),
        addresses: addresses().iter().map(IpAddr::to_string).collect(),
        machine_id: machine_id(root),
    }
}

/// The machine's host name, lower case.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default().to_lowercase()
}

/// The architecture in Kubernetes' words.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The id in `/etc/machine-id`; empty when there is none.
pub fn machine_id(root: &Path) -> String {
    fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default().trim().to_owned()
}

fn os_name(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("unknown").trim_matches('"').to_owned()
}

/// Addresses that others might reach: no loopback, no link-local.
pub fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let up = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP) && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let mut found: Vec<IpAddr> = up.filter_map(|interface| ip_of(interface.address.as_ref()?)).collect();
    found.retain(|address| match address {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 != 0xfe80,
    });
    found.sort();
    found.dedup();
    found
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|socket| IpAddr::V4(socket.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|socket| IpAddr::V6(socket.ip())))
}

/// The address this machine uses towards `peer`; no packet is sent. Falls back to the first IPv4 address that is not loopback,
/// because kubelet refuses a loopback address.
pub fn address_towards(peer: Option<SocketAddr>) -> Option<IpAddr> {
    let routed = peer.and_then(|peer| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(peer).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    let usable = routed.filter(|address| !address.is_loopback() && !address.is_unspecified());
    usable.or_else(|| addresses().into_iter().find(IpAddr::is_ipv4))
}

/// The fingerprint: SHA-256 over machine-id and a key that never leaves the machine (made on first use, mode 0600). A copied
/// machine-id alone does not make two machines one.
pub fn fingerprint(root: &Path, key_file: &Path) -> Result<String, FileError> {
    let key = match fs::read(key_file) {
        Ok(key) if key.len() == 32 => key,
        _ => {
            let key: [u8; 32] = rand::random();
            files::write(key_file, &key, 0o600)?;
            key.to_vec()
        }
    };
    let mut hash = Context::new(&SHA256);
    hash.update(machine_id(root).as_bytes());
    hash.update(&[0]);
    hash.update(&key);
    Ok(hex(hash.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_fingerprint_is_stable_and_its_key_private() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("machine.key");
        let first = fingerprint(dir.path(), &key).unwrap();
        assert_eq!(first, fingerprint(dir.path(), &key).unwrap());
        assert_eq!(first.len(), 64);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&key).unwrap();
        assert_ne!(first, fingerprint(dir.path(), &key).unwrap(), "another key is another machine");
    }

    #[test]
    fn texts_of_the_machine_are_read() {
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn the_address_towards_a_loopback_peer_is_never_loopback() {
        let address = address_towards("127.0.0.1:1".parse().ok());
        assert!(address.is_none_or(|address| !address.is_loopback()));
    }
}
