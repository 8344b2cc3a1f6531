//! The platform's randomness, for the domain crate that has none of its own.

use tenant_controlplane::pki::{KeySource, PkiError};

/// Keys and bytes from the operating system's generator.
#[derive(Debug, Clone, Copy)]
pub struct Keys;

impl KeySource for Keys {
    fn key_pair(&self) -> Result<rcgen::KeyPair, PkiError> {
        rcgen::KeyPair::generate().map_err(PkiError::Key)
    }

    fn bytes32(&self) -> Result<[u8; 32], PkiError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| PkiError::Random)?;
        Ok(bytes)
    }
}
