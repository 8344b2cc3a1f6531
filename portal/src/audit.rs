//! What people do that changes no row: the portal's own entries of the audit log.
//!
//! Whatever an anonymous caller, or the holder of a small credential, can do as often as they like is written a few times and then
//! now and then, with the number of those left out: nobody fills the database with it.

use crate::auth::Actor;
use crate::auth::bucket::{Buckets, Limit};
use crate::connection::Connection;
use crate::error::{Fault, catalog};
use crate::state::AppState;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use migrations::{NewAudit, StoreError, User, UserEvent};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tenant_controlplane::id::{ApiTokenId, UserId};

/// What is bounded apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Requests of this person that were refused.
    Refusals(UserId),
    /// Attempts to be this person that were refused.
    SignIns(UserId),
    /// Attempts to sign in to accounts that do not exist, all of them together.
    UnknownAccounts,
    /// New networks of this token.
    Networks(ApiTokenId),
}

impl Bound {
    const fn limit(self) -> Limit {
        match self {
            Self::Refusals(_) | Self::SignIns(_) => Limit { attempts: 20, refill: Duration::from_secs(60) },
            // 100 at once and 2,880 a day: half a gigabyte in a year of uninterrupted attack.
            Self::UnknownAccounts => Limit { attempts: 100, refill: Duration::from_secs(30) },
            Self::Networks(_) => Limit { attempts: 10, refill: Duration::from_secs(600) },
        }
    }
}

/// How many entries of a kind were left out at most is remembered of so many kinds.
const MOST_COUNTED: usize = 1000;

/// Decides what is written.
#[derive(Default)]
pub struct Recorder {
    buckets: Buckets<Bound>,
    left_out: Mutex<HashMap<Bound, u64>>,
}

impl Recorder {
    /// Whether one more may be written, and how many were left out since the last.
    pub fn take(&self, bound: Bound) -> Option<u64> {
        let refused = self.buckets.take(bound, bound.limit(), Instant::now()).refused.is_some();
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if !refused {
            return Some(left_out.remove(&bound).unwrap_or_default());
        }
        if left_out.len() < MOST_COUNTED || left_out.contains_key(&bound) {
            *left_out.entry(bound).or_default() += 1;
        }
        None
    }
}

fn and_more(text: &str, left_out: u64) -> String {
    match left_out {
        0 => text.to_owned(),
        more => format!("{text}; {more} similar entries before this one are not listed"),
    }
}

/// An entry that cannot be written stops nobody: the log of the process says so.
fn noted(written: Result<(), StoreError>) {
    if let Err(error) = written {
        tracing::warn!(%error, "audit log entry not written");
    }
}

/// Writes that somebody was not let in. What was typed as the account is not written unless it is one: people type
/// passwords there. Returns at once, so that the time of the answer tells nothing of the account.
pub fn sign_in_refused(state: &AppState, user: Option<&User>, typed: &str, attempt: (IpAddr, &'static str)) {
    let (address, why) = attempt;
    let bound = user.map_or(Bound::UnknownAccounts, |user| Bound::SignIns(user.id));
    let Some(left_out) = state.recorder().take(bound) else { return };
    let (detail, user) = (and_more(why, left_out), user.map(|user| user.id));
    // Not the request's store: an attempt is one also where nothing was to be changed.
    let (store, typed) = (state.config().store.clone(), typed.to_lowercase());
    tokio::spawn(async move {
        let (actor, action, detail) = (migrations::Actor::Anonymous, "user.sign_in_refused", detail.as_str());
        noted(match user {
            Some(user) => {
                let event = UserEvent { user, actor, action, detail, address: Some(address) };
                store.audit().record_user(event).await
            }
            None => {
                let name = store.mac("unknown account", &typed).unwrap_or_default();
                let target = format!("unknown account {}", name.get(..12).unwrap_or_default());
                let new = NewAudit { organization: None, actor, action, target: &target, detail };
                store.audit().record_from(new, Some(address)).await
            }
        });
    });
}

/// Writes that somebody who is signed in did not know the present password.
pub async fn password_refused(state: &AppState, actor: &Actor, address: IpAddr) {
    let Some(left_out) = state.recorder().take(Bound::SignIns(actor.user_id)) else { return };
    let detail = and_more("the current password was wrong", left_out);
    let (user, action) = (actor.user_id, "user.password_refused");
    let event = UserEvent { user, actor: actor.by(), action, detail: &detail, address: Some(address) };
    noted(state.config().store.audit().record_user(event).await);
}

/// Writes that a token is used from a network where it was not of late.
pub async fn token_network(state: &AppState, token: &migrations::ApiToken, connection: &Connection) {
    let network = crate::auth::address::shared_network(connection.address);
    if token.addresses.contains(&network) || state.recorder().take(Bound::Networks(token.id)).is_none() {
        return;
    }
    let identity = state.config().store.identity();
    noted(identity.note_token_network(token, &network, connection.address).await);
}

/// Where a request's caller is put when they are known, for the layers outside.
#[derive(Clone, Default)]
pub struct Caller(Arc<OnceLock<Actor>>);

impl Caller {
    /// Puts the caller there; the first one stays.
    pub fn set_actor(&self, actor: &Actor) {
        let _ = self.0.set(actor.clone());
    }
}

/// What counts as an attempt at what somebody may not do.
const REFUSALS: [&str; 2] = [catalog::PERMISSION_DENIED.code, catalog::LOCAL_MACHINES_RESTRICTED.code];

/// The layer that writes what callers were not allowed to do.
pub async fn refusals(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(connection) = Connection::from_request_parts(&mut parts, &state).await;
    let (caller, asked) = (Caller::default(), format!("{} {}", parts.method, parts.uri.path()));
    parts.extensions.insert(caller.clone());
    let response = next.run(Request::from_parts(parts, body)).await;
    if let (Some(Fault(problem)), Some(actor)) = (response.extensions().get::<Fault>(), caller.0.get())
        && REFUSALS.contains(&problem.code.as_str())
    {
        refused(&state, actor, (&asked, &problem.detail), connection.address).await;
    }
    response
}

async fn refused(state: &AppState, actor: &Actor, (asked, why): (&str, &str), address: IpAddr) {
    let organization = actor.refused_in().or_else(|| actor.organizations().next());
    let Some(left_out) = state.recorder().take(Bound::Refusals(actor.user_id)) else { return };
    let detail = and_more(&format!("{asked}: {why}"), left_out);
    let target = actor.user_id.to_string();
    let new = NewAudit { organization, actor: actor.by(), action: "access.refuse", target: &target, detail: &detail };
    noted(state.config().store.audit().record_from(new, Some(address)).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let (recorder, bound) = (Recorder::default(), Bound::UnknownAccounts);
        let written = (0..1000).filter(|_| recorder.take(bound) == Some(0)).count();
        assert_eq!(written, 100);
        assert_eq!(recorder.left_out.lock().unwrap()[&bound], 900);
        recorder.buckets.forget(&bound);
        assert_eq!(recorder.take(bound), Some(900));
        assert_eq!(recorder.take(bound), Some(0));
        assert_eq!(and_more("x", 2), "x; 2 similar entries before this one are not listed");
    }
}
