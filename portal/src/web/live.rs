//! Live pages: a stream of the page's own fragment, rendered anew whenever something it shows has changed.
//!
//! The fragment is the same template the page was made with, so a reload shows the same thing. Changes of the page's own
//! cluster or organization wake the stream, and nobody else's; what is shown is always read from the store, once for all who
//! see the same. Whose stream it is, and what they may, is looked at before anything is sent: an ended session or a lost role
//! ends it. A stream ends after some minutes in any case, and the browser connects again.

mod limiter;
mod shared;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api_types::Cluster;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use migrations::{Change, ChangeKind, Role};
use sha2::{Digest, Sha256};
use tenant_controlplane::id::{ClusterId, OrganizationId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until};

use crate::auth::{Actor, session};
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use limiter::{StreamLimiter, StreamPermit};
use shared::{Shared, Slot};

/// How long one stream lasts.
const LIFETIME: Duration = Duration::from_secs(300);
/// Fragments follow each other no faster.
const MIN_INTERVAL: Duration = Duration::from_millis(150);
/// How often times on the page are brought up to date while something runs, and while nothing does.
const BUSY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(15);

/// What all live pages share.
#[derive(Default)]
pub struct LivePages {
    limiter: StreamLimiter,
    fragments: Shared<Fragment>,
    people: Shared<Actor>,
}

/// A rendered fragment, and whether something in it is under way.
#[derive(Clone)]
pub struct Fragment {
    /// The HTML that takes the place of the old one.
    pub html: String,
    /// Whether it changes by the second.
    pub busy: bool,
}

/// A signed-in user who opens a live page, with a permit for it.
pub struct Subscriber {
    /// Who, and what they may now.
    pub actor: Actor,
    state: AppState,
    cookies: HeaderMap,
    connection: Connection,
    _permit: StreamPermit,
}

impl FromRequestParts<AppState> for Subscriber {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let actor = Actor::from_request_parts(parts, state).await?;
        let Ok(connection) = Connection::from_request_parts(parts, state).await;
        let mut cookies = HeaderMap::new();
        for line in parts.headers.get_all(COOKIE) {
            cookies.append(COOKIE, line.clone());
        }
        let permit = StreamPermit::take(state, actor.user_id)?;
        Ok(Self { actor, state: state.clone(), cookies, connection, _permit: permit })
    }
}

