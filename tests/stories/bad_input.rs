//! Bad input is refused with a clear word and the next step, and nothing is changed.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::leftovers::Snapshot;
use crate::scratch::Scratch;
use crate::world::{World, fails, is_root, ok, pilothouse, program, text};

/// What refuses, in a directory of its own.
struct Refusal {
    scratch: Scratch,
    before: Snapshot,
}

impl Refusal {
    fn new(what: &str) -> Self {
        Self {
            scratch: Scratch::new(&format!("refused-{what}{}", std::process::id() % 10000)),
            before: Snapshot::take(),
        }
    }

    fn data(&self) -> PathBuf {
        self.scratch.at("d")
    }

    /// `up` on a data directory that is not there yet.
    fn up(&self, words: &[&str]) -> Command {
        let mut command = pilothouse();
        command.args(["up", "--name", "refused", "--data-dir"]).arg(self.data()).args(words);
        command
    }

    /// No instance came to be: no record, no slot, no mount, no process.
    fn changed_nothing(self) {
        assert!(!self.data().join("instance.json").exists(), "an instance was made");
        self.before.assert_untouched();
        assert!(!Path::new("/run/pilothouse/refused").exists());
    }
}

#[test]
fn story_bad_name() {
    let refusal = Refusal::new("name");
    let mut up = pilothouse();
    up.args(["up", "--name", "Not_A_Label", "--data-dir"]).arg(refusal.data());
    let (_, text) = fails(&mut up);
    assert!(text.contains("not valid") && text.contains("a-z"), "{text}");
    refusal.changed_nothing();
}

/// As behind `| head`, which ends before all was printed.
#[test]
fn story_bad_reader() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = pilothouse().args(["bundle", "list", "--output", "json"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.signal(), text(&output.stderr)), (Some(Signal::SIGPIPE as i32), String::new()));
}

#[test]
fn story_bad_port() {
    if !is_root("port taken") {
        return;
    }
    let refusal = Refusal::new("port");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    for more in [&["--listen", address.as_str()][..], &["--listen", address.as_str(), "--detach"]] {
        let (_, text) = fails(&mut refusal.up(more));
        assert!(text.contains("is the port taken") && text.contains(&address) && text.contains("--listen"), "{text}");
    }
    refusal.changed_nothing();
}

#[test]
fn story_bad_user() {
    if !is_root("not root, by becoming nobody") {
        return;
    }
    let refusal = Refusal::new("user");
    // The checkout may lie where nobody may look.
    let copy = refusal.scratch.at("pilothouse");
    std::fs::copy(env!("CARGO_BIN_EXE_pilothouse"), &copy).unwrap();
    std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    chown(&refusal.scratch.dir, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
    let (uid, gid) = (nobody.uid.to_string(), nobody.gid.to_string());
    for more in [&[][..], &["--detach"]] {
        let mut up = Command::new("setpriv");
        up.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "--"]).arg(&copy).current_dir("/");
        let (_, text) = fails(up.args(["up", "--name", "refused", "--data-dir"]).arg(refusal.data()).args(more));
        assert!(text.contains("not root") && text.contains("sudo") && text.contains("--host-kubeconfig"), "{text}");
        assert!(!refusal.data().exists(), "its directory was made");
    }
    refusal.changed_nothing();
}

#[test]
fn story_bad_directory() {
    let refusal = Refusal::new("dir");
    let data = refusal.data();
    std::fs::create_dir_all(&data).unwrap();
    let record = r#"{"name":"other","slot":0,"listen":"127.0.0.1:1","advertise":"127.0.0.1:1","portal":"127.0.0.1:2","domain":"x"}"#;
    std::fs::write(data.join("instance.json"), record).unwrap();
    for verb in [&["up"][..], &["up", "--detach"], &["down", "--purge", "--yes"]] {
        let mut command = pilothouse();
        let (_, text) = fails(command.args(verb).args(["--name", "refused", "--data-dir"]).arg(&data));
        assert!(text.contains("belongs to the instance \"other\""), "{text}");
    }
    assert_eq!(std::fs::read_to_string(data.join("instance.json")).unwrap(), record);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "something was added to it");
}

#[test]
fn story_bad_disk() {
    if !is_root("disk too small, by mounting one") {
        return;
    }
    let refusal = Refusal::new("disk");
    let disk = refusal.scratch.at("disk");
    std::fs::create_dir(&disk).unwrap();
    // A mount of this process's own: it ends with it.
    let script = r#"mount -t tmpfs -o size=64m tmpfs "$1" && "$2" up --name refused --data-dir "$1/d" $3; ls "$1""#;
    for more in ["", "--detach"] {
        let mut up = Command::new("unshare");
        up.args(["--mount", "--propagation", "slave", "sh", "-c", script, "sh"]);
        let output = up.arg(&disk).arg(env!("CARGO_BIN_EXE_pilothouse")).arg(more).output().unwrap();
        let said = text(&output.stderr);
        assert!(said.contains("disk") && said.contains("GiB are needed") && said.contains("--data-dir"), "{said}");
        assert_eq!(text(&output.stdout), "", "its directory was made");
    }
    refusal.changed_nothing();
}

