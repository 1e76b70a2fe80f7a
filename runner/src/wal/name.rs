//! Names of files of PostgreSQL's log, as its `archive_command` gives them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Lsn;

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WalName {
    /// A whole segment: `000000010000000000000002`.
    Segment(Segment),
    /// The last segment of a timeline that was left in its middle.
    Partial(Segment),
    /// Where a timeline came from: `00000002.history`.
    History(u32),
    /// That a base backup began in a segment: `000000010000000000000002.00000028.backup`.
    Backup(Segment, u32),
}

/// A segment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The timeline.
    pub timeline: u32,
    /// The upper half of its number.
    pub high: u32,
    /// The lower half of its number.
    pub low: u32,
}

impl Segment {
    /// The segment that holds a position, with segments of `bytes`.
    #[must_use]
    pub fn holding(timeline: u32, lsn: Lsn, bytes: u64) -> Self {
        let per_high = (1_u64 << 32) / bytes.max(1);
        let number = lsn.0 / bytes.max(1);
        let half = |half: u64| u32::try_from(half).unwrap_or(u32::MAX);
        Self { timeline, high: half(number / per_high.max(1)), low: half(number % per_high.max(1)) }
    }

    /// The one after it on its timeline, with segments of `bytes`.
    #[must_use]
    pub fn next(self, bytes: u64) -> Self {
        let last = (1_u64 << 32) / bytes.max(1);
        if u64::from(self.low) + 1 >= last {
            Self { high: self.high.wrapping_add(1), low: 0, ..self }
        } else {
            Self { low: self.low + 1, ..self }
        }
    }

    /// Its place in the log, whatever the timeline.
    #[must_use]
    pub fn place(self) -> (u32, u32) {
        (self.high, self.low)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.high, self.low)
    }
}

impl fmt::Display for WalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::History(timeline) => write!(f, "{timeline:08X}.history"),
            Self::Backup(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

/// Not the name of a file of the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no name of a file of the log")]
pub struct NoWalName(String);

impl FromStr for WalName {
    type Err = NoWalName;

    fn from_str(text: &str) -> Result<Self, NoWalName> {
        let name = match text.split_once('.') {
            None => segment(text).map(Self::Segment),
            Some((name, "partial")) => segment(name).map(Self::Partial),
            Some((name, "history")) => number(name).map(Self::History),
            Some((name, rest)) => rest
                .strip_suffix(".backup")
                .and_then(|offset| Some(Self::Backup(segment(name)?, number(offset)?))),
        };
        name.ok_or_else(|| NoWalName(text.to_owned()))
    }
}

fn segment(text: &str) -> Option<Segment> {
    let part = |range| text.get(range).and_then(number);
    let parts = (part(0..8)?, part(8..16)?, part(16..24)?);
    (text.len() == 24).then_some(Segment { timeline: parts.0, high: parts.1, low: parts.2 })
}

/// Eight upper-case hexadecimal digits.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|digit| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit));
    if text.len() == 8 && digits { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_the_log_are_known() {
        let segment = Segment { timeline: 1, high: 0, low: 2 };
        for (text, name) in [
            ("000000010000000000000002", WalName::Segment(segment)),
            ("000000010000000000000002.partial", WalName::Partial(segment)),
            ("0000000A.history", WalName::History(10)),
            ("000000010000000000000002.00000028.backup", WalName::Backup(segment, 0x28)),
        ] {
            assert_eq!(text.parse(), Ok(name.clone()));
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for wrong in [
            "",
            "..",
            "../000000010000000000000002",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "0000000100000000000000020",
            "00000001.history/..",
            "000000010000000000000002.gz",
            "é0000001.history",
        ] {
            assert!(wrong.parse::<WalName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn segments_follow_each_other() {
        let sixteen = 16 << 20;
        let segment = Segment::holding(1, "0/2000028".parse().unwrap(), sixteen);
        assert_eq!(segment.to_string(), "000000010000000000000002");
        let last = Segment { timeline: 1, high: 0, low: 0xFF };
        assert_eq!(last.next(sixteen).to_string(), "000000010000000100000000");
        assert_eq!(Segment::holding(1, Lsn(1 << 32), sixteen), last.next(sixteen));
    }

    proptest! {
        #[test]
        fn any_text_is_read_calmly(text in ".{0,60}") {
            if let Ok(name) = text.parse::<WalName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn the_next_segment_holds_the_next_bytes(lsn in 0..u64::MAX >> 1, log2 in 20..31_u32) {
            let bytes = 1_u64 << log2;
            let segment = Segment::holding(3, Lsn(lsn), bytes);
            prop_assert_eq!(segment.next(bytes), Segment::holding(3, Lsn(lsn + bytes), bytes));
        }
    }
}
