//! Times: RFC 3339 from the API, local or UTC for people.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Which clock a time is shown by.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    zone: TimeZone,
    utc: bool,
}

impl Clock {
    pub(crate) fn new(utc: bool) -> Self {
        Self { zone: if utc { TimeZone::UTC } else { TimeZone::system() }, utc }
    }

    /// `2026-11-23 18:40:03Z`, or with the offset of the local zone. Text that is
    /// no time is shown as it is: better than hiding it.
    pub(crate) fn show(&self, rfc3339: &str) -> String {
        let Ok(moment) = rfc3339.parse::<Timestamp>() else { return rfc3339.to_owned() };
        let there = moment.to_zoned(self.zone.clone());
        let text = there.strftime("%Y-%m-%d %H:%M:%S");
        if self.utc { format!("{text}Z") } else { format!("{text} {}", there.strftime("%:z")) }
    }
}

/// A length of time in its two largest units: `4d 3h`, `2m 5s`, `0s`.
pub(crate) fn ago(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 || (size == 1 && parts.is_empty()) {
            parts.push(format!("{count}{name}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_by_the_clock_asked_for() {
        let utc = Clock::new(true);
        assert_eq!(utc.show("2026-11-23T18:40:03.125Z"), "2026-11-23 18:40:03Z");
        assert_eq!(utc.show("2026-11-23T19:40:03+01:00"), "2026-11-23 18:40:03Z");
        assert_eq!(utc.show("yesterday"), "yesterday");
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        let local = Clock { zone, utc: false };
        assert_eq!(local.show("2026-11-23T18:40:03Z"), "2026-11-23 13:40:03 -05:00");
    }

    #[test]
    fn a_length_has_two_units_at_most() {
        let of = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!(of(0), "0s");
        assert_eq!(of(59), "59s");
        assert_eq!(of(60), "1m");
        assert_eq!(of(125), "2m 5s");
        assert_eq!(of(3605), "1h");
        assert_eq!(of(4 * 86_400 + 3 * 3600 + 59), "4d 3h");
    }
}
