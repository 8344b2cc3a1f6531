//! The four programs of a control plane: for each the files it reads and the flags it gets.
//!
//! Said once and used twice: by rendering, as containers of a tenant's pods, and by the embedded host, as supervised processes with other
//! paths and ports. So the host is tenant zero. Nothing here writes a file or starts a process.
//!
//! The controller manager and the scheduler serve no port at all (`--secure-port=0`): nobody outside their pod could reach it, and without
//! it they make no RSA key and ask for no configuration at start. A program that is unwell ends itself and is started again.

pub mod apiserver;
pub mod controller_manager;
pub mod etcd;
pub mod scheduler;

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The files a component reads, by name, without a directory. Secret: to be kept in a Secret or with mode 0600. `Debug` shows names only.
#[derive(Clone, PartialEq, Eq)]
pub struct Files(BTreeMap<&'static str, Zeroizing<String>>);

impl Files {
    fn new<const N: usize>(files: [(&'static str, &str); N]) -> Self {
        Self(files.into_iter().map(|(name, text)| (name, Zeroizing::new(text.to_owned()))).collect())
    }

    fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Each file's name and text, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// SHA-256 over all names and texts, lower-case hex: other files, other checksum.
    pub fn checksum(&self) -> String {
        Self::sum(self.iter())
    }

    /// The same over the files of these names alone.
    pub fn checksum_of(&self, names: &[&str]) -> String {
        Self::sum(self.iter().filter(|(name, _)| names.contains(name)))
    }

    fn sum<'a>(files: impl Iterator<Item = (&'static str, &'a str)>) -> String {
        let digest = files.fold(Sha256::new(), |digest, (name, text)| {
            let sizes = [name.len(), text.len()].map(|size| (size as u64).to_be_bytes());
            digest.chain_update(sizes[0]).chain_update(sizes[1]).chain_update(name).chain_update(text)
        });
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// `--name=value`.
fn flag(name: &str, value: impl fmt::Display) -> String {
    format!("--{name}={value}")
}

/// A kubeconfig of a component that talks to its own API server.
fn component_kubeconfig(server_url: &str, ca_pem: &str, (cert_pem, key_pem): (&str, &str)) -> Zeroizing<String> {
    use crate::kubeconfig::{KubeconfigInput, UserAuth, kubeconfig};
    let user = UserAuth::ClientCert { cert_pem, key_pem };
    let input = KubeconfigInput { name: "control-plane", server_url, tls_server_name: None, ca_pem, user };
    Zeroizing::new(kubeconfig(&input))
}
