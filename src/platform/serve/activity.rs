//! Whether a connection is used: requests under way, and when one began or a part of an answer was taken.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::memory::{Charge, Held};

/// What a connection's requests do.
pub struct Activity {
    state: Mutex<State>,
    begun: Notify,
    touch: Box<dyn Fn() + Send + Sync>,
}

struct State {
    running: usize,
    last: Instant,
}

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// Nothing was asked for too long.
    Idle,
    /// Requests are under way, and none moved for too long: their answers are not read.
    Stalled,
}

impl Activity {
    /// None yet. `touch` is called whenever the connection is used.
    pub fn new(touch: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let state = Mutex::new(State { running: 0, last: Instant::now() });
        Arc::new(Self { state, begun: Notify::new(), touch: Box::new(touch) })
    }

    /// A request is under way until the value is dropped.
    pub fn begin(self: &Arc<Self>) -> Running {
        self.change(|state| state.running += 1);
        self.begun.notify_one();
        Running(self.clone())
    }

    /// Ready when the connection was idle, or stalled, for as long as that.
    pub async fn unused(&self, idle: Duration, stalled: Duration) -> Unused {
        loop {
            let (limit, why) = match self.state().running {
                0 => (idle, Unused::Idle),
                _ => (stalled, Unused::Stalled),
            };
            let end = self.state().last + limit;
            if end <= Instant::now() {
                return why;
            }
            tokio::select! {
                () = sleep_until(end) => {}
                () = self.begun.notified() => {}
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        state.last = Instant::now();
        change(&mut state);
        drop(state);
        (self.touch)();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
pub struct Running(Arc<Activity>);

impl Running {
    fn moved(&self) {
        self.0.change(|_| {});
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(|state| state.running -= 1);
        // Whoever waits for the longer time of a stalled connection waits for the shorter one of an idle one from now on.
        self.0.begun.notify_one();
    }
}

/// A request's body, charged with what it brings for as long as the request is under way.
pub struct Asked {
    body: Incoming,
    held: Arc<Held>,
    charges: Arc<Mutex<Vec<Charge>>>,
}

impl Asked {
    /// `charges` keeps what was read; it is to be dropped when the request is over.
    pub fn new(body: Incoming, held: Arc<Held>, charges: Arc<Mutex<Vec<Charge>>>) -> Self {
        Self { body, held, charges }
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else { return Poll::Ready(None) };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            if !self.held.has_room() {
                return Poll::Ready(Some(Err("the platform holds as much as it may".into())));
            }
            let charge = self.held.charge(data.len());
            self.charges.lock().unwrap_or_else(PoisonError::into_inner).push(charge);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body: its request is under way until the body ends, each part of it moves the connection, and is charged.
pub struct Answered {
    body: Body,
    held: Arc<Held>,
    running: Running,
}

impl Answered {
    /// The body of an answer to the request that is `running`.
    pub fn new(body: Body, held: Arc<Held>, running: Running) -> Self {
        Self { body, held, running }
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.running.moved();
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.held.charged(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_connection_is_idle_from_the_end_of_its_last_request() {
        let activity = Activity::new(|| {});
        let running = activity.begin();
        let waiting = activity.clone();
        let unused = tokio::spawn(async move { waiting.unused(SHORT, LONG).await });
        tokio::time::sleep(3 * SHORT).await;
        assert!(!unused.is_finished(), "a request is under way");
        drop(running);
        assert_eq!(unused.await.unwrap(), Unused::Idle);
    }

    #[tokio::test]
    async fn a_request_is_stalled_when_nothing_of_its_answer_moves() {
        let touched = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = touched.clone();
        let activity = Activity::new(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let running = activity.begin();
        assert_eq!(activity.unused(LONG, SHORT).await, Unused::Stalled);
        running.moved();
        assert!(futures::poll!(Box::pin(activity.unused(LONG, SHORT))).is_pending(), "it moved just now");
        assert_eq!(touched.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
