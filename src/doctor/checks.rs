//! The questions about the machine itself: `doctor`'s and `up`'s face of the list in node-linux, of which the agent's preflight is the other.
//! None of them changes anything.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use node_linux::cgroup::Cgroups;
use node_linux::resources::{self, DiskNeeds, Space};
use node_linux::tool::run;
use node_linux::{resolver, storage, surroundings, system};
use tenant_controlplane::pki::end;
use time::OffsetDateTime;

use super::{Check, firewall, ranges};
use crate::components;
use crate::instance::{Instance, Record, SLOTS_DIR};
use crate::limits;
use crate::platform::certificates::GATEWAY_CERTIFICATE;
use embedded_host::site::Addresses;

/// The Debian packages that an embedded host needs, and a file of each by which it is recognized.
const PACKAGES: [(&str, &str); 6] = [
    ("ca-certificates", "etc/ssl/certs/ca-certificates.crt"),
    ("iproute2", "sbin/ip"),
    ("nftables", "sbin/nft"),
    ("conntrack", "sbin/conntrack"),
    ("util-linux", "bin/nsenter"),
    ("kmod", "sbin/modprobe"),
];
/// Those that building its components needs besides: nothing of the kind where the cache has them all.
const BUILD_PACKAGES: [(&str, &str); 5] = [
    ("busybox-static", "bin/busybox"),
    ("gcc", "bin/gcc"),
    ("pkg-config", "bin/pkg-config"),
    ("libseccomp-dev", "include/seccomp.h"),
    ("mmdebstrap", "bin/mmdebstrap"),
];
/// A tenant's etcd is a gigabyte at most, a bundle is one, images twice that.
const DISK_NEEDED: u64 = 6 << 30;
/// What an instance that has its images already must find to go on: its clusters are down until it does.
const DISK_TO_RESUME: u64 = 1 << 30;
/// containerd copies it into every pod, and no pod starts without it.
const HOSTS: &str = "/etc/hosts";
/// Certificates that end sooner are worth a word.
const CERTIFICATES_SOON: time::Duration = time::Duration::days(30);
/// The oldest kernel with `cgroup.kill`.
const KERNEL: (u32, u32) = (5, 14);

/// Everything that can be asked before an instance runs.
pub async fn machine(instance: &Instance, cache: &Path) -> Vec<Check> {
    let build = !(components::are_complete(cache, &[]) && components::has_node_tree(cache));
    let mut all = vec![
        root(),
        root_directory().await,
        system::kernel(&system::kernel_release(), KERNEL, "cgroup.kill"),
        system::overlayfs_here(),
        system::cgroups(&Cgroups::detect(), true),
        system::capability(&fs::read_to_string("/proc/self/status").unwrap_or_default()),
        packages(build),
    ];
    all.extend(disks(instance, cache));
    all.push(storage::storage("storage", &instance.path("node/containerd")));
    all.push(storage::programs("cache", cache));
    let foreign = ranges::foreign().await;
    all.push(ranges::check(instance.held_slot(), &foreign));
    if let Some(slot) = instance.held_slot().or_else(|| ranges::choices(&foreign).first().copied()) {
        all.push(firewall::check(Addresses::of(slot).all()).await);
    }
    all.extend([
        system::clock(system::seconds_since_1970()),
        surroundings::hosts(Path::new(HOSTS)),
        resources::open_files(limits::highest(), limits::WANTED),
    ]);
    all.push(resolver::check("resolver", &fs::read_to_string("/etc/resolv.conf").unwrap_or_default()));
    all
}

/// Whether people and nodes still find the gateway where kubeconfigs say it is.
pub fn address(record: &Record) -> Check {
    let own = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|one| one.address);
    let own: Vec<IpAddr> = own.filter_map(|one| Some(IpAddr::V4(one.as_sockaddr_in()?.ip()))).collect();
    address_of(record, &own)
}

fn address_of(record: &Record, own: &[IpAddr]) -> Check {
    let ip = record.advertise.ip();
    if record.advertise_given || own.contains(&ip) || ip.is_ipv6() {
        return Check::pass("address", format!("the gateway is advertised at {}", record.advertise));
    }
    Check::warn(
        "address",
        format!("{ip}, which kubeconfigs and nodes dial, is no address of this machine any more"),
        "give the machine that address again, or choose one: `pilothouse up --advertise ADDRESS`, then fetch kubeconfigs and join nodes anew",
    )
}

