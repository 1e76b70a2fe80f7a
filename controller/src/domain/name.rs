//! Names people give, and what is wrong with those that were refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is wrong with one field, for the person who filled it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field in the request, as `labels.region`.
    pub field: String,
    /// A stable word for programs.
    pub code: Cow<'static, str>,
    /// A sentence for people.
    pub detail: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), detail: detail.into() }
    }
}

/// Why a name was refused, as a sentence that follows the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(&'static str);

impl BadName {
    /// The fault of the field that held the name.
    #[must_use]
    pub fn of(&self, field: impl Into<String>) -> Fault {
        Fault::new(field, "invalid", self.0)
    }
}

macro_rules! text_type {
    ($name:ident, $check:path, $refusal:expr) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                if $check(text) { Ok(Self(text.to_owned())) } else { Err(BadName($refusal)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// The name of a cluster: an RFC 1123 label, at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

text_type!(
    ClusterName,
    is_dns_label,
    "must be 1 to 63 lower-case letters, digits and dashes, and begin and end with a letter or digit"
);

/// The name of an organisation, a user or an API token. It becomes part of a
/// Kubernetes user name, so it has no blank, colon or slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

text_type!(
    Name,
    is_name,
    "must be 1 to 63 letters, digits, dots, dashes, underscores and @, and begin with a letter or digit"
);

/// The name of a project: an RFC 1123 label, at most 50 bytes, because `data-<name>` is
/// the namespace of its services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(String);

text_type!(
    ProjectName,
    is_project_name,
    "must be 1 to 50 lower-case letters, digits and dashes, and begin and end with a letter or digit"
);

fn is_project_name(text: &str) -> bool {
    text.len() <= 50 && is_dns_label(text)
}

/// The name of a template: an RFC 1123 label, at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TemplateName(String);

text_type!(
    TemplateName,
    is_dns_label,
    "must be 1 to 63 lower-case letters, digits and dashes, and begin and end with a letter or digit"
);

/// The name of a backup target, which is that of its objects: at most 40 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

text_type!(
    TargetName,
    is_target_name,
    "must be 1 to 40 lower-case letters, digits and dashes, and begin and end with a letter or digit"
);

fn is_target_name(text: &str) -> bool {
    text.len() <= 40 && is_dns_label(text)
}

/// The name of a backup schedule, which is that of its object: at most 40 bytes, as the names of its
/// backups begin with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScheduleName(String);

text_type!(
    ScheduleName,
    is_target_name,
    "must be 1 to 40 lower-case letters, digits and dashes, and begin and end with a letter or digit"
);

/// The name of a data service, which is that of its objects: at most 40 bytes, so that what is
/// made from it fits, and beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

text_type!(
    ServiceName,
    is_service_name,
    "must be 1 to 40 lower-case letters, digits and dashes, begin with a letter and end with a letter or digit"
);

fn is_service_name(text: &str) -> bool {
    text.len() <= 40 && is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The name of a backup or a restore, which is that of its object: at most 52 bytes, so that the
/// names of its Jobs fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkName(String);

text_type!(
    WorkName,
    is_work_name,
    "must be 1 to 52 lower-case letters, digits and dashes, and begin and end with a letter or digit"
);

fn is_work_name(text: &str) -> bool {
    text.len() <= 52 && is_dns_label(text)
}

/// A Kubernetes namespace that data services may live in: Kubernetes' own are not among them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

text_type!(
    Namespace,
    is_open_namespace,
    "must be 1 to 63 lower-case letters, digits and dashes, and not begin with kube-"
);

fn is_open_namespace(text: &str) -> bool {
    is_dns_label(text) && !text.starts_with("kube-")
}

impl ProjectName {
    /// Where services of the project live when nobody says otherwise.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace(format!("data-{}", self.0))
    }
}

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Labels of a cluster, with the rules of Kubernetes labels, at most 64 of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// How many labels a cluster may have.
    pub const MAX: usize = 64;

    /// The labels `map` holds, or what is wrong with each.
    pub fn parse(map: BTreeMap<String, String>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        if map.len() > Self::MAX {
            faults.push(Fault::new("labels", "too_many", "a cluster has at most 64 labels"));
        }
        for (key, value) in &map {
            if !is_label_key(key) {
                faults.push(Fault::new(format!("labels.{}", shown(key)), "invalid", BAD_KEY));
            }
            if !is_label_value(value) {
                faults.push(Fault::new(format!("labels.{}", shown(key)), "invalid", BAD_VALUE));
            }
        }
        if faults.is_empty() { Ok(Self(map)) } else { Err(faults) }
    }

    /// The labels as they are.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

const BAD_KEY: &str = "the key must be a name of at most 63 letters, digits, dots, dashes and underscores, \
                       with an optional DNS prefix and a slash before it";
const BAD_VALUE: &str = "the value must be at most 63 letters, digits, dots, dashes and underscores, and begin \
                         and end with a letter or digit";

/// As much of a foreign key as an error may repeat.
fn shown(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_name(key),
        Some((prefix, name)) => {
            (1..=253).contains(&prefix.len()) && prefix.split('.').all(is_dns_label) && is_label_name(name)
        }
    }
}

fn is_label_name(name: &str) -> bool {
    !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let edge = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && edge(value.bytes().next())
        && edge(value.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_are_dns_labels() {
        for good in ["a", "plant-7", "0", &"x".repeat(63)] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_cannot_forge_a_kubernetes_name() {
        for good in ["admin", "Ada.L@example.com", "ci_1"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "system:masters", "a b", "../x", "@x", "a\u{202e}"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_objects_leave_room_and_kubernetes_alone() {
        assert!("x".repeat(40).parse::<ServiceName>().is_ok());
        for bad in ["", "1a", "-a", "A", "a.b", "a\n", "a/../b", &"x".repeat(41)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
        for bad in ["kube-system", "kube-public", "", "a_b", &"x".repeat(64)] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
        let longest: ProjectName = "x".repeat(50).parse().unwrap();
        assert!(longest.namespace().as_str().parse::<Namespace>().is_ok());
        assert!("x".repeat(51).parse::<ProjectName>().is_err());
    }

    #[test]
    fn every_bad_label_is_named() {
        let map = [("region", "north"), ("example.com/tier", ""), ("-bad", "x"), ("ok", "no space")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let faults = Labels::parse(map.into()).unwrap_err();
        let fields: Vec<_> = faults.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["labels.-bad", "labels.ok"]);
    }

    #[test]
    fn labels_are_bounded() {
        let many = |n: usize| (0..n).map(|i| (format!("k{i}"), String::new())).collect::<BTreeMap<_, _>>();
        assert!(Labels::parse(many(64)).is_ok());
        assert_eq!(Labels::parse(many(65)).unwrap_err()[0].code, "too_many");
    }
}
