//! A parameter of an engine: which values it takes, and what setting it costs.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::unit::Units;

/// Bytes that a value may have.
const LONGEST: usize = 512;

/// A parameter of an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameter {
    /// What values look like.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What setting it costs.
    pub apply: Apply,
    /// What it is for; for a fixed one, why it cannot be set and what to set in its stead.
    pub description: String,
    /// Unit of a number without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// Greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// Values outside of the range that mean something, such as `-1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub special: Vec<String>,
    /// The values of an enum, or the entries of a list.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// The engine's own value when nobody sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The value that Culvert sets when nobody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// How Culvert derives it from the size of an instance when nobody sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sized: Option<Sized>,
    /// First major version that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u32>,
    /// Another parameter that it may not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<String>,
    /// Another parameter that it must stay below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
    /// Most that it may take of the memory of an instance, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<u32>,
    /// Most that it may take of the volume, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_percent: Option<u32>,
    /// A replica does not run with less than its primary.
    #[serde(default, skip_serializing_if = "is_false")]
    pub replicas_need_as_much: bool,
    /// Values that keep the promise of synchronous replication; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synchronous: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the values of a parameter look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// On or off, in any of the engine's spellings.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Real,
    /// One of a few words.
    Enum,
    /// Some of a few words, with commas.
    List,
    /// Any text of one line.
    String,
    /// An amount of memory.
    Memory,
    /// A length of time.
    Duration,
}

/// What setting a parameter costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apply {
    /// Nothing: the running engine takes it.
    Reload,
    /// A restart of each instance.
    Restart,
    /// It cannot be set: Culvert sets it.
    Fixed,
}

/// How a value follows from the size of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sized {
    /// What it follows.
    pub of: Source,
    /// A share of it, in percent, for a parameter that is an amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// One for each such amount, for a parameter that is a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// Divide by the value of this parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_by: Option<String>,
    /// Least.
    pub min: String,
    /// Most.
    pub max: String,
}

/// Something that has a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Memory of an instance.
    Memory,
    /// Volume of an instance.
    Storage,
}

impl Parameter {
    /// `value` as a number: bytes, microseconds, or itself. `None` for words and for nonsense.
    pub(crate) fn number(&self, units: &Units, value: &str) -> Option<f64> {
        match self.kind {
            Kind::Memory => units.bytes(value, self.unit.as_deref()),
            Kind::Duration => units.micros(value, self.unit.as_deref()),
            Kind::Integer => plain(value).filter(|number| number.fract() == 0.0),
            Kind::Real => plain(value),
            Kind::Boolean | Kind::Enum | Kind::List | Kind::String => None,
        }
    }

    /// Why `value` cannot be set, in half a sentence; `None` when it can.
    pub(crate) fn refuse(&self, units: &Units, value: &str) -> Option<String> {
        if value.len() > LONGEST || value.chars().any(char::is_control) {
            return Some(format!("must be one line of at most {LONGEST} bytes"));
        }
        if self.takes(units, value) {
            return None;
        }
        Some(match self.kind {
            Kind::Boolean => format!("must be {}", units.booleans.join(" or ")),
            _ => self.range(),
        })
    }

    fn takes(&self, units: &Units, value: &str) -> bool {
        match self.kind {
            Kind::Boolean => units.booleans.iter().any(|word| word.eq_ignore_ascii_case(value)),
            Kind::Enum => self.values.iter().any(|word| word == value),
            Kind::List => self.lists(value),
            Kind::String => true,
            Kind::Integer | Kind::Real | Kind::Memory | Kind::Duration => {
                self.special.iter().any(|word| word == value) || self.in_range(units, value)
            }
        }
    }

    fn lists(&self, value: &str) -> bool {
        value.is_empty() || value.split(',').all(|entry| self.values.iter().any(|word| word == entry.trim()))
    }

