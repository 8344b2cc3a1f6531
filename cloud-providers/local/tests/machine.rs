//! Real machines on this kernel: namespaces, overlay, wire, stop, start, removal, and nothing left behind.
//!
//! The tree is the machine's own, seen through an overlay; in the agent's place stands a script, because what is tested here
//! is the machine around it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by stopping there")]

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cloud_local::{Local, LocalConfig, Network, Ranges};
use cloud_providers::{JoinMaterial, MachineRequest, MachineState, Provider, Removal};

/// Says what it sees, then waits for its end as an agent would.
const AGENT: &str = "#!/bin/bash
echo began >> /starts
{ echo pid $$; hostname; ip -4 -o address show dev eth0; cat /etc/pilothouse/join.json; echo; touch /var/lib/pilothouse-node/kept
  for part in /var/cache/pilothouse/seed /usr/local/bin/pilothouse-node; do mount -o remount,bind,rw $part; done
  { echo >> /var/cache/pilothouse/seed/agent || echo >> /usr/local/bin/pilothouse-node; } 2>/dev/null && echo parts-writable
  [ -w /sys/kernel ] && echo sys-writable; cat /proc/sys/vm/overcommit_memory; if [ -d /sys/fs/cgroup/unified ]; then cd /sys/fs/cgroup/unified; else cd /sys/fs/cgroup; fi
  mkdir inner && rmdir inner && echo cgroups; echo end; } > /report 2>&1
trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done
";

/// Of the highest slot, which no instance of a test machine has.
const RANGES: Ranges = Ranges::of_slot(64);

/// As root in the machine, does what would be root outside. DISK, GATEWAY, LISTENER and HOST are filled in.
const ATTACKER: &str = "#!/bin/bash
reach() { timeout 2 bash -c \"exec 3<>/dev/tcp/$1/$2\" && echo reached-$3; }
{ echo user $(id -u) of $(cat /proc/self/uid_map)
  mkdir /p /s /d; mount -t proc proc /p && echo fresh-proc
  echo '|/bin/false' > /p/sys/kernel/core_pattern && echo wrote-core-pattern
  echo 1 > /p/sys/vm/drop_caches && echo wrote-drop-caches
  echo h > /p/sysrq-trigger && echo wrote-sysrq
  mount -t sysfs sysfs /s && echo fresh-sysfs
  echo 0 > /s/module/overlay/parameters/metacopy && echo wrote-sysfs
  mknod /d/disk b DISK && echo made-disk; mknod /d/null c 1 3 && echo made-null
  head -c1 /dev/kmsg && echo read-kernel-log; dmesg | head -c1 | grep -q . && echo read-dmesg
  mount -o remount,bind,rw /var/cache/pilothouse/seed && echo remounted
  echo x >> /var/cache/pilothouse/seed/agent && echo wrote-seed
  touch /usr/local/bin/pilothouse-node && echo touched-agent
  head -c1 /proc/1/root/proc/self/status >/dev/null; nsenter -t 1 -m true && echo entered-itself
  mount -t tmpfs none /mnt && echo mounted-tmpfs; unshare -m true && echo unshared
  grep CapBnd /proc/self/status; grep Seccomp: /proc/self/status
  reach 100.127.NUMBER.1 GATEWAY gateway; reach 100.127.NUMBER.1 LISTENER listener; reach HOST LISTENER host-listener
  touch /var/lib/pilothouse-node/kept && stat -c 'kept %u' /var/lib/pilothouse-node/kept
  if [ -d /sys/fs/cgroup/unified ]; then cd /sys/fs/cgroup/unified; else cd /sys/fs/cgroup; fi
  mkdir inner && rmdir inner && echo cgroups; echo end
} > /report 2>&1
trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done
";

struct World {
    provider: Local,
    config: LocalConfig,
    dir: tempfile::TempDir,
    cgroup: String,
    bridge: String,
    table: String,
}

fn launcher() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/launcher")
}

impl World {
    fn new(number: u8) -> Option<Self> {
        Self::made(number, AGENT, None)
    }

    /// With user namespaces; machines reach this port of the bridge's address, and no other.
    fn isolated(number: u8, agent: &str, port: u16) -> Option<Self> {
        Self::made(number, agent, Some(SocketAddrV4::new(Ipv4Addr::new(100, 127, number, 1), port)))
    }

