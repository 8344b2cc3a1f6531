//! The permit of a connection that was handed to a sink: the sink reports when it is used, and when it has shown a credential.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio_util::sync::CancellationToken;

use crate::limiter::{Acquired, ConnectionLimiter, ConnectionPermit};

/// A permit among the anonymous connections, which can be exchanged for one among the authenticated.
#[derive(Debug)]
pub(crate) struct HeldPermit {
    permit: Mutex<ConnectionPermit>,
    address: IpAddr,
    cut: CancellationToken,
    anonymous: Arc<ConnectionLimiter>,
    callers: Arc<ConnectionLimiter>,
    is_authenticated: AtomicBool,
}

/// A connection's permit, for whoever serves the connection. It does not own the permit: that belongs to the connection.
#[derive(Clone, Debug)]
pub struct Claim(Weak<HeldPermit>);

impl HeldPermit {
    /// The permit of an anonymous connection; `cut` ends it, and `callers` limits those that have shown a credential.
    pub(crate) fn new(
        permit: ConnectionPermit,
        address: IpAddr,
        cut: CancellationToken,
        callers: Arc<ConnectionLimiter>,
    ) -> Arc<Self> {
        let (anonymous, is_authenticated) = (permit.limiter().clone(), AtomicBool::new(false));
        Arc::new(Self { permit: Mutex::new(permit), address, cut, anonymous, callers, is_authenticated })
    }

    fn permit(&self) -> MutexGuard<'_, ConnectionPermit> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The claim of a connection that holds this.
    pub(crate) fn of(held: &Arc<HeldPermit>) -> Self {
        Self(Arc::downgrade(held))
    }

    /// Notes that the connection is used now: something was asked, or part of an answer was taken.
    pub fn touch(&self) {
        if let Some(held) = self.0.upgrade() {
            held.permit().touch();
        }
    }

    /// Notes that the connection has shown a valid credential: from now on it is counted among those, and no anonymous connection can evict it.
    pub fn authenticate(&self) {
        let Some(held) = self.0.upgrade() else { return };
        if held.is_authenticated.swap(true, Relaxed) {
            return;
        }
        match held.callers.take(held.address, held.cut.clone()) {
            Acquired::Permit(permit, _) => *held.permit() = permit,
            Acquired::Rejected => held.is_authenticated.store(false, Relaxed),
        }
    }

    /// Evicts one connection, the idlest anonymous one of the largest user, or, where there is none, of those that have shown a credential. For
    /// whoever runs short of memory. False: there is none.
    pub fn shed(&self) -> bool {
        self.0.upgrade().is_some_and(|held| held.anonymous.shed() || held.callers.shed())
    }
}
