//! One answer for all who ask the same at about the same time: what a change costs does not grow with the pages that show it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::time::Instant;

/// Slots by key; one that nobody holds is forgotten.
pub struct Shared<T>(Mutex<HashMap<String, Weak<Slot<T>>>>);

/// The latest answer to one question, and when it was asked.
pub struct Slot<T>(tokio::sync::Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shared<T> {
    /// The slot of a key. Whoever keeps it shares the answers of all who do.
    pub fn slot(&self, key: &str) -> Arc<Slot<T>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot(tokio::sync::Mutex::new(None)));
        slots.insert(key.to_owned(), Arc::downgrade(&slot));
        slot
    }
}

impl<T: Clone> Slot<T> {
    /// An answer that was asked for at `since` or later: another's, or else `ask`'s. A failure is nobody else's.
    ///
    /// # Errors
    /// Those of `ask`.
    pub async fn get<E>(&self, since: Instant, ask: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut latest = self.0.lock().await;
        if let Some((_, answer)) = latest.as_ref().filter(|(asked, _)| *asked >= since) {
            return Ok(answer.clone());
        }
        let asked = Instant::now();
        let answer = ask.await?;
        *latest = Some((asked, answer.clone()));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_question() {
        let (shared, asked) = (Shared::<usize>::default(), AtomicUsize::new(0));
        let since = Instant::now();
        let slots: Vec<_> = (0..50).map(|_| shared.slot("a")).collect();
        let ask = || async { Ok::<_, ()>(asked.fetch_add(1, Ordering::Relaxed) + 1) };
        let answers = futures::future::join_all(slots.iter().map(|slot| slot.get(since, ask()))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(1)), "{answers:?}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        assert_eq!(slots[0].get(Instant::now(), ask()).await, Ok(2), "what changed since is asked for again");
        assert_eq!(shared.slot("b").get(since, ask()).await, Ok(3), "another question has an answer of its own");
        assert_eq!(slots[1].get(Instant::now(), async { Err::<usize, _>(()) }).await, Err(()));
        drop(slots);
        assert_eq!(shared.slot("a").get(since, ask()).await, Ok(4), "nobody keeps what nobody looks at");
    }
}
