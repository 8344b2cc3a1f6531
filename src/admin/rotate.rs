//! `pilothouse admin kek rotate`: a new key-encryption key for everything that is kept sealed.
//!
//! The order makes it safe to be killed anywhere: the new key is on disk and noted before anything is sealed under it; the old one goes
//! after everything was read with the new one alone. Begun again it goes on where it was, and `up` opens with both meanwhile.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use migrations::{Kek, Store};

use crate::instance::{Instance, Record};
use crate::options::RotateArgs;
use crate::platform::sources::{KeySource, database_url};

/// Rotates, or goes on with a rotation that was cut off.
pub async fn rotate(args: RotateArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir.clone())?;
    let mut record = instance.existing()?;
    let _lock = instance.lock().context(
        "the platform reads the key at its start: end the process of `pilothouse up` first (clusters keep running), and start it again after",
    )?;
    let given = KeySource::given(args.to_file.as_deref(), args.to_command.as_deref())?;
    let count = run(&instance, &mut record, given).await?;
    println!("{count} values were sealed again; the new key is {}", shown(&instance, &record));
    println!(
        "Back it up, apart from the database. Older backups of the database need the key that was used when they were made."
    );
    Ok(ExitCode::SUCCESS)
}

async fn run(instance: &Instance, record: &mut Record, given: Option<KeySource>) -> Result<u64> {
    settle(instance, record).await?;
    let source = KeySource::of(instance, record);
    let target = target(record, &source, given)?;
    let (old, new) = (source.read().await?, target.read_or_create().await?);
    if old.is_same(&new) {
        bail!("the new key is the old one: nothing was changed");
    }
    record.next_kek = Some(target.clone());
    instance.save(record)?;
    let url = database_url(instance)?;
    let count = reseal(&url, new.clone().with_previous(&old)).await?;
    // The proof that nothing needs the old one any more.
    reseal(&url, new).await.context("read everything with the new key alone")?;
    finish(instance, record, &source, target)?;
    Ok(count)
}

/// Completes the record of a rotation of which the last deed but one was done.
async fn settle(instance: &Instance, record: &mut Record) -> Result<()> {
    let renamed = matches!(&record.next_kek, Some(KeySource::File(next)) if !next.exists());
    if renamed {
        KeySource::of(instance, record).read().await?;
        record.next_kek = None;
        instance.save(record)?;
    }
    Ok(())
}

/// The new key's place: where a rotation that was cut off wants it, where the operator says, or beside the old one.
fn target(record: &Record, source: &KeySource, given: Option<KeySource>) -> Result<KeySource> {
    match (&record.next_kek, given, source) {
        (Some(begun), Some(given), _) if *begun != given => {
            bail!(
                "another rotation was begun and not finished: run `pilothouse admin kek rotate` without a place first"
            )
        }
        (Some(begun), _, _) => Ok(begun.clone()),
        (None, Some(given), _) => Ok(given),
        (None, None, KeySource::File(path)) => Ok(KeySource::File(beside(path))),
        (None, None, KeySource::Command(_)) => {
            bail!(
                "a command prints the present key: say where the new one is, with --to-file FILE or --to-command COMMAND"
            )
        }
    }
}

/// Where the next key of a file waits for its name.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

async fn reseal(url: &str, kek: Kek) -> Result<u64> {
    let store = Store::connect(url, kek).await.context("open the database")?;
    let count = store.reseal().await;
    store.close().await;
    count.context("seal everything again; run the same command to go on")
}

/// The new key takes the old one's place, in one step.
fn finish(instance: &Instance, record: &mut Record, source: &KeySource, target: KeySource) -> Result<()> {
    match (source, target) {
        (KeySource::File(path), KeySource::File(next)) if next == beside(path) => {
            fs::rename(&next, path).with_context(|| format!("replace {}", path.display()))?;
            let dir = path.parent().context("a file has a directory")?;
            File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))?;
        }
        (_, target) => record.kek = Some(target),
    }
    record.next_kek = None;
    instance.save(record)
}

