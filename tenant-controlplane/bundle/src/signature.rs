//! Ed25519 signatures (RFC 8032) over what is executed: who said so, and what kind of statement it is.
//!
//! Signed is the *pre-authentication encoding* of DSSE v1 (github.com/secure-systems-lab/dsse, protocol.md): the kind of the
//! statement and its bytes, each with its length. So a signature of one kind never serves for another, and no text is made
//! canonical: the bytes that were signed are the bytes that are read.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The text of `bundle.json`.
pub(crate) const BUNDLE: &str = "application/vnd.pilothouse.bundle+json";
/// The bytes that a build led to, by its input key, see [`result_text`].
pub(crate) const RESULT: &str = "application/vnd.pilothouse.build-result";
/// One key's word that another takes its place, see [`Succession`].
pub(crate) const SUCCESSION: &str = "application/vnd.pilothouse.key-succession";

const PREFIX: &str = "ed25519:";
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Whom a signature is by. Written `ed25519:` and the 32 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Whether this key signed these bytes as a statement of this kind.
    pub(crate) fn verifies(&self, kind: &str, body: &[u8], signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&encoding(kind, body), &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(|rest| STANDARD.decode(rest).ok());
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes
            .map(PublicKey)
            .ok_or_else(|| format!("{:?} is no public key; one looks like {PREFIX}… (52 characters)", text))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

/// A private key. Nothing prints it.
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key and its PKCS#8 file, PEM (RFC 7468, RFC 8410).
    pub(crate) fn generate() -> Result<(SigningKey, Zeroizing<String>), String> {
        let pair = Ed25519KeyPair::generate().map_err(|_| "no random numbers".to_owned())?;
        let file = pair.to_pkcs8v1().map_err(|_| "the new key cannot be written".to_owned())?;
        let body = Zeroizing::new(STANDARD.encode(file.as_ref()));
        let text = Zeroizing::new(format!("{BEGIN}\n{}\n{END}\n", body.as_str()));
        Ok((SigningKey::of(pair)?, text))
    }

    /// Reads a PKCS#8 file, as [`SigningKey::generate`] or `openssl genpkey -algorithm ed25519` writes it.
    pub(crate) fn parse(pem: &str) -> Result<SigningKey, String> {
        let refused =
            || "it is no Ed25519 key in PEM (PKCS#8); make one with `openssl genpkey -algorithm ed25519`".to_owned();
        let body = pem.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).ok_or_else(refused)?.0;
        let body = Zeroizing::new(body.split_whitespace().collect::<String>());
        let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| refused())?);
        SigningKey::of(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| refused())?)
    }

    fn of(pair: Ed25519KeyPair) -> Result<SigningKey, String> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| "its public half is too short".to_owned())?;
        Ok(SigningKey { pair, public: PublicKey(public) })
    }

    /// Its public half.
    pub(crate) fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs these bytes as a statement of this kind.
    pub(crate) fn sign(&self, kind: &str, body: &[u8]) -> Signature {
        let sig = STANDARD.encode(self.pair.sign(&encoding(kind, body)));
        Signature { keyid: self.public, sig }
    }
}

/// One signature and whose it is, as DSSE writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Who signed.
    pub keyid: PublicKey,
    /// The 64 bytes, base64.
    pub sig: String,
}

/// The signatures of a file that lies beside them: a DSSE envelope without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    #[serde(rename = "payloadType")]
    kind: String,
    pub(crate) signatures: Vec<Signature>,
}

impl Envelope {
    /// Signatures of a bundle's manifest.
    pub(crate) fn of_bundle(signatures: Vec<Signature>) -> Envelope {
        Envelope { kind: BUNDLE.to_owned(), signatures }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).map(|text| text + "\n").unwrap_or_default()
    }

    /// Reads the signatures of a bundle's manifest.
    pub(crate) fn parse_bundle(text: &str) -> Result<Envelope, String> {
        let envelope: Envelope = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if envelope.kind != BUNDLE {
            return Err(format!("it signs {:?}, which is no bundle", envelope.kind));
        }
        Ok(envelope)
    }
}

/// One key's word that another takes its place: whoever trusts `from` and sees this trusts `to` from then on, and `from` no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The key that goes, and signed this.
    pub from: PublicKey,
    /// The key that comes.
    pub to: PublicKey,
    /// The 64 bytes, base64.
    pub sig: String,
}

impl Succession {
    /// `from` gives its place to `to`.
    pub(crate) fn of(from: &SigningKey, to: PublicKey) -> Succession {
        let sig = from.sign(SUCCESSION, Succession::text(from.public(), to).as_bytes()).sig;
        Succession { from: from.public(), to, sig }
    }

    fn text(from: PublicKey, to: PublicKey) -> String {
        format!("{from}\n{to}\n")
    }
}

/// What a signed build result says: this input led to these bytes.
pub(crate) fn result_text(key: &str, sha256: &str, size: u64) -> String {
    format!("{key}\n{sha256}\n{size}\n")
}

/// DSSE's pre-authentication encoding.
fn encoding(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
    text.extend_from_slice(body);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same pair of statement and signature stands in the agent's tests: what is signed here is what is verified there.
    #[test]
    fn what_is_signed_here_is_what_agents_verify() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../node-bootstrap/src/signature_golden.json")).unwrap();
        let text = |name: &str| golden[name].as_str().unwrap().to_owned();
        let (old, new) = (SigningKey::parse(&text("old_key")).unwrap(), SigningKey::parse(&text("new_key")).unwrap());
        let manifest = text("manifest");
        assert_eq!(new.sign(BUNDLE, manifest.as_bytes()).sig, text("signature"));
        assert_eq!(new.public().to_string(), text("new_public"));
        let succession = Succession::of(&old, new.public());
        assert_eq!((succession.from.to_string(), succession.sig), (text("old_public"), text("succession")));
    }

    #[test]
    fn a_signature_is_of_one_key_one_kind_and_one_text() {
        let ((one, pem), (other, _)) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let one = (SigningKey::parse(&pem).unwrap().public() == one.public()).then_some(one).unwrap();
        let signature = one.sign(BUNDLE, b"text");
        assert!(one.public().verifies(BUNDLE, b"text", &signature.sig));
        assert!(!one.public().verifies(BUNDLE, b"texT", &signature.sig));
        assert!(!one.public().verifies(RESULT, b"text", &signature.sig), "another kind of statement");
        assert!(!other.public().verifies(BUNDLE, b"text", &signature.sig));
        for bad in ["", "AAAA", "not base64", &signature.sig[..80]] {
            assert!(!one.public().verifies(BUNDLE, b"text", bad), "{bad}");
        }
        assert!(!format!("{one:?}").contains(pem.lines().nth(1).unwrap()), "Debug shows no private key");
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        for text in ["", "ed25519:", "ed25519:AAAA", "ssh-ed25519 AAAA"] {
            assert!(text.parse::<PublicKey>().unwrap_err().contains("is no public key"), "{text}");
        }
        for pem in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(SigningKey::parse(pem).unwrap_err().contains("openssl genpkey"), "{pem}");
        }
    }
}
