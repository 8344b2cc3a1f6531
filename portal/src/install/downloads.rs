//! Downloads that anybody may have: so many at a time, of those so many for one address, and each only as long as it is read.
//!
//! A download holds no copy of what it sends, so one that nobody reads costs a permit and nothing else. The permit is lost when
//! nothing was taken for [`STALLED`]: less than 2 KiB a second is no line on which a machine could be a node. While all permits
//! are taken, the network with the most loses its longest-running download to one with fewer.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;

use crate::error::Error;

/// Downloads at a time, at most.
const TOTAL: usize = 64;
/// For one IPv4 address, or one /64 of IPv6.
const PER_ADDRESS: usize = 8;
/// A download of which no piece was taken in this time has ended.
const STALLED: Duration = Duration::from_secs(30);
/// Bytes of a piece. The next one is taken when nearly all of this one has left.
const PIECE: usize = 64 * 1024;
/// `Retry-After` of a refused download, in seconds; a download on a usual line takes one.
const RETRY_AFTER: u64 = 5;

/// The downloads under way.
#[derive(Default)]
pub struct Downloads(Mutex<Active>);

#[derive(Default)]
struct Active {
    next: u64,
    entries: HashMap<u64, Entry>,
}

struct Entry {
    address: IpAddr,
    network: IpAddr,
    started: Instant,
    taken: Instant,
    ended: Arc<AtomicBool>,
}

/// One download's permit, released when it is dropped.
pub struct DownloadPermit {
    downloads: Arc<Downloads>,
    id: u64,
    ended: Arc<AtomicBool>,
}

impl Downloads {
    /// A permit for a download from this address.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the address has its share, or all permits are held by others who have no more than it would.
    pub fn begin(self: &Arc<Self>, address: IpAddr) -> Result<DownloadPermit, Error> {
        self.begin_at(address, Instant::now())
    }

    fn begin_at(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<DownloadPermit, Error> {
        let refused = |what| Error::Overloaded { what, retry_after_seconds: RETRY_AFTER };
        let (address, network) = networks(address);
        let mut active = self.active();
        active.end_where(|entry| now.saturating_duration_since(entry.taken) >= STALLED);
        if active.entries.values().filter(|entry| entry.address == address).count() >= PER_ADDRESS {
            return Err(refused("too many downloads in progress from this address"));
        }
        if active.entries.len() >= TOTAL && !active.make_room(network) {
            return Err(refused("too many downloads in progress on this platform"));
        }
        let (id, ended) = (active.next, Arc::<AtomicBool>::default());
        active.next += 1;
        active.entries.insert(id, Entry { address, network, started: now, taken: now, ended: ended.clone() });
        Ok(DownloadPermit { downloads: self.clone(), id, ended })
    }

    fn active(&self) -> MutexGuard<'_, Active> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    fn end_where(&mut self, is_over: impl Fn(&Entry) -> bool) {
        self.entries.retain(|_, entry| {
            let over = is_over(entry);
            entry.ended.fetch_or(over, Relaxed);
            !over
        });
    }

    /// Ends the longest download of the network with the most, if that has more than the newcomer's would have.
    fn make_room(&mut self, newcomer: IpAddr) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.entries.values().for_each(|entry| *counts.entry(entry.network).or_default() += 1);
        let own = counts.get(&newcomer).copied().unwrap_or(0);
        let Some((greediest, most)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return false };
        let of_it = self.entries.iter().filter(|(_, entry)| entry.network == greediest);
        let Some(longest) = of_it.min_by_key(|(_, entry)| entry.started).map(|(id, _)| *id) else { return false };
        if most <= own + 1 {
            return false;
        }
        self.entries.remove(&longest).is_some_and(|entry| !entry.ended.swap(true, Relaxed))
    }
}

impl DownloadPermit {
    /// Notes that a piece is taken. False: the download has ended meanwhile.
    fn take_piece(&self) -> bool {
        if let Some(entry) = self.downloads.active().entries.get_mut(&self.id) {
            entry.taken = Instant::now();
        }
        !self.ended.load(Relaxed)
    }
}

