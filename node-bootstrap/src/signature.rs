//! Whether a configuration's parts are what the platform's signing key signed: looked at before anything of them is fetched, unpacked
//! or run.
//!
//! The key comes with the line that joins, as the CA does. What is signed is the text of the bundle's `bundle.json`, in the
//! pre-authentication encoding of DSSE v1 (github.com/secure-systems-lab/dsse, protocol.md), so that a signature of one kind of
//! statement never serves for another. A key names its successor; then only that one counts.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use node_protocol::{Check, CheckStatus, NodeConfig, Part, PartKind, Signed, Succession};
use serde::Deserialize;

use crate::machine;

const BUNDLE: &str = "application/vnd.pilothouse.bundle+json";
const SUCCESSION: &str = "application/vnd.pilothouse.key-succession";
const PREFIX: &str = "ed25519:";

/// Parts that are not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Nobody signed them.
    #[error("its parts are not signed, and this node runs only what {0} signed")]
    Missing(String),
    /// Somebody else signed them.
    #[error("its parts are signed by {offered}; this node trusts {trusted}, which did not name that key its successor")]
    Key {
        /// Who signed.
        offered: String,
        /// Whom this node trusts.
        trusted: String,
    },
    /// The list is not what was signed.
    #[error("the list of its parts is not what {0} signed")]
    Wrong(String),
    /// The list cannot be read although it is signed.
    #[error("the signed list of its parts cannot be read: {0}")]
    Malformed(String),
    /// The list is of another version or architecture.
    #[error("the signed list is of {signed}; the parts are to be of {wanted}")]
    Other {
        /// Kubernetes version and architecture, as signed.
        signed: String,
        /// The same as configured, and of this machine.
        wanted: String,
    },
    /// A part is not in the list.
    #[error("part {0} is not in the signed list with this version, size and checksum")]
    Part(String),
}

impl SignatureError {
    /// For people, about a configuration that was refused.
    pub fn check(&self, generation: u64) -> Check {
        Check {
            id: "signature".into(),
            status: CheckStatus::Fail.into(),
            observed: format!("configuration {generation} was refused: {self}; the node goes on with what it has"),
            remediation: "the platform's operator runs `pilothouse bundle verify`; where its signing key was lost, this machine joins again: \
                          `pilothouse-node reset`, then a new join command"
                .into(),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    kubernetes: String,
    arch: String,
    artefacts: Vec<Artefact>,
}

#[derive(Deserialize)]
struct Artefact {
    name: String,
    kind: String,
    version: String,
    sha256: String,
    size: u64,
    #[serde(default)]
    image: String,
}

impl Artefact {
    fn is(&self, part: &Part) -> bool {
        let kind = match part.kind() {
            PartKind::Binary => "binary",
            PartKind::Image => "image",
            PartKind::Unspecified => return false,
        };
        let own = (&self.name, self.kind.as_str(), &self.version, &self.sha256, self.size, &self.image);
        own == (&part.name, kind, &part.version, &part.sha256, part.size, &part.image)
    }
}

/// Reads a public key as it is written on a command line.
///
/// # Errors
/// The text is none.
pub fn parse_key(text: &str) -> Result<String, String> {
    bytes(text)
        .map(|_| text.to_owned())
        .ok_or_else(|| format!("{text:?} is no public key; one looks like {PREFIX}… (52 characters)"))
}

/// Checks a configuration for a node that trusts this key, and returns the key to trust from now on. An empty one is of a machine that
/// joined before there were signatures, or by a line of that time: it takes the first key it is given over its own link.
///
/// # Errors
/// [`SignatureError`]: nothing of the configuration may be used.
pub fn check(config: &NodeConfig, trusted: &str) -> Result<String, SignatureError> {
    let Some(signed) = &config.signed else {
        return if trusted.is_empty() { Ok(String::new()) } else { Err(SignatureError::Missing(trusted.to_owned())) };
    };
    let last = if trusted.is_empty() { signed.key.clone() } else { follow(trusted, signed) };
    if last != signed.key {
        return Err(SignatureError::Key { offered: signed.key.clone(), trusted: trusted.to_owned() });
    }
    if !verifies(&signed.key, BUNDLE, &signed.manifest, &signed.signature) {
        return Err(SignatureError::Wrong(signed.key.clone()));
    }
    covers(&signed.manifest, config)?;
    Ok(last)
}

/// The key that has the place of this one by now. A key once left is not gone back to: each word is used once.
fn follow(trusted: &str, signed: &Signed) -> String {
    let mut key = trusted.to_owned();
    let mut words: Vec<&Succession> = signed.successions.iter().collect();
    while key != signed.key {
        let next = words.iter().position(|word| word.from == key && is_given(word));
        let Some(at) = next else { break };
        key.clone_from(&words.swap_remove(at).to);
    }
    key
}

fn is_given(word: &Succession) -> bool {
    verifies(&word.from, SUCCESSION, &format!("{}\n{}\n", word.from, word.to), &word.signature)
}

fn covers(manifest: &str, config: &NodeConfig) -> Result<(), SignatureError> {
    let list: Manifest =
        serde_json::from_str(manifest).map_err(|error| SignatureError::Malformed(error.to_string()))?;
    if list.kubernetes != config.kubernetes_version || list.arch != machine::arch() {
        let signed = format!("Kubernetes {} for {}", list.kubernetes, list.arch);
        let wanted = format!("Kubernetes {} for {}", config.kubernetes_version, machine::arch());
        return Err(SignatureError::Other { signed, wanted });
    }
    let outside = config.parts.iter().find(|part| !list.artefacts.iter().any(|artefact| artefact.is(part)));
    outside.map_or(Ok(()), |part| Err(SignatureError::Part(part.name.clone())))
}

fn bytes(key: &str) -> Option<[u8; 32]> {
    STANDARD.decode(key.strip_prefix(PREFIX)?).ok()?.try_into().ok()
}

fn verifies(key: &str, kind: &str, text: &str, signature: &str) -> bool {
    let (Some(key), Ok(signature)) = (bytes(key), STANDARD.decode(signature)) else { return false };
    let encoded = format!("DSSEv1 {} {kind} {} {text}", kind.len(), text.len());
    UnparsedPublicKey::new(&ED25519, key).verify(encoded.as_bytes(), &signature).is_ok()
}

#[cfg(test)]
#[path = "signature_tests.rs"]
pub(crate) mod tests;
