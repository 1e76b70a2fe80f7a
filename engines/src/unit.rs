//! Numbers with units as engines write them: `128MB`, `30s`, `100mb`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The units that an engine understands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Units {
    /// Bytes in each unit of memory.
    pub memory: BTreeMap<String, f64>,
    /// Microseconds in each unit of time.
    pub duration: BTreeMap<String, f64>,
    /// Whether the case of a unit is ignored.
    #[serde(default)]
    pub any_case: bool,
    /// Whether `1.5GB` is a number.
    #[serde(default)]
    pub fractions: bool,
    /// Words for true and false.
    pub booleans: Vec<String>,
    /// Unit in which derived sizes are written, such as `MB`.
    pub written: String,
}

impl Units {
    /// `text` in bytes; a bare number counts in `base` (a unit, or a multiple such as `8kB`).
    pub(crate) fn bytes(&self, text: &str, base: Option<&str>) -> Option<f64> {
        self.number(&self.memory, text, base)
    }

    /// `text` in microseconds; a bare number counts in `base`.
    pub(crate) fn micros(&self, text: &str, base: Option<&str>) -> Option<f64> {
        self.number(&self.duration, text, base)
    }

    /// `bytes` as the engine reads it, rounded down to [`Units::written`].
    pub(crate) fn write(&self, bytes: f64) -> String {
        let unit = self.memory.get(&self.written).copied().unwrap_or(1.0);
        format!("{:.0}{}", (bytes / unit).floor(), self.written)
    }

    fn number(&self, units: &BTreeMap<String, f64>, text: &str, base: Option<&str>) -> Option<f64> {
        let (number, unit) = self.split(text)?;
        if !unit.is_empty() {
            return Some(number * self.factor(units, unit)?);
        }
        let Some(base) = base else { return Some(number) };
        let (times, unit) = self.split(base).unwrap_or((1.0, base));
        Some(number * times * self.factor(units, unit)?)
    }

    fn factor(&self, units: &BTreeMap<String, f64>, unit: &str) -> Option<f64> {
        let same = |name: &str| name == unit || (self.any_case && name.eq_ignore_ascii_case(unit));
        units.iter().find(|(name, _)| same(name)).map(|(_, factor)| *factor)
    }

    fn split<'a>(&self, text: &'a str) -> Option<(f64, &'a str)> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && !"+-.".contains(c)).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        if number.contains('.') && !self.fractions {
            return None;
        }
        Some((number.parse().ok()?, unit.trim_start()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn postgresql() -> &'static Units {
        &crate::catalogue().engine("postgresql").unwrap().units
    }

    fn valkey() -> &'static Units {
        &crate::catalogue().engine("valkey").unwrap().units
    }

    #[rstest]
    #[case("128MB", None, Some(134_217_728.0))]
    #[case("16384", Some("8kB"), Some(134_217_728.0))]
    #[case(" 1.5 GB ", None, Some(1_610_612_736.0))]
    #[case("-1", Some("kB"), Some(-1024.0))]
    #[case("128mb", None, None)]
    #[case("128MiB", None, None)]
    #[case("", None, None)]
    #[case("MB", None, None)]
    #[case("1..5MB", None, None)]
    #[case("NaN", None, None)]
    #[case("inf", None, None)]
    fn memory_as_postgresql_writes_it(
        #[case] text: &str,
        #[case] base: Option<&str>,
        #[case] bytes: Option<f64>,
    ) {
        assert_eq!(postgresql().bytes(text, base), bytes);
    }

    #[rstest]
    #[case("100mb", Some(104_857_600.0))]
    #[case("100MB", Some(104_857_600.0))]
    #[case("1k", Some(1000.0))]
    #[case("1.5gb", None)]
    #[case("12", Some(12.0))]
    fn memory_as_valkey_writes_it(#[case] text: &str, #[case] bytes: Option<f64>) {
        assert_eq!(valkey().bytes(text, None), bytes);
    }

    #[test]
    fn time_has_units_too() {
        assert_eq!(postgresql().micros("5min", Some("s")), Some(300e6));
        assert_eq!(postgresql().micros("300", Some("s")), Some(300e6));
        assert_eq!(postgresql().micros("300", Some("ms")), Some(300e3));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(megabytes in 1_u32..4_000_000) {
            let bytes = f64::from(megabytes) * 1_048_576.0;
            for units in [postgresql(), valkey()] {
                prop_assert_eq!(units.bytes(&units.write(bytes), None), Some(bytes));
            }
        }

        #[test]
        fn any_text_is_a_number_or_refused(text in ".{0,40}") {
            let _ = postgresql().bytes(&text, Some("8kB"));
        }
    }
}
