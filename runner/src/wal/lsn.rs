//! A position in PostgreSQL's log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A position in the log, in bytes; written as PostgreSQL does: `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Not a position in the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no position in the log")]
pub struct NoLsn(String);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = NoLsn;

    fn from_str(text: &str) -> Result<Self, NoLsn> {
        let wrong = || NoLsn(text.to_owned());
        let half = |half: &str| {
            let digits = half.len() <= 8 && half.bytes().all(|digit| digit.is_ascii_hexdigit());
            u32::from_str_radix(half, 16).ok().filter(|_| digits)
        };
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let (high, low) = half(high).zip(half(low)).ok_or_else(wrong)?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_position_is_refused() {
        for wrong in ["", "/", "1", "1/", "/1", "G/1", "1/123456789", "+1/0", "1/2/3"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn positions_are_read_back(bytes in any::<u64>()) {
            prop_assert_eq!(Lsn(bytes).to_string().parse(), Ok(Lsn(bytes)));
        }
    }
}
