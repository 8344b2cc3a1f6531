//! The audit log as a chain: each entry carries SHA-256 over the hash of the entry before it and its own bytes, so an entry that was
//! changed, removed or slipped in shows. One chain per organization, and one for the platform.
//!
//! A chain's two ends are kept apart from it, in `audit_heads`, and signed (HMAC-SHA-256) with a key that is sealed under the
//! key-encryption key: whoever can write the database alone can neither cut off the newest entries nor compute the chain anew. The front
//! end moves when entries are dropped for their age. A chain begins when its organization is made, in the same transaction: a head that
//! is missing or not signed later was taken away.
//!
//! A chain that is put back to an earlier copy of itself, with its head, would hold; so would the log without a chain that was removed with
//! its organization. Therefore entries are numbered over all chains, each number is part of its entry's hash, and one more signed head
//! knows the first and the last: numbers that no sound chain has are missing. Retention drops entries in the order of their numbers.
//!
//! Entries are written at the very end of their transaction, when every other lock is held already, and chains in the order of their
//! ids: two transactions never wait for each other in a circle. The head of the numbers is locked last, until the commit.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::codec;
use crate::db::Tx;
use crate::entity::{audit, audit_head};
use crate::error::StoreError;

/// The id of the platform's own chain.
pub(crate) const PLATFORM: Uuid = Uuid::nil();
/// The id of the head of the numbers, which has no chain: its sequence is the newest entry's number, its first the oldest's.
pub(crate) const NUMBERS: Uuid = Uuid::max();
/// What the first entry of every chain says it is.
const BEGIN: &str = "audit.begin";
/// The signature of a head that was not ours when it was last written: it stays wrong.
const NOT_OURS: &str = "broken";
/// Goes into every hash; another way to compute it gets another word. The second has the number too.
const FORMAT: &[u8] = b"pilothouse audit 1";
const NUMBERED: &[u8] = b"pilothouse audit 2";
/// Entries that are dropped at once for their age.
const TRIMMED: u64 = 5_000;
/// Characters of any text of an entry.
const LONGEST_TEXT: usize = 600;

/// An entry without its place.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) organization: Option<Uuid>,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) detail: String,
    pub(crate) address: Option<String>,
}

/// The head of a chain without entries, not signed.
pub(crate) fn start(chain: Uuid) -> audit_head::Model {
    audit_head::Model {
        chain,
        sequence: 0,
        hash: String::new(),
        first: 1,
        first_hash: String::new(),
        mac: String::new(),
    }
}

/// The entries of a chain.
pub(crate) fn of(chain: Uuid) -> Condition {
    let mine = match chain {
        PLATFORM => audit::Column::Organization.is_null(),
        organization => audit::Column::Organization.eq(organization),
    };
    Condition::all().add(mine)
}

/// Puts a row at the end of a chain.
pub(crate) fn link(head: &mut audit_head::Model, row: audit::Model) -> audit::Model {
    let mut row = audit::Model { sequence: head.sequence + 1, ..row };
    row.hash = hash(&head.hash, &row);
    head.sequence = row.sequence;
    head.hash.clone_from(&row.hash);
    row
}

