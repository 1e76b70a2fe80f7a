//! Reads what `pg_controldata` tells of data that is not running.
use crate::engine::{EngineError, Position};

/// What the control file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Control {
    /// The system identifier.
    pub identity: String,
    /// Timeline and position of the last checkpoint, or how far recovery has to go at least when that is later.
    pub position: Position,
    /// Whether it was shut down in order.
    pub clean: bool,
    /// Settings of the primary that a standby must not go below, by the name of the parameter.
    pub least: Vec<(&'static str, u64)>,
}

/// Settings that a standby must not have smaller than its primary.
const LEAST: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// Reads the output.
///
/// # Errors
/// [`EngineError::Refused`] names the line that is missing.
pub(super) fn parse(output: &str) -> Result<Control, EngineError> {
    let field = |name: &str| {
        let value = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let found = value.map(str::trim).filter(|value| !value.is_empty());
        found.ok_or_else(|| EngineError::refused("read the control file", format!("it has no line `{name}`")))
    };
    let state = field("Database cluster state")?;
    let checkpoint = Position {
        epoch: number(field("Latest checkpoint's TimeLineID")?)?,
        offset: lsn(field("Latest checkpoint location")?)?,
    };
    let least_end = Position {
        epoch: number(field("Min recovery ending loc's timeline")?)?,
        offset: lsn(field("Minimum recovery ending location")?)?,
    };
    let mut least = Vec::new();
    for (line, name) in LEAST {
        least.push((name, number(field(line)?)?));
    }
    Ok(Control {
        identity: field("Database system identifier")?.to_owned(),
        position: checkpoint.max(least_end),
        clean: matches!(state, "shut down" | "shut down in recovery"),
        least,
    })
}

/// Reads a position in the log, such as `0/16B3748`.
///
/// # Errors
/// [`EngineError::Refused`] when it is none.
pub(super) fn lsn(text: &str) -> Result<u64, EngineError> {
    let halves = text.split_once('/').and_then(|(high, low)| {
        let high = u32::from_str_radix(high, 16).ok()?;
        Some(u64::from(high) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
    });
    halves.ok_or_else(|| EngineError::refused("read a position of the log", format!("`{text}` is none")))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, EngineError> {
    text.parse().map_err(|_| EngineError::refused("read the control file", format!("`{text}` is no number")))
}

/// Where each timeline of a history file was left: timeline and the position at which the next begins.
#[must_use]
pub(super) fn history(text: &str) -> Vec<Position> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let epoch = words.next()?.parse().ok()?;
        Some(Position { epoch, offset: lsn(words.next()?).ok()? })
    };
    text.lines().filter_map(line).collect()
}

/// Whether a log that goes to `position` is part of the history of `timeline`, whose file says where it left the
/// earlier ones.
#[must_use]
pub(super) fn descends(position: Position, timeline: u32, history: &[Position]) -> bool {
    let left = history.iter().find(|left| left.epoch == position.epoch);
    position.epoch == timeline || left.is_some_and(|left| position.offset <= left.offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTPUT: &str = "pg_control version number:            1300
Database system identifier:           7576712345678901234
Database cluster state:               shut down
Latest checkpoint location:           0/3000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
";

    #[test]
    fn the_control_file_is_read() {
        let control = parse(OUTPUT).unwrap();
        assert_eq!(control.identity, "7576712345678901234");
        assert_eq!(control.position, Position { epoch: 2, offset: 0x0300_0028 });
        assert!(control.clean);
        assert!(control.least.contains(&("max_connections", 100)));
        let standby = OUTPUT
            .replace("ending location:     0/0", "ending location:     1/5000000")
            .replace("timeline:   0", "timeline:   2")
            .replace("shut down", "in archive recovery");
        let control = parse(&standby).unwrap();
        assert_eq!(control.position, Position { epoch: 2, offset: 0x1_0500_0000 });
        assert!(!control.clean);
    }

    #[test]
    fn a_line_that_is_missing_is_named() {
        let error = parse(&OUTPUT.replace("TimeLineID", "Line")).unwrap_err().to_string();
        assert!(error.contains("Latest checkpoint's TimeLineID"), "{error}");
    }

    #[test]
    fn a_log_descends_when_it_ends_before_the_point_of_departure() {
        let history = history("1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tx\n");
        assert_eq!(history.len(), 2);
        let at = |epoch, offset| Position { epoch, offset };
        assert!(descends(at(1, 0x0300_0000), 3, &history));
        assert!(!descends(at(1, 0x0300_0001), 3, &history));
        assert!(descends(at(2, 0x0400_0000), 3, &history));
        assert!(descends(at(3, u64::MAX), 3, &history));
        assert!(!descends(at(4, 1), 3, &history));
    }

    proptest! {
        #[test]
        fn a_position_is_read_back(value: u64) {
            prop_assert_eq!(lsn(&format!("{:X}/{:X}", value >> 32, value & 0xffff_ffff)).unwrap(), value);
        }

        #[test]
        fn nonsense_is_refused_and_not_misread(text in "[^0-9A-Fa-f/]{1,12}") {
            prop_assert!(lsn(&text).is_err());
            prop_assert!(parse(&text).is_err());
            prop_assert!(history(&text).is_empty());
        }
    }
}