    fn made(number: u8, script: &str, only: Option<SocketAddrV4>) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir_all(dir.path().join("seed")).unwrap();
        let agent = dir.path().join("seed/agent");
        std::fs::write(&agent, script).unwrap();
        std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
        let subnet = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(100, 127, number, 0), 28);
        let cgroup = format!("pilothouse-test-{}-{number}", std::process::id());
        let (bridge, table) = (format!("phtbr{number}"), format!("pilothouse_test_{number}"));
        let config = LocalConfig {
            dir: dir.path().join("machines"),
            lower: PathBuf::from("/"),
            seed: dir.path().join("seed"),
            agent,
            launcher: launcher(),
            cgroup: cgroup.clone(),
            wire: format!("pht{number}"),
            users: only.map(|_| RANGES),
            closed: None,
            network: Network { bridge: bridge.clone(), subnet, table: table.clone(), only },
        };
        Some(Self { provider: Local::new(config.clone()), config, dir, cgroup, bridge, table })
    }

    fn request(&self, id: &str) -> MachineRequest {
        let join = JoinMaterial {
            server: "s".into(),
            domain: "d".into(),
            ca_pem: "c".into(),
            signing_key: "k".into(),
            token: "t-secret".to_owned().into(),
        };
        MachineRequest {
            id: id.to_owned(),
            name: "web-1".into(),
            cluster: "cls_x".into(),
            join,
            user_data: String::new(),
        }
    }

    /// Waits for what the script wrote.
    async fn report(&self, id: &str) -> String {
        let path = self.dir.path().join("machines").join(id).join("upper/report");
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.lines().any(|line| line == "end") {
                return text;
            }
            let console = std::fs::read_to_string(path.parent().unwrap().parent().unwrap().join("console.log"))
                .unwrap_or_default();
            assert!(Instant::now() < end, "no report: {text}\nconsole: {console}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for World {
    /// Whatever a failed test left running ends here; only this world's own.
    fn drop(&mut self) {
        for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            std::fs::write(Path::new(root).join(&self.cgroup).join("cgroup.kill"), "1").ok();
        }
        Command::new("ip").args(["link", "delete", &self.bridge]).output().ok();
        for family in ["ip", "ip6"] {
            Command::new("nft").args(["delete", "table", family, &self.table]).output().ok();
        }
    }
}

