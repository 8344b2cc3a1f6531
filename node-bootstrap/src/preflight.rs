//! Can this machine be a node? Named checks, made before anything is written.
//!
//! Reading is one thing ([`Probe::of_machine`]), judging another ([`judge`]): the table of judgements is tested without a machine.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use node_linux::{Verdict, resolver, storage, system};
use node_protocol::{Check, CheckStatus, port};

use crate::cgroup::Cgroups;
use crate::enroll::node_name;
use crate::{kubelet, machine};

/// The oldest kernel whose nftables carries kube-proxy ("kube-proxy's nftables mode", Kubernetes' documentation).
const KERNEL: (u32, u32) = (5, 13);

/// Programs that make a machine a Kubernetes node.
const RIVALS: [&str; 6] = ["kubelet", "k3s-agent", "k3s-server", "k0s", "rke2", "microk8s"];

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What was read off the machine.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Running as root.
    pub root: bool,
    /// The architecture, in Kubernetes' words.
    pub arch: String,
    /// The kernel's release.
    pub kernel: String,
    /// A cgroup hierarchy is mounted.
    pub cgroups: bool,
    /// Whether overlayfs can be mounted.
    pub overlay: node_linux::Check,
    /// Programs that are missing.
    pub missing_programs: Vec<String>,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Bytes free where the state lies, and in all.
    pub disk: (u64, u64),
    /// The host name.
    pub hostname: String,
    /// The machine id.
    pub machine_id: String,
    /// Seconds since 1970.
    pub clock: u64,
    /// Swap is on.
    pub swap: bool,
    /// Ports of [`port::NODE`] that are taken.
    pub taken_ports: Vec<u16>,
    /// A kubelet, k3s or the like that runs here.
    pub other_node: Option<String>,
    /// Addresses other machines might reach.
    pub addresses: Vec<IpAddr>,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: u64,
    /// The text of the resolver file that pods will inherit.
    pub resolver: String,
    /// The file system under programs and containers.
    pub storage: node_linux::Check,
}

impl Probe {
    /// Reads the machine. `state`: where the state will lie. Writes nothing.
    pub fn of_machine(root: &Path, state: &Path) -> Self {
        let facts = machine::facts(root);
        Self {
            root: nix::unistd::geteuid().is_root(),
            arch: facts.arch,
            kernel: facts.kernel.clone(),
            cgroups: Cgroups::detect().is_ok_and(|cgroups| !cgroups.is_empty()),
            overlay: has_overlay(&facts.kernel),
            missing_programs: ["nft", "ip", "mount"]
                .into_iter()
                .filter(|name| !in_path(name))
                .map(str::to_owned)
                .collect(),
            cpus: facts.cpus,
            memory: facts.memory_bytes,
            disk: disk(state),
            hostname: facts.hostname,
            machine_id: facts.machine_id,
            clock: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            swap: fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1),
            taken_ports: port::NODE.into_iter().filter(|port| taken(*port)).collect(),
            other_node: other_node(),
            addresses: machine::addresses(),
            inotify_instances: number("/proc/sys/fs/inotify/max_user_instances"),
            resolver: kubelet::resolver(root),
            storage: storage::storage("storage", &state.join("containerd")),
        }
    }
}

fn number(path: &str) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn has_overlay(kernel: &str) -> node_linux::Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    system::overlayfs(&known, Path::new("/lib/modules"), kernel)
}

fn in_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    dirs.map(Path::new).any(|dir| dir.join(program).exists())
}

/// Free and total bytes of the file system that holds `path` or its nearest parent that exists.
fn disk(path: &Path) -> (u64, u64) {
    let existing: Option<PathBuf> = path.ancestors().find(|dir| dir.exists()).map(Path::to_owned);
    let stat = existing.and_then(|dir| nix::sys::statvfs::statvfs(&dir).ok());
    stat.map_or((0, 0), |stat| {
        let unit = stat.fragment_size();
        (stat.blocks_available() * unit, stat.blocks() * unit)
    })
}

fn taken(port: u16) -> bool {
    let bound = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)));
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Node software that shares this network namespace. One in another namespace (a cluster in containers) is no rival.
fn other_node() -> Option<String> {
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    let entries = fs::read_dir("/proc").ok()?;
    let mut rivals = entries.flatten().filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
        let beside = fs::read_link(entry.path().join("ns/net")).is_ok_and(|namespace| namespace == own);
        (beside && RIVALS.contains(&name.as_str())).then_some(name)
    });
    rivals.next()
}

fn check(id: &str, status: CheckStatus, observed: String, remediation: &str) -> Check {
    Check { id: id.into(), status: status.into(), observed, remediation: remediation.into() }
}

fn verdict(id: &str, good: bool, observed: String, remediation: &str) -> Check {
    if good { check(id, CheckStatus::Pass, observed, "") } else { check(id, CheckStatus::Fail, observed, remediation) }
}

