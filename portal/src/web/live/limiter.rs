//! Limits live pages: per person and in all.
//!
//! A page takes one stream, so a person's permits also leave room on an HTTP/2 connection, where the gateway takes 16 streams.

use crate::error::Error;
use crate::state::AppState;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tenant_controlplane::id::UserId;

/// Streams of one person.
pub const PER_PERSON: usize = 8;
/// Streams in all.
pub const IN_ALL: usize = 256;

/// Who holds how many permits.
#[derive(Default)]
pub struct StreamLimiter(Mutex<HashMap<UserId, usize>>);

/// A permit, released when it is dropped.
pub struct StreamPermit {
    state: AppState,
    user: UserId,
}

impl StreamPermit {
    /// Acquires a permit for a person.
    ///
    /// # Errors
    /// [`Error::StreamLimit`], [`Error::StreamsFull`].
    pub fn take(state: &AppState, user: UserId) -> Result<Self, Error> {
        state.live().limiter.take(user)?;
        Ok(Self { state: state.clone(), user })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.state.live().limiter.release(self.user);
    }
}

impl StreamLimiter {
    fn take(&self, user: UserId) -> Result<(), Error> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(&user).is_some_and(|own| *own >= PER_PERSON) {
            return Err(Error::StreamLimit { most: PER_PERSON });
        }
        if held.values().sum::<usize>() >= IN_ALL {
            return Err(Error::StreamsFull { most: IN_ALL });
        }
        *held.entry(user).or_default() += 1;
        Ok(())
    }

    fn release(&self, user: UserId) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&user) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(held.remove(&user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn person(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn a_person_has_some_places_and_all_have_more() {
        let limiter = StreamLimiter::default();
        for _ in 0..PER_PERSON {
            limiter.take(person(0)).unwrap();
        }
        assert!(matches!(limiter.take(person(0)), Err(Error::StreamLimit { most: PER_PERSON })));
        limiter.release(person(0));
        limiter.take(person(0)).unwrap();
        for number in 1..u128::try_from(IN_ALL / PER_PERSON).unwrap() {
            for _ in 0..PER_PERSON {
                limiter.take(person(number)).unwrap();
            }
        }
        assert!(matches!(limiter.take(person(1000)), Err(Error::StreamsFull { most: IN_ALL })));
        limiter.release(person(1));
        limiter.take(person(1000)).unwrap();
        assert!(matches!(limiter.take(person(1001)), Err(Error::StreamsFull { .. })));
    }
}
