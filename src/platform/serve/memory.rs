//! What answers that nobody takes, and bodies that nobody finishes, may hold in memory: per connection, and in the whole process.
//!
//! Data of an answer is charged until HTTP lets go of it, that is until it was written to the socket, however its stream stands. A
//! reference to something that is in memory anyway (the agent, a page's assets) costs nothing. A connection with too much unread
//! is not asked anything more until its reader catches up; while the process holds too much, connections of the greediest are ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Bytes that all connections together may hold.
const PROCESS: usize = 64 << 20;
/// And one.
const CONNECTION: usize = 256 << 10;
/// What an answer may turn out to be, until it is there; only on the connection's own account.
const EXPECTED: usize = 32 << 10;
/// How long a request waits for the process to have room.
const PATIENCE: Duration = Duration::from_secs(2);

/// An account of bytes, and whoever waits for it to fall.
#[derive(Default)]
struct Account {
    held: AtomicUsize,
    freed: Notify,
}

impl Account {
    fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
    }

    fn sub(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
        self.freed.notify_waiters();
    }

    fn has_room(&self, most: usize) -> bool {
        self.held.load(Relaxed) < most
    }

    async fn room(&self, most: usize) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.has_room(most) {
                return;
            }
            freed.await;
        }
    }
}

/// The process's account.
#[derive(Clone, Default)]
pub struct Memory(Arc<Account>);

/// A connection's account, within the process's.
pub struct Held {
    process: Arc<Account>,
    own: Account,
}

/// Bytes on both accounts, until it is dropped.
pub struct Charge {
    held: Arc<Held>,
    bytes: usize,
}

/// Room on a connection's account for an answer that is not there yet.
pub struct Expected(Arc<Held>);

impl Memory {
    /// An account for a connection.
    pub fn connection(&self) -> Arc<Held> {
        Arc::new(Held { process: self.0.clone(), own: Account::default() })
    }
}

impl Held {
    /// Waits until the connection's reader has caught up, and then for room in the process, for which `shed` ends somebody's connection.
    /// False when there was none in time.
    pub async fn room(&self, shed: impl Fn() -> bool) -> bool {
        self.own.room(CONNECTION).await;
        let end = Instant::now() + PATIENCE;
        while !self.process.has_room(PROCESS) {
            shed();
            let next = (Instant::now() + PATIENCE / 20).min(end);
            if timeout_at(next, self.process.room(PROCESS)).await.is_err() && next == end {
                return false;
            }
        }
        true
    }

    /// Counts an answer that is not there yet, so that a connection does not ask for many at once and then read none.
    pub fn expect(self: &Arc<Self>) -> Expected {
        self.own.add(EXPECTED);
        Expected(self.clone())
    }

    /// Whether the process has room for more.
    pub fn has_room(&self) -> bool {
        self.process.has_room(PROCESS)
    }

    /// Charges bytes that are held in memory until the charge is dropped.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.own.add(bytes);
        self.process.add(bytes);
        Charge { held: self.clone(), bytes }
    }

    /// The same data, charged until its last reference is dropped, if it is in memory for this answer alone.
    pub fn charged(self: &Arc<Self>, data: Bytes) -> Bytes {
        if data.is_empty() || !data.is_unique() {
            return data;
        }
        let charge = self.charge(data.len());
        Bytes::from_owner(Charged { data, _charge: charge })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.held.own.sub(self.bytes);
        self.held.process.sub(self.bytes);
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.own.sub(EXPECTED);
    }
}

struct Charged {
    data: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_in_memory_for_one_answer_is_charged_until_it_is_let_go() {
        let (memory, shared) = (Memory::default(), Bytes::from(vec![1; 5000]));
        let held = memory.connection();
        let (part, literal) = (held.charged(shared.slice(..4000)), held.charged(Bytes::from_static(b"literal")));
        assert_eq!(held.own.held.load(Relaxed), 0, "references cost nothing");
        let page = held.charged(Bytes::from(vec![2; 3000]));
        let rest = page.slice(2999..);
        drop((page, part, literal));
        assert_eq!((held.own.held.load(Relaxed), memory.0.held.load(Relaxed)), (3000, 3000));
        drop(rest);
        assert_eq!((held.own.held.load(Relaxed), memory.0.held.load(Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn a_connection_waits_for_its_reader_and_others_do_not() {
        let memory = Memory::default();
        let (slow, other) = (memory.connection(), memory.connection());
        let unread = slow.charge(CONNECTION);
        let mut waiting = Box::pin(slow.room(|| panic!("the process has room")));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(other.room(|| panic!("the process has room")).await);
        drop(unread);
        assert!(waiting.await);
    }

    #[tokio::test]
    async fn a_connection_has_few_answers_under_way_that_may_be_large() {
        let held = Memory::default().connection();
        let expected: Vec<_> = (0..CONNECTION / EXPECTED).map(|_| held.expect()).collect();
        let mut waiting = Box::pin(held.room(|| false));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(expected);
        assert!(waiting.await);
        assert_eq!(held.process.held.load(Relaxed), 0, "the process counts what there is");
    }

    #[tokio::test]
    async fn the_process_sheds_connections_for_room() {
        let memory = Memory::default();
        let greedy = std::sync::Mutex::new(Some(memory.connection().charge(PROCESS)));
        assert!(!memory.connection().has_room());
        let shed = || greedy.lock().unwrap().take().is_some();
        assert!(memory.connection().room(shed).await);
        let _again = memory.connection().charge(PROCESS);
        assert!(!memory.connection().room(|| false).await, "nobody could be shed");
    }
}
