//! Hostile archives: how much of one is read before a signature is believed, and that nothing of it is kept.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use bundle::{Bundle, BundleError, Cache, PublicKey};

use crate::setup::setup;

/// Far more than anybody should read, and little enough for a test that fails to end.
const ENDLESS: u64 = 192 << 20;
/// The list and signatures at most, their headers, and what a pipe and its reader hold.
const READ_AT_MOST: u64 = (4 << 20) + (64 << 10) + (256 << 10);

/// One header of 512 bytes.
fn header(kind: tar::EntryType, name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn file(name: &str, text: &[u8]) -> Vec<u8> {
    let mut all = header(tar::EntryType::Regular, name, text.len() as u64);
    all.extend(text);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// Writes an archive into a pipe: its beginning, then the same block again and again. Returns how much of it was read.
fn feed(pipe: PathBuf, beginning: Vec<u8>, block: Vec<u8>) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut out = fs::File::options().write(true).open(pipe).unwrap();
        let mut taken = 0;
        let mut next = beginning;
        while taken < ENDLESS {
            if out.write_all(&next).is_err() {
                break;
            }
            taken += next.len() as u64;
            next.clone_from(&block);
        }
        taken
    })
}

async fn import(dir: &Path, trust: &[PublicKey], archive: (Vec<u8>, Vec<u8>)) -> (BundleError, u64, Cache) {
    let pipe = dir.join("pipe");
    let _ = fs::remove_file(&pipe);
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cache = Cache::with_keys(dir.join("target"), bundle::Keys::new(dir.join("keys")));
    let writer = feed(pipe.clone(), archive.0, archive.1);
    let error = Bundle::import(&cache, &pipe, trust, &|_| {}).await.unwrap_err();
    (error, writer.join().unwrap(), cache)
}

#[tokio::test]
async fn little_of_an_archive_is_read_before_its_signature_is_believed() {
    use tar::EntryType::{GNULongName, GNUSparse, Regular, XGlobalHeader, XHeader};
    let setup = setup().await;
    let good = setup.dir.path().join("good.tar");
    let bundle = setup.build().await.unwrap();
    bundle.export(&good, &|_| {}).unwrap();
    let list = fs::read(bundle.cache().bundles().join(bundle.id()).join("bundle.json")).unwrap();
    let (zeros, huge) = (vec![0; 64 << 10], 1 << 40);
    let after = |mut first: Vec<u8>, then: Vec<u8>| {
        first.extend(then);
        first
    };
    let before_list = file("bundle.json", &list);
    let attacks: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("an extended header without end", header(XHeader, "x", huge), zeros.clone()),
        ("a global header without end", header(XGlobalHeader, "g", huge), zeros.clone()),
        ("a name without end", header(GNULongName, "././@LongLink", huge), zeros.clone()),
        ("extended headers without end", Vec::new(), file("x", &[b'9'; 64 << 10])),
        ("files without end", Vec::new(), file("one", b"more").repeat(64)),
        ("a list without end", header(Regular, "bundle.json", huge), zeros.clone()),
        ("a list with holes", header(GNUSparse, "bundle.json", 512), zeros.clone()),
        (
            "a signature without end",
            after(before_list.clone(), header(Regular, "bundle.json.sig", huge)),
            zeros.clone(),
        ),
        ("an extended header between", after(before_list.clone(), header(XHeader, "x", huge)), zeros.clone()),
        ("an unsigned list, then all", after(before_list.clone(), file("bundle.json.sig", b"{}")), zeros.clone()),
    ];
    for (attack, beginning, block) in attacks {
        let archive = (beginning, block);
        let (error, read, cache) = import(setup.dir.path(), &[bundle.signer()], archive).await;
        assert!(matches!(error, BundleError::Archive { .. }), "{attack}: {error}");
        assert!(read <= READ_AT_MOST, "{attack}: {read} bytes were read");
        let kept = ["sha256", "bundles", "tmp"].map(|dir| fs::read_dir(cache.dir().join(dir)).unwrap().count());
        assert_eq!(kept, [0, 0, 0], "{attack}");
    }
}

#[tokio::test]
async fn behind_a_believed_list_nothing_but_its_files_is_read() {
    let setup = setup().await;
    let good = setup.dir.path().join("good.tar");
    let bundle = setup.build().await.unwrap();
    bundle.export(&good, &|_| {}).unwrap();
    let whole = fs::read(&good).unwrap();
    let name = |at: usize| whole[at..].starts_with(b"sha256/");
    let blobs = (0..whole.len()).step_by(512).find(|at| name(*at)).unwrap();
    let longer = |kind| {
        let file =
            &bundle.artefacts().iter().find(|part| whole[blobs..].starts_with(part.file.as_bytes())).unwrap().file;
        header(kind, file, 1 << 40)
    };
    let attacks = [
        ("an extended header", header(tar::EntryType::XHeader, "x", 1 << 40), "unexpected `x`"),
        ("a longer file", longer(tar::EntryType::Regular), "is no file of"),
        ("a link", longer(tar::EntryType::Symlink), "is no file of"),
    ];
    for (attack, next, reason) in attacks {
        let archive = ([&whole[..blobs], &next].concat(), vec![0; 64 << 10]);
        let (error, read, _) = import(setup.dir.path(), &[bundle.signer()], archive).await;
        assert!(error.to_string().contains(reason), "{attack}: {error}");
        assert!(read <= READ_AT_MOST, "{attack}: {read} bytes were read");
    }
}
