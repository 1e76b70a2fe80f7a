//! The maintenance window: when changes that interrupt may be made.
use culvert_resources::Maintenance;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::timetable::{Timetable, Unfit};

/// Whether changes that interrupt may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Window {
    /// Now.
    Open,
    /// From this time on, when it is known.
    Closed(Option<Timestamp>),
}

/// The window at `now`; without one changes are made at once.
pub(super) fn window(maintenance: Option<&Maintenance>, now: Timestamp) -> Result<Window, Unfit> {
    let Some(maintenance) = maintenance else { return Ok(Window::Open) };
    let table = Timetable::parse(&maintenance.cron, &maintenance.time_zone)?;
    let length = SignedDuration::from_mins(maintenance.minutes);
    let began_after = now.checked_sub(length).unwrap_or(Timestamp::MIN);
    if table.due(began_after, now, 1).is_empty() {
        Ok(Window::Closed(table.next(now)))
    } else {
        Ok(Window::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Window {
        let sundays = Maintenance { cron: "0 3 * * 0".to_owned(), minutes: 120, time_zone: "UTC".to_owned() };
        window(Some(&sundays), time.parse().unwrap()).unwrap()
    }

    #[test]
    fn it_is_open_from_its_start_for_its_length() {
        assert_eq!(at("2026-11-29T03:00:00Z"), Window::Open);
        assert_eq!(at("2026-11-29T04:59:59Z"), Window::Open);
        let next = Some("2026-12-06T03:00:00Z".parse().unwrap());
        assert_eq!(at("2026-11-29T05:00:00Z"), Window::Closed(next));
    }

    #[test]
    fn without_one_it_is_always_open_and_a_wrong_one_is_told() {
        assert_eq!(window(None, Timestamp::UNIX_EPOCH), Ok(Window::Open));
        let wrong = Maintenance { cron: "x".to_owned(), minutes: 10, time_zone: "UTC".to_owned() };
        assert!(window(Some(&wrong), Timestamp::UNIX_EPOCH).is_err());
    }
}
