//! How secrets are written and read as JSON: as plain strings, wiped from memory when dropped.

use serde::{Deserialize, Deserializer, Serializer};
use zeroize::Zeroizing;

pub(super) fn serialize<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// The same for 32 bytes, as base64.
pub(super) mod bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(in crate::pki) fn serialize<S: Serializer>(
        bytes: &Zeroizing<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::serialize(&Zeroizing::new(STANDARD.encode(**bytes)), serializer)
    }

    pub(in crate::pki) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<[u8; 32]>, D::Error> {
        let text = super::deserialize(deserializer)?;
        let bytes =
            Zeroizing::new(STANDARD.decode(text.as_bytes()).map_err(|_| D::Error::custom("key is not base64"))?);
        let exact = bytes.as_slice().try_into().map_err(|_| D::Error::custom("key is not 32 bytes"))?;
        Ok(Zeroizing::new(exact))
    }
}
