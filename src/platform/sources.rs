//! Where the platform's two foundations come from: the database's address and the key-encryption key. Either may hold, or be, a secret, and
//! neither is ever in a process's arguments.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use migrations::Kek;
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, Record};
use crate::options::UpArgs;
use node_linux::files::write_secret;

/// How long a command may take to print the key.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Where a key-encryption key is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// In a file, 64 hexadecimal digits.
    File(PathBuf),
    /// Elsewhere: this command for `sh -c` prints it.
    Command(String),
}

impl KeySource {
    /// What options say; nothing where they say nothing.
    pub fn given(file: Option<&Path>, command: Option<&str>) -> Result<Option<Self>> {
        Ok(match (file, command) {
            (Some(file), _) => Some(Self::File(std::path::absolute(file)?)),
            (None, Some(command)) => Some(Self::Command(command.to_owned())),
            (None, None) => None,
        })
    }

    /// Where the key of an instance is kept: in its data directory unless it was told another place.
    pub fn of(instance: &Instance, record: &Record) -> Self {
        record.kek.clone().unwrap_or_else(|| Self::File(instance.path("kek")))
    }

    /// Reads the key. A file that is not there is a lost key and not a new one.
    pub async fn read(&self) -> Result<Kek> {
        match self {
            Self::Command(command) => Ok(Kek::from_command(command, COMMAND_LIMIT).await?),
            Self::File(path) => {
                let found = fs::exists(path);
                if !found.with_context(|| format!("look for {}; are you root?", path.display()))? {
                    bail!("{} is missing: put it back from your backup; nothing was changed", path.display());
                }
                load_or_create(path)
            }
        }
    }

    /// Reads the key; a file that is not there is made, with a new key.
    pub async fn read_or_create(&self) -> Result<Kek> {
        match self {
            Self::File(path) => load_or_create(path),
            Self::Command(_) => self.read().await,
        }
    }
}

fn load_or_create(path: &Path) -> Result<Kek> {
    Kek::load_or_create(path).context("read the key-encryption key; are you root?")
}

/// The key that opens what the store keeps sealed. It is made with the instance and never again: a new one opens nothing. Where a rotation
/// was cut off both keys open, and the new one seals.
pub async fn kek(instance: &Instance, record: &Record) -> Result<Kek> {
    let current = KeySource::of(instance, record).read().await?;
    match &record.next_kek {
        // Its last step, the new name, was done.
        Some(KeySource::File(next)) if !next.exists() => Ok(current),
        Some(next) => Ok(next.read().await?.with_previous(&current)),
        None => Ok(current),
    }
}

/// The database of an instance: what `--database-url` said at some `up`, else a file in the data directory.
pub fn database_url(instance: &Instance) -> Result<String> {
    match fs::read_to_string(instance.path("database.url")) {
        Ok(url) => Ok(url.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(format!("sqlite://{}", instance.path("pilothouse.db").display()))
        }
        Err(error) => Err(error).context("read database.url"),
    }
}

/// Keeps the database's address for the operator's other commands; it may hold a password.
pub fn keep_database_url(instance: &Instance, args: &UpArgs) -> Result<()> {
    let from_file = args.database_url_file.as_deref().map(database_url_in).transpose()?;
    match from_file.or_else(|| args.database_url.clone()) {
        Some(url) => Ok(write_secret(&instance.path("database.url"), url.as_bytes())?),
        None => Ok(()),
    }
}

/// The address in a file, which others must not read when there is a password in it.
fn database_url_in(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let url = text.trim().to_owned();
    if has_password(&url) && fs::metadata(path)?.mode() & 0o077 != 0 {
        bail!("others can read the database's password: run `chmod 600 {}`", path.display());
    }
    Ok(url)
}

/// Refuses a password on the command line: everybody on the machine reads it there (proc_pid_cmdline(5)).
pub fn refuse_password(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let mut arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = arguments.next() {
        let url = match argument.strip_prefix("--database-url=") {
            Some(url) => Some(url.to_owned()),
            None if argument == "--database-url" => arguments.next(),
            None => None,
        };
        if url.is_some_and(|url| has_password(&url)) {
            bail!(
                "a password in the arguments is read by everybody on this machine: put the address into a file that only you read and pass \
                 --database-url-file FILE, or set PILOTHOUSE_DATABASE_URL; change the password, for it was shown"
            );
        }
    }
    Ok(())
}

/// Whether a database's address (RFC 3986, 3.2.1, and libpq's parameters) holds a password.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = before.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let in_user = user.split_once(':').is_some_and(|(_, password)| !password.is_empty());
    in_user || query.split('&').any(|pair| pair.starts_with("password="))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_in_the_arguments_is_refused() {
        let refused = |line: &str| refuse_password(line.split(' ').map(OsString::from)).is_err();
        assert!(refused("up --database-url postgres://u:secret@h/d"));
        assert!(refused("up --database-url=postgres://u@h/d?sslmode=require&password=secret"));
        assert!(refused("up --detach --database-url postgresql://u:a@b@h/d"));
        for line in [
            "up",
            "up --database-url postgres://u@h:5432/d",
            "up --database-url=postgres:///d?host=/run/postgresql&user=u",
            "up --database-url-file /etc/url",
            "up --database-url",
        ] {
            assert!(!refused(line), "{line}");
        }
    }

    #[test]
    fn a_file_with_a_password_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        fs::write(&path, "postgres://u:secret@h/d\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = database_url_in(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(database_url_in(&path).unwrap(), "postgres://u:secret@h/d");
    }
}
