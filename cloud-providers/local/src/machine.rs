//! One machine on disk: its directory, what is written there, and what both stages read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LocalError;

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
        let text =
            serde_json::to_vec_pretty(self).map_err(|source| LocalError::Corrupt { path: self.file(), source })?;
        let new = self.dir.join("machine.json.new");
        // On disk before it has its name: half a file would hide every machine's address from the next one's choice.
        let written = fs::File::create(&new).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(LocalError::file(&new))?;
        fs::rename(&new, self.file()).map_err(LocalError::file(self.file()))
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
        let resolv = fs::read("/etc/resolv.conf").unwrap_or_default();
        fs::write(etc.join("resolv.conf"), resolv).map_err(LocalError::file(etc.join("resolv.conf")))?;
        write_secret(&etc.join("pilothouse/join.json"), join)
    }

    /// The end of what the machine printed.
    pub fn console(&self) -> String {
        let text = fs::read(self.dir.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
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

fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), LocalError> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    let mut file = file.map_err(LocalError::file(path))?;
    file.write_all(bytes).map_err(LocalError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_differ_and_have_the_right_shape() {
        let one = machine_id("nod_01m7wb22a2f3pv08eq6d1qjska");
        let two = machine_id("nod_01m7wb22a2f3pv08eq6d1qjskb");
        assert_ne!(one, two);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
