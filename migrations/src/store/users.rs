//! User ids: each cluster's control plane runs on its host as a user of its own, so that one that breaks out of its container finds nothing
//! of another's that it may read.

use std::ops::Range;

use sea_orm::{EntityTrait, QueryOrder, QuerySelect};

use crate::db::Tx;
use crate::entity::cluster;
use crate::error::StoreError;

/// The first id that is given out. What lies above 1879048191 is nobody's by convention: neither distributions, nor systemd, nor the
/// subordinate ids of containers reach there (<https://systemd.io/UIDS-GIDS>).
pub(crate) const FIRST: i64 = 1_879_100_000;
/// One past the last, below 2^31, the first that Kubernetes refuses.
const END: i64 = FIRST + 10_000_000;
/// The users of clusters' control planes on their host.
pub const CLUSTER_USERS: Range<i64> = FIRST..END;

/// An id that no cluster has: the one after the highest. The row's transaction holds a lock until it is written.
pub(super) async fn next(tx: &Tx) -> Result<i64, StoreError> {
    lock(tx).await?;
    let highest = cluster::Entity::find().select_only().column(cluster::Column::UserId);
    let highest = highest.order_by_desc(cluster::Column::UserId).limit(1).into_tuple::<i64>().one(tx).await?;
    let next = highest.map_or(FIRST, |highest| highest.max(FIRST - 1) + 1);
    if next < END { Ok(next) } else { Err(StoreError::conflict("user id", "no user ID is available for clusters")) }
}

/// One at a time. SQLite has one writer anyway.
async fn lock(tx: &Tx) -> Result<(), StoreError> {
    use sea_orm::{ConnectionTrait, DbBackend};
    if tx.get_database_backend() == DbBackend::Postgres {
        tx.execute_unprepared("SELECT pg_advisory_xact_lock(7526)").await?;
    }
    Ok(())
}