fn root() -> Check {
    system::root(
        ": an embedded host needs root for network namespaces, mounts and cgroups",
        "run it with sudo, or use a cluster you have: `pilothouse up --host-kubeconfig FILE`",
    )
}

/// In a chroot the containers' runtime and kubelet would land in another root than this process: they enter its mount namespace, and
/// that has the root directory which setns(2) gives it.
async fn root_directory() -> Check {
    let own = fs::metadata("/").map(|meta| format!("{}:{}", meta.dev(), meta.ino())).ok();
    let entered = run(&["nsenter", "--mount=/proc/self/ns/mnt", "stat", "--format=%d:%i", "/"]).await.ok();
    root_directory_of(own.as_deref(), entered.as_deref().map(str::trim))
}

fn root_directory_of(own: Option<&str>, entered: Option<&str>) -> Check {
    match entered {
        // Not root, or no nsenter: other checks say so.
        None => Check::pass("root-directory", "not asked"),
        entered if entered == own => Check::pass("root-directory", "that of its mount namespace"),
        _ => Check::fail(
            "root-directory",
            "this is a chroot: pods' mounts and commands would end up in the root outside of it",
            "use a container, or pivot_root(8) in a mount namespace of its own, instead of chroot",
        ),
    }
}

/// Which packages are missing, as a check.
fn packages(build: bool) -> Check {
    let missing = missing_packages(build);
    if missing.is_empty() {
        return Check::pass("packages", "every Debian package is there");
    }
    Check::warn(
        "packages",
        format!("missing: {}", missing.join(" ")),
        format!("`pilothouse up` installs them, or: apt-get install -y {}", missing.join(" ")),
    )
}

/// The names of the packages whose file is not on this machine; with `build`, of those too that building components needs.
pub fn missing_packages(build: bool) -> Vec<&'static str> {
    let there = |file: &str| ["/usr", "/"].iter().map(|root| Path::new(root).join(file)).find(|file| file.exists());
    // Debian's other package of that name is linked dynamically, and gives way to this one.
    let fits = |package: &str, file: &Path| package != "busybox-static" || bundle::is_static(file).unwrap_or(false);
    let has = |package: &str, file: &str| there(file).is_some_and(|file| fits(package, &file));
    let build: &[(&str, &str)] = if build { &BUILD_PACKAGES } else { &[] };
    let needed = PACKAGES.iter().chain(build);
    needed.filter(|(package, file)| !has(package, file)).map(|(package, _)| *package).collect()
}

/// The file systems of the data directory and of the cache, each once.
fn disks(instance: &Instance, cache: &Path) -> Vec<Check> {
    let needed = if instance.path("instance.json").exists() { DISK_TO_RESUME } else { DISK_NEEDED };
    let mut asked = Vec::new();
    let mut all = Vec::new();
    for dir in [instance.dir.as_path(), cache] {
        let place = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        let device = fs::metadata(place).map(|meta| meta.dev()).ok();
        if !asked.contains(&device) {
            asked.push(device);
            all.push(resources::disk(place, Space::of(place), &disk_needs(needed)));
        }
    }
    all
}

/// A new instance needs all; one that has its images must find `least`, bytes.
const fn disk_needs(least: u64) -> DiskNeeds<'static> {
    DiskNeeds {
        least,
        remedy: "free some, or put --data-dir or --cache on a larger disk",
        ample: DISK_NEEDED,
        ample_percent: 0,
        consequence: "another cluster or another Kubernetes version may not fit",
        advice: "free some soon: etcd does not survive a full disk",
    }
}

/// Whether certificates of the host and the gateway, which each start of `up` makes anew, last another month.
pub fn certificates(instance: &Instance) -> Check {
    let own = fs::read_dir(instance.path("host/pki")).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = own.chain([instance.path(GATEWAY_CERTIFICATE)]);
    let ends = files.filter_map(|file| end(&fs::read_to_string(file).ok()?));
    certificates_of(ends.min(), OffsetDateTime::now_utc())
}

fn certificates_of(first: Option<OffsetDateTime>, now: OffsetDateTime) -> Check {
    let Some(first) = first else {
        return Check::pass("certificates", "none yet");
    };
    let text = format!("the first ends on {}", first.date());
    if first - now > CERTIFICATES_SOON {
        return Check::pass("certificates", text);
    }
    Check::warn(
        "certificates",
        format!("{text}: the host or the gateway stops answering then"),
        "end the process of `pilothouse up` (clusters keep running) and run `pilothouse up` again: it makes them anew",
    )
}

