//! Kernel values that machine containers need higher: what they were before the first instance on this machine raised them, and back to
//! that once the last one is purged.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Gone after a reboot, as the raised values are.
const FILE: &str = "/run/pilothouse/sysctl.json";

/// Writes down what the values are, unless an instance did so before.
pub fn remember() -> Result<()> {
    remember_in(Path::new(FILE), &cloud_local::RAISED)
}

/// Puts them back. A value that is no longer what we raised it to is somebody else's by now and stays.
pub fn restore() {
    restore_from(Path::new(FILE), &cloud_local::RAISED);
}

fn remember_in(file: &Path, raised: &[(&str, u32)]) -> Result<()> {
    let now = raised.iter().filter_map(|(path, _)| Some((*path, fs::read_to_string(path).ok()?.trim().to_owned())));
    let text = serde_json::to_vec(&now.collect::<BTreeMap<_, _>>())?;
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(mut new) => new.write_all(&text).with_context(|| format!("write {}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("write {}", file.display())),
    }
}

fn restore_from(file: &Path, raised: &[(&str, u32)]) {
    let text = fs::read(file).unwrap_or_default();
    let before: BTreeMap<String, String> = serde_json::from_slice(&text).unwrap_or_default();
    for (path, ours) in raised {
        let untouched = fs::read_to_string(path).is_ok_and(|now| now.trim() == ours.to_string());
        if let (Some(before), true) = (before.get(*path), untouched) {
            fs::write(path, before).ok();
        }
    }
    fs::remove_file(file).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_raised_goes_back_and_what_others_changed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (file, ours, theirs) = (dir.path().join("sysctl.json"), at("ours"), at("theirs"));
        fs::write(&ours, "128\n").unwrap();
        fs::write(&theirs, "0\n").unwrap();
        let raised = [(ours.as_str(), 8192), (theirs.as_str(), 1)];
        remember_in(&file, &raised).unwrap();
        fs::write(&ours, "8192\n").unwrap();
        remember_in(&file, &raised).unwrap();
        fs::write(&theirs, "2\n").unwrap();
        restore_from(&file, &raised);
        assert_eq!(fs::read_to_string(&ours).unwrap(), "128");
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "2\n");
        assert!(!file.exists());
        restore_from(&file, &raised);
    }
}
