//! Attacks on the parts' list, each with least change. The signatures were made by openssl, over the texts in the golden file, which
//! the bundle's own tests sign too.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;

use super::*;

fn golden(name: &str) -> String {
    let all: Value = serde_json::from_str(include_str!("signature_golden.json")).unwrap();
    all[name].as_str().unwrap().to_owned()
}

/// A key that nobody named.
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn key(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0.public_key()))
    }

    fn sign(&self, kind: &str, text: &str) -> String {
        STANDARD.encode(self.0.sign(format!("DSSEv1 {} {kind} {} {text}", kind.len(), text.len()).as_bytes()))
    }

    pub(crate) fn signed(&self, manifest: &str) -> Signed {
        let signature = self.sign(BUNDLE, manifest);
        Signed { manifest: manifest.to_owned(), key: self.key(), signature, successions: Vec::new() }
    }
}

/// A list of one kubelet.
pub(crate) fn manifest(version: &str, sha256: &str) -> String {
    let kubelet =
        serde_json::json!({ "name": "kubelet", "kind": "binary", "version": version, "sha256": sha256, "size": 3 });
    serde_json::json!({ "format": 1, "kubernetes": version, "arch": machine::arch(), "artefacts": [kubelet] })
        .to_string()
}

/// A configuration with one kubelet.
pub(crate) fn config(version: &str, sha256: &str) -> NodeConfig {
    let (name, kind, version, sha256) = ("kubelet".into(), PartKind::Binary.into(), version.into(), sha256.into());
    let part = Part { name, kind, version, sha256, size: 3, image: String::new() };
    NodeConfig { kubernetes_version: part.version.clone(), parts: vec![part], ..NodeConfig::default() }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn what_openssl_signed_is_verified_and_a_named_successor_is_followed() {
    let part = |name: &str, kind: PartKind, version: &str, sha: &str, size, image: &str| Part {
        name: name.into(),
        kind: kind.into(),
        version: version.into(),
        sha256: sha.repeat(64),
        size,
        image: image.into(),
    };
    let kubelet = part("kubelet", PartKind::Binary, "1.36.3", "a", 3, "");
    let pause = part("pause", PartKind::Image, "1.0", "b", 4, "pilothouse.local/pause:1.0");
    let (old, new) = (golden("old_public"), golden("new_public"));
    let word = Succession { from: old.clone(), to: new.clone(), signature: golden("succession") };
    let signed = Signed {
        manifest: golden("manifest"),
        key: new.clone(),
        signature: golden("signature"),
        successions: vec![word],
    };
    let config = NodeConfig {
        kubernetes_version: "1.36.3".into(),
        parts: vec![kubelet, pause],
        signed: Some(signed),
        ..NodeConfig::default()
    };
    for trusted in [&new, &old, ""] {
        assert_eq!(check(&config, trusted), Ok(new.clone()), "trusting {trusted}");
    }
    let mut without = config.clone();
    without.signed.as_mut().unwrap().successions.clear();
    let refused = SignatureError::Key { offered: new.clone(), trusted: old.clone() };
    assert_eq!(check(&without, &old), Err(refused.clone()), "nobody said that the key changed");
    let mut forged = config.clone();
    forged.signed.as_mut().unwrap().successions[0].signature = golden("signature");
    assert_eq!(check(&forged, &old), Err(refused), "a signature of another kind of statement");
    let mut reversed = config;
    reversed.signed.as_mut().unwrap().key = old.clone();
    assert!(matches!(check(&reversed, &new), Err(SignatureError::Key { .. })), "the old key does not come back");
}

#[test]
fn each_change_of_the_parts_is_refused() {
    let (platform, foreign) = (Signer::new(), Signer::new());
    let (key, good, bad) = (platform.key(), "a".repeat(64), "b".repeat(64));
    let offer = |config: NodeConfig, signed: Signed| check(&NodeConfig { signed: Some(signed), ..config }, &key);
    let signed = platform.signed(&manifest("1.36.3", &good));
    assert_eq!(offer(config("1.36.3", &good), signed.clone()), Ok(key.clone()));

    let part = Err(SignatureError::Part("kubelet".into()));
    assert_eq!(offer(config("1.36.3", &bad), signed.clone()), part, "another program");
    let mut larger = config("1.36.3", &good);
    larger.parts[0].size += 1;
    assert_eq!(offer(larger, signed.clone()), part);
    let mut more = config("1.36.3", &good);
    more.parts.push(Part { name: "runc".into(), ..more.parts[0].clone() });
    assert_eq!(
        offer(more, signed.clone()),
        Err(SignatureError::Part("runc".into())),
        "a listed file under another name"
    );
    let mut image = config("1.36.3", &good);
    image.parts[0].kind = PartKind::Image.into();
    assert_eq!(offer(image, signed.clone()), part, "a program as an image");

    let changed = Signed { manifest: manifest("1.36.3", &bad), ..signed.clone() };
    assert_eq!(offer(config("1.36.3", &bad), changed), Err(SignatureError::Wrong(key.clone())), "sums made anew");
    let truncated = Signed { manifest: signed.manifest[..40].to_owned(), ..signed.clone() };
    assert_eq!(offer(config("1.36.3", &good), truncated), Err(SignatureError::Wrong(key.clone())));
    let other = Signed { signature: platform.signed(&manifest("1.35.4", &good)).signature, ..signed.clone() };
    assert_eq!(offer(config("1.36.3", &good), other), Err(SignatureError::Wrong(key.clone())), "of another list");
    let unknown = foreign.signed(&manifest("1.36.3", &bad));
    assert!(matches!(offer(config("1.36.3", &bad), unknown.clone()), Err(SignatureError::Key { .. })));
    let posing = Signed { key: key.clone(), ..unknown };
    assert_eq!(offer(config("1.36.3", &bad), posing), Err(SignatureError::Wrong(key.clone())));
    let older = platform.signed(&manifest("1.35.4", &good));
    assert!(matches!(offer(config("1.36.3", &good), older), Err(SignatureError::Other { .. })), "an older version");
    let unreadable = platform.signed("no list");
    assert!(matches!(offer(config("1.36.3", &good), unreadable), Err(SignatureError::Malformed(_))));
    let empty = Signed { signature: String::new(), ..signed };
    assert_eq!(offer(config("1.36.3", &good), empty), Err(SignatureError::Wrong(key.clone())));
    assert_eq!(check(&config("1.36.3", &good), &key), Err(SignatureError::Missing(key.clone())), "left out");
    assert_eq!(check(&config("1.36.3", &good), ""), Ok(String::new()), "a platform of before, and a node of before");
}

#[test]
fn what_is_no_key_is_refused_on_the_command_line() {
    assert!(parse_key(&Signer::new().key()).is_ok());
    for text in ["", "ed25519:", "ed25519:AAAA", "AAAA"] {
        assert!(parse_key(text).unwrap_err().contains("is no public key"), "{text}");
    }
}