fn shown(instance: &Instance, record: &Record) -> String {
    match KeySource::of(instance, record) {
        KeySource::File(path) => format!("in {}", path.display()),
        KeySource::Command(_) => "what its command prints".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::sources::kek;

    struct Rig {
        _dir: tempfile::TempDir,
        instance: Instance,
        record: Record,
    }

    impl Rig {
        /// An instance that keeps a secret.
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let instance = Instance::new("kek", Some(dir.path().join("data"))).unwrap();
            instance.prepare().unwrap();
            let record = Record::example("kek", "127.0.0.1:1".parse().unwrap());
            instance.save(&record).unwrap();
            KeySource::of(&instance, &record).read_or_create().await.unwrap();
            let rig = Self { _dir: dir, instance, record };
            rig.store().await.settings().put_secret("ca", "secret").await.unwrap();
            rig
        }

        /// The store as `up` would open it now.
        async fn store(&self) -> Store {
            let record = self.instance.existing().unwrap();
            let kek = kek(&self.instance, &record).await.unwrap();
            Store::connect(&database_url(&self.instance).unwrap(), kek).await.unwrap()
        }

        async fn rotate(&mut self, given: Option<KeySource>) -> Result<u64> {
            self.record = self.instance.existing()?;
            run(&self.instance, &mut self.record, given).await
        }

        async fn is_whole(&self) {
            let secret = self.store().await.settings().get_secret("ca").await.unwrap().unwrap();
            assert_eq!(secret.as_str(), "secret");
        }

        fn key(&self) -> String {
            fs::read_to_string(self.instance.path("kek")).unwrap()
        }
    }

    #[tokio::test]
    async fn a_new_key_takes_the_old_ones_place() {
        let mut rig = Rig::new().await;
        let before = rig.key();
        assert!(rig.rotate(None).await.unwrap() >= 2, "the secret, and the word that tells keys apart");
        assert_ne!(rig.key(), before);
        assert!(!rig.instance.path("kek.next").exists());
        rig.is_whole().await;
        fs::write(rig.instance.path("kek"), &before).unwrap();
        let old = kek(&rig.instance, &rig.record).await.unwrap();
        assert!(Store::connect(&database_url(&rig.instance).unwrap(), old).await.is_err(), "the old key opens nothing");
    }

    #[tokio::test]
    async fn a_rotation_that_was_killed_anywhere_goes_on() {
        // Killed after the new key was made; after that was noted; when half was sealed again; after the new name.
        for deed in 0..4 {
            let mut rig = Rig::new().await;
            let next = KeySource::File(rig.instance.path("kek.next"));
            next.read_or_create().await.unwrap();
            if deed > 0 {
                rig.record.next_kek = Some(next.clone());
                rig.instance.save(&rig.record).unwrap();
            }
            rig.is_whole().await;
            if deed > 1 {
                rig.store().await.settings().put_secret("other", "secret").await.unwrap();
                rig.is_whole().await;
            }
            if deed > 2 {
                rig.store().await.reseal().await.unwrap();
                fs::rename(rig.instance.path("kek.next"), rig.instance.path("kek")).unwrap();
            }
            rig.is_whole().await;
            rig.rotate(None).await.unwrap();
            rig.is_whole().await;
            assert_eq!(rig.instance.existing().unwrap().next_kek, None);
            assert!(!rig.instance.path("kek.next").exists(), "deed {deed}");
        }
    }

    #[tokio::test]
    async fn the_key_moves_to_another_place() {
        let mut rig = Rig::new().await;
        let place = rig.instance.path("../elsewhere");
        rig.rotate(Some(KeySource::File(place.clone()))).await.unwrap();
        rig.is_whole().await;
        let command = KeySource::Command(format!("tr 0-9a-f a-f0-9 < {}", place.display()));
        rig.rotate(Some(command.clone())).await.unwrap();
        assert_eq!(rig.record.kek, Some(command.clone()));
        rig.is_whole().await;
        let error = rig.rotate(None).await.unwrap_err().to_string();
        assert!(error.contains("--to-command"), "{error}");
        let same = rig.rotate(Some(command)).await.unwrap_err().to_string();
        assert!(same.contains("the old one"), "{same}");
        rig.is_whole().await;
    }
}
