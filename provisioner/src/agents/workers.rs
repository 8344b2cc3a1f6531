//! Work that takes a processor for milliseconds, away from the runtime that carries everybody's connections: so many threads, and so
//! many who wait for one.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A small pool.
pub struct Workers {
    threads: Arc<Semaphore>,
    tickets: Semaphore,
}

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// As many wait as may.
    #[error("queue full")]
    Busy,
    /// The work panicked, or the process ends.
    #[error("worker panicked")]
    Lost,
}

impl Workers {
    /// `threads` work at a time, and at most `queue` more wait for one.
    pub fn new(threads: usize, queue: usize) -> Self {
        Self { threads: Arc::new(Semaphore::new(threads)), tickets: Semaphore::new(threads + queue) }
    }

    /// Does `work` on a thread of the pool.
    ///
    /// # Errors
    /// [`WorkError`].
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkError> {
        let _ticket = self.tickets.try_acquire().map_err(|_| WorkError::Busy)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(|_| WorkError::Lost)?;
        // Whoever asked may be gone: the thread is taken until the work is done all the same.
        let job = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(thread);
            done
        });
        job.await.map_err(|_| WorkError::Lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn beyond_its_queue_a_pool_is_busy() {
        let pool = Arc::new(Workers::new(1, 1));
        let (release, held) = mpsc::channel::<()>();
        let running = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run(move || held.recv().is_ok()).await })
        };
        while pool.threads.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut waiting = Box::pin(pool.run(|| 7));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(pool.run(|| 8).await, Err(WorkError::Busy));
        release.send(()).unwrap();
        assert_eq!((running.await.unwrap(), waiting.await), (Ok(true), Ok(7)));
        assert_eq!(pool.run(|| 9).await, Ok(9));
    }
}