fn advise(id: &str, good: bool, observed: String, remediation: &str) -> Check {
    if good { check(id, CheckStatus::Pass, observed, "") } else { check(id, CheckStatus::Warn, observed, remediation) }
}

/// A check of the list that the platform's own machine is asked too.
fn shared(check: node_linux::Check) -> Check {
    let node_linux::Check { id, status, observed, remediation } = check;
    let status = match status {
        Verdict::Pass => CheckStatus::Pass,
        Verdict::Warn => CheckStatus::Warn,
        Verdict::Fail => CheckStatus::Fail,
    };
    Check { id: id.into(), status: status.into(), observed, remediation }
}

/// Judges a machine.
pub fn judge(probe: &Probe) -> Vec<Check> {
    let mut checks = system(probe);
    checks.extend(resources(probe));
    checks.extend(surroundings(probe));
    checks
}

fn system(probe: &Probe) -> Vec<Check> {
    let programs = match probe.missing_programs.as_slice() {
        [] => "nft, ip and mount are there".into(),
        missing => format!("missing: {}", missing.join(", ")),
    };
    let cgroups = if probe.cgroups { "mounted" } else { "nothing is mounted below /sys/fs/cgroup" };
    vec![
        verdict("root", probe.root, if probe.root { "root" } else { "not root" }.into(), "run it with sudo"),
        verdict(
            "arch",
            ["amd64", "arm64"].contains(&probe.arch.as_str()),
            probe.arch.clone(),
            "use an amd64 or arm64 machine",
        ),
        shared(system::kernel(&probe.kernel, KERNEL, "kube-proxy's nftables mode")),
        verdict("cgroups", probe.cgroups, cgroups.into(), "mount cgroup2 on /sys/fs/cgroup"),
        shared(probe.overlay.clone()),
        verdict("programs", probe.missing_programs.is_empty(), programs, "apt-get install nftables iproute2 mount"),
    ]
}

