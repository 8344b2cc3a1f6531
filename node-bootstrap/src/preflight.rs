//! Can this machine be a node? Named checks, made before anything is written: the agent's face of the list in node-linux, of which `doctor` and
//! `up` on the platform's own machine are another.
//!
//! Reading is one thing ([`Probe::of_machine`]), judging another ([`judge`]): the table of judgements is tested without a machine.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use node_linux::cgroup::Cgroups;
use node_linux::resources::{self, DiskNeeds, Space};
use node_linux::{Verdict, resolver, storage, surroundings, system};
use node_protocol::{Check, CheckStatus, port};

use crate::enroll::node_name;
use crate::{kubelet, machine};

/// The oldest kernel whose nftables carries kube-proxy ("kube-proxy's nftables mode", Kubernetes' documentation).
const KERNEL: (u32, u32) = (5, 13);

/// The programs that the agent and what it starts call.
const PROGRAMS: [&str; 3] = ["nft", "ip", "mount"];

/// Where the state lies, as people are told of it.
const STATE: &str = "/var/lib/pilothouse-node";

const GIB: u64 = 1 << 30;
const DISK: DiskNeeds<'_> = DiskNeeds {
    least: 2 * GIB,
    remedy: "free at least 2 GiB below /var/lib/pilothouse-node",
    ample: 5 * GIB,
    ample_percent: 15,
    consequence: "kubelet will evict pods",
    advice: "free 5 GiB and 15 %, or kubelet will evict pods",
};

/// What was read off the machine.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Running as root.
    pub root: bool,
    /// The architecture, in Kubernetes' words.
    pub arch: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether cgroups can bound pods.
    pub cgroups: node_linux::Check,
    /// Whether overlayfs can be mounted.
    pub overlay: node_linux::Check,
    /// Programs that are missing.
    pub missing_programs: Vec<String>,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Room where the state lies.
    pub disk: Option<Space>,
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
            kernel: facts.kernel,
            cgroups: system::cgroups(&Cgroups::detect(), false),
            overlay: system::overlayfs_here(),
            missing_programs: PROGRAMS
                .into_iter()
                .filter(|name| !system::has_program(name))
                .map(str::to_owned)
                .collect(),
            cpus: facts.cpus,
            memory: facts.memory_bytes,
            disk: Space::of(state),
            hostname: facts.hostname,
            machine_id: facts.machine_id,
            clock: system::seconds_since_1970(),
            swap: resources::swap_is_on(),
            taken_ports: port::NODE
                .into_iter()
                .filter(|port| surroundings::is_taken((Ipv4Addr::UNSPECIFIED, *port).into()))
                .collect(),
            other_node: surroundings::find_other_node(),
            addresses: machine::addresses(),
            inotify_instances: resources::inotify_instances(),
            resolver: kubelet::resolver(root),
            storage: storage::storage("storage", &state.join("containerd")),
        }
    }
}

/// A check as the agent reports it.
fn on_the_wire(check: node_linux::Check) -> Check {
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
    list(probe).into_iter().map(on_the_wire).collect()
}

fn list(probe: &Probe) -> Vec<node_linux::Check> {
    vec![
        system::root_of(probe.root, "", "run it with sudo"),
        system::architecture(&probe.arch),
        system::kernel(&probe.kernel, KERNEL, "kube-proxy's nftables mode"),
        probe.cgroups.clone(),
        probe.overlay.clone(),
        system::programs(&probe.missing_programs, "apt-get install nftables iproute2 mount"),
        probe.storage.clone(),
        resources::processors(probe.cpus),
        resources::memory(probe.memory),
        resources::disk(Path::new(STATE), probe.disk, &DISK),
        resources::swap(probe.swap),
        resources::inotify(probe.inotify_instances),
        surroundings::hostname(&probe.hostname, &node_name("", &probe.hostname)),
        surroundings::machine_id(&probe.machine_id),
        system::clock(probe.clock),
        surroundings::ports(&probe.taken_ports),
        surroundings::other_node(probe.other_node.as_deref()),
        resolver::check("resolver", &probe.resolver),
        surroundings::addresses(&probe.addresses),
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

    fn space(free: u64, total: u64) -> Option<Space> {
        Some(Space { free: free * GIB, total: total * GIB })
    }

    fn good() -> Probe {
        Probe {
            root: true,
            arch: "amd64".into(),
            kernel: "6.1.0-13-cloud-amd64".into(),
            cgroups: node_linux::Check::pass("cgroups", "v2"),
            overlay: node_linux::Check::pass("overlayfs", ""),
            missing_programs: Vec::new(),
            cpus: 2,
            memory: 2 * GIB,
            disk: space(20, 40),
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
            ("cgroups", CheckStatus::Fail, |p| p.cgroups = node_linux::Check::fail("cgroups", "", "mount it")),
            ("overlayfs", CheckStatus::Fail, |p| {
                p.overlay = node_linux::Check::fail("overlayfs", "", "use another kernel")
            }),
            ("programs", CheckStatus::Fail, |p| p.missing_programs = vec!["nft".into()]),
            ("memory", CheckStatus::Fail, |p| p.memory = GIB / 2),
            ("disk", CheckStatus::Fail, |p| p.disk = space(1, 40)),
            ("disk", CheckStatus::Warn, |p| p.disk = space(5, 100)),
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
