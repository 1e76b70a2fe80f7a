//! Between values and what lies in a column.

use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::domain::Time;

/// A moment as milliseconds since the Unix epoch.
pub(super) fn ms(moment: Time) -> i64 {
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

/// A moment as it was stored.
pub(super) fn moment(ms: i64) -> Result<Time, StoreError> {
    Time::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map_err(|_| StoreError::Corrupt("time"))
}

/// A moment that may be missing.
pub(super) fn optional_moment(ms: Option<i64>) -> Result<Option<Time>, StoreError> {
    ms.map(moment).transpose()
}

/// A value that was stored as its text.
pub(super) fn text<T: FromStr>(stored: &str, what: &'static str) -> Result<T, StoreError> {
    stored.parse().map_err(|_| StoreError::Corrupt(what))
}

/// A value that may be missing and was stored as its text.
pub(super) fn optional_text<T: FromStr>(
    stored: Option<&str>,
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    stored.map(|t| text(t, what)).transpose()
}

/// A counter as the database has it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A counter as it was stored.
pub(super) fn unsigned(stored: i64) -> Result<u64, StoreError> {
    u64::try_from(stored).map_err(|_| StoreError::Corrupt("counter"))
}

/// A structured value as JSON text.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt("value to be stored"))
}

/// A structured value as it was stored.
pub(super) fn from_json<T: DeserializeOwned>(stored: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(stored).map_err(|_| StoreError::Corrupt(what))
}

/// 32 bytes as they were stored.
pub(super) fn hash(stored: &[u8]) -> Result<[u8; 32], StoreError> {
    stored.try_into().map_err(|_| StoreError::Corrupt("hash"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moments_survive(stored in -60_000_000_000_000_i64..250_000_000_000_000) {
            prop_assert_eq!(ms(moment(stored).unwrap()), stored);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(moment(i64::MAX).is_err());
        assert!(unsigned(-1).is_err());
    }
}
