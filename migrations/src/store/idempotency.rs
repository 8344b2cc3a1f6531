//! Idempotency keys: a request that is sent twice is carried out once, and answered twice alike.
//!
//! Whoever carries a request out holds its key by a [`KeyLease`] with a short lease, renewed while the work goes on. What the request makes
//! is written into the key's row in the very transaction that makes it ([`Store::with_key_lease`]), so after a crash the next one who comes with
//! the key learns what is there already, and makes no twin. The final answer may hold a secret, so it is kept sealed.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany,
};
use tenant_controlplane::id::UserId;
use time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Store;
use crate::codec;
use crate::db::Tx;
use crate::entity::idempotency_key;
use crate::error::StoreError;

const WHAT: &str = "idempotency key";
/// How long a holder that says nothing keeps the key. Renew well before.
const LEASE: Duration = Duration::seconds(15);
/// How long an answer is kept.
const KEPT: Duration = Duration::hours(24);
/// How many keys a person's requests may have at once; then the oldest that nobody works on go before their time.
const MOST_KEYS: u64 = 2000;
/// How many go at once, so that not every request has to look for them.
const DROPPED: u64 = 100;

/// The right to carry out the request of one key. Worth nothing once the lease has run out and somebody else has taken the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLease {
    id: String,
    holder: Uuid,
}

/// What is known of a key.
#[derive(Debug)]
pub enum KeyState {
    /// The caller carries the request out. `made` is the text id of what a holder before has made without ending; it must not be made
    /// again.
    Taken {
        /// The right to do it.
        claim: KeyLease,
        /// What is there already.
        made: Option<String>,
    },
    /// It was carried out and answered so.
    Answered(Zeroizing<Vec<u8>>),
    /// Somebody is carrying it out.
    InProgress,
    /// The key belongs to a request with another body.
    Reused,
}

/// Idempotency keys; see [`Store::idempotency`].
#[derive(Clone, Copy)]
pub struct Idempotency<'a>(pub(super) &'a Store);

impl Idempotency<'_> {
    /// Takes the key `id` for a person's request whose body has this fingerprint, or says why not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Corrupt`] for an answer that does not open with this key-encryption key.
    pub async fn begin(self, caller: UserId, id: &str, fingerprint: &str) -> Result<KeyState, StoreError> {
        let claim = KeyLease { id: id.to_owned(), holder: Uuid::now_v7() };
        let fresh = || fresh(&claim, fingerprint, caller);
        let tx = self.0.begin().await?;
        make_room(&tx, caller).await?;
        add(&tx, fresh()).await?;
        let mut row = tx.lock::<idempotency_key::Entity>(id.to_owned()).await?.ok_or(StoreError::missing(WHAT))?;
        let now = codec::millis(codec::now());
        if row.holder == claim.holder || row.expires_at <= now {
            tx.save(fresh()).await?;
            tx.commit().await?;
            return Ok(KeyState::Taken { claim, made: None });
        }
        if row.fingerprint != fingerprint {
            return Ok(KeyState::Reused);
        }
        if let Some(answer) = &row.answer {
            return self.open(id, answer).map(KeyState::Answered);
        }
        if row.lease_until > now {
            return Ok(KeyState::InProgress);
        }
        let made = row.made.clone();
        (row.holder, row.lease_until) = (claim.holder, lease());
        tx.save(row).await?;
        tx.commit().await?;
        Ok(KeyState::Taken { claim, made })
    }

    /// Says that the work goes on; `false` when the key has gone to somebody else.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn renew(self, claim: &KeyLease) -> Result<bool, StoreError> {
        let renewed = held(claim).col_expr(idempotency_key::Column::LeaseUntil, Expr::value(lease()));
        Ok(renewed.exec(self.0.db()).await?.rows_affected > 0)
    }

    /// Keeps the answer. A claim that was lost keeps nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn complete(self, claim: &KeyLease, answer: &[u8]) -> Result<(), StoreError> {
        let sealed = self.0.kek().seal(&owner(&claim.id), answer)?;
        held(claim).col_expr(idempotency_key::Column::Answer, Expr::value(sealed)).exec(self.0.db()).await?;
        Ok(())
    }

    /// Gives the key back without an answer: the same request may come again at once. What it has made stays known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn release(self, claim: &KeyLease) -> Result<(), StoreError> {
        held(claim).col_expr(idempotency_key::Column::LeaseUntil, Expr::value(0_i64)).exec(self.0.db()).await?;
        Ok(())
    }

    /// Drops keys past their time, and gives their number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn prune(self) -> Result<u64, StoreError> {
        let old = idempotency_key::Column::ExpiresAt.lte(codec::millis(codec::now()));
        Ok(idempotency_key::Entity::delete_many().filter(old).exec(self.0.db()).await?.rows_affected)
    }

    fn open(self, id: &str, answer: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.0.kek().open(&owner(id), answer).ok_or(StoreError::Corrupt { what: "kept answer" })
    }
}

/// Writes down, in the transaction that makes `target`, that the key's request has made it. A claim that was lost makes nothing; whoever still
/// waits for it may ask again and hears what the other attempt made.
pub(super) async fn made(tx: &Tx, target: &str) -> Result<(), StoreError> {
    let Some(claim) = tx.claim() else { return Ok(()) };
    let noted = held(claim).col_expr(idempotency_key::Column::Made, Expr::value(target)).exec(tx).await?;
    if noted.rows_affected > 0 {
        return Ok(());
    }
    Err(StoreError::unavailable("the request was taken over by another attempt"))
}

/// Drops a person's oldest keys where they have as many as they may.
async fn make_room(tx: &Tx, caller: UserId) -> Result<(), StoreError> {
    let own = idempotency_key::Entity::find().filter(idempotency_key::Column::Caller.eq(caller.uuid()));
    if own.clone().count(tx).await? < MOST_KEYS {
        return Ok(());
    }
    let idle = own.filter(idempotency_key::Column::LeaseUntil.lte(codec::millis(codec::now())));
    let oldest = idle.order_by_asc(idempotency_key::Column::ExpiresAt).limit(DROPPED).all(tx).await?;
    let ids = oldest.into_iter().map(|row| row.id);
    idempotency_key::Entity::delete_many().filter(idempotency_key::Column::Id.is_in(ids)).exec(tx).await?;
    Ok(())
}

fn fresh(claim: &KeyLease, fingerprint: &str, caller: UserId) -> idempotency_key::Model {
    idempotency_key::Model {
        id: claim.id.clone(),
        fingerprint: fingerprint.to_owned(),
        holder: claim.holder,
        made: None,
        answer: None,
        lease_until: lease(),
        expires_at: codec::millis(codec::now() + KEPT),
        caller: Some(caller.uuid()),
    }
}

/// Adds the row unless there is one: of several who come at once, one is the holder.
async fn add(tx: &Tx, row: idempotency_key::Model) -> Result<(), StoreError> {
    let there = OnConflict::column(idempotency_key::Column::Id).do_nothing().to_owned();
    let added = idempotency_key::Entity::insert(row.into_active_model()).on_conflict(there);
    match added.exec_without_returning(tx).await {
        Ok(_) | Err(DbErr::RecordNotInserted) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn held(claim: &KeyLease) -> UpdateMany<idempotency_key::Entity> {
    let mine = idempotency_key::Entity::update_many().filter(idempotency_key::Column::Id.eq(claim.id.as_str()));
    mine.filter(idempotency_key::Column::Holder.eq(claim.holder))
}

fn lease() -> i64 {
    codec::millis(codec::now() + LEASE)
}

pub(super) fn owner(id: &str) -> String {
    format!("idempotency_key {id}")
}
