//! How many requests a caller may send, to REST and to pages: reads, writes and new clusters are counted apart.
//!
//! Counted are people, not credentials: all sessions of a person are one caller, and so are all their tokens of one
//! organization, because tokens can be made without end.
//!
//! The headers are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` tells the limit, `RateLimit` what
//! is left of it and in how many seconds it is whole again. An answer of 429 adds `Retry-After`.

use super::Actor;
use super::bucket::{Buckets, Level, Limit};
use crate::config::RequestLimits;
use crate::error::Error;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use std::time::Instant;
use tenant_controlplane::id::{OrganizationId, UserId};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
/// Both limits are told for this time.
const WINDOW_SECONDS: u32 = 60;

/// What a request counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Looks at something.
    Read,
    /// Changes something.
    Write,
    /// Makes a cluster; counts as a write too.
    Create,
}

impl Kind {
    /// What a request to this route (`/api/v1/clusters/{cls}`, `/clusters`) counts as.
    pub fn of(method: &Method, route: &str) -> Self {
        match *method {
            Method::GET | Method::HEAD | Method::OPTIONS => Self::Read,
            Method::POST if route.ends_with("/clusters") => Self::Create,
            _ => Self::Write,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
        }
    }

    const fn counted(self) -> &'static [Self] {
        match self {
            Self::Read => &[Self::Read],
            Self::Write => &[Self::Write],
            Self::Create => &[Self::Write, Self::Create],
        }
    }
}

/// The buckets of all callers.
pub struct Rates {
    limits: RequestLimits,
    buckets: Buckets<(Caller, Kind)>,
}

/// A person, and for their tokens the organization that these reach.
type Caller = (UserId, Option<OrganizationId>);

/// One request after it was counted.
#[derive(Debug, Default)]
pub struct Counted(Vec<(Kind, u32, Level)>);

impl Rates {
    /// No request counted yet.
    pub fn new(limits: RequestLimits) -> Self {
        Self { limits, buckets: Buckets::default() }
    }

    /// Counts a request.
    pub fn count(&self, actor: &Actor, kind: Kind) -> Counted {
        let reached = actor.token.and_then(|_| actor.organizations().next());
        let caller = (actor.user_id, reached);
        let take = |kind: &Kind| {
            let most = self.most(*kind);
            (*kind, most, self.buckets.take((caller, *kind), Limit::per_minute(most), Instant::now()))
        };
        Counted(kind.counted().iter().map(take).collect())
    }

    const fn most(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Read => self.limits.reads,
            Kind::Write => self.limits.writes,
            Kind::Create => self.limits.cluster_creates,
        }
    }
}

impl Counted {
    /// Whether the request may go on.
    ///
    /// # Errors
    /// [`Error::RequestLimit`] with the seconds until the same request is granted.
    pub fn granted(&self) -> Result<(), Error> {
        let refused = self.0.iter().filter_map(|(kind, most, level)| Some((kind, most, level.refused?)));
        let Some((kind, most, wait)) = refused.max_by_key(|(.., wait)| *wait) else { return Ok(()) };
        let what = match kind {
            Kind::Read => "reads",
            Kind::Write => "writes",
            Kind::Create => "new clusters",
        };
        Err(Error::RequestLimit { what, most: *most, retry_after_seconds: wait.as_secs() + 1 })
    }

    /// Puts the limits and what is left of them on an answer.
    pub fn with_headers(&self, mut response: Response) -> Response {
        let list =
            |item: &dyn Fn(&(Kind, u32, Level)) -> String| self.0.iter().map(item).collect::<Vec<_>>().join(", ");
        let policy = list(&|(kind, most, _)| format!("\"{}\";q={most};w={WINDOW_SECONDS}", kind.word()));
        let state = list(&|(kind, _, level)| {
            format!("\"{}\";r={};t={}", kind.word(), level.left, level.full_in.as_secs_f64().ceil())
        });
        for (name, value) in [(POLICY, policy), (STATE, state)] {
            if let Ok(value) = HeaderValue::from_str(&value)
                && !value.is_empty()
            {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