    fn in_range(&self, units: &Units, value: &str) -> bool {
        let bound = |text: &Option<String>| text.as_deref().and_then(|text| self.number(units, text));
        self.number(units, value).is_some_and(|number| {
            bound(&self.min).is_none_or(|min| number >= min)
                && bound(&self.max).is_none_or(|max| number <= max)
        })
    }

    /// What values are allowed, in half a sentence.
    pub(crate) fn range(&self) -> String {
        match self.kind {
            Kind::Enum => format!("must be one of {}", self.values.join(", ")),
            Kind::List => format!("must be some of {}, with commas between them", self.values.join(", ")),
            Kind::Boolean | Kind::String => "must be one line of text".to_owned(),
            Kind::Integer => self.between("a whole number"),
            Kind::Real => self.between("a number"),
            Kind::Memory => self.between("an amount of memory"),
            Kind::Duration => self.between("a length of time"),
        }
    }

    fn between(&self, what: &str) -> String {
        let mut said = format!("must be {what}");
        let _ = match (&self.min, &self.max) {
            (Some(min), Some(max)) => write!(said, " from {min} to {max}"),
            (Some(min), None) => write!(said, " of at least {min}"),
            (None, Some(max)) => write!(said, " of at most {max}"),
            (None, None) => Ok(()),
        };
        if let Some(unit) = &self.unit {
            let _ = write!(said, " (a bare number counts in {unit})");
        }
        if !self.special.is_empty() {
            let _ = write!(said, ", or {}", self.special.join(", "));
        }
        said
    }
}

/// A finite decimal number; not what else Rust reads as one (`inf`, `NaN`).
fn plain(value: &str) -> Option<f64> {
    let decimal = value.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    decimal.then(|| value.parse::<f64>().ok()).flatten().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use crate::catalogue;
    use proptest::prelude::*;
    use rstest::rstest;

    fn refused(name: &str, value: &str) -> Option<String> {
        let engine = catalogue().engine("postgresql").unwrap();
        engine.parameters[name].refuse(&engine.units, value)
    }

    #[rstest]
    #[case("work_mem", "64MB")]
    #[case("work_mem", "65536")]
    #[case("max_connections", "300")]
    #[case("jit", "OFF")]
    #[case("random_page_cost", "1.1")]
    #[case("statement_timeout", "0")]
    #[case("statement_timeout", "30s")]
    #[case("log_min_duration_statement", "-1")]
    #[case("shared_preload_libraries", "pg_stat_statements, auto_explain")]
    #[case("shared_preload_libraries", "")]
    #[case("synchronous_commit", "remote_apply")]
    #[case("TimeZone", "Europe/Vienna")]
    fn good_values_are_taken(#[case] name: &str, #[case] value: &str) {
        assert_eq!(refused(name, value), None);
    }

    #[rstest]
    #[case("work_mem", "1kB", "64kB")]
    #[case("work_mem", "lots", "an amount of memory")]
    #[case("max_connections", "10.5", "a whole number")]
    #[case("max_connections", "1e9", "to 2000")]
    #[case("max_connections", "inf", "a whole number")]
    #[case("jit", "maybe", "on or off or true")]
    #[case("statement_timeout", "-1", "a length of time")]
    #[case("synchronous_commit", "sometimes", "remote_apply")]
    #[case("shared_preload_libraries", "evil", "pg_stat_statements")]
    #[case("TimeZone", "UTC\nssl = off", "one line")]
    fn bad_values_are_refused_with_what_is_good(#[case] name: &str, #[case] value: &str, #[case] said: &str) {
        let message = refused(name, value).unwrap_or_default();
        assert!(message.contains(said), "{message:?} does not say {said:?}");
    }

    proptest! {
        #[test]
        fn no_value_of_any_parameter_breaks_a_line(value in "[\\PC\\n\\r\\x00]{0,20}[\\n\\r\\x00][\\PC]{0,20}") {
            for engine in catalogue().engines() {
                for parameter in engine.parameters.values() {
                    prop_assert!(parameter.refuse(&engine.units, &value).is_some());
                }
            }
        }
    }
}
