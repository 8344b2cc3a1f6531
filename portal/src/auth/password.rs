//! Passwords: argon2id, on the blocking pool, few at a time, because each costs 19 MiB and tens of milliseconds.

use crate::error::Error;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// The shortest password taken, in characters.
pub const SHORTEST: usize = 12;
/// The longest password taken, in bytes; more would only cost time.
pub const LONGEST: usize = 1024;

const AT_ONCE: usize = 2;

/// Hashes and checks passwords.
pub struct Passwords {
    gate: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { gate: Semaphore::new(AT_ONCE) }
    }
}

/// Whether a new password is long enough. Length is all that is asked for (NIST SP 800-63B).
///
/// # Errors
/// A validation error for the field at `pointer`, such as `/password`.
pub fn check(pointer: &str, password: &SecretString) -> Result<(), Error> {
    let (characters, bytes) = (password.expose_secret().chars().count(), password.expose_secret().len());
    if characters < SHORTEST {
        let detail = format!("the password has {characters} characters: choose one with at least {SHORTEST}");
        return Err(Error::field(pointer, "TOO_SHORT", detail));
    }
    if bytes > LONGEST {
        return Err(Error::field(pointer, "TOO_LONG", format!("the password may have at most {LONGEST} bytes")));
    }
    Ok(())
}

impl Passwords {
    /// The hash to store, as a PHC string with its own salt and cost.
    ///
    /// # Errors
    /// [`Error::Internal`] if the machine has no randomness or memory.
    pub async fn hash(&self, password: SecretString) -> Result<SecretString, Error> {
        self.blocking(move || {
            let hash = Argon2::default().hash_password(password.expose_secret().as_bytes());
            hash.map(|hash| SecretString::from(hash.to_string())).map_err(|error| Error::internal(error.to_string()))
        })
        .await
    }

    /// Whether a password fits. Without a stored hash it takes as long and says no, so that nobody learns which
    /// addresses have accounts.
    ///
    /// # Errors
    /// [`Error::Internal`] if the check itself failed.
    pub async fn verify(&self, password: SecretString, stored: Option<SecretString>) -> Result<bool, Error> {
        if password.expose_secret().len() > LONGEST {
            return Ok(false);
        }
        self.blocking(move || Ok(fits(&password, stored.as_ref()))).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _permit = self.gate.acquire().await.map_err(Error::internal)?;
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

fn fits(password: &SecretString, stored: Option<&SecretString>) -> bool {
    let password = password.expose_secret().as_bytes();
    let Some(stored) = stored else {
        let _same_time = Argon2::default().hash_password(password);
        return false;
    };
    let hash = PasswordHash::new(stored.expose_secret());
    hash.is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_fits_its_password_only() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse battery".into()).await.unwrap();
        assert!(hash.expose_secret().starts_with("$argon2id$"));
        assert!(passwords.verify("correct horse battery".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse batterz".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("correct horse battery".into(), None).await.unwrap());
    }

    #[test]
    fn short_ones_are_told_how_short() {
        let error = check("/password", &"elevenchars".into()).err().unwrap();
        assert!(error.to_string().contains("11 characters"), "{error}");
        assert!(check("/password", &"twelve chars".into()).is_ok());
    }
}
