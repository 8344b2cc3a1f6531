//! The randomness the domain crate does not have: key pairs and secret bytes from the operating system.

use tenant_controlplane::pki::{KeySource, PkiError};

/// Keys from the operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemKeys;

impl KeySource for SystemKeys {
    fn key_pair(&self) -> Result<rcgen::KeyPair, PkiError> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(PkiError::Key)
    }

    fn bytes32(&self) -> Result<[u8; 32], PkiError> {
        use rand::TryRngCore;
        let mut bytes = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|_| PkiError::Random)?;
        Ok(bytes)
    }
}