impl Subscriber {
    /// The same key for all streams of one session; a digest, because cookies are secrets.
    fn session_key(&self) -> String {
        let mut hash = Sha256::new();
        self.cookies.get_all(COOKIE).iter().for_each(|line| hash.update(line));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a live page shows.
pub struct Topic {
    /// Which page of which thing, the same for all who look at it: `overview cls_…`.
    pub page: String,
    /// Whose it is.
    pub organization: OrganizationId,
    /// The cluster it is about; `None`: all of the organization.
    pub cluster: Option<ClusterId>,
    /// The last fragment when the thing is gone.
    pub gone: String,
}

impl Topic {
    /// A page of a cluster; nothing takes its place when it is gone.
    ///
    /// # Errors
    /// [`Error::Internal`] for ids that are none, which no row has.
    pub fn of_cluster(page: &str, cluster: &Cluster) -> Result<Self, Error> {
        Ok(Self {
            page: format!("{page} {}", cluster.id),
            organization: cluster.organization_id.parse().map_err(Error::internal)?,
            cluster: Some(cluster.id.parse().map_err(Error::internal)?),
            gone: String::new(),
        })
    }

    fn concerns(&self, change: &Change) -> bool {
        let own = change.organization == Some(self.organization);
        match (change.kind, self.cluster) {
            (ChangeKind::Resync, _) => true,
            (ChangeKind::Organization, _) | (_, None) => own,
            (_, Some(cluster)) => change.cluster == Some(cluster),
        }
    }
}

struct Streaming<R> {
    subscriber: Subscriber,
    topic: Topic,
    render: R,
    changes: Receiver<Change>,
    person: Arc<Slot<Actor>>,
    /// Held between looks, so that others find the answer.
    fragment: Option<(Role, Arc<Slot<Fragment>>)>,
    sent: String,
    pace: Duration,
    until: Instant,
    over: bool,
}

/// When something may have changed, and from when on an answer tells it.
struct Woken {
    now: Instant,
    since: Instant,
}

/// Streams fragments. `render` reads everything anew, as the actor it is given; its result depends on the topic and on the
/// actor's role there, and on nothing else.
pub fn stream<R, F>(subscriber: Subscriber, topic: Topic, render: R) -> Response
where
    R: Fn(AppState, Actor) -> F + Send + 'static,
    F: Future<Output = Result<Fragment, Error>> + Send + 'static,
{
    let streaming = Streaming {
        changes: subscriber.state.changes(),
        person: subscriber.state.live().people.slot(&subscriber.session_key()),
        fragment: None,
        subscriber,
        topic,
        render,
        sent: String::new(),
        pace: Duration::ZERO,
        until: Instant::now() + LIFETIME,
        over: false,
    };
    let events = futures::stream::unfold(streaming, |mut streaming| async move {
        let html = streaming.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(html)), streaming))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

impl<R, F> Streaming<R>
where
    R: Fn(AppState, Actor) -> F,
    F: Future<Output = Result<Fragment, Error>>,
{
    /// The next fragment that differs from the last one; `None` when the stream is over.
    async fn next(&mut self) -> Option<String> {
        while !self.over {
            let woken = self.wake().await;
            match self.refresh(&woken).await {
                Ok(fragment) => {
                    self.pace = if fragment.busy { BUSY } else { IDLE };
                    if fragment.html != self.sent {
                        self.sent.clone_from(&fragment.html);
                        return Some(fragment.html);
                    }
                }
                Err(Error::NotFound { .. }) => {
                    self.over = true;
                    return Some(self.topic.gone.clone());
                }
                // The database may be back at the next look.
                Err(Error::Unavailable(_)) => self.pace = IDLE,
                Err(_) => self.over = true,
            }
        }
        None
    }

    /// Who it is now, what they may now, and what they may see now.
    async fn refresh(&mut self, woken: &Woken) -> Result<Fragment, Error> {
        let Subscriber { state, cookies, connection, .. } = &self.subscriber;
        let actor = self.person.get(woken.now, session::holder(state, cookies, connection)).await?;
        let role = actor.role(self.topic.organization).ok_or(Error::Unauthenticated)?;
        let slot = match self.fragment.take() {
            Some((known, slot)) if known == role => slot,
            _ => state.live().fragments.slot(&format!("{} {role}", self.topic.page)),
        };
        let render = (self.render)(state.clone(), actor);
        let fragment = slot.get(woken.since, render).await;
        self.fragment = Some((role, slot));
        fragment
    }

    /// Returns at once the first time, then when something changed, when the page's times are old, or at the end.
    async fn wake(&mut self) -> Woken {
        let first = self.pace.is_zero();
        if first {
            self.pace = BUSY;
            return Woken::at(Instant::now());
        }
        let woken = tokio::select! {
            wait_for_change = wait_for_change(&mut self.changes, &self.topic) => wait_for_change,
            () = sleep(self.pace) => {
                // Times on the page may be half as old as they get anyway.
                let now = Instant::now();
                return Woken { now, since: now.checked_sub(self.pace / 2).unwrap_or(now) };
            }
            () = sleep_until(self.until) => None,
        };
        let Some(woken) = woken else {
            self.over = true;
            return Woken::at(Instant::now());
        };
        sleep(MIN_INTERVAL).await;
        woken
    }
}

impl Woken {
    const fn at(now: Instant) -> Self {
        Self { now, since: now }
    }
}

/// Waits for a change of the topic. Changes come in bursts: one look answers all that came until now. `None` when no more
/// will come.
async fn wait_for_change(changes: &mut Receiver<Change>, topic: &Topic) -> Option<Woken> {
    loop {
        match changes.recv().await {
            Ok(change) if !topic.concerns(&change) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => break,
            Err(RecvError::Closed) => return None,
        }
    }
    while changes.try_recv().is_ok() {}
    Some(Woken::at(Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn change(kind: ChangeKind, organization: u128, cluster: Option<u128>) -> Change {
        Change {
            kind,
            id: Uuid::from_u128(99),
            cluster: cluster.map(|id| ClusterId::from_uuid(Uuid::from_u128(id))),
            organization: Some(OrganizationId::from_uuid(Uuid::from_u128(organization))),
        }
    }

    #[test]
    fn only_changes_of_ones_own_wake() {
        let topic = |cluster: Option<u128>| Topic {
            page: String::new(),
            organization: OrganizationId::from_uuid(Uuid::from_u128(1)),
            cluster: cluster.map(|id| ClusterId::from_uuid(Uuid::from_u128(id))),
            gone: String::new(),
        };
        let (all, one) = (topic(None), topic(Some(10)));
        let table = [
            (change(ChangeKind::Node, 1, Some(10)), true, true),
            (change(ChangeKind::Node, 1, Some(11)), true, false),
            (change(ChangeKind::Node, 2, Some(20)), false, false),
            (change(ChangeKind::Organization, 1, None), true, true),
            (change(ChangeKind::Organization, 2, None), false, false),
            (Change { organization: None, ..change(ChangeKind::Work, 1, None) }, false, false),
            (Change { organization: None, ..change(ChangeKind::Resync, 1, None) }, true, true),
        ];
        for (change, of_all, of_one) in table {
            assert_eq!((all.concerns(&change), one.concerns(&change)), (of_all, of_one), "{change:?}");
        }
    }
}
