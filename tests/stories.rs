//! Stories on real parts: a whole platform, a real kubectl, a real browser, real machines. Run one at a time, quick refusals
//! first: `cargo test --test stories -- --test-threads=1 --nocapture`. All of them run by default.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by stopping there"
)]

#[path = "stories/attacks/mod.rs"]
mod attacks;
#[path = "stories/bad_input.rs"]
mod bad_input;
#[path = "stories/browser.rs"]
mod browser;
#[path = "stories/cgroup_v2.rs"]
mod cgroup_v2;
#[path = "stories/chromium.rs"]
mod chromium;
#[path = "stories/database.rs"]
mod database;
#[path = "stories/faults.rs"]
mod faults;
#[path = "stories/leftovers.rs"]
mod leftovers;
#[path = "stories/neighbours.rs"]
mod neighbours;
#[path = "stories/own_machine.rs"]
mod own_machine;
#[path = "stories/scratch.rs"]
mod scratch;
#[path = "stories/spares.rs"]
mod spares;
#[path = "stories/tokens.rs"]
mod tokens;
#[path = "stories/tour.rs"]
mod tour;
#[path = "stories/tunnel.rs"]
mod tunnel;
#[path = "stories/versions.rs"]
mod versions;
#[path = "stories/world.rs"]
mod world;
