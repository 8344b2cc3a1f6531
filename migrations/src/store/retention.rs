//! Dropping what is over: tables that only grew would fill the disk in the end.
//!
//! Nothing that is still pointed at goes: a row's latest operation stays with its row, the use of a join token stays as long as the machine
//! that used it could come back.

use sea_orm::sea_query::{Expr, Query, SelectStatement};
use sea_orm::{ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QuerySelect};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Store, audit_chain, tombstones};
use crate::codec;
use crate::entity::{audit, cluster, departed_node, join_token, kubeconfig, node, node_pool, operation};
use crate::error::StoreError;

/// How long what let somebody in is listed after its end.
const CREDENTIALS: Duration = Duration::days(7);
/// How long an operation is listed after its end.
const OPERATIONS: Duration = Duration::days(30);
/// How long it is known who did what.
const AUDIT: Duration = Duration::days(365);

impl Store {
    /// Drops, as of `now`, what is over: sessions, API tokens and idempotency keys past their time; kubeconfigs and machines' join tokens a
    /// week after their end; operations after 30 days; the audit log after a year. Gives the number of rows.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; what was dropped until then is.
    pub async fn delete_expired(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let known =
            self.identity().prune().await? + self.join_tokens().prune().await? + self.idempotency().prune().await?;
        let ended =
            self.drop_machine_tokens(now - CREDENTIALS).await? + self.drop_kubeconfigs(now - CREDENTIALS).await?;
        let ended = ended + self.drop_removed_names(now).await? + tombstones::prune(self, now).await?;
        Ok(known + ended + self.drop_operations(now - OPERATIONS).await? + self.drop_audit(now - AUDIT).await?)
    }

    /// Tokens that were made for one machine, whose node is gone. (By the others a removed machine is told that it was.)
    async fn drop_machine_tokens(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let nodes = Query::select().column(node::Column::Id).from(node::Entity).to_owned();
        let gone = Condition::all().add(join_token::Column::Node.is_not_null());
        let gone = gone.add(join_token::Column::Node.not_in_subquery(nodes));
        let old = join_token::Column::ExpiresAt.lte(codec::millis(before));
        Ok(join_token::Entity::delete_many().filter(gone).filter(old).exec(self.db()).await?.rows_affected)
    }

    /// Those that were seen to be refused, and those whose authority has ended with them.
    async fn drop_kubeconfigs(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let before = codec::millis(before);
        let ended = Condition::any().add(kubeconfig::Column::ExpiresAt.lte(before));
        let ended = ended.add(kubeconfig::Column::RevokedAt.lte(before));
        let over = Condition::all().add(kubeconfig::Column::Authority.is_not_null());
        let over = over.add(kubeconfig::Column::ExpiresAt.lte(before));
        let over = Condition::any().add(kubeconfig::Column::Released.eq(true)).add(over);
        let released = kubeconfig::Entity::delete_many().filter(over).filter(ended);
        Ok(released.exec(self.db()).await?.rows_affected)
    }

    async fn drop_removed_names(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let old = departed_node::Column::Until.lte(codec::millis(now));
        Ok(departed_node::Entity::delete_many().filter(old).exec(self.db()).await?.rows_affected)
    }

    async fn drop_operations(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let ended = operation::Entity::delete_many().filter(operation::Column::Id.lt(first_id(before)));
        let ended = ended.filter(operation::Column::FinishedAt.lte(codec::millis(before)));
        let latest = [
            named(Query::select().column(cluster::Column::Operation).from(cluster::Entity)),
            named(Query::select().column(node_pool::Column::Operation).from(node_pool::Entity)),
            named(Query::select().column(node::Column::Operation).from(node::Entity)),
        ];
        let ended =
            latest.into_iter().fold(ended, |query, latest| query.filter(operation::Column::Id.not_in_subquery(latest)));
        Ok(ended.exec(self.db()).await?.rows_affected)
    }

    /// The oldest first, so that what is left can still be verified.
    async fn drop_audit(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let (mut dropped, before) = (0, codec::millis(before));
        let unnumbered = audit::Entity::find().filter(audit::Column::Number.eq(0));
        let unnumbered = unnumbered.filter(audit::Column::CreatedAt.lt(before)).select_only();
        let unnumbered = unnumbered.column(audit::Column::Organization).distinct();
        let chains: Vec<Option<Uuid>> = unnumbered.into_tuple().all(self.db()).await?;
        for chain in chains {
            let tx = self.begin().await?;
            let chain = chain.unwrap_or(audit_chain::PLATFORM);
            dropped += audit_chain::trim_unnumbered(&tx, self.mac_key()?, chain, before).await?;
            tx.commit().await?;
        }
        let tx = self.begin().await?;
        dropped += audit_chain::trim(&tx, self.mac_key()?, before).await?;
        tx.commit().await?;
        Ok(dropped)
    }
}

/// `NOT IN` with a null in the list holds for nothing.
fn named(query: &mut SelectStatement) -> SelectStatement {
    query.and_where(ExprTrait::is_not_null(Expr::col("operation"))).to_owned()
}

/// Ids begin with the millisecond of their making (RFC 9562, 5.7): all that were made before a time are less than this.
fn first_id(time: OffsetDateTime) -> Uuid {
    let millis = u128::try_from(codec::millis(time)).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}
