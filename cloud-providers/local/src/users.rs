//! Ranges of user and group ids, one for each isolated machine: what is 0 to 65535 inside lies in nobody else's range outside.
//!
//! They come from 0x7100_0000 to 0x7ffd_ffff: systemd's allocation leaves that free (<https://systemd.io/UIDS-GIDS>), and the users of
//! clusters' control planes end before it. Every slot of the machine has 59. A machine's range is written in its `machine.json` and is free
//! again when that is gone.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// How many ids a machine has.
pub const SIZE: u32 = 1 << 16;
const FIRST: u32 = 0x7100_0000;
/// Ranges of one slot; the last one is for the trial.
const RANGES: u32 = 59;

/// The ids of one machine, by the one that is root in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Users(u32);

impl Users {
    /// The id outside of the machine's root.
    pub const fn root(self) -> u32 {
        self.0
    }

    /// A line of `uid_map` (user_namespaces(7)).
    pub fn map(self) -> String {
        format!("0 {} {SIZE}\n", self.0)
    }
}

/// The ranges of a slot (0 to 64) of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges(u32);

impl Ranges {
    /// Those of a slot.
    pub const fn of_slot(slot: u8) -> Self {
        Self(FIRST + slot as u32 * RANGES * SIZE)
    }

    /// All ids of the slot.
    pub const fn ids(self) -> Range<u32> {
        self.0..self.0 + RANGES * SIZE
    }

    fn nth(self, number: u32) -> Users {
        Users(self.0 + number * SIZE)
    }

    /// The first that is not taken.
    pub fn free(self, taken: &BTreeSet<Users>) -> Option<Users> {
        (0..RANGES - 1).map(|number| self.nth(number)).find(|users| !taken.contains(users))
    }

    /// The one that no machine gets.
    pub fn trial(self) -> Users {
        self.nth(RANGES - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_machines_share_an_id() {
        let (first, last) = (Ranges::of_slot(0), Ranges::of_slot(64));
        assert_eq!(first.trial().root() + SIZE, Ranges::of_slot(1).nth(0).root());
        assert!(last.trial().root() + SIZE - 1 <= 0x7ffd_ffff, "systemd's foreign range begins at 0x7ffe0000");
        let mut taken = BTreeSet::new();
        while let Some(users) = first.free(&taken) {
            assert!(taken.insert(users) && users != first.trial());
        }
        assert_eq!(taken.len(), 58);
        let gone = *taken.iter().nth(7).unwrap();
        taken.remove(&gone);
        assert_eq!(first.free(&taken), Some(gone), "a freed range is given again");
    }
}