/// The hash of a row behind a hash: 64 hexadecimal digits. Every part goes in with its length, so that none can be moved into another.
pub(crate) fn hash(previous: &str, row: &audit::Model) -> String {
    let organization = row.organization.unwrap_or(PLATFORM);
    let (sequence, created_at) = (row.sequence.to_be_bytes(), row.created_at.to_be_bytes());
    let address: &[u8] = row.address.as_ref().map_or(&[0], |address| address.as_bytes());
    let number = row.number.to_be_bytes();
    let format = if row.number == 0 { FORMAT } else { NUMBERED };
    let parts: [&[u8]; 11] = [
        format,
        previous.as_bytes(),
        organization.as_bytes(),
        &sequence,
        row.id.as_bytes(),
        row.actor.as_bytes(),
        row.action.as_bytes(),
        row.target.as_bytes(),
        row.detail.as_bytes(),
        address,
        &created_at,
    ];
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts.into_iter().chain((row.number != 0).then_some(&number[..])) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    hex(context.finish().as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a head that are signed.
fn signed(head: &audit_head::Model) -> Vec<u8> {
    let audit_head::Model { chain, sequence, hash, first, first_hash, mac: _ } = head;
    format!("audit head {chain} {sequence} {hash} {first} {first_hash}").into_bytes()
}

/// The signature of a head: 64 hexadecimal digits.
pub(crate) fn sign(key: &hmac::Key, head: &audit_head::Model) -> String {
    hex(hmac::sign(key, &signed(head)).as_ref())
}

/// Whether a head is as the platform wrote it.
pub(crate) fn is_ours(key: &hmac::Key, head: &audit_head::Model) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(sign(key, head).as_bytes(), head.mac.as_bytes()).is_ok()
}

/// A head as it was found: locked until the end of the transaction.
struct Found {
    head: audit_head::Model,
    /// Whether it may be signed again. One that somebody else wrote, or took the signature from, must not become ours by our next entry.
    sound: bool,
}

impl Found {
    async fn lock(tx: &Tx, key: &hmac::Key, chain: Uuid) -> Result<Self, StoreError> {
        let head = match tx.lock::<audit_head::Entity>(chain).await? {
            Some(head) => head,
            None => made(tx, chain).await?,
        };
        let sound = is_ours(key, &head);
        Ok(Self { head, sound })
    }

    async fn save(mut self, tx: &Tx, key: &hmac::Key) -> Result<(), StoreError> {
        self.head.mac = if self.sound { sign(key, &self.head) } else { NOT_OURS.to_owned() };
        tx.save(self.head).await
    }
}

/// Locked heads, and that of the numbers after them: everybody takes them in the order of their ids.
struct Heads {
    chains: Vec<Found>,
    numbers: Found,
}

impl Heads {
    async fn lock(tx: &Tx, key: &hmac::Key, chains: impl Iterator<Item = Uuid>) -> Result<Self, StoreError> {
        let mut found = Vec::new();
        for chain in chains {
            found.push(Found::lock(tx, key, chain).await?);
        }
        Ok(Self { chains: found, numbers: Found::lock(tx, key, NUMBERS).await? })
    }

    /// Puts an entry at the end of a chain.
    async fn add(&mut self, tx: &Tx, place: usize, entry: Entry) -> Result<(), StoreError> {
        self.numbers.head.sequence += 1;
        let row = audit::Model { number: self.numbers.head.sequence, ..row(entry) };
        Ok(tx.add(link(&mut self.chains[place].head, row)).await?)
    }

    async fn save(self, tx: &Tx, key: &hmac::Key) -> Result<(), StoreError> {
        for found in self.chains {
            found.save(tx, key).await?;
        }
        self.numbers.save(tx, key).await
    }
}

/// What a transaction will write.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The organizations it makes, whose chains begin with it.
    pub(crate) begun: Vec<Uuid>,
    pub(crate) entries: Vec<Entry>,
}

/// Writes entries at the ends of their chains. Call it last in a transaction.
pub(crate) async fn append(tx: &Tx, key: &hmac::Key, pending: Pending) -> Result<(), StoreError> {
    let Pending { begun, entries } = pending;
    let mut chains: BTreeMap<Uuid, Vec<Entry>> = BTreeMap::new();
    for chain in &begun {
        let head = start(*chain);
        chains.entry(*chain).or_default().push(begin(&head));
        tx.add(head).await?;
    }
    for entry in entries {
        chains.entry(entry.organization.unwrap_or(PLATFORM)).or_default().push(entry);
    }
    if chains.is_empty() {
        return Ok(());
    }
    let mut heads = Heads::lock(tx, key, chains.keys().copied()).await?;
    for (place, (chain, entries)) in chains.into_iter().enumerate() {
        heads.chains[place].sound |= begun.contains(&chain);
        for entry in entries {
            heads.add(tx, place, entry).await?;
        }
    }
    heads.save(tx, key).await
}

/// Begins every chain whose head is not signed, and the numbers: those of a database of before them, and nothing later.
pub(crate) async fn begin_all(tx: &Tx, key: &hmac::Key) -> Result<(), StoreError> {
    let known = audit_head::Entity::find().filter(audit_head::Column::Chain.ne(NUMBERS));
    let known = known.order_by_asc(audit_head::Column::Chain).all(tx).await?;
    let mut heads = Heads::lock(tx, key, known.iter().map(|head| head.chain)).await?;
    let first = heads.numbers.head.mac.is_empty();
    heads.numbers.sound |= first;
    for place in 0..heads.chains.len() {
        let found = &mut heads.chains[place];
        if found.head.mac.is_empty() {
            found.sound = true;
            let entry = begin(&found.head);
            heads.add(tx, place, entry).await?;
        } else if first {
            let entry = begin_with(&found.head, "entries are numbered over all logs from here on".to_owned());
            heads.add(tx, place, entry).await?;
        }
    }
    heads.save(tx, key).await
}

/// Drops a chain's entries of before the numbers and of before `before` (milliseconds), gives their number, and keeps the hash that the
/// rest goes on from. They are read as they are when the log is verified: what was changed is neither dropped nor signed.
pub(crate) async fn trim_unnumbered(tx: &Tx, key: &hmac::Key, chain: Uuid, before: i64) -> Result<u64, StoreError> {
    let mut found = Found::lock(tx, key, chain).await?;
    let rows = audit::Entity::find().filter(of(chain)).order_by_asc(audit::Column::Sequence).limit(TRIMMED);
    let mut rows = rows.all(tx).await?;
    let old = rows.iter().take_while(|row| row.number == 0 && row.created_at < before).count();
    rows.truncate(old);
    let dropped = drop_first(tx, &mut found, &rows).await?;
    found.save(tx, key).await?;
    Ok(dropped)
}

