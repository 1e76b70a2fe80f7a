//! Values that follow from the size of an instance, and the values that are in force in the end.

use std::collections::BTreeMap;

use culvert_resources::DataServiceSpec;

use crate::Amount;
use crate::catalogue::Engine;
use crate::parameter::{Apply, Kind, Parameter, Sized, Source};

impl Engine {
    /// Every parameter that is set for `spec`: what it says itself, else what follows from its size,
    /// else Culvert's preset. What the engine's own default serves for is not in it, nor what is fixed.
    ///
    /// Values that [`Engine::check`] refuses are taken as they stand; check first.
    #[must_use]
    pub fn resolve_parameters(&self, spec: &DataServiceSpec) -> BTreeMap<String, String> {
        let major = self.major_of(&spec.version);
        let known = |parameter: &Parameter| {
            parameter.apply != Apply::Fixed && parameter.since.is_none_or(|since| major >= since)
        };
        let mut set: BTreeMap<String, String> = spec.parameters.clone();
        let ours = || self.parameters.iter().filter(|(_, parameter)| known(parameter));
        for (name, parameter) in ours() {
            if let Some(preset) = &parameter.preset {
                set.entry(name.clone()).or_insert_with(|| preset.clone());
            }
        }
        // Those that others are divided by come first.
        let (shared, alone): (Vec<_>, Vec<_>) =
            ours().filter_map(sized).partition(|(_, _, sized)| sized.shared_by.is_some());
        for (name, parameter, sized) in alone.into_iter().chain(shared) {
            if !set.contains_key(name)
                && let Some(value) = self.derive(parameter, sized, spec, &set)
            {
                set.insert(name.to_owned(), value);
            }
        }
        set
    }

    fn derive(
        &self,
        parameter: &Parameter,
        sized: &Sized,
        spec: &DataServiceSpec,
        set: &BTreeMap<String, String>,
    ) -> Option<String> {
        let number = |text: &str| parameter.number(&self.units, text);
        let source = bytes_of(sized.of, spec)?;
        let each = sized.per.as_deref().and_then(|per| per.parse::<Amount>().ok()).map(as_number);
        let share =
            each.map_or(source * f64::from(sized.percent.unwrap_or(100)) / 100.0, |each| source / each);
        let among = sized.shared_by.as_deref().and_then(|name| self.set_number(name, set)).unwrap_or(1.0);
        let least = number(&sized.min)?;
        let bound = parameter.at_most.as_deref().and_then(|other| self.set_number(other, set));
        let most = number(&sized.max)?.min(bound.unwrap_or(f64::INFINITY));
        let value = (share / among.max(1.0)).max(least).min(most);
        Some(if parameter.kind == Kind::Memory {
            self.units.write(value)
        } else {
            format!("{:.0}", value.floor())
        })
    }

    /// The number that parameter `name` has in `set`, else by default.
    pub(crate) fn set_number(&self, name: &str, set: &BTreeMap<String, String>) -> Option<f64> {
        let parameter = self.parameters.get(name)?;
        let value = set.get(name).or(parameter.default.as_ref())?;
        if parameter.special.contains(value) {
            return None;
        }
        parameter.number(&self.units, value)
    }

    /// The first number of a version; 0 when there is none.
    pub(crate) fn major_of(&self, version: &str) -> u32 {
        version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

fn sized<'a>((name, parameter): (&'a String, &'a Parameter)) -> Option<(&'a str, &'a Parameter, &'a Sized)> {
    parameter.sized.as_ref().map(|sized| (name.as_str(), parameter, sized))
}

/// Bytes of what a size follows; `None` when the spec's quantity is nonsense.
pub(crate) fn bytes_of(source: Source, spec: &DataServiceSpec) -> Option<f64> {
    let quantity = match source {
        Source::Memory => &spec.resources.memory,
        Source::Storage => &spec.storage.size,
    };
    Amount::of(quantity).ok().map(as_number)
}

/// As a floating number; exact up to 2⁵³, which is eight petabytes.
#[expect(clippy::cast_precision_loss, reason = "sizes of instances are far below 2⁵³")]
fn as_number(amount: Amount) -> f64 {
    amount.units() as f64
}

#[cfg(test)]
mod tests {
    use crate::catalogue;
    use crate::tests::spec;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use proptest::prelude::*;

    #[test]
    fn sizes_follow_memory_and_volume() {
        let mut spec = spec("postgresql", "17");
        spec.resources.memory = Quantity("4Gi".to_owned());
        spec.storage.size = Quantity("100Gi".to_owned());
        let set = catalogue().engine("postgresql").unwrap().resolve_parameters(&spec);
        assert_eq!(set["shared_buffers"], "1024MB");
        assert_eq!(set["effective_cache_size"], "2867MB");
        assert_eq!(set["max_wal_size"], "10240MB");
        assert_eq!(set["max_connections"], "256");
        assert_eq!(set["work_mem"], "4MB");
    }

    #[test]
    fn what_a_person_sets_wins_and_others_follow_it() {
        let mut spec = spec("postgresql", "17");
        spec.resources.memory = Quantity("4Gi".to_owned());
        spec.parameters = [("max_connections", "20"), ("shared_buffers", "1GB")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let set = catalogue().engine("postgresql").unwrap().resolve_parameters(&spec);
        assert_eq!((set["max_connections"].as_str(), set["shared_buffers"].as_str()), ("20", "1GB"));
        assert_eq!(set["work_mem"], "51MB", "a quarter of the memory, shared by 20 connections");
    }

    #[test]
    fn what_follows_from_the_size_gives_way_to_what_a_person_sets() {
        let mut spec = spec("postgresql", "17");
        spec.storage.size = Quantity("100Gi".to_owned());
        spec.parameters.insert("max_wal_size".to_owned(), "256MB".to_owned());
        let engine = catalogue().engine("postgresql").unwrap();
        assert_eq!(engine.resolve_parameters(&spec)["min_wal_size"], "256MB");
        assert_eq!(engine.check(&spec), vec![]);
    }

    #[test]
    fn a_parameter_of_a_newer_major_is_not_set_on_an_older_one() {
        let engine = catalogue().engine("postgresql").unwrap();
        for (name, _) in engine.resolve_parameters(&spec("postgresql", "15")) {
            assert!(engine.parameters[&name].since.is_none_or(|since| since <= 15), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_size_what_is_derived_passes_the_check(
            memory in 128_i64..524_288,
            storage in 512_i64..4_194_304,
            engine in 0_usize..2,
        ) {
            let engine = catalogue().engines().nth(engine).unwrap();
            let mut spec = spec(&engine.name, &engine.releases[0].version);
            spec.resources.memory = Quantity(format!("{memory}Mi"));
            spec.storage.size = Quantity(format!("{storage}Mi"));
            spec.parameters = engine.resolve_parameters(&spec);
            prop_assert_eq!(engine.check(&spec), vec![]);
        }
    }
}
