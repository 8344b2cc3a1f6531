//! A release server on loopback and a machine's caches: what tests build bundles from.

use std::path::PathBuf;

use bundle::{AgentSource, BuildOptions, Bundle, BundleError, Cache, Keys, ReleaseOptions, Source, Version};

use crate::server::Server;

/// Every program of the catalog; the CNI plugins come in one archive.
pub const PLAIN: [&str; 16] = [
    "pause",
    "runc",
    "etcd",
    "etcdctl",
    "etcdutl",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "local-path-provisioner",
    "coredns",
];
pub const PLUGINS: [&str; 5] = ["ptp", "bridge", "loopback", "host-local", "portmap"];

pub struct Setup {
    pub dir: tempfile::TempDir,
    pub server: Server,
    pub table: PathBuf,
}

/// A program of some size whose bytes tell its name.
pub fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(200_000).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in <sha2::Sha256 as sha2::Digest>::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

pub fn archive() -> Vec<u8> {
    let mut out = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in PLUGINS {
        let bytes = content(name);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        out.append_data(&mut header, format!("./{name}"), bytes.as_slice()).unwrap();
    }
    out.into_inner().unwrap().finish().unwrap()
}

pub async fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let archive = archive();
    let mut files: Vec<(String, Vec<u8>)> = PLAIN.iter().map(|name| (format!("/bin/{name}"), content(name))).collect();
    let mut table = String::from("kubernetes = \"1.36.3\"\nbase = \"http://127.0.0.1:9/nobody\"\n");
    for name in PLAIN {
        table += &format!("[artefact.{name}]\nurl = \"bin/{name}\"\nsha256 = \"{}\"\n", sha256(&content(name)));
    }
    for name in PLUGINS {
        table +=
            &format!("[artefact.{name}]\nurl = \"cni.tgz\"\nmember = \"{name}\"\nsha256 = \"{}\"\n", sha256(&archive));
    }
    files.push(("/cni.tgz".to_owned(), archive));
    let path = dir.path().join("checksums.toml");
    std::fs::write(&path, table).unwrap();
    Setup { server: Server::start(files).await, table: path, dir }
}

impl Setup {
    pub fn options(&self, source: Source) -> BuildOptions {
        BuildOptions {
            cache: self.cache("cache"),
            source,
            agent: AgentSource::Absent,
            release: ReleaseOptions {
                checksums: Some(self.table.clone()),
                base_url: Some(self.server.url()),
                ..ReleaseOptions::default()
            },
            ..BuildOptions::new(Version::default())
        }
    }

    /// A cache of this name, with the keys of the same machine.
    pub fn cache(&self, name: &str) -> Cache {
        Cache::with_keys(self.dir.path().join(name), Keys::new(self.dir.path().join("signing")))
    }

    /// Takes a program's row out of the table.
    pub fn unpin(&self, name: &str) {
        let text = std::fs::read_to_string(&self.table).unwrap();
        let begin = text.find(&format!("[artefact.{name}]\n")).unwrap();
        let end = text[begin + 1..].find("[artefact.").map_or(text.len(), |at| begin + 1 + at);
        std::fs::write(&self.table, format!("{}{}", &text[..begin], &text[end..])).unwrap();
    }

    pub async fn build(&self) -> Result<Bundle, BundleError> {
        Bundle::build(&self.options(Source::Release), &|_| {}).await
    }
}
