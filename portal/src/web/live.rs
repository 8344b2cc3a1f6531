//! Live pages: a stream of the page's own fragment, rendered anew whenever something in the store changed.
//!
//! The fragment is the same template the page was made with, so a reload shows the same thing. Changes only wake the
//! stream; what is shown is always read from the store. A stream ends after some minutes, so that the browser connects
//! again and a session that has ended ends here too.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use migrations::Change;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::Error;
use crate::state::AppState;

/// How long one stream lasts.
const LIFETIME: Duration = Duration::from_secs(300);
/// Fragments follow each other no faster.
const CALM: Duration = Duration::from_millis(150);
/// How often times on the page are brought up to date while something runs, and while nothing does.
const BUSY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(15);

/// A rendered fragment, and whether something in it is under way.
pub struct Fragment {
    /// The HTML that takes the place of the old one.
    pub html: String,
    /// Whether it changes by the second.
    pub busy: bool,
}

struct Streaming<R> {
    changes: Receiver<Change>,
    render: R,
    sent: String,
    pace: Duration,
    until: Instant,
    over: bool,
}

/// Streams fragments. `render` reads everything anew; when the thing is gone, `gone` is the last fragment.
pub fn stream<R, F>(
    state: &AppState,
    gone: String,
    render: R,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<R, F>>
where
    R: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<Fragment, Error>> + Send + 'static,
{
    let streaming = Streaming {
        changes: state.changes(),
        render,
        sent: String::new(),
        pace: Duration::ZERO,
        until: Instant::now() + LIFETIME,
        over: false,
    };
    let events = futures::stream::unfold((streaming, gone), |(mut streaming, gone)| async move {
        let html = streaming.next(&gone).await?;
        Some((Ok(Event::default().data(html)), (streaming, gone)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

impl<R, F> Streaming<R>
where
    R: FnMut() -> F,
    F: Future<Output = Result<Fragment, Error>>,
{
    /// The next fragment that differs from the last one; `None` when the stream is over.
    async fn next(&mut self, gone: &str) -> Option<String> {
        while !self.over {
            self.wake().await;
            match (self.render)().await {
                Ok(fragment) => {
                    self.pace = if fragment.busy { BUSY } else { IDLE };
                    if fragment.html != self.sent {
                        self.sent.clone_from(&fragment.html);
                        return Some(fragment.html);
                    }
                }
                Err(Error::NotFound { .. }) => {
                    self.over = true;
                    return Some(gone.to_owned());
                }
                // The database may be back at the next look.
                Err(Error::Unavailable(_)) => self.pace = IDLE,
                Err(_) => self.over = true,
            }
        }
        None
    }

    /// Returns at once the first time, then when something changed, when the page's times are old, or at the end.
    async fn wake(&mut self) {
        let first = self.sent.is_empty() && self.pace.is_zero();
        if first {
            self.pace = BUSY;
            return;
        }
        tokio::select! {
            change = self.changes.recv() => self.settle(change).await,
            () = sleep(self.pace) => {}
            () = sleep_until(self.until) => self.over = true,
        }
    }

    /// Changes come in bursts; one look answers all that came meanwhile.
    async fn settle(&mut self, change: Result<Change, RecvError>) {
        if matches!(change, Err(RecvError::Closed)) {
            self.over = true;
        }
        sleep(CALM).await;
        self.changes = self.changes.resubscribe();
    }
}