/// Drops the oldest numbered entries of before `before` (milliseconds), of all chains, and gives their number. A chain that is not as it
/// was written keeps its own.
pub(crate) async fn trim(tx: &Tx, key: &hmac::Key, before: i64) -> Result<u64, StoreError> {
    let first = audit_head::Entity::find_by_id(NUMBERS).one(tx).await?.map_or(1, |head| head.first);
    let rows = audit::Entity::find().filter(audit::Column::Number.gte(first)).order_by_asc(audit::Column::Number);
    let mut rows = rows.limit(TRIMMED).all(tx).await?;
    let old = rows.iter().take_while(|row| row.created_at < before).count();
    rows.truncate(old);
    let Some(last) = rows.last().map(|row| row.number) else { return Ok(0) };
    let mut chains: BTreeMap<Uuid, Vec<audit::Model>> = BTreeMap::new();
    rows.into_iter().for_each(|row| chains.entry(row.organization.unwrap_or(PLATFORM)).or_default().push(row));
    let mut heads = Heads::lock(tx, key, chains.keys().copied()).await?;
    let mut dropped = 0;
    for (place, mut rows) in chains.into_values().enumerate() {
        let found = &mut heads.chains[place];
        // What another process dropped meanwhile.
        rows.retain(|row| row.sequence >= found.head.first);
        dropped += drop_first(tx, found, &rows).await?;
        if found.sound && found.head.first > found.head.sequence {
            // A log without a numbered entry could be removed unseen.
            let entry = begin_with(&found.head, "all entries of before were dropped for their age".to_owned());
            heads.add(tx, place, entry).await?;
        }
    }
    heads.numbers.head.first = heads.numbers.head.first.max(last + 1);
    heads.save(tx, key).await?;
    Ok(dropped)
}

/// Drops these rows, the first of their chain, and gives their number; none where they are not as they were written, and the head is then
/// not ours any more.
async fn drop_first(tx: &Tx, found: &mut Found, rows: &[audit::Model]) -> Result<u64, StoreError> {
    let (mut first, mut hash) = (found.head.first, found.head.first_hash.clone());
    for row in rows {
        found.sound &= row.sequence == first && row.hash == self::hash(&hash, row);
        (first, hash) = (row.sequence + 1, row.hash.clone());
    }
    if !found.sound || rows.is_empty() {
        return Ok(0);
    }
    let dropped = audit::Entity::delete_many().filter(of(found.head.chain));
    let dropped = dropped.filter(audit::Column::Sequence.lt(first)).exec(tx).await?.rows_affected;
    (found.head.first, found.head.first_hash) = (first, hash);
    Ok(dropped)
}

/// What a chain begins with. Where it stands anywhere else than at the beginning of an organization's time, somebody should ask why.
fn begin(head: &audit_head::Model) -> Entry {
    let detail = match head.sequence {
        0 => "the audit log begins".to_owned(),
        found => format!("{found} entries of before were chained as they were found"),
    };
    begin_with(head, detail)
}

fn begin_with(head: &audit_head::Model, detail: String) -> Entry {
    let organization = Some(head.chain).filter(|chain| *chain != PLATFORM);
    let (actor, action) = ("system".to_owned(), BEGIN.to_owned());
    Entry { organization, actor, action, target: String::new(), detail, address: None }
}

fn row(entry: Entry) -> audit::Model {
    audit::Model {
        id: Uuid::now_v7(),
        organization: entry.organization,
        actor: entry.actor,
        action: entry.action,
        target: printable(&entry.target),
        detail: printable(&entry.detail),
        created_at: codec::millis(codec::now()),
        sequence: 0,
        hash: String::new(),
        address: entry.address,
        number: 0,
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_TEXT).collect()
}

/// The head of a chain that has none: somebody took it away, perhaps with all entries. It goes on, and stays wrong.
async fn made(tx: &Tx, chain: Uuid) -> Result<audit_head::Model, StoreError> {
    let last = match chain {
        NUMBERS => audit::Entity::find().order_by_desc(audit::Column::Number),
        chain => audit::Entity::find().filter(of(chain)).order_by_desc(audit::Column::Sequence),
    };
    let last = last.one(tx).await?;
    let (sequence, hash) = match last {
        Some(last) if chain == NUMBERS => (last.number, String::new()),
        last => last.map(|last| (last.sequence, last.hash)).unwrap_or_default(),
    };
    add(tx, audit_head::Model { sequence, hash, mac: NOT_OURS.to_owned(), ..start(chain) }).await?;
    tx.lock::<audit_head::Entity>(chain).await?.ok_or(StoreError::Corrupt { what: "head of the audit log" })
}

/// Adds a head unless another transaction has: then that one's is waited for.
async fn add(tx: &Tx, head: audit_head::Model) -> Result<(), StoreError> {
    let there = OnConflict::column(audit_head::Column::Chain).do_nothing().to_owned();
    let added = audit_head::Entity::insert(head.into_active_model()).on_conflict(there);
    match added.exec_without_returning(tx).await {
        Ok(_) | Err(DbErr::RecordNotInserted) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
