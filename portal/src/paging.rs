//! Pages of a collection: `limit`, an opaque `cursor`, and the `name` filter.
//!
//! Ids are UUIDv7, so their order is the order of creation, and the cursor is the last id seen. It also carries a
//! fingerprint of the list and the filter, so that a cursor used with another list is refused instead of answered wrongly.

use crate::error::Error;
use api_types::List;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use uuid::Uuid;

/// Items on a page when nothing is asked for.
pub const DEFAULT_LIMIT: u64 = 50;
/// Items on a page at most; more is coerced to this.
pub const MAX_LIMIT: u64 = 200;

/// Items at most where a page shows all.
const EVERYTHING: u64 = 10_000;
const FINGERPRINT: usize = 8;

/// The query parameters of every list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items on a page: 1 to 200, default 50. More than 200 is coerced to 200.
    pub limit: Option<u64>,
    /// `next_cursor` of the previous page.
    pub cursor: Option<String>,
    /// Only the item with this name.
    pub name: Option<String>,
}

/// Which part of a collection is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Items at most.
    pub limit: u64,
    /// Only items after this id.
    pub after: Option<Uuid>,
    /// Only the item with this name.
    pub name: Option<String>,
    /// The path of the list, which its cursors belong to; empty where nobody sees a cursor.
    pub list: String,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, after: None, name: None, list: String::new() }
    }
}

impl Paging {
    /// All items, for a page that shows them: [`EVERYTHING`] at most, which quotas and the store's own bounds keep far away.
    pub fn all() -> Self {
        Self { limit: EVERYTHING, ..Self::default() }
    }

    /// The item of that name.
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::default() }
    }

    /// Reads the query of the list at this path.
    ///
    /// # Errors
    /// [`Error::CursorMismatch`] for a cursor that is none, or belongs to another list or filter.
    pub fn parse(query: PageQuery, list: &str) -> Result<Self, Error> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
        let after = query.cursor.map(|cursor| read(&cursor, (list, query.name.as_deref()))).transpose()?;
        Ok(Self { limit, after, name: query.name, list: list.to_owned() })
    }

    /// Cuts this page out of all rows of a collection.
    pub fn cut<R, T>(&self, rows: Vec<R>, key: impl Fn(&R) -> (Uuid, &str), show: impl Fn(R) -> T) -> List<T> {
        let wanted = |row: &R| self.name.as_deref().is_none_or(|name| key(row).1 == name);
        let mut rows: Vec<R> = rows.into_iter().filter(wanted).collect();
        rows.sort_by_key(|row| key(row).0);
        rows.retain(|row| self.after.is_none_or(|after| key(row).0 > after));
        self.finish(rows, |row| key(row).0, show)
    }

    /// Makes a page of rows that were read from `after` on, up to one more than `limit`.
    pub fn finish<R, T>(&self, mut rows: Vec<R>, id: impl Fn(&R) -> Uuid, show: impl Fn(R) -> T) -> List<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more).map(&id);
        let next_cursor = last.map(|last| write(last, (&self.list, self.name.as_deref())));
        List { items: rows.into_iter().map(show).collect(), next_cursor }
    }
}

fn fingerprint(id: Uuid, (list, name): (&str, Option<&str>)) -> [u8; FINGERPRINT] {
    let list_key = Sha256::new().chain_update(id.as_bytes()).chain_update(list);
    let digest = list_key.chain_update("?").chain_update(name.unwrap_or("\n")).finalize();
    std::array::from_fn(|list_key| digest[list_key])
}

fn write(id: Uuid, list_key: (&str, Option<&str>)) -> String {
    URL_SAFE_NO_PAD.encode([id.as_bytes().as_slice(), &fingerprint(id, list_key)].concat())
}

fn read(cursor: &str, list_key: (&str, Option<&str>)) -> Result<Uuid, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| Error::CursorMismatch)?;
    let (id, print) = bytes.split_first_chunk::<16>().ok_or(Error::CursorMismatch)?;
    let id = Uuid::from_bytes(*id);
    if print == fingerprint(id, list_key) { Ok(id) } else { Err(Error::CursorMismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(limit: Option<u64>, cursor: Option<String>, name: Option<&str>) -> Result<Paging, Error> {
        Paging::parse(PageQuery { limit, cursor, name: name.map(ToOwned::to_owned) }, "/a")
    }

    #[test]
    fn limit_is_coerced() {
        assert_eq!(query(None, None, None).unwrap().limit, 50);
        assert_eq!(query(Some(0), None, None).unwrap().limit, 1);
        assert_eq!(query(Some(9999), None, None).unwrap().limit, 200);
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_twin() {
        let rows: Vec<Uuid> = (0..7).map(|_| Uuid::now_v7()).collect();
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = query(Some(3), cursor, None).unwrap().cut(rows.clone(), |row| (*row, ""), |row| row);
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, rows);
    }

    #[test]
    fn cursor_is_bound_to_its_list_and_filter() {
        let cursor = write(Uuid::now_v7(), ("/a", None));
        assert!(query(None, Some(cursor.clone()), None).is_ok());
        assert!(matches!(query(None, Some(cursor), Some("demo")), Err(Error::CursorMismatch)));
        let elsewhere = write(Uuid::now_v7(), ("/b", None));
        assert!(matches!(query(None, Some(elsewhere), None), Err(Error::CursorMismatch)));
        assert!(matches!(query(None, Some("nonsense!".into()), None), Err(Error::CursorMismatch)));
    }
}
