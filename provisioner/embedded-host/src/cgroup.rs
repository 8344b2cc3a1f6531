//! The instance's cgroups as a ledger of its processes: whatever runs is found there again, also after a kill.

use std::time::Duration;

use crate::error::{DuringStep, Result};
use node_linux::cgroup::Cgroups;

/// Ends every process of a cgroup and those below it: TERM, then KILL when the grace is over.
pub async fn stop(cgroup: &str, grace: Duration) -> Result<()> {
    let cgroup = cgroup.to_owned();
    let stop = tokio::task::spawn_blocking(move || Cgroups::detect().stop(&cgroup, grace));
    Ok(stop.await.during("end processes")??)
}
