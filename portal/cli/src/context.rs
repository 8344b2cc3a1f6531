//! The config file: which portals this person knows, and the token for each.
//!
//! `~/.config/pilothouse/config.toml` (or `$XDG_CONFIG_HOME/pilothouse/config.toml`), readable by its owner only. The
//! certificate authority is kept in it as text, so that the file it came from may go.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};

/// Everything in the file.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Config {
    /// Name of the context used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One portal and how to sign in to it. No `Debug`: it holds a token.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Context {
    /// Portal address without a trailing slash.
    pub server: String,
    /// API token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Certificate authority (PEM), the only one trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Organization used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Project used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

/// Where the file is; `None` where there is no home.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| Path::new(dir).is_absolute()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    base.or_else(home).map(|dir| dir.join("pilothouse").join("config.toml"))
}

impl Config {
    /// Reads the file; a missing one is empty.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Config::default()),
            Err(source) => return Err(file_error("read", path, source)),
        };
        // The parser's own message quotes the line, which may hold the token.
        toml::from_str(&text).map_err(|_| {
            CliError::usage(
                format!("{} is not a valid configuration file", path.display()),
                "Correct or remove it, then run `pilothouse login` again.",
            )
        })
    }

    /// Writes the file whole or not at all, mode 0600 in a directory of mode 0700.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self).map_err(|source| CliError::Print { source: source.into() })?;
        let fail = |source| file_error("write", path, source);
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        }
        let draft = path.with_extension(format!("toml.{}", std::process::id()));
        write_private(&draft, text.as_bytes()).and_then(|()| fs::rename(&draft, path)).map_err(fail)
    }

    /// The named context, or the current one when no name is given.
    pub fn pick(&self, name: Option<&str>) -> Result<Context> {
        let Some(wanted) = name.or(self.current.as_deref()) else {
            return Ok(Context::default());
        };
        self.contexts.get(wanted).cloned().ok_or_else(|| CliError::NotFound {
            kind: "context",
            name: wanted.to_owned(),
            next: format!("Known contexts: {}.", self.contexts.keys().cloned().collect::<Vec<_>>().join(", ")),
        })
    }
}

/// Writes a new file only its owner can read; replaces what was there.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// An error about a file, in this crate's words.
pub fn file_error(verb: &'static str, path: &Path, source: std::io::Error) -> CliError {
    CliError::File { verb, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_its_owners_alone_and_comes_back_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.toml");
        assert!(Config::load(&path).unwrap().contexts.is_empty());
        let context = Context { server: "https://a".into(), token: Some("t".into()), ..Context::default() };
        let config = Config { current: Some("a".into()), contexts: BTreeMap::from([("a".into(), context)]) };
        config.save(&path).unwrap();
        config.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let back = Config::load(&path).unwrap();
        assert_eq!(back.pick(None).unwrap().server, "https://a");
        assert!(back.pick(Some("b")).is_err());
        fs::write(&path, "token = pilothouse_secret").unwrap();
        let error = Config::load(&path).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("pilothouse_secret"));
    }
}
