//! The catalogue: every engine that Culvert knows, read from the data that is compiled in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use culvert_resources::Method;
use serde::{Deserialize, Serialize};

use crate::parameter::Parameter;
use crate::unit::Units;

const DATA: [&str; 2] =
    [include_str!("../data/postgresql/engine.yaml"), include_str!("../data/valkey/engine.yaml")];

#[expect(clippy::expect_used, reason = "the data is compiled in, and a test reads all of it")]
static CATALOGUE: LazyLock<Catalogue> =
    LazyLock::new(|| Catalogue::read(&DATA).expect("the compiled-in catalogue is readable"));

/// The catalogue of this build.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    &CATALOGUE
}

/// Every engine that Culvert knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    engines: Vec<Engine>,
}

impl Catalogue {
    fn read(files: &[&str]) -> Result<Self, String> {
        let engines: Result<Vec<Engine>, _> = files.iter().map(|text| serde_saphyr::from_str(text)).collect();
        engines.map(|engines| Self { engines }).map_err(|error| error.to_string())
    }

    /// All engines.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.engines.iter()
    }

    /// An engine by its name.
    #[must_use]
    pub fn engine(&self, name: &str) -> Option<&Engine> {
        self.engines.iter().find(|engine| engine.name == name)
    }
}

/// What Culvert knows of an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Engine {
    /// Name in specs, such as `postgresql`.
    pub name: String,
    /// Name for people, such as `PostgreSQL`.
    pub title: String,
    /// The driver that runs it.
    pub driver: String,
    /// Its port.
    pub port: u16,
    /// Numbers of a version that must stay the same for its files to be readable: 1 when the first decides.
    pub major_numbers: usize,
    /// Releases, oldest first.
    pub releases: Vec<Release>,
    /// How it can be backed up.
    pub methods: Vec<Method>,
    /// Most instances of one service.
    pub max_replicas: i32,
    /// What it can do.
    pub supports: Supports,
    /// What sizes it can have.
    pub limits: Limits,
    /// How long it is down for a change, as measured on small databases.
    pub downtime: Downtime,
    /// The units in which its values are written.
    pub units: Units,
    /// Its parameters by name.
    pub parameters: BTreeMap<String, Parameter>,
}

/// A release of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// Exact version.
    pub version: String,
    /// Major version.
    pub major: String,
    /// Whether it should be used.
    pub state: ReleaseState,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
}

/// Whether a release should be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseState {
    /// Yes.
    Supported,
    /// For what runs already; a newer one is better for what is new.
    Deprecated,
}

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Supports {
    /// A commit can wait for a standby.
    pub synchronous: bool,
    /// Its log can be archived.
    pub archive: bool,
    /// Any point in time can be restored, with an archive.
    pub point_in_time: bool,
    /// Connections without TLS can be taken beside those with it.
    pub plaintext: bool,
}

/// What sizes an instance can have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// CPU.
    pub cpu: Range,
    /// Memory.
    pub memory: Range,
    /// Volume.
    pub storage: Range,
}

/// Quantities from `min` to `max`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Range {
    /// Least.
    pub min: String,
    /// Most.
    pub max: String,
}

/// Seconds for which writes are not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Downtime {
    /// While another instance takes over on purpose.
    pub switchover: Seconds,
    /// While the only instance restarts.
    pub restart: Seconds,
}

/// A range of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seconds {
    /// At least.
    pub low: u32,
    /// At most, unless something is in the way.
    pub high: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Amount;
    use crate::parameter::{Apply, Kind};
    use crate::version::Version;

    #[test]
    fn the_data_is_readable_and_its_engines_are_known() {
        let catalogue = Catalogue::read(&DATA).unwrap();
        let names: Vec<&str> = catalogue.engines().map(|engine| engine.name.as_str()).collect();
        assert_eq!(names, ["postgresql", "valkey"]);
    }

    #[test]
    fn releases_are_in_order_and_say_their_major() {
        for engine in catalogue().engines() {
            let versions: Vec<Version> =
                engine.releases.iter().map(|release| Version::parse(&release.version).unwrap()).collect();
            assert!(versions.is_sorted(), "{} lists its releases out of order", engine.name);
            for (release, version) in engine.releases.iter().zip(&versions) {
                assert!(version.is_of(&Version::parse(&release.major).unwrap()), "{}", release.version);
            }
        }
    }

    #[test]
    fn limits_are_quantities_in_order() {
        for engine in catalogue().engines() {
            for range in [&engine.limits.cpu, &engine.limits.memory, &engine.limits.storage] {
                assert!(range.min.parse::<Amount>().unwrap() < range.max.parse::<Amount>().unwrap());
            }
        }
    }

    #[test]
    fn every_parameter_takes_its_own_bounds_default_and_preset() {
        for engine in catalogue().engines() {
            for (name, parameter) in &engine.parameters {
                let own = [&parameter.min, &parameter.max, &parameter.default, &parameter.preset];
                for value in own.into_iter().flatten().chain(&parameter.special) {
                    assert_eq!(parameter.refuse(&engine.units, value), None, "{name} refuses {value}");
                }
            }
        }
    }

    #[test]
    fn every_parameter_says_what_its_kind_needs() {
        for engine in catalogue().engines() {
            for (name, parameter) in &engine.parameters {
                let words = matches!(parameter.kind, Kind::Enum | Kind::List);
                assert_eq!(words, !parameter.values.is_empty(), "{name}: words for an enum, and only there");
                assert!(parameter.description.ends_with('.'), "{name} is described by a sentence");
                let set = parameter.preset.is_some() || parameter.sized.is_some();
                assert!(
                    parameter.apply != Apply::Fixed || !set,
                    "{name} is fixed, and Culvert's driver sets it"
                );
                let others = [&parameter.at_most, &parameter.below];
                for other in others.into_iter().flatten() {
                    assert!(engine.parameters.contains_key(other), "{name} names {other}");
                }
            }
        }
    }
}
