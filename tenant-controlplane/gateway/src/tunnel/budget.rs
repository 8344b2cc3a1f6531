//! The memory that tunnel streams may hold: a budget for the process beside one for each cluster.
//!
//! A stream is charged with the most it can hold, its receive window and what it may queue for sending, for as long as it is open. The
//! last quarter of the process's budget is for clusters that hold less than an equal part of all of it, so that a few that hold
//! much never keep another from its first streams.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bytes that may be held.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Clusters that hold some.
    clusters: AtomicUsize,
}

/// Bytes that one cluster may hold, out of the process's.
#[derive(Debug)]
pub(crate) struct ClusterBudget {
    limit: usize,
    used: AtomicUsize,
    process: Arc<Budget>,
}

/// Bytes that a stream may hold; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    cluster: Arc<ClusterBudget>,
    bytes: AtomicUsize,
}

/// Whose budget was short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// The cluster's own, of so many bytes.
    Cluster(usize),
    /// The process's, of so many bytes.
    Process(usize),
}

impl Budget {
    /// So many bytes for all clusters.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), clusters: AtomicUsize::new(0) })
    }

    fn is_scarce(&self, used: usize) -> bool {
        used > self.limit / 4 * 3
    }

    /// An equal part for each cluster that holds some; `newcomer` is one more.
    fn part(&self, newcomer: bool) -> usize {
        self.limit / (self.clusters.load(Relaxed) + usize::from(newcomer)).max(1)
    }
}

impl ClusterBudget {
    /// At most `limit` bytes of the process's.
    pub(crate) fn new(limit: usize, process: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), process })
    }

    /// Charges a new stream with what it may hold.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Short> {
        self.add(bytes)?;
        Ok(Charge { cluster: self.clone(), bytes: AtomicUsize::new(bytes) })
    }

    fn add(&self, bytes: usize) -> Result<(), Short> {
        let before = self.used.fetch_add(bytes, Relaxed);
        let added = self.check(before, bytes);
        match added {
            Ok(()) if before == 0 => drop(self.process.clusters.fetch_add(1, Relaxed)),
            Ok(()) => {}
            Err(_) => drop(self.used.fetch_sub(bytes, Relaxed)),
        }
        added
    }

    /// Takes the process's bytes, if this cluster may have them beside the `before` that it holds.
    fn check(&self, before: usize, bytes: usize) -> Result<(), Short> {
        if before + bytes > self.limit {
            return Err(Short::Cluster(self.limit));
        }
        let process = &self.process;
        let all = process.used.fetch_add(bytes, Relaxed) + bytes;
        let beyond_part = process.is_scarce(all) && before + bytes > process.part(before == 0);
        if all > process.limit || beyond_part {
            process.used.fetch_sub(bytes, Relaxed);
            return Err(Short::Process(process.limit));
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.process.used.fetch_sub(bytes, Relaxed);
        if self.used.fetch_sub(bytes, Relaxed) == bytes {
            self.process.clusters.fetch_sub(1, Relaxed);
        }
    }
}

impl Charge {
    /// Charges more, unless the process's budget is half used: the rest is for new streams.
    pub(crate) fn grow(&self, by: usize) -> bool {
        let process = &self.cluster.process;
        let roomy = process.used.load(Relaxed) + by <= process.limit / 2;
        let added = roomy && self.cluster.add(by).is_ok();
        if added {
            self.bytes.fetch_add(by, Relaxed);
        }
        added
    }

    /// Charges less.
    pub(crate) fn shrink(&self, by: usize) {
        self.bytes.fetch_sub(by, Relaxed);
        self.cluster.give_back(by);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.cluster.give_back(self.bytes.load(Relaxed));
    }
}

impl Short {
    /// The answer to a refused caller.
    pub(crate) fn reason(self) -> String {
        let mebibytes = |bytes: usize| bytes.div_ceil(1 << 20);
        match self {
            Self::Cluster(limit) => format!(
                "tunnel buffer limit of this cluster ({} MiB) reached: end some exec, logs or port-forward sessions",
                mebibytes(limit)
            ),
            Self::Process(limit) => format!(
                "tunnel buffer limit of the gateway ({} MiB) reached: try again, or contact the platform operator",
                mebibytes(limit)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_its_own_limit_and_gives_back_what_it_took() {
        let process = Budget::new(1000);
        let cluster = ClusterBudget::new(300, process.clone());
        let held: Vec<Charge> = (0..3).map(|_| cluster.charge(100).unwrap()).collect();
        assert_eq!(cluster.charge(100).unwrap_err(), Short::Cluster(300));
        assert!(!held[0].grow(1), "nor by growing");
        drop(held);
        let charge = cluster.charge(100).unwrap();
        assert!(charge.grow(200));
        charge.shrink(50);
        assert_eq!(process.used.load(Relaxed), 250);
        drop(charge);
        assert_eq!((process.used.load(Relaxed), process.clusters.load(Relaxed)), (0, 0));
    }

    #[test]
    fn the_last_quarter_is_for_those_who_hold_little() {
        let process = Budget::new(1000);
        let (greedy, other) = (ClusterBudget::new(900, process.clone()), ClusterBudget::new(900, process.clone()));
        let mut held: Vec<Charge> = (0..7).map(|_| greedy.charge(100).unwrap()).collect();
        assert!(!held[0].grow(1), "windows stay as they are when half is used");
        held.push(other.charge(100).unwrap());
        assert_eq!(greedy.charge(100).unwrap_err(), Short::Process(1000));
        held.push(other.charge(100).unwrap());
        held.push(other.charge(100).unwrap());
        assert_eq!(other.charge(100).unwrap_err(), Short::Process(1000), "all are held");
        assert!(other.charge(100).unwrap_err().reason().len() <= 200, "a reason phrase holds it");
    }
}
