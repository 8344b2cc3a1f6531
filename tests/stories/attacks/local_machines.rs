//! Attacks on a running platform: local machines. A tenant's admin makes a privileged pod on one and reaches for the platform's own machine.
//!
//! Where the kernel isolates machines, nothing of it succeeds. Where it does not, the gate is the wall: whoever is no admin gets no
//! kubeconfig with which such a pod could be made. The story begins there, and goes on with the machine that was made without isolation.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::world::{NO_SPARES, World, fails, ok, text, until};

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// An address of the operator's network; documentation addresses (RFC 5737) count as the internet, so it is closed only because this
/// machine is in that network.
const OPERATOR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// Kernel values that an attack may change; they are as they were at the end, also of a story that fails.
struct Kernel(String);

impl Kernel {
    fn now() -> Self {
        Self(core_pattern())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if core_pattern() != self.0 {
            std::fs::write(CORE_PATTERN, &self.0).ok();
        }
    }
}

fn core_pattern() -> String {
    std::fs::read_to_string(CORE_PATTERN).unwrap_or_default()
}

/// A network that this machine is in, with a server of the operator's.
struct Network {
    name: String,
    server: TcpListener,
}

impl Network {
    fn new() -> Self {
        let name = format!("phlan{}", std::process::id() % 10000);
        let wire = format!("{name}o");
        let ip = |line: &str| ok(Command::new("ip").args(line.split(' ')));
        ip(&format!("netns add {name}"));
        ip(&format!("link add {wire} type veth peer name eth0 netns {name}"));
        ip(&format!("address add 203.0.113.1/30 dev {wire}"));
        ip(&format!("link set {wire} up"));
        ip(&format!("-n {name} address add {OPERATOR}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} route add default via 203.0.113.1"));
        let space = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
        let listen = move || {
            setns(space, CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind("0.0.0.0:0").unwrap()
        };
        Self { name, server: std::thread::spawn(listen).join().unwrap() }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The wire goes with it.
        Command::new("ip").args(["netns", "delete", &self.name]).output().ok();
    }
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

#[test]
fn story_attack_local_machines() {
    let trusted = [&NO_SPARES[..], &["--local-machines", "trusted"]].concat();
    let Some(mut world) = World::up_with("attacklocal", &trusted) else { return };
    assert_eq!(world.field("local_machines"), "trusted");
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let begun = Instant::now();
    ok(&mut world.user(&["pool", "create", "web", "--cluster", "demo", "--kind", "local", "--count", "1", "--wait"]));
    eprintln!("a trusted machine was ready after {} ms", begun.elapsed().as_millis());
    let editor = ok(&mut world.user(&["token", "create", "editor", "--role", "editor", "-q"]));
    gate(&world, editor.trim());

    // The process ends and another begins: machines go on meanwhile.
    kill(Pid::from_raw(world.ready["pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
    until("the platform to end", || {
        let ready = world.dir.join("run/ready.json");
        if ready.exists() { Err(format!("{} is there", ready.display())) } else { Ok(()) }
    });
    world.tell(&NO_SPARES);
    world.start();
    if world.field("local_machines") != "isolated" {
        eprintln!("NOT RUN: the attacks from isolated machines: this kernel isolates none");
        return world.down();
    }
    ok(&mut issue(&world, editor.trim(), "edit"));
    let network = Network::new();
    replaces_the_old_machine(&world);
    let kubeconfig = world.kubeconfig("demo");
    ordinary_pods_work(&world, &kubeconfig);
    attack(&world, &kubeconfig, &network);
    doctor_sees_it(&world);
    world.down();
}

fn issue(world: &World, token: &str, role: &str) -> Command {
    let mut command = world.user(&["kubeconfig", "demo", "--role", role]);
    command.env("PILOTHOUSE_TOKEN", token);
    command
}

/// Editors get no more than `view` beside machines that share the kernel.
fn gate(world: &World, editor: &str) {
    for role in ["edit", "admin"] {
        let (_, said) = fails(&mut issue(world, editor, role));
        assert!(said.contains("share the kernel"), "{said}");
    }
    ok(&mut issue(world, editor, "view"));
}

fn nodes(world: &World) -> Vec<Value> {
    let list = ok(&mut world.user(&["node", "list", "--cluster", "demo", "-o", "json"]));
    serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().clone()
}

/// The machine of before does not run, its node says why and what to do, and that does it.
fn replaces_the_old_machine(world: &World) {
    let old = until("the old machine's end to be told", || {
        let nodes = nodes(world);
        let told = nodes[0].to_string().contains("was made without isolation");
        if told { Ok(nodes[0]["name"].as_str().unwrap().to_owned()) } else { Err(nodes[0].to_string()) }
    });
    let begun = Instant::now();
    ok(&mut world.user(&["node", "remove", &old, "--cluster", "demo", "--yes", "--force", "--wait"]));
    eprintln!("the old machine's node was removed after {} ms", begun.elapsed().as_millis());
    let begun = Instant::now();
    ok(&mut world.user(&["pool", "scale", "web", "--count", "2", "--cluster", "demo", "--wait"]));
    eprintln!("two isolated machines were ready after {} ms", begun.elapsed().as_millis());
    assert!(nodes(world).iter().all(|node| node["name"] != old.as_str()), "{old} is still there");
}

/// The address of each machine, by its node's name.
fn machines(world: &World) -> Vec<(String, Ipv4Addr)> {
    let dirs = std::fs::read_dir(world.dir.join("machines")).unwrap().flatten();
    let specs = dirs.map(|dir| -> Value {
        serde_json::from_slice(&std::fs::read(dir.path().join("machine.json")).unwrap()).unwrap()
    });
    let text = |spec: &Value, name: &str| spec[name].as_str().unwrap().to_owned();
    specs.map(|spec| (text(&spec, "name"), text(&spec, "address").parse().unwrap())).collect()
}

/// What every tenant does: ordinary pods run where CoreDNS does (there is no pod network between machines), resolve names and reach a
/// service.
fn ordinary_pods_work(world: &World, kubeconfig: &Path) {
    // The one of the machine that is gone counts as running until Kubernetes collects it, after 40 s.
    let all = ["delete", "pod", "-n", "kube-system", "-l", "k8s-app=kube-dns", "--force", "--grace-period=0"];
    ok(&mut world.kubectl(kubeconfig, &all));
    let dns = world.pod(kubeconfig, "kube-system", "k8s-app=kube-dns");
    let place = ["get", "pod", "-n", "kube-system", &dns, "-o", "jsonpath={.spec.nodeName}"];
    let beside = json!({ "nodeName": ok(&mut world.kubectl(kubeconfig, &place)) });
    let serve = json!({ "command": ["sh", "-c", "echo served > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"] });
    world.sleeper(kubeconfig, "server", (beside.clone(), serve));
    ok(&mut world.kubectl(kubeconfig, &["expose", "pod", "server", "--port", "80", "--target-port", "8080"]));
    world.sleeper(kubeconfig, "ordinary", (beside, json!({})));
    for (line, expected) in [
        ("nslookup kubernetes.default.svc.cluster.local", "10.96.0.1"),
        ("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 server.default.svc.cluster.local 80", "served"),
        ("nc -w 2 kubernetes.default.svc.cluster.local 443 -e true && echo open", "open"),
    ] {
        until(line, || {
            let output = world.kubectl(kubeconfig, &["exec", "ordinary", "--", "sh", "-c", line]).output().unwrap();
            let seen = text(&output.stdout) + text(&output.stderr).as_str();
            if seen.contains(expected) { Ok(()) } else { Err(seen) }
        });
    }
}

fn attack(world: &World, kubeconfig: &Path, network: &Network) {
    let kernel = Kernel::now();
    let machines = machines(world);
    let [(from, _), (_, other)] = &machines[..] else { panic!("two machines: {machines:?}") };
    let privileged = json!({ "securityContext": { "privileged": true } });
    let whole = json!({ "nodeName": from, "hostPID": true, "hostNetwork": true });
    world.sleeper(kubeconfig, "attacker", (whole, privileged));
    let listener = TcpListener::bind("[::]:0").unwrap();
    let targets = Targets {
        gateway: world.field("gateway").parse().unwrap(),
        listener: port(&listener),
        operator: SocketAddr::new(OPERATOR.into(), port(&network.server)),
        other: SocketAddr::new((*other).into(), 10250),
    };
    // What nobody could reach would prove nothing.
    for open in [targets.operator, targets.other] {
        TcpStream::connect_timeout(&open, Duration::from_secs(5)).unwrap();
    }
    let outcome = text(&exec(world, kubeconfig, &targets.script()));
    assert_eq!(core_pattern(), kernel.0, "the kernel's own value: {outcome}");
    let lines: Vec<&str> = outcome.lines().collect();
    for wanted in ["began", "fresh-proc", "machine-namespaces", "reached-gateway", "ended"] {
        assert!(lines.contains(&wanted), "{wanted} is missing: {outcome}");
    }
    let done: Vec<&&str> = lines.iter().filter(|line| line.starts_with("DONE")).collect();
    assert!(done.is_empty(), "{done:?} in: {outcome}");
    takes_no_traffic(world, kubeconfig, *other);
}

/// Frames under another machine's MAC address, and ARP answers for its IP address: python3 is in the machines' Debian tree.
const SPOOF: &str = "import socket, struct, sys, time
ip, gateway = (socket.inet_aton(one) for one in sys.argv[1:3])
victim, bridge = b'\\x02\\x01' + ip, b'\\x02\\x00' + gateway
own = bytes.fromhex(open('/sys/class/net/eth0/address').read().strip().replace(':', ''))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('eth0', 0))
answer = struct.pack('!HHBBH', 1, 0x800, 6, 4, 2) + own + ip + bridge + gateway
for _ in range(200):
    wire.send(bridge + victim + b'\\x88\\xb5' + bytes(46))
    wire.send(bridge + own + b'\\x08\\x06' + answer + bytes(18))
    time.sleep(0.005)
print('sent')";

/// The bridge goes on sending another machine's traffic to that machine, whatever root of this one sends in its name.
fn takes_no_traffic(world: &World, kubeconfig: &Path, victim: Ipv4Addr) {
    let spec =
        |dir: PathBuf| -> Value { serde_json::from_slice(&std::fs::read(dir.join("machine.json")).unwrap()).unwrap() };
    let specs = std::fs::read_dir(world.dir.join("machines")).unwrap().map(|dir| spec(dir.unwrap().path()));
    let spec = specs.into_iter().find(|spec| spec["address"] == victim.to_string()).unwrap();
    let name = |field: &str| spec[field].as_str().unwrap().to_owned();
    let [a, b, c, d] = victim.octets();
    let mac = format!("02:01:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let script = format!("nsenter -t 1 -m -p -n -- python3 -c \"{SPOOF}\" {victim} {}", name("gateway"));
    let sent = text(&exec(world, kubeconfig, &script));
    assert!(sent.contains("sent"), "{sent}");
    let ports = ok(Command::new("bridge").args(["fdb", "show", "br", &name("bridge")]));
    let port = ports.lines().find(|line| line.starts_with(&mac)).unwrap_or_default();
    assert!(port.contains(&format!("dev {} ", name("wire"))), "{mac} is at: {ports}");
    let neighbors = ok(Command::new("ip").args(["neighbor", "show", &victim.to_string(), "dev", &name("bridge")]));
    assert!(neighbors.contains(&mac) && neighbors.contains("PERMANENT"), "{neighbors}");
}

fn exec(world: &World, kubeconfig: &Path, script: &str) -> Vec<u8> {
    let output = world.kubectl(kubeconfig, &["exec", "attacker", "--", "sh", "-c", script]).output().unwrap();
    [output.stdout, output.stderr].concat()
}

/// What the attacker dials.
struct Targets {
    gateway: SocketAddr,
    /// A port of this machine on which somebody listens, at every address.
    listener: u16,
    operator: SocketAddr,
    /// Another machine's kubelet.
    other: SocketAddr,
}

impl Targets {
    /// Every attack; what succeeds says `DONE`.
    fn script(&self) -> String {
        let device = std::fs::metadata("/").unwrap().dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let reach = |to: SocketAddr| format!("reach {} {}", to.ip(), to.port());
        let (gateway, operator, other) = (reach(self.gateway), reach(self.operator), reach(self.other));
        let (address, listener) = (self.gateway.ip(), self.listener);
        format!(
            "echo began; mkdir -p /p /s; mount -t proc proc /p && echo fresh-proc; mount -t sysfs sysfs /s
            echo '|/bin/false' > /p/sys/kernel/core_pattern && echo DONE core_pattern
            echo 1 > /p/sys/kernel/panic && echo DONE panic
            echo h > /p/sysrq-trigger && echo DONE sysrq
            mknod /disk b {major} {minor} && echo DONE disk; mknod /mem c 1 1 && echo DONE mem
            for to in /proc/1/root /; do ls $to/var/lib/pilothouse && echo DONE platform through $to; done
            for pid in /p/[0-9]*; do grep -qsx pilothouse $pid/comm && echo DONE saw the platform as $pid; done
            nsenter -t 1 -m -p -n -- sh -c \"echo machine-namespaces; echo '|/bin/false' > {CORE_PATTERN}\" && echo DONE as the agent
            reach() {{ nc -w 2 $1 $2 -e true; }}
            {gateway} && echo reached-gateway
            reach {address} {listener} && echo DONE a listener of this machine
            gw=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')
            reach $gw {listener} && echo DONE a listener by the bridge
            {operator} && echo DONE the network of the operator
            {other} && echo DONE another machine
            ip route add {other_ip} via $gw && {other} && echo DONE another machine by the bridge
            reach 169.254.169.254 80 && echo DONE metadata
            echo ended",
            other_ip = self.other.ip()
        )
    }
}

fn doctor_sees_it(world: &World) {
    let output = world.command(&["doctor", "--output", "json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = all["checks"].as_array().unwrap().iter().find(|check| check["id"] == "local-machines").unwrap();
    eprintln!("doctor: {check}");
    assert_eq!(check["status"], "pass", "{check}");
    assert!(check["observed"].as_str().unwrap().contains("from 2 of 2 machines all failed"), "{check}");
}
