//! Tokens: what they look like, and what is kept of them.
//!
//! A token is `<prefix>_<26 characters of its row's id>_<43 characters of randomness>`. The id finds the row, the SHA-256 of the whole
//! text (256 random bits need no slow hash) is compared in constant time.

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub(crate) use secrecy::ExposeSecret;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::error::StoreError;

/// A text that is never printed by accident; read it with [`crate::ExposeSecret::expose_secret`].
pub type Secret = SecretString;

/// What an API token begins with.
pub(crate) const API_PREFIX: &str = "pilothouse";
/// What a join token begins with.
pub(crate) const JOIN_PREFIX: &str = "pilothouse_join";
/// What a set-up token begins with.
pub(crate) const SETUP_PREFIX: &str = "pilothouse_setup";
/// What a token that sets a forgotten password begins with.
pub(crate) const RESET_PREFIX: &str = "pilothouse_reset";

const SUFFIX_LEN: usize = 26;
const RANDOM_LEN: usize = 43;
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new token and the hash to keep. Without a suffix it has none (there is only one set-up token).
pub(crate) fn mint(prefix: &str, suffix: Option<&str>) -> Result<(Secret, String), StoreError> {
    let mut random = Zeroizing::new([0_u8; 32]);
    fill(random.as_mut_slice())?;
    let random = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
    let secret = match suffix {
        Some(suffix) => SecretString::from(format!("{prefix}_{suffix}_{}", random.as_str())),
        None => SecretString::from(format!("{prefix}_{}", random.as_str())),
    };
    let hash = hash(secret.expose_secret());
    Ok((secret, hash))
}

/// The id's 26 characters within a token; `None` for anything that is no token of that kind.
pub(crate) fn suffix_of<'a>(prefix: &str, token: &'a str) -> Option<&'a str> {
    let rest = token.strip_prefix(prefix)?.strip_prefix('_')?;
    let (suffix, random) = rest.split_at_checked(SUFFIX_LEN)?;
    (random.len() == RANDOM_LEN + 1 && random.starts_with('_')).then_some(suffix)
}

/// What is stored of a token: SHA-256 of the whole text, in hexadecimal.
pub(crate) fn hash(token: &str) -> String {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a token is the one a hash was made of; takes the same time whatever the answer.
pub(crate) fn matches(token: &str, stored: &str) -> bool {
    constant_time::verify_slices_are_equal(hash(token).as_bytes(), stored.as_bytes()).is_ok()
}

/// `length` random characters that can stand in a DNS label.
pub(crate) fn random_label(length: usize) -> Result<String, StoreError> {
    let mut bytes = vec![0_u8; length];
    fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(BASE32[usize::from(byte % 32)])).collect())
}

fn fill(bytes: &mut [u8]) -> Result<(), StoreError> {
    rand::fill(bytes).map_err(|_| StoreError::unavailable("the system gives no random bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_carry_their_id_and_nothing_shows_them() {
        let suffix = "01h455vb4pex5vsknk084sn02q";
        let (secret, stored) = mint(JOIN_PREFIX, Some(suffix)).unwrap();
        let text = secret.expose_secret();
        assert_eq!(text.len(), "pilothouse_join_".len() + 26 + 1 + 43);
        assert_eq!(suffix_of(JOIN_PREFIX, text), Some(suffix));
        assert!(matches(text, &stored) && !matches(&text.replace("join", "nioj"), &stored));
        assert!(!format!("{secret:?}").contains(suffix));
        assert!(!stored.contains(&text[43..]));
    }

    #[test]
    fn what_is_no_token_has_no_suffix() {
        let wrong = ["", "pilothouse", "pilothouse_", "pilothouse_äöü", "pilothouse_01h455vb4pex5vsknk084sn02q_short"];
        assert!(wrong.iter().all(|text| suffix_of(API_PREFIX, text).is_none()));
    }

    #[test]
    fn labels_are_labels() {
        let label = random_label(5).unwrap();
        assert!(label.len() == 5 && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    }
}
