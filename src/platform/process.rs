//! Which instance a process is of, among all that share a database: names and slots are one machine's own.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use node_linux::files::write_public;
use uuid::Uuid;

use crate::instance::Instance;

/// Where the id lies, below the data directory: whoever holds the lock there is the only process of the instance.
const INSTANCE_ID: &str = "run/instance-id";

/// The instance's id, made at its first start. A data directory that was copied must not keep it: remove the file in the copy.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn instance_id(instance: &Instance) -> Result<Uuid> {
    let path = instance.path(INSTANCE_ID);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged: remove it", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = Uuid::now_v7();
            write_public(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let instance = Instance::new("a", Some(dir.path().to_owned())).unwrap();
        let id = instance_id(&instance).unwrap();
        assert_eq!(instance_id(&instance).unwrap(), id);
        fs::write(dir.path().join(INSTANCE_ID), "torn").unwrap();
        assert!(instance_id(&instance).unwrap_err().to_string().ends_with("run/instance-id is damaged: remove it"));
    }
}
