//! Where on a machine one embedded host is: its name, its directory and its addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use node_linux::files::{self, FileError};
use node_linux::sysctl::{self, Sysctl};

/// Hosts that fit on one machine: the slots of 100.64.0.0/10 (RFC 6598), a /16 each, and one more.
pub const SLOTS: u8 = 65;
/// The slot that is not in 100.64.0.0/10 but 198.19.0.0/16 (RFC 2544), for machines on which others live in the former.
pub const SPARE_SLOT: u8 = 64;
/// Machine-wide run-time state; gone after a reboot, as it should be.
const RUN_ROOT: &str = "/run/pilothouse";
/// What kernel values were before the first host on this machine changed them. Gone after a reboot, as the changed values are; put back
/// once the last one is purged.
pub const SYSCTLS: &str = "/run/pilothouse/sysctl.json";

/// The place of one host on its machine.
#[derive(Debug, Clone)]
pub struct Site {
    /// A DNS label of at most 16 characters, unique on the machine.
    pub name: String,
    /// Where all of its state lives.
    pub dir: PathBuf,
    /// Its addresses.
    pub addresses: Addresses,
}

impl Site {
    /// A path under its directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }

    /// Its run-time files (the network namespace).
    pub fn run_dir(&self) -> PathBuf {
        run_dir(&self.name)
    }

    /// The pinned network namespace in which it lives.
    pub fn netns(&self) -> PathBuf {
        self.run_dir().join("netns")
    }

    /// Its cgroup, relative to each hierarchy's root.
    pub fn cgroup(&self) -> String {
        cgroup(&self.name)
    }
}

/// Run-time files of the host of that name.
pub fn run_dir(name: &str) -> PathBuf {
    Path::new(RUN_ROOT).join(name)
}

/// The cgroup of the host of that name, relative to each hierarchy's root.
pub fn cgroup(name: &str) -> String {
    format!("pilothouse-{name}")
}

/// Remembers kernel values before somebody changes them.
///
/// # Errors
/// [`FileError`] where they cannot be written down.
pub fn remember_sysctls(values: &[Sysctl]) -> Result<(), FileError> {
    files::make_dir(Path::new(RUN_ROOT))?;
    sysctl::remember(Path::new(SYSCTLS), values)
}

/// The addresses of a slot: one /16 each, of 100.64.0.0/10 but for [`SPARE_SLOT`].
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    slot: u8,
}

impl Addresses {
    /// The addresses of `slot` (0 to 64).
    pub fn of(slot: u8) -> Self {
        Self { slot }
    }

    fn at(self, third: u8, fourth: u8) -> Ipv4Addr {
        match self.slot {
            SPARE_SLOT => Ipv4Addr::new(198, 19, third, fourth),
            slot => Ipv4Addr::new(100, 64 + slot, third, fourth),
        }
    }

    fn net(self, third: u8, bits: u8) -> Ipv4Net {
        Ipv4Net::new_assert(self.at(third, 0), bits)
    }

    /// All of them.
    pub fn all(self) -> Ipv4Net {
        self.net(0, 16)
    }

    /// Pods of the embedded host: tenants' control planes.
    pub fn pods(self) -> Ipv4Net {
        self.net(0, 17)
    }

    /// Services of the embedded host.
    pub fn services(self) -> Ipv4Net {
        self.net(128, 18)
    }

    /// The machine's end of the wire into the host's network namespace.
    pub fn outside(self) -> Ipv4Addr {
        self.at(192, 1)
    }

    /// The host's end: its node address and its API server's.
    pub fn inside(self) -> Ipv4Addr {
        self.at(192, 2)
    }

    /// Machine containers of the `local` provider.
    pub fn machines(self) -> Ipv4Net {
        self.net(208, 20)
    }

    /// The bridge's own address, which machine containers reach.
    pub fn machines_gateway(self) -> Ipv4Addr {
        self.at(208, 1)
    }

    /// The bridge of the machine containers.
    pub fn bridge(self) -> String {
        format!("phbr{}", self.slot)
    }

    /// The machine's end of the host's wire.
    pub fn wire(self) -> String {
        format!("ph{}h", self.slot)
    }

    /// Every address under which the gateway's own certificate must be good.
    pub fn gateway_names(self, advertise: IpAddr) -> Vec<IpAddr> {
        let bridge = self.machines_gateway();
        let qemu = Ipv4Addr::new(10, 0, 2, 2);
        let mut all = vec![advertise];
        all.extend([Ipv4Addr::LOCALHOST, self.outside(), bridge, qemu].map(IpAddr::from));
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_slot_do_not_overlap() {
        assert_eq!(Addresses::of(SPARE_SLOT).all().to_string(), "198.19.0.0/16");
        let a = Addresses::of(63);
        let all = [a.pods(), a.services(), Ipv4Net::new_assert(a.outside(), 30).trunc(), a.machines()];
        for (i, one) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|other| !one.contains(other) && !other.contains(one)));
        }
        assert_eq!(a.pods().to_string(), "100.127.0.0/17");
    }
}
