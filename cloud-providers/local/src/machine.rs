//! One machine on disk: its directory, what is written there, and what both stages read.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use node_linux::files;
use serde::{Deserialize, Serialize};

use crate::error::LocalError;
use crate::users::Users;

/// Everything the two stages need; `machine.json` in the machine's directory. Holds no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The node's id.
    pub id: String,
    /// The hostname.
    pub name: String,
    /// The cluster's id.
    pub cluster: String,
    /// The machine's directory.
    pub dir: PathBuf,
    /// The shared Debian tree.
    pub lower: PathBuf,
    /// Parts by checksum, shown read-only inside.
    pub seed: PathBuf,
    /// The static agent.
    pub agent: PathBuf,
    /// Cgroup relative to each hierarchy's root.
    pub cgroup: String,
    /// The bridge.
    pub bridge: String,
    /// The bridge's end of the wire.
    pub wire: String,
    /// The machine's address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Its way out.
    pub gateway: Ipv4Addr,
    /// False while it was stopped on purpose.
    pub wanted: bool,
    /// When it was started again after it ended by itself, in seconds since 1970: those of the last minutes.
    #[serde(default)]
    pub restarts: Vec<u64>,
    /// The ids of its user namespace; nothing where root inside is root outside.
    #[serde(default)]
    pub users: Option<Users>,
    /// It only tries whether it could be: no wire, no agent.
    #[serde(default)]
    pub trial: bool,
}

impl Spec {
    /// Reads a machine's specification; nothing where there is none.
    pub fn load(file: &Path) -> Result<Option<Self>, LocalError> {
        match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| LocalError::Corrupt { path: file.to_owned(), source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LocalError::file(file)(error)),
        }
    }

    /// Where the specification lies.
    pub fn file(&self) -> PathBuf {
        self.dir.join("machine.json")
    }

    /// Writes it in one step.
    pub fn save(&self) -> Result<(), LocalError> {
        // Half a file would hide every machine's address from the next one's choice.
        Ok(files::write_json(&self.file(), self, 0o644)?)
    }

    /// Makes the directories, and the few files by which one machine differs from another.
    pub fn lay_out(&self, join: &[u8]) -> Result<(), LocalError> {
        for sub in ["upper/etc/pilothouse", "work", "root", "state"] {
            let dir = self.dir.join(sub);
            fs::create_dir_all(&dir).map_err(LocalError::file(&dir))?;
        }
        let etc = self.dir.join("upper/etc");
        let id = machine_id(&self.id);
        let hosts = format!("127.0.0.1 localhost\n{} {}\n", self.address, self.name);
        for (name, text) in
            [("machine-id", format!("{id}\n")), ("hostname", format!("{}\n", self.name)), ("hosts", hosts)]
        {
            fs::write(etc.join(name), text).map_err(LocalError::file(etc.join(name)))?;
        }
        files::write(&etc.join("pilothouse/join.json"), join, 0o600)?;
        // Root of a user namespace walks through here to what it owns.
        let open = fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o755));
        open.map_err(LocalError::file(&self.dir))?;
        let Some(users) = self.users else { return Ok(()) };
        ["upper", "work", "state"].iter().try_for_each(|sub| give(&self.dir.join(sub), users))
    }

    /// Writes down the resolvers this machine has today. The machine copies them: what lies in its own directories is its own, and a
    /// link there would lead a writer from outside to any file.
    pub fn refresh_resolvers(&self) -> Result<(), LocalError> {
        fs::write(self.resolvers(), resolvers(Path::new("/"))).map_err(LocalError::file(self.resolvers()))
    }

    /// Where its resolvers are written down.
    pub fn resolvers(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    /// The MAC address of its end of the wire: locally administered, and by its IP address.
    pub fn mac(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:01:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// The end of what the machine printed, without what would move a terminal; its root prints what he likes, and as much.
    pub fn console(&self) -> String {
        let text = end_of(&self.dir.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<String> = text.lines().map(without_controls).collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

fn without_controls(line: &str) -> String {
    line.chars().filter(|letter| !letter.is_control()).collect()
}

/// The most of a console that is read, bytes.
const CONSOLE_END: u64 = 4096;

fn end_of(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_END)))?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_END).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Gives a directory that nobody else has seen yet to a machine's root.
fn give(path: &Path, users: Users) -> Result<(), LocalError> {
    let owner = Some(users.root());
    lchown(path, owner, owner).map_err(LocalError::file(path))?;
    let kind = fs::symlink_metadata(path).map_err(LocalError::file(path))?.file_type();
    if !kind.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(LocalError::file(path))? {
        give(&entry.map_err(LocalError::file(path))?.path(), users)?;
    }
    Ok(())
}

/// The resolvers that machines get today, as addresses.
pub fn resolver_addresses() -> Vec<Ipv4Addr> {
    let text = resolvers(Path::new("/"));
    let text = String::from_utf8_lossy(&text);
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse().ok()).collect()
}

/// The text of resolv.conf(5) for a machine of its own network: where the resolver is one on this machine's loopback, which no
/// other reaches, the ones that systemd-resolved asks.
fn resolvers(root: &Path) -> Vec<u8> {
    let text = fs::read(root.join("etc/resolv.conf")).unwrap_or_default();
    if !is_local(&String::from_utf8_lossy(&text)) {
        return text;
    }
    fs::read(root.join("run/systemd/resolve/resolv.conf")).unwrap_or(text)
}

/// True when every name server is on loopback.
fn is_local(resolv_conf: &str) -> bool {
    let mut servers = resolv_conf.lines().filter_map(|line| line.strip_prefix("nameserver"));
    servers.all(|server| server.trim().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()))
}

/// 32 hexadecimal digits that differ for every node id (machine-id(5)).
fn machine_id(id: &str) -> String {
    let mut hash = [0xcbf2_9ce4_8422_2325_u64, 0x8422_2325_cbf2_9ce4];
    for byte in id.bytes() {
        for (turn, half) in (1_u64..).zip(hash.iter_mut()) {
            *half =
                (*half ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(u32::try_from(turn).unwrap_or(1));
        }
    }
    format!("{:016x}{:016x}", hash[0], hash[1])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> Spec {
        let machine = serde_json::json!({
            "id": "nod_a", "name": "web-1", "cluster": "cls_x", "dir": "/nowhere", "lower": "/", "seed": "/", "agent": "/",
            "cgroup": "t/nod_a", "bridge": "b", "wire": "w", "address": "192.0.2.2", "prefix": 24, "gateway": "192.0.2.1",
            "wanted": true,
        });
        serde_json::from_value(machine).unwrap()
    }

    #[test]
    fn machine_ids_differ_and_have_the_right_shape() {
        let one = machine_id("nod_01m7wb22a2f3pv08eq6d1qjska");
        let two = machine_id("nod_01m7wb22a2f3pv08eq6d1qjskb");
        assert_ne!(one, two);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_stub_resolver_is_not_handed_on() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("etc/resolv.conf", "# a stub\nnameserver 127.0.0.53\noptions edns0\n");
        assert!(resolvers(root.path()).starts_with(b"# a stub"), "nothing better is known");
        write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.53\n");
        assert_eq!(resolvers(root.path()), b"nameserver 192.0.2.53\n");
        write("etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.54\n");
        assert!(resolvers(root.path()).ends_with(b"192.0.2.54\n"), "one that others reach too");
    }
}
