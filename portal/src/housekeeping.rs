//! Drops what has ended, as long ago as the store says: credentials, answers kept for idempotency keys, operations, the audit log.

use migrations::{Store, StoreError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(10 * 60);

/// Cleans up now and then until it is cancelled. A database that does not answer is asked again the next time.
pub async fn housekeeping(store: Store, cancel: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match clean(&store).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "deleted expired rows"),
            Err(error) => tracing::warn!(%error, "expired rows not deleted; retrying in ten minutes"),
        }
    }
}

/// Drops what has ended, and gives the number of rows.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn clean(store: &Store) -> Result<u64, StoreError> {
    store.delete_expired(time::OffsetDateTime::now_utc()).await
}
