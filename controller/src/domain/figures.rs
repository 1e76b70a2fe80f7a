//! Figures of data services as agents tell them: what may be taken, and how a series is named.
//!
//! Names follow the conventions of Prometheus, so that the unit and the kind of a series can be read
//! off its name: `_bytes`, `_seconds` and `_ratio` are units, and `_total` ends what only grows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The most labels of a series, the one that names the instance included.
pub const LABELS_MAX: usize = 9;
/// The longest name of a series or a label, bytes.
pub const NAME_MAX: usize = 100;
/// The longest value of a label, bytes.
pub const VALUE_MAX: usize = 128;
/// How far back figures are kept.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// The label that names the instance.
pub const INSTANCE: &str = "instance";

/// What a series is: its name, and labels that tell it from others of the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    name: String,
    labels: BTreeMap<String, String>,
}

/// Whether a series may fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesKind {
    /// It rises and falls.
    Gauge,
    /// It only grows, and begins anew when its program does.
    Counter,
}

impl SeriesKind {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

impl SeriesKey {
    /// Reads what an agent told of an instance; `None` when it is not a series of ours.
    #[must_use]
    pub fn parse(instance: &str, name: &str, labels: Vec<(String, String)>) -> Option<Self> {
        let mut all = BTreeMap::new();
        for (label, value) in labels {
            // What names the instance is not the instance's to say.
            let sound = is_name(&label) && label != INSTANCE && is_value(&value);
            if !sound || all.insert(label, value).is_some() {
                return None;
            }
        }
        all.insert(INSTANCE.to_owned(), instance.to_owned());
        let sound = name.starts_with("culvert_") && is_name(name) && all.len() <= LABELS_MAX;
        sound.then(|| Self { name: name.to_owned(), labels: all })
    }

    /// Its name, as `culvert_postgresql_connections`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its labels; `instance` is always among them.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// What its name says of its kind.
    #[must_use]
    pub fn kind(&self) -> SeriesKind {
        let grows = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| self.name.ends_with(end));
        if grows { SeriesKind::Counter } else { SeriesKind::Gauge }
    }

    /// The unit that its name says; `None` for a plain number.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let stem = ["_total", "_sum"].iter().find_map(|end| self.name.strip_suffix(end));
        let stem = stem.unwrap_or(&self.name);
        let units = [("_bytes", "bytes"), ("_seconds", "seconds"), ("_ratio", "ratio")];
        units.into_iter().find(|(end, _)| stem.ends_with(end)).map(|(_, unit)| unit)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn is_value(text: &str) -> bool {
    text.len() <= VALUE_MAX && !text.chars().any(char::is_control)
}

/// How far back somebody looks: a number with `s`, `m` or `h`, as `15m`; at most [`WINDOW`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Back(Duration);

/// Not a time to look back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be a time from 1s to 1h, as 90s, 15m or 1h")]
pub struct NotBack;

impl Back {
    /// The time.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for Back {
    /// Five minutes.
    fn default() -> Self {
        Self(Duration::from_secs(300))
    }
}

impl FromStr for Back {
    type Err = NotBack;

    fn from_str(text: &str) -> Result<Self, NotBack> {
        let units = [('s', 1), ('m', 60), ('h', 3600)];
        let found = units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
        let (number, seconds) = found.ok_or(NotBack)?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotBack);
        }
        let number: u64 = number.parse().map_err(|_| NotBack)?;
        let back = Duration::from_secs(number.saturating_mul(seconds));
        if back.is_zero() || back > WINDOW { Err(NotBack) } else { Ok(Self(back)) }
    }
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str, labels: &[(&str, &str)]) -> Option<SeriesKey> {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        SeriesKey::parse("orders-0", name, labels.collect())
    }

    #[test]
    fn a_name_says_kind_and_unit() {
        let shown = |name: &str| {
            let key = key(name, &[]).unwrap();
            (key.kind().as_str(), key.unit())
        };
        assert_eq!(shown("culvert_postgresql_connections"), ("gauge", None));
        assert_eq!(shown("culvert_instance_volume_free_bytes"), ("gauge", Some("bytes")));
        assert_eq!(shown("culvert_postgresql_deadlocks_total"), ("counter", None));
        assert_eq!(shown("culvert_net_bytes_total"), ("counter", Some("bytes")));
        assert_eq!(shown("culvert_x_seconds_sum"), ("counter", Some("seconds")));
    }

    #[test]
    fn the_instance_is_the_agents_word_not_the_series() {
        let made = key("culvert_x", &[("kind", "a")]).unwrap();
        assert_eq!(made.labels().get(INSTANCE).map(String::as_str), Some("orders-0"));
        assert_eq!(key("culvert_x", &[("instance", "other")]), None);
    }

    #[test]
    fn what_is_not_ours_or_too_long_is_not_taken() {
        assert_eq!(key("go_threads", &[]), None);
        assert_eq!(key("culvert_x y", &[]), None);
        assert_eq!(key(&format!("culvert_{}", "x".repeat(NAME_MAX)), &[]), None);
        assert_eq!(key("culvert_x", &[("a", "\u{1b}[31m")]), None);
        assert_eq!(key("culvert_x", &[("a", "1"), ("a", "2")]), None);
        let many: Vec<(String, String)> = (0..LABELS_MAX).map(|n| (format!("l{n}"), String::new())).collect();
        assert_eq!(SeriesKey::parse("i", "culvert_x", many), None);
    }

    #[test]
    fn a_time_back_has_its_bounds() {
        let back = |text: &str| text.parse::<Back>().map(|back| back.get().as_secs());
        assert_eq!((back("90s"), back("15m"), back("1h")), (Ok(90), Ok(900), Ok(3600)));
        for bad in ["", "s", "0s", "2h", "3601s", "-1m", "+1m", "1d", "15", "m15", "99999999999999999999s"] {
            assert_eq!(back(bad), Err(NotBack), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_told_is_bounded(name in "\\PC{0,120}", label in "\\PC{0,120}", value in "\\PC{0,140}") {
            if let Some(key) = SeriesKey::parse("i", &format!("culvert_{name}"), vec![(label, value)]) {
                prop_assert!(key.name().len() <= NAME_MAX);
                prop_assert!(key.labels().iter().all(|(l, v)| l.len() <= NAME_MAX && v.len() <= VALUE_MAX));
            }
        }
    }
}