fn resources(probe: &Probe) -> Vec<Check> {
    let (free, total) = probe.disk;
    let (memory, room) = (probe.memory, format!("{:.1} GiB free of {:.1}", gib(free), gib(total)));
    let disk = if free < 2 * GIB {
        check("disk", CheckStatus::Fail, room, "free at least 2 GiB below /var/lib/pilothouse-node")
    } else {
        advise(
            "disk",
            free >= 5 * GIB && free * 100 >= total * 15,
            room,
            "free 5 GiB and 15 %, or kubelet will evict pods",
        )
    };
    let inotify = probe.inotify_instances;
    vec![
        shared(probe.storage.clone()),
        verdict("cpu", probe.cpus >= 1, format!("{} processors", probe.cpus), "give the machine a processor"),
        verdict("memory", memory >= 700 * MIB, format!("{:.1} GiB", gib(memory)), "give the machine 1 GiB of memory"),
        disk,
        advise(
            "swap",
            !probe.swap,
            if probe.swap { "on" } else { "off" }.into(),
            "pods' memory limits do not count swap: swapoff -a",
        ),
        advise(
            "inotify",
            inotify >= 128,
            format!("{inotify} instances"),
            "sysctl -w fs.inotify.max_user_instances=8192",
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

fn surroundings(probe: &Probe) -> Vec<Check> {
    let name = node_name("", &probe.hostname);
    let hostname = !probe.hostname.is_empty() && probe.hostname != "localhost";
    let shown: Vec<String> = probe.addresses.iter().map(IpAddr::to_string).collect();
    let ports: Vec<String> = probe.taken_ports.iter().map(u16::to_string).collect();
    let ports = if ports.is_empty() { "free".into() } else { format!("taken: {}", ports.join(", ")) };
    let other = probe.other_node.clone();
    vec![
        advise(
            "hostname",
            hostname,
            format!("{} (node {name})", probe.hostname),
            "set a host name of its own, or use --node-name",
        ),
        verdict("machine-id", probe.machine_id.len() == 32, probe.machine_id.clone(), "systemd-machine-id-setup"),
        shared(system::clock(probe.clock)),
        verdict(
            "ports",
            probe.taken_ports.is_empty(),
            ports,
            "stop what listens there (another kubelet or kube-proxy?)",
        ),
        verdict(
            "other-node",
            other.is_none(),
            other.unwrap_or_else(|| "none".into()),
            "remove the other Kubernetes node software first",
        ),
        shared(resolver::check("resolver", &probe.resolver)),
        verdict(
            "address",
            probe.addresses.iter().any(IpAddr::is_ipv4),
            shown.join(", "),
            "give the machine an IPv4 address that is not loopback",
        ),
    ]
}

/// Turns failures the user wants to live with into warnings.
pub fn ignore(checks: &mut [Check], ids: &[String]) {
    for check in checks.iter_mut().filter(|check| check.status() == CheckStatus::Fail && ids.contains(&check.id)) {
        check.set_status(CheckStatus::Warn);
        check.remediation = format!("ignored; {}", check.remediation);
    }
}

/// How many failed and how many warn.
pub fn count(checks: &[Check]) -> (usize, usize) {
    let with = |status: CheckStatus| checks.iter().filter(|check| check.status() == status).count();
    (with(CheckStatus::Fail), with(CheckStatus::Warn))
}

/// The text for people.
pub fn human(checks: &[Check]) -> String {
    let mut lines: Vec<String> = checks.iter().map(line).collect();
    let (failed, warned) = count(checks);
    let passed = checks.len() - failed - warned;
    let end = if failed > 0 { " Nothing was changed on this machine." } else { "" };
    lines.push(format!("{failed} failed, {warned} warnings, {passed} passed.{end}"));
    lines.join("\n")
}

fn line(check: &Check) -> String {
    let mark = match check.status() {
        CheckStatus::Pass => '✔',
        CheckStatus::Warn => '‼',
        CheckStatus::Fail | CheckStatus::Unspecified => '×',
    };
    let arrow = if check.remediation.is_empty() { String::new() } else { format!("  → {}", check.remediation) };
    format!(" {mark} {:<11} {}{arrow}", check.id, check.observed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Probe {
        Probe {
            root: true,
            arch: "amd64".into(),
            kernel: "6.1.0-13-cloud-amd64".into(),
            cgroups: true,
            overlay: node_linux::Check::pass("overlayfs", ""),
            missing_programs: Vec::new(),
            cpus: 2,
            memory: 2 * GIB,
            disk: (20 * GIB, 40 * GIB),
            hostname: "web-1".into(),
            machine_id: "0".repeat(32),
            clock: 1_800_000_000,
            swap: false,
            taken_ports: Vec::new(),
            other_node: None,
            addresses: vec!["192.0.2.7".parse().unwrap()],
            inotify_instances: 8192,
            resolver: "nameserver 192.0.2.53".into(),
            storage: node_linux::Check::pass("storage", "ext4"),
        }
    }

    #[test]
    fn a_good_machine_passes() {
        let checks = judge(&good());
        assert_eq!(count(&checks), (0, 0), "{}", human(&checks));
    }

    #[test]
    fn every_fault_has_a_name_and_a_way_out() {
        type Row = (&'static str, CheckStatus, fn(&mut Probe));
        let table: [Row; 19] = [
            ("root", CheckStatus::Fail, |p| p.root = false),
            ("arch", CheckStatus::Fail, |p| p.arch = "riscv64".into()),
            ("kernel", CheckStatus::Fail, |p| p.kernel = "5.10.0".into()),
            ("kernel", CheckStatus::Fail, |p| p.kernel = "strange".into()),
            ("cgroups", CheckStatus::Fail, |p| p.cgroups = false),
            ("overlayfs", CheckStatus::Fail, |p| {
                p.overlay = node_linux::Check::fail("overlayfs", "", "use another kernel")
            }),
            ("programs", CheckStatus::Fail, |p| p.missing_programs = vec!["nft".into()]),
            ("memory", CheckStatus::Fail, |p| p.memory = 512 * MIB),
            ("disk", CheckStatus::Fail, |p| p.disk = (GIB, 40 * GIB)),
            ("disk", CheckStatus::Warn, |p| p.disk = (5 * GIB, 100 * GIB)),
            ("swap", CheckStatus::Warn, |p| p.swap = true),
            ("inotify", CheckStatus::Warn, |p| p.inotify_instances = 8),
            ("resolver", CheckStatus::Warn, |p| p.resolver = "nameserver 127.0.0.1".into()),
            ("resolver", CheckStatus::Warn, |p| p.resolver = "search example.org".into()),
            ("storage", CheckStatus::Fail, |p| p.storage = node_linux::Check::fail("storage", "noexec", "remount it")),
            ("machine-id", CheckStatus::Fail, |p| p.machine_id = String::new()),
            ("clock", CheckStatus::Fail, |p| p.clock = 0),
            ("ports", CheckStatus::Fail, |p| p.taken_ports = vec![10250]),
            ("other-node", CheckStatus::Fail, |p| p.other_node = Some("k3s-agent".into())),
        ];
        for (id, status, fault) in table {
            let mut probe = good();
            fault(&mut probe);
            let checks = judge(&probe);
            let found: Vec<&Check> = checks.iter().filter(|check| check.status() != CheckStatus::Pass).collect();
            assert_eq!(found.len(), 1, "{id}");
            assert_eq!((found[0].id.as_str(), found[0].status()), (id, status));
            assert!(!found[0].remediation.is_empty(), "{id} says no way out");
        }
    }

    #[test]
    fn a_failure_can_be_lived_with_by_name() {
        let mut checks = judge(&Probe { memory: 1, taken_ports: vec![10256], ..good() });
        ignore(&mut checks, &["memory".into()]);
        assert_eq!(count(&checks), (1, 1));
        assert!(human(&checks).contains("1 failed, 1 warnings"));
    }
}
