//! The receive window of a link's streams: small at first, larger while they are faster than it allows, small again when they are not.
//!
//! HTTP/2 has one initial window for all streams of a connection, and changing it changes those that are open too (RFC 9113 section
//! 6.9.2). So a link's streams grow together, each charged for it, and only while memory is not short ([`Charge::grow`]). What a
//! stream was charged for it keeps until it ends: it may hold that much.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    limits::Limits,
    tunnel::budget::{Charge, ClusterBudget, Short},
};

/// Bytes a stream may have queued for sending before its reader is paused.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;
/// A stream through which this many windows went ...
const WINDOWS: u64 = 4;
/// ... in this time is held up by its window, be the line as long as it may.
const FAST: Duration = Duration::from_secs(2);
/// So long after the last such stream the window is small again.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// The window of one link's streams.
#[derive(Debug)]
pub(crate) struct Window {
    first: u32,
    most: u32,
    size: AtomicU32,
    asked: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    fast_at: Instant,
    charges: Vec<Weak<Charge>>,
}

/// How fast one stream is.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    bytes: u64,
}

impl Window {
    /// As small as the limits say.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let (first, most) = (limits.stream_window, limits.largest_window.max(limits.stream_window));
        let state = State { fast_at: Instant::now(), charges: Vec::new() };
        Arc::new(Self { first, most, size: AtomicU32::new(first), asked: Notify::new(), state: Mutex::new(state) })
    }

    /// Bytes now.
    pub(crate) fn size(&self) -> u32 {
        self.size.load(Relaxed)
    }

    /// Charges a new stream.
    pub(crate) fn charge(&self, cluster: &Arc<ClusterBudget>) -> Result<Arc<Charge>, Short> {
        let mut state = self.state();
        let charge = Arc::new(cluster.charge(self.size() as usize + SEND_BUFFER)?);
        state.charges.retain(|other| other.strong_count() > 0);
        state.charges.push(Arc::downgrade(&charge));
        Ok(charge)
    }

    /// Ready when a stream was faster than the window allows, and it may be larger.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The next larger window, every open stream charged for it; `None` when there is none, or no memory for it.
    pub(crate) fn grow(&self) -> Option<u32> {
        let state = self.state();
        let (size, next) = (self.size(), self.size().saturating_mul(2).min(self.most));
        let by = (next - size) as usize;
        let open: Vec<Arc<Charge>> = state.charges.iter().filter_map(Weak::upgrade).collect();
        let charged = open.iter().take_while(|charge| charge.grow(by)).count();
        if by == 0 || charged < open.len() {
            open.iter().take(charged).for_each(|charge| charge.shrink(by));
            return None;
        }
        self.size.store(next, Relaxed);
        Some(next)
    }

    /// The first window again, when no stream was fast for long. Open streams stay charged.
    pub(crate) fn is_settled(&self) -> Option<u32> {
        let is_settled = self.size() > self.first && self.state().fast_at.elapsed() >= SETTLED_AFTER;
        is_settled.then(|| {
            self.size.store(self.first, Relaxed);
            self.first
        })
    }

    /// The size before a change that could not be sent to the agent.
    pub(crate) fn restore(&self, size: u32) {
        self.size.store(size, Relaxed);
    }

    /// Notes bytes that went through a stream; asks for a larger window when they are many.
    pub(crate) fn note(&self, pace: &mut Pace, bytes: usize) {
        pace.bytes += bytes as u64;
        if pace.bytes < WINDOWS * u64::from(self.size()) {
            return;
        }
        if pace.since.elapsed() <= FAST {
            self.state().fast_at = Instant::now();
            if self.size() < self.most {
                self.asked.notify_one();
            }
        }
        *pace = Pace::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::budget::Budget;

    const KIB: usize = 1024;

    fn cluster(limit: usize) -> Arc<ClusterBudget> {
        ClusterBudget::new(limit, Budget::new(limit))
    }

    #[tokio::test]
    async fn a_fast_stream_asks_and_the_window_doubles_to_its_most() {
        let window = Window::new(&Limits::default());
        let mut pace = Pace::default();
        window.note(&mut pace, 4 * 64 * KIB - 1);
        window.note(&mut pace, 1);
        window.asked().await;
        assert_eq!(window.is_settled(), None, "it was fast just now");
        let sizes: Vec<u32> = std::iter::from_fn(|| window.grow()).collect();
        assert_eq!(sizes, [128 * 1024, 256 * 1024, 512 * 1024]);
    }

    #[test]
    fn open_streams_are_charged_for_growing_or_nothing_grows() {
        let (window, cluster) = (Window::new(&Limits::default()), cluster(1024 * KIB));
        let _held = [window.charge(&cluster).unwrap(), window.charge(&cluster).unwrap()];
        drop(window.charge(&cluster).unwrap());
        assert_eq!(window.grow(), Some(128 * 1024), "two streams, 384 KiB of 512");
        assert_eq!(window.grow(), None, "that would be more than half");
        assert_eq!(window.size(), 128 * 1024);
        // Nothing of the refused growth stays charged: 640 KiB are free, a stream takes 192.
        let more: Vec<_> = std::iter::from_fn(|| window.charge(&cluster).ok()).collect();
        assert_eq!(more.len(), 3);
    }
}