#[test]
fn story_bad_version() {
    let (_, text) = fails(pilothouse().args(["bundle", "build", "--version", "1.2.3"]));
    assert!(text.contains("1.2.3") && text.contains("1.36.3"), "{text}");
}

/// A cache that shares everything with the real one, but has a kubelet with one flipped bit.
fn spoiled_cache(refusal: &Refusal) -> PathBuf {
    let (from, cache) = (bundle::Cache::default_dir(), refusal.scratch.at("cache"));
    std::fs::create_dir_all(&cache).unwrap();
    let mut link = Command::new("cp");
    ok(link.args(["--archive", "--link"]).args(["sha256", "bundles", "done"].map(|part| from.join(part))).arg(&cache));
    let kubelet = program("kubelet");
    let blob = cache.join("sha256").join(kubelet.file_name().unwrap());
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Never through the link: it is the real one's too.
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, bytes).unwrap();
    std::fs::set_permissions(&blob, Permissions::from_mode(0o555)).unwrap();
    cache
}

#[test]
fn story_bad_bundle() {
    if !is_root("a bundle with a flipped bit") {
        return;
    }
    let refusal = Refusal::new("bundle");
    // Minutes on a fresh machine, where the next story would need them.
    World::with_bundle();
    let cache = spoiled_cache(&refusal);
    let (_, text) = fails(pilothouse().args(["bundle", "verify", "--cache"]).arg(&cache));
    let text = text.split("pilothouse: ").last().unwrap();
    assert!(text.contains("kubelet") && text.contains("bundle build"), "{text}");
    assert!(!text.contains("kube-proxy"), "only what changed is named: {text}");
    lists_nobody_signed(&cache);
    // With nothing to mend it from, `up` names the source it tried and starts nothing.
    let mut up = refusal.up(&["--cache", cache.to_str().unwrap()]);
    up.env("PILOTHOUSE_BUNDLE_SOURCE", "release").env("PILOTHOUSE_RELEASE_URL", "http://127.0.0.1:9");
    let (_, text) = fails(&mut up);
    assert!(text.contains("http://127.0.0.1:9"), "{text}");
    assert!(!refusal.data().join("host").exists(), "something was started");
    assert!(!Path::new("/run/pilothouse/refused/netns").exists());
}

/// Whoever can write to a cache makes all its sums right, takes another version's list or the signature away: it is refused, and whose
/// fault it is is said.
fn lists_nobody_signed(cache: &Path) {
    let verify = || fails(pilothouse().args(["bundle", "verify", "--cache"]).arg(cache)).1;
    let dir = cache.join("bundles").join(std::fs::read_link(cache.join("bundles/1.36.3")).unwrap());
    let (list, signature) = (dir.join("bundle.json"), dir.join("bundle.json.sig"));
    let (text, signed) = (std::fs::read_to_string(&list).unwrap(), std::fs::read(&signature).unwrap());
    // Never through the links: they are the real cache's too.
    let replace = |path: &Path, bytes: &[u8]| {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let kubelet = program("kubelet").file_name().unwrap().to_string_lossy().into_owned();
    let kube_proxy = program("kube-proxy").file_name().unwrap().to_string_lossy().into_owned();
    replace(&list, text.replace(&kubelet, &kube_proxy).as_bytes());
    let said = verify();
    assert!(said.contains("is not what ed25519:") && said.contains("who can write to this cache"), "{said}");
    std::fs::remove_file(&signature).unwrap();
    let said = verify();
    assert!(said.contains("has no signature; nothing of it was used"), "{said}");
    std::fs::write(&signature, signed).unwrap();
    replace(&list, text.as_bytes());
}

/// Another organization's ids answer 404; names, versions and tokens are checked, join tokens by machines.
#[test]
fn story_bad_requests() {
    let Some(world) = World::up("deny") else { return };
    for (name, word) in
        [("Upper", "lower"), ("-a", "start"), ("this-name-is-much-longer-than-a-cluster-may-have", "40")]
    {
        let (code, text) = fails(&mut world.user(&["cluster", "create", "--", name]));
        assert!(code.is_some() && text.to_lowercase().contains(word), "{name}: {text}");
    }
    let (_, text) = fails(&mut world.user(&["cluster", "create", "demo", "--version", "1.9.9"]));
    assert!(text.contains("1.9.9") && text.contains("1.36.3"), "{text}");
    let (code, text) = fails(&mut world.user(&["cluster", "get", "cls_01arz3ndektsv4rrffq69g5fav"]));
    assert_eq!(code, Some(3), "{text}");
    let (code, _) = fails(world.user(&["cluster", "list"]).env("PILOTHOUSE_TOKEN", "pilothouse_nonsense"));
    assert_eq!(code, Some(4));
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let (_, taken) = fails(&mut world.user(&["cluster", "create", "demo"]));
    assert!(taken.contains("demo") && taken.contains("already used"), "{taken}");
    crate::tokens::are_refused_by_name(&world, "demo");
    // Machines that enrolled and were never seen again do not hold up the end.
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    world.down();
}
