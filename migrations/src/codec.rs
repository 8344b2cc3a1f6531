//! How values stand in columns: times as whole milliseconds since 1970 (UTC), words as their text, structures as JSON.
//!
//! Times are integers because SQLite would keep them as texts of varying length, whose order is wrong within a second, and because
//! both databases then hold the same value.

use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::error::StoreError;

/// The present, as rows keep it.
pub(crate) fn now() -> OffsetDateTime {
    whole_millis(OffsetDateTime::now_utc())
}

/// Cuts what a column does not hold.
fn whole_millis(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_millisecond(time.millisecond()).unwrap_or(time)
}

pub(crate) fn millis(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

pub(crate) fn time(what: &'static str, millis: i64) -> Result<OffsetDateTime, StoreError> {
    let nanos = i128::from(millis) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| StoreError::Corrupt { what })
}

pub(crate) fn maybe_time(what: &'static str, millis: Option<i64>) -> Result<Option<OffsetDateTime>, StoreError> {
    millis.map(|value| time(what, value)).transpose()
}

pub(crate) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt { what })
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what })
}

pub(crate) fn maybe_from_json<T: DeserializeOwned>(
    what: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, StoreError> {
    text.map(|text| from_json(what, text)).transpose()
}

pub(crate) fn maybe_json<T: Serialize>(what: &'static str, value: Option<&T>) -> Result<Option<String>, StoreError> {
    value.map(|value| json(what, value)).transpose()
}

/// Reads what writes itself as text: names, words, networks.
pub(crate) fn word<T: FromStr>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what })
}

pub(crate) fn count(what: &'static str, value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Corrupt { what })
}

pub(crate) fn number(what: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Corrupt { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_column() {
        let now = now();
        assert_eq!(time("time", millis(now)).unwrap(), now);
        assert_eq!(now.nanosecond() % 1_000_000, 0);
        let before = OffsetDateTime::UNIX_EPOCH - time::Duration::nanoseconds(1);
        assert_eq!(millis(before), -1);
    }
}
