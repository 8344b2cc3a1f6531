//! The guard in a network namespace of its own, with a pod and an outside in namespaces of theirs: real packets, real rules, and nothing of
//! the machine's.

use std::process::{Child, Command, Stdio};

use super::*;
use crate::spec::tests::sample;

const INSIDE: &str = "PILOTHOUSE_TEST_INSIDE";
const API: &str = "198.18.0.1:6443";

fn tool(line: &str) -> bool {
    Command::new("sh").args(["-c", line]).stdin(Stdio::null()).status().unwrap().success()
}

fn must(line: &str) {
    assert!(tool(line), "{line}");
}

/// Runs the named test again as a process in a new network namespace; true in that process. Without root nothing is proven.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT RUN: {name} needs root");
        return false;
    }
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("guard::tests::{name}"), "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A namespace with one end of a wire, held by a process.
struct Neighbor(Child);

impl Neighbor {
    fn new(wire: &str) -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "300"]).spawn().unwrap();
        let pid = child.id();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| namespace == own) {
            std::thread::yield_now();
        }
        must(&format!("ip link add {wire} type veth peer name eth0 netns {pid} && ip link set {wire} up"));
        let neighbor = Self(child);
        neighbor.must("ip link set lo up && ip link set eth0 up");
        neighbor
    }

    fn line(&self, line: &str) -> String {
        format!("nsenter --net=/proc/{}/ns/net sh -c '{line}'", self.0.id())
    }

    fn must(&self, line: &str) {
        must(&self.line(line));
    }

    /// Opens new connections, whether or not anybody answers.
    fn call(&self, to: &str) {
        for _ in 0..EVIDENCE {
            let (address, port) = to.split_once(':').unwrap();
            tool(&self.line(&format!("timeout 0.1 bash -c \"exec 3<>/dev/tcp/{address}/{port}\" 2>/dev/null")));
        }
    }
}

impl Drop for Neighbor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Rig {
    guard: Guard,
    memory: Memory,
    pod: Neighbor,
    _outside: Neighbor,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = sample();
        let layout = Layout::below(dir.path(), &dir.path().join("run"));
        layout.dirs().iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
        let network = Network { api: API.parse().ok(), ..spec.network };
        let addresses = vec!["198.18.0.1".parse().unwrap(), "10.244.3.1".parse().unwrap()];
        must("ip link set lo up");
        let (pod, outside) = (Neighbor::new("pod0"), Neighbor::new("out0"));
        must("ip route add 10.244.3.2 dev pod0 && ip address add 192.0.2.1/24 dev out0");
        pod.must("ip address add 10.244.3.2/32 dev eth0 && ip route add 10.244.3.1 dev eth0 && ip route add default via 10.244.3.1 dev eth0");
        outside.must("ip address add 192.0.2.2/24 dev eth0 && ip route add default via 192.0.2.1");
        network::apply(&network).unwrap();
        addresses.iter().for_each(|address| network::add_address(*address).unwrap());
        let guard = Guard { network, addresses, layout };
        Self { guard, memory: Memory::default(), pod, _outside: outside, dir }
    }

    fn look(&mut self) -> Vec<Check> {
        self.guard.look(&mut self.memory).unwrap()
    }
}

#[test]
fn a_machine_without_a_firewall_is_well() {
    if inside("a_machine_without_a_firewall_is_well") {
        let mut rig = Rig::new();
        assert_eq!(rig.look(), []);
        rig.pod.call("192.0.2.2:80");
        rig.pod.call(API);
        assert_eq!(rig.look(), []);
        let counted = rig.memory.counted;
        assert!(
            counted.forward.0 >= EVIDENCE && counted.forward.0 == counted.forward.1,
            "the counters see: {counted:?}"
        );
        assert!(counted.api.0 >= EVIDENCE && counted.api.0 == counted.api.1, "{counted:?}");
    }
}

#[test]
fn a_forward_policy_of_drop_is_named_until_its_remedy() {
    if inside("a_forward_policy_of_drop_is_named_until_its_remedy") {
        let mut rig = Rig::new();
        // As Docker leaves it.
        must(
            "nft 'add table ip docker; add chain ip docker FORWARD { type filter hook forward priority 0; policy drop; }'",
        );
        assert_eq!(rig.look(), [], "nobody was dropped yet");
        rig.pod.call("192.0.2.2:80");
        let [check] = &rig.look()[..] else { panic!("the drop is named") };
        assert_eq!((check.id.as_str(), check.status()), ("firewall-forward", CheckStatus::Fail));
        assert!(check.observed.contains("chain FORWARD of table ip docker"), "{}", check.observed);
        // What it says to do is done, word for word.
        must(check.remediation.strip_prefix("let them pass: ").unwrap());
        rig.pod.call("192.0.2.2:80");
        assert_eq!(rig.look(), []);
    }
}

#[test]
fn an_input_policy_of_drop_is_named_until_its_remedy() {
    if inside("an_input_policy_of_drop_is_named_until_its_remedy") {
        let mut rig = Rig::new();
        must(
            "nft 'add table inet mine; add chain inet mine input { type filter hook input priority 0; }; add rule inet mine input ct state established accept; add rule inet mine input drop'",
        );
        rig.pod.call(API);
        let [check] = &rig.look()[..] else { panic!("the drop is named") };
        assert_eq!(check.id, "firewall-input");
        assert!(check.observed.contains("cluster's API at 198.18.0.1:6443"), "{}", check.observed);
        must(check.remediation.strip_prefix("let them pass: ").unwrap());
        rig.pod.call(API);
        assert_eq!(rig.look(), []);
    }
}

#[test]
fn what_is_ours_is_put_back() {
    if inside("what_is_ours_is_put_back") {
        let mut rig = Rig::new();
        // A child in kube-proxy's place, with the pid file that its keeper looks at.
        let mut proxy = Command::new("sleep").arg("300").spawn().unwrap();
        let file = rig.guard.layout.pids().join("kube-proxy.json");
        node_linux::files::write_json(&file, &Identity::of(proxy.id(), "").unwrap(), 0o644).unwrap();
        must("nft add table ip kube-proxy");
        assert_eq!(rig.look(), []);
        assert!(proxy.try_wait().unwrap().is_none());
        must("nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward; ip address del 198.18.0.1/32 dev lo");
        assert_eq!(rig.look(), []);
        assert_eq!(std::fs::read_to_string(network::FORWARD).unwrap().trim(), "1");
        assert!(network::tables().unwrap().contains(network::TABLE));
        assert!(network::missing_addresses(&rig.guard.addresses).unwrap().is_empty());
        assert!(!proxy.wait().unwrap().success(), "kube-proxy is started again");
        rig.pod.call("192.0.2.2:80");
        assert_eq!(rig.look(), [], "pods reach the outside again");
        assert!(rig.memory.counted.forward.1 > 0);
        assert!(rig.dir.path().exists());
    }
}

#[test]
fn one_connection_that_passes_ends_a_suspicion() {
    let mut pending = 0;
    count(&mut pending, (0, 0), (2, 0));
    count(&mut pending, (2, 0), (4, 0));
    assert_eq!(pending, 4);
    count(&mut pending, (4, 0), (6, 1));
    assert_eq!(pending, 0);
    // The table was made anew.
    count(&mut pending, (6, 1), (1, 0));
    assert_eq!(pending, 0);
}