fn exists(argv: &[&str]) -> bool {
    Command::new(argv[0]).args(&argv[1..]).output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_lives_stops_starts_and_leaves_nothing() {
    let Some(world) = World::new(1) else { return };
    let request = world.request("nod_a");
    let made = world.provider.ensure(&request).await.unwrap();
    assert_eq!(made.address.as_deref(), Some("100.127.1.2"));
    let report = world.report("nod_a").await;
    assert!(report.starts_with("pid 1\nweb-1\n"), "{report}");
    assert!(report.contains("100.127.1.2/28") && report.contains("t-secret") && report.contains("\n1\n"), "{report}");
    assert!(!report.contains("sys-writable") && !report.contains("parts-writable"), "{report}");
    assert_eq!(std::fs::read_to_string(world.dir.path().join("seed/agent")).unwrap(), AGENT);
    let twice = world.provider.ensure(&request).await.unwrap();
    assert_eq!((twice.address, world.provider.list().await.unwrap().len()), (made.address, 1));

    world.provider.stop("nod_a").await.unwrap();
    assert_eq!(world.provider.get("nod_a").await.unwrap().unwrap().state, MachineState::Stopped);
    std::fs::remove_file(world.dir.path().join("machines/nod_a/upper/report")).unwrap();
    world.provider.start("nod_a").await.unwrap();
    world.report("nod_a").await;
    assert!(world.dir.path().join("machines/nod_a/state/kept").exists(), "the disk outlives a stop");

    let mac = || std::fs::read_to_string("/sys/class/net/phtbr1/address").unwrap();
    let known = mac();
    assert_eq!(world.provider.remove("nod_a").await.unwrap(), Removal::Gone);
    assert_eq!(world.provider.remove("nod_a").await.unwrap(), Removal::Gone);
    assert_eq!(mac(), known, "other machines know their way out by it");
    assert!(world.provider.get("nod_a").await.unwrap().is_none());
    world.provider.dismantle().await;
    assert!(
        !exists(&["ip", "link", "show", "phtbr1"]) && !exists(&["nft", "list", "table", "ip", "pilothouse_test_1"])
    );
    assert!(
        !Path::new("/sys/fs/cgroup/unified")
            .join(format!("pilothouse-test-{}-1", std::process::id()))
            .join("nod_a")
            .exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_twice_at_once_it_begins_once() {
    let Some(world) = World::new(3) else { return };
    let request = world.request("nod_a");
    world.provider.ensure(&request).await.unwrap();
    world.provider.ensure(&request).await.unwrap();
    world.report("nod_a").await;
    let starts = std::fs::read_to_string(world.dir.path().join("machines/nod_a/upper/starts")).unwrap();
    assert_eq!(starts.lines().count(), 1, "{starts}");
    world.provider.remove("nod_a").await.unwrap();
    world.provider.dismantle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_begin_says_so_and_goes() {
    let Some(world) = World::new(4) else { return };
    std::fs::remove_file(world.dir.path().join("seed/agent")).unwrap();
    std::fs::remove_dir(world.dir.path().join("seed")).unwrap();
    let outcome = world.provider.ensure(&world.request("nod_a")).await;
    // It ends before it is seen, or right after; either way it is known and can be removed.
    let ended = async {
        while !matches!(world.provider.get("nod_a").await.unwrap().unwrap().state, MachineState::Failed(_)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap_or_else(|_| panic!("{outcome:?}"));
    assert_eq!(world.provider.remove("nod_a").await.unwrap(), Removal::Gone);
    // A creation that broke off before the machine was written down: its secret goes too.
    let half = world.dir.path().join("machines/nod_b");
    std::fs::create_dir_all(half.join("upper/etc/pilothouse")).unwrap();
    std::fs::write(half.join("upper/etc/pilothouse/join.json"), "t-secret").unwrap();
    assert_eq!(world.provider.remove("nod_b").await.unwrap(), Removal::Gone);
    assert_eq!(std::fs::read_dir(world.dir.path().join("machines")).unwrap().count(), 0);
    world.provider.dismantle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_found_again_by_another_process() {
    let Some(world) = World::new(2) else { return };
    for id in ["nod_a", "nod_b"] {
        world.provider.ensure(&world.request(id)).await.unwrap();
        world.report(id).await;
    }
    let addresses: Vec<_> =
        world.provider.list().await.unwrap().into_iter().map(|machine| (machine.address, machine.state)).collect();
    assert!(addresses.iter().all(|(_, state)| *state == MachineState::Running));
    assert_ne!(addresses[0].0, addresses[1].0);
    for id in ["nod_a", "nod_b"] {
        assert_eq!(world.provider.remove(id).await.unwrap(), Removal::Gone);
    }
    world.provider.dismantle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_ends_again_and_again_waits_and_says_why() {
    let Some(world) = World::new(5) else { return };
    std::fs::write(world.dir.path().join("seed/agent"), "#!/bin/bash\necho no disk >&2\nexit 3\n").unwrap();
    let _ = world.provider.ensure(&world.request("nod_a")).await;
    let mut told = None;
    for _ in 0..4 {
        while world.provider.get("nod_a").await.unwrap().unwrap().state == MachineState::Running {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        told = world.provider.start("nod_a").await.err().filter(|error| error.message.contains("by itself"));
    }
    let told = told.unwrap();
    assert!(told.message.contains("3 times") && told.message.contains("no disk"), "{told:?}");
    world.provider.halt("nod_a").await.unwrap();
    let after = world.provider.start("nod_a").await.err();
    assert!(!after.is_some_and(|error| error.message.contains("by itself")), "halted on purpose: forgiven");
    world.provider.remove("nod_a").await.unwrap();
    world.provider.dismantle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unreadable_machine_stops_nobody_else_and_can_be_removed() {
    let Some(world) = World::new(6) else { return };
    for id in ["nod_a", "nod_b"] {
        world.provider.ensure(&world.request(id)).await.unwrap();
        world.report(id).await;
    }
    std::fs::write(world.dir.path().join("machines/nod_a/machine.json"), "{\"id\": ").unwrap();
    let listed = world.provider.list().await.unwrap();
    assert_eq!(listed.iter().map(|machine| machine.id.as_str()).collect::<Vec<_>>(), ["nod_b"]);
    assert!(world.provider.get("nod_a").await.is_err(), "unknown is not absent");
    let refused = world.provider.ensure(&world.request("nod_c")).await.unwrap_err();
    assert!(refused.message.contains("nod_a/machine.json"), "it might get nod_a's address: {refused:?}");
    for id in ["nod_a", "nod_b"] {
        assert_eq!(world.provider.remove(id).await.unwrap(), Removal::Gone);
    }
    let left = std::fs::read_dir(world.dir.path().join("machines")).unwrap().count();
    assert_eq!((left, cgroups(&world, "nod_a")), (0, false));
    world.provider.dismantle().await;
}

/// Whether a machine has cgroups still.
fn cgroups(world: &World, id: &str) -> bool {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    roots.iter().any(|root| Path::new(root).join(&world.cgroup).join(id).exists())
}

/// The address by which this machine would reach others.
fn own_address() -> Ipv4Addr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let chosen = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr());
    match chosen.map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

/// Major and minor number of the disk under the root directory, as mknod(1) takes them.
fn disk() -> String {
    let device = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata("/").unwrap());
    format!("{} {}", nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

#[tokio::test(flavor = "multi_thread")]
async fn root_of_an_isolated_machine_is_nobody_outside() {
    let (gateway, listener) = (TcpListener::bind("0.0.0.0:0").unwrap(), TcpListener::bind("0.0.0.0:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let script = ATTACKER.replace("DISK", &disk()).replace("NUMBER", "7").replace("HOST", &own_address().to_string());
    let script =
        script.replace("GATEWAY", &port(&gateway).to_string()).replace("LISTENER", &port(&listener).to_string());
    let Some(world) = World::isolated(7, &script, port(&gateway)) else { return };
    let begun = Instant::now();
    let tried = world.provider.try_isolation(RANGES).await;
    eprintln!("isolation was tried in {} ms", begun.elapsed().as_millis());
    if let Err(error) = tried {
        eprintln!("NOT RUN: this kernel isolates no machines: {error}");
        return world.provider.dismantle().await;
    }
    let pattern = || std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = pattern();
    world.provider.ensure(&world.request("nod_a")).await.unwrap();
    let report = world.report("nod_a").await;
    if pattern() != before {
        std::fs::write("/proc/sys/kernel/core_pattern", &before).unwrap();
        panic!("core_pattern was written:\n{report}");
    }
    let seen: Vec<&str> = report.lines().filter(|line| !line.contains(": ")).collect();
    for wanted in ["fresh-proc", "mounted-tmpfs", "unshared", "reached-gateway", "kept 0", "cgroups"] {
        assert!(seen.contains(&wanted), "a machine can do that, {wanted}:\n{report}");
    }
    let forbidden = ["wrote-", "made-", "read-", "remounted", "touched-", "reached-listener", "reached-host"];
    let done: Vec<&&str> = seen.iter().filter(|line| forbidden.iter().any(|word| line.starts_with(word))).collect();
    assert!(done.is_empty(), "{done:?} in:\n{report}");
    // The first range of slot 64.
    let ids = format!("user 0 of 0 {} 65536", 0x7100_0000_u32 + 64 * 59 * 65536);
    assert!(report.contains("Seccomp:\t2") && report.contains(&ids), "{report}");
    let kept = std::fs::metadata(world.dir.path().join("machines/nod_a/state/kept")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::uid(&kept) >= 0x7100_0000, "its root's files are of a range of its own");
    assert!(world.provider.remove("nod_a").await.is_ok());
    world.provider.dismantle().await;
}

#[tokio::test]
async fn rules_that_somebody_changed_are_put_back() {
    let Some(world) = World::isolated(12, AGENT, 1) else { return };
    let network = &world.config.network;
    network.ensure().await.unwrap();
    let mut applied = network.apply_rules().await.unwrap();
    let nft = |argv: &[&str]| Command::new("nft").args(argv).output().unwrap();
    let listed = || ["ip", "ip6"].map(|family| nft(&["--stateless", "list", "table", family, &world.table]).stdout);
    let whole = listed();
    assert!(whole.iter().all(|table| !table.is_empty()));
    let changes: &[&[&str]] = &[
        &["delete", "table", "ip", &world.table],
        &["delete", "table", "ip6", &world.table],
        &["flush", "chain", "ip", &world.table, "forward"],
        &["insert", "rule", "ip6", &world.table, "forward", "accept"],
    ];
    for change in changes {
        assert!(nft(change).status.success(), "{change:?}");
        assert_ne!(listed(), whole, "{change:?}");
        applied = network.keep_rules(&applied).await.unwrap();
        assert_eq!(listed(), whole, "{change:?}");
    }
    network.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_isolation_does_not_start_where_it_is_the_rule() {
    let Some(world) = World::new(8) else { return };
    world.provider.ensure(&world.request("nod_a")).await.unwrap();
    world.report("nod_a").await;
    let strict = Local::new(LocalConfig { users: Some(RANGES), ..world.config.clone() });
    strict.end_unisolated().await.unwrap();
    assert!(matches!(strict.get("nod_a").await.unwrap().unwrap().state, MachineState::Failed(_)));
    // However often it is tried: its console has nothing to say of it.
    for _ in 0..5 {
        let refused = strict.start("nod_a").await.unwrap_err();
        assert!(refused.message.contains("without isolation") && refused.remediation.contains("remove"), "{refused:?}");
    }
    assert_eq!(strict.remove("nod_a").await.unwrap(), Removal::Gone);
    strict.dismantle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_isolated_the_trial_says_why() {
    let Some(world) = World::new(9) else { return };
    // As in a container whose root has no CAP_SYS_ADMIN.
    let weak = world.dir.path().join("weak");
    let script = format!("#!/bin/sh\nexec setpriv --bounding-set=-sys_admin {} \"$@\"\n", launcher().display());
    std::fs::write(&weak, script).unwrap();
    std::fs::set_permissions(&weak, std::fs::Permissions::from_mode(0o755)).unwrap();
    let provider = Local::new(LocalConfig { launcher: weak, ..world.config.clone() });
    let error = provider.try_isolation(RANGES).await.unwrap_err();
    assert!(
        error.message.contains("cannot isolate local machines") && error.message.contains("not permitted"),
        "{error:?}"
    );
    assert!(!world.dir.path().join("isolation-trial").exists() && !cgroups(&world, "isolation-trial"), "all is gone");
    world.provider.dismantle().await;
}

/// Says where it has mounts, and what it sees where nothing should be.
const LOOKS: &str = "#!/bin/bash
{ touch /var/lib/pilothouse-node/kept; ls -A /hidden; cut -d' ' -f5 /proc/self/mountinfo; echo end; } > /report 2>&1
trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done
";

#[tokio::test(flavor = "multi_thread")]
async fn links_that_a_machine_left_lead_nowhere_at_its_next_start() {
    let Some(world) = World::isolated(11, LOOKS, 1) else { return };
    if let Err(error) = world.provider.try_isolation(RANGES).await {
        eprintln!("NOT RUN: this kernel isolates no machines: {error}");
        return world.provider.dismantle().await;
    }
    world.provider.ensure(&world.request("nod_a")).await.unwrap();
    world.report("nod_a").await;
    world.provider.stop("nod_a").await.unwrap();
    // As its root could have left it: the old root would be hidden there, and a decoy taken off in its place.
    let dir = world.dir.path().join("machines/nod_a");
    let (upper, kept) = (dir.join("upper"), std::fs::metadata(dir.join("state/kept")).unwrap());
    let root = Some(std::os::unix::fs::MetadataExt::uid(&kept));
    let own = |path: &Path| std::os::unix::fs::lchown(path, root, root).unwrap();
    for hidden in ["hidden", "root/hidden"] {
        std::fs::create_dir_all(upper.join(hidden)).unwrap();
    }
    let seed = upper.join("var/cache/pilothouse/seed");
    std::fs::remove_dir(&seed).unwrap();
    for (target, link) in [("../root/hidden", upper.join("mnt")), ("../../../root/hidden", seed)] {
        std::fs::remove_dir(&link).ok();
        std::os::unix::fs::symlink(target, &link).unwrap();
        own(&link);
    }
    for path in ["hidden", "root", "root/hidden", "report"] {
        own(&upper.join(path));
    }
    std::fs::remove_file(upper.join("report")).unwrap();
    world.provider.start("nod_a").await.unwrap();
    let report = world.report("nod_a").await;
    assert!(report.starts_with("/\n") && report.contains("/var/cache/pilothouse/seed\n"), "{report}");
    assert!(!report.contains("hidden"), "nothing of the outside is there:\n{report}");
    world.provider.remove("nod_a").await.unwrap();
    world.provider.dismantle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_any_depth_is_removed() {
    let Some(world) = World::new(10) else { return };
    world.provider.ensure(&world.request("nod_a")).await.unwrap();
    world.report("nod_a").await;
    let top = world.dir.path().join("machines/nod_a/upper");
    let mut dir: std::os::fd::OwnedFd = std::fs::File::open(&top).unwrap().into();
    for _ in 0..20_000 {
        nix::sys::stat::mkdirat(&dir, "d", nix::sys::stat::Mode::S_IRWXU).unwrap();
        dir = nix::fcntl::openat(&dir, "d", nix::fcntl::OFlag::O_DIRECTORY, nix::sys::stat::Mode::empty()).unwrap();
    }
    assert_eq!(world.provider.remove("nod_a").await.unwrap(), Removal::Gone);
    assert!(!top.exists());
    world.provider.dismantle().await;
}