/// What dead instances left on the machine: cgroups whose name starts with ours but whose slot is gone.
pub async fn leftovers() -> Vec<Check> {
    let living: Vec<String> = slots();
    let mut orphans: Vec<String> = Vec::new();
    let cgroups = Cgroups::detect();
    for entry in cgroups.unified().and_then(|root| fs::read_dir(root).ok()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(instance) = name.strip_prefix("pilothouse-") else { continue };
        if !living.iter().any(|known| known == instance) {
            orphans.push(format!("cgroup {name}"));
        }
    }
    orphans.extend(orphan_tables(&living).await);
    if orphans.is_empty() {
        return vec![Check::pass("leftovers", "none")];
    }
    let advice = "remove them: pilothouse down --purge --yes --name NAME --data-dir DIR";
    vec![Check::warn("leftovers", orphans.join(", "), advice)]
}

async fn orphan_tables(living: &[String]) -> Vec<String> {
    let tables = run(&["nft", "list", "tables"]).await.unwrap_or_default();
    let ours = tables.lines().filter_map(|line| line.split(" pilothouse_").nth(1));
    ours.filter(|name| !living.iter().any(|known| known.replace('-', "_") == **name))
        .map(|name| format!("nftables table pilothouse_{name}"))
        .collect()
}

/// The names of the instances that hold a slot on this machine.
fn slots() -> Vec<String> {
    let files = fs::read_dir(SLOTS_DIR).into_iter().flatten().flatten();
    files.filter_map(|file| Some(fs::read_to_string(file.path()).ok()?.lines().next()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_new_instance_needs_room_and_an_old_one_less() {
        let disk_of =
            |free, least| resources::disk(Path::new("/d"), Some(Space { free, total: free }), &disk_needs(least));
        let small = disk_of(DISK_TO_RESUME, DISK_NEEDED);
        assert_eq!(small.status, Verdict::Fail);
        assert!(small.observed.starts_with("disk too small: 1.0 GiB free in /d; 6 GiB"), "{}", small.observed);
        assert_eq!(disk_of(DISK_TO_RESUME, DISK_TO_RESUME).status, Verdict::Warn);
        assert_eq!(disk_of(DISK_TO_RESUME - 1, DISK_TO_RESUME).status, Verdict::Fail);
        assert_eq!(disk_of(DISK_NEEDED, DISK_TO_RESUME).status, Verdict::Pass);
    }

    #[tokio::test]
    async fn a_chroot_is_told_from_a_root() {
        assert_eq!(root_directory_of(Some("1:2"), Some("1:2")).status, Verdict::Pass);
        assert_eq!(root_directory_of(Some("1:2"), Some("1:3")).status, Verdict::Fail);
        assert_eq!(root_directory_of(Some("1:2"), None).status, Verdict::Pass);
        assert_eq!(root_directory().await.status, Verdict::Pass, "where tests run");
    }

    #[test]
    fn an_address_that_went_away_is_noticed_unless_it_was_given() {
        let mut record = Record::example("a", "192.0.2.1:8443".parse().unwrap());
        assert_eq!(address_of(&record, &[record.advertise.ip()]).status, Verdict::Pass);
        assert_eq!(address_of(&record, &[]).status, Verdict::Warn);
        record.advertise_given = true;
        assert_eq!(address_of(&record, &[]).status, Verdict::Pass);
    }

    #[test]
    fn certificates_are_spoken_of_a_month_before_they_end() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let at = |days| certificates_of(Some(now + time::Duration::days(days)), now).status;
        assert_eq!((at(365), at(31), at(30), at(-1)), (Verdict::Pass, Verdict::Pass, Verdict::Warn, Verdict::Warn));
        assert_eq!(certificates_of(None, now).status, Verdict::Pass);
    }

    #[tokio::test]
    async fn every_failure_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new("checks", Some(dir.path().join("deep/er"))).unwrap();
        let all = machine(&instance, &dir.path().join("cache")).await;
        assert_eq!(all.len(), 16, "one file system is asked once");
        for check in all {
            assert!(check.status == Verdict::Pass || !check.remediation.is_empty(), "{check:?}");
        }
    }
}
