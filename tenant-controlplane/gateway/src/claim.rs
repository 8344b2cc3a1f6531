//! The place of a connection that was handed to a sink: whoever serves it says when it is used, and when it has shown a credential.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio_util::sync::CancellationToken;

use crate::places::{Place, Places, Taken};

/// A place among the strangers, and the way from there to those who have shown a credential.
#[derive(Debug)]
pub(crate) struct Holding {
    place: Mutex<Place>,
    address: IpAddr,
    cut: CancellationToken,
    strangers: Arc<Places>,
    callers: Arc<Places>,
    is_known: AtomicBool,
}

/// A connection's place, for whoever serves the connection. It does not keep the place: that goes with the connection.
#[derive(Clone, Debug)]
pub struct Claim(Weak<Holding>);

impl Holding {
    /// A stranger's place; `cut` ends its connection, and `callers` are the places of those who have shown a credential.
    pub(crate) fn new(place: Place, address: IpAddr, cut: CancellationToken, callers: Arc<Places>) -> Arc<Self> {
        let (strangers, is_known) = (place.places().clone(), AtomicBool::new(false));
        Arc::new(Self { place: Mutex::new(place), address, cut, strangers, callers, is_known })
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The claim of a connection that holds this.
    pub(crate) fn of(holding: &Arc<Holding>) -> Self {
        Self(Arc::downgrade(holding))
    }

    /// Notes that the connection is used now: something was asked, or part of an answer was taken.
    pub fn touch(&self) {
        if let Some(holding) = self.0.upgrade() {
            holding.place().touch();
        }
    }

    /// Notes that the connection has shown a valid credential: from now on it is counted among those, and no stranger can push it out.
    pub fn authenticate(&self) {
        let Some(holding) = self.0.upgrade() else { return };
        if holding.is_known.swap(true, Relaxed) {
            return;
        }
        match holding.callers.take(holding.address, holding.cut.clone()) {
            Taken::Place(place, _) => *holding.place() = place,
            Taken::Refused => holding.is_known.store(false, Relaxed),
        }
    }

    /// Ends one connection, the idlest of the greediest stranger, or, where there is none, of those who have shown a credential. For
    /// whoever runs short of memory. False: there is none.
    pub fn shed(&self) -> bool {
        self.0.upgrade().is_some_and(|holding| holding.strangers.shed() || holding.callers.shed())
    }
}