impl Drop for DownloadPermit {
    fn drop(&mut self) {
        self.downloads.active().entries.remove(&self.id);
    }
}

/// The bytes in pieces, each a reference, for as long as the permit is held.
pub fn body(bytes: Bytes, permit: DownloadPermit) -> Body {
    Body::from_stream(stream::unfold((bytes, permit), |(mut rest, permit)| async move {
        if rest.is_empty() {
            return None;
        }
        if !permit.take_piece() {
            let error = io::Error::new(ErrorKind::TimedOut, "the client read too slowly");
            return Some((Err(error), (Bytes::new(), permit)));
        }
        let piece = rest.split_to(rest.len().min(PIECE));
        Some((Ok(piece), (rest, permit)))
    }))
}

/// What one customer has, and the network around it: the address and its /24, or the /64 and its /48.
fn networks(address: IpAddr) -> (IpAddr, IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (v4.into(), Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into()),
        IpAddr::V6(v6) => {
            let keep = |bits: u32| Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - bits))).into();
            (keep(64), keep(48))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use futures::StreamExt;

    use super::*;

    fn address(network: u8, host: u8) -> IpAddr {
        [198, 51, network, host].into()
    }

    #[test]
    fn an_address_has_its_share_and_a_stalled_download_loses_its_place() {
        let (downloads, started) = (Arc::<Downloads>::default(), Instant::now());
        let held: Vec<_> = (0..PER_ADDRESS).map(|_| downloads.begin_at(address(0, 1), started).unwrap()).collect();
        let Err(Error::Overloaded { retry_after_seconds, .. }) = downloads.begin_at(address(0, 1), started) else {
            panic!("more than its share")
        };
        assert_eq!(retry_after_seconds, RETRY_AFTER);
        downloads.begin_at(address(0, 2), started).unwrap();
        let later = started + STALLED;
        let _next = downloads.begin_at(address(0, 1), later).unwrap();
        assert!(held.iter().all(|permit| !permit.take_piece()), "nobody read them");
        drop(held);
        assert_eq!(downloads.active().entries.len(), 1);
    }

    #[test]
    fn who_has_the_most_makes_room_for_who_has_less() {
        let (downloads, now) = (Arc::<Downloads>::default(), Instant::now());
        let begin = |network, host| downloads.begin_at(address(network, host), now);
        let greedy: Vec<_> = (0..TOTAL).map(|at| begin(0, u8::try_from(at / PER_ADDRESS).unwrap()).unwrap()).collect();
        let other = begin(1, 1).unwrap();
        assert!(other.take_piece() && !greedy.iter().all(DownloadPermit::take_piece), "one of the greedy network went");
        assert!(begin(0, 200).is_err(), "the greedy network gets nothing more by this");
        assert_eq!(downloads.active().entries.len(), TOTAL);
    }

    #[test]
    fn an_ipv6_customer_is_its_64_in_its_48() {
        let (customer, network) = networks("2001:db8:1:2:3::4".parse().unwrap());
        assert_eq!(
            (customer.to_string(), network.to_string()),
            ("2001:db8:1:2::".to_owned(), "2001:db8:1::".to_owned())
        );
        assert_eq!(networks("::ffff:192.0.2.7".parse().unwrap()).0.to_string(), "192.0.2.7");
    }

    #[tokio::test]
    async fn pieces_are_references_to_the_one_copy() {
        let binary = Bytes::from(vec![7; 3 * PIECE + 1]);
        let downloads = Arc::<Downloads>::default();
        let mut sent = body(binary.clone(), downloads.begin(address(0, 1)).unwrap()).into_data_stream();
        let first = sent.next().await.unwrap().unwrap();
        assert_eq!((first.as_ptr(), first.len()), (binary.as_ptr(), PIECE));
        drop(sent);
        let whole = body(binary.clone(), downloads.begin(address(0, 1)).unwrap());
        assert!(to_bytes(whole, usize::MAX).await.unwrap() == binary);
        assert!(downloads.active().entries.is_empty());
    }
}
