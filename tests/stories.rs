//! Stories on real parts: a whole platform, a real kubectl, real machines. Run one at a time: `cargo test --test stories`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by stopping there")]

#[path = "stories/database.rs"]
mod database;
#[path = "stories/faults.rs"]
mod faults;
#[path = "stories/leftovers.rs"]
mod leftovers;
#[path = "stories/neighbours.rs"]
mod neighbours;
#[path = "stories/qemu.rs"]
mod qemu;
#[path = "stories/tour.rs"]
mod tour;
#[path = "stories/world.rs"]
mod world;
