//! Whether parameters can be set: each by itself, against the others, and against the size.

use std::collections::BTreeMap;

use culvert_resources::DataServiceSpec;

use crate::catalogue::Engine;
use crate::fault::Fault;
use crate::parameter::{Apply, Parameter, Source};
use crate::quantity::words;
use crate::size::bytes_of;

/// Every fault of the parameters of `spec`; those against each other and the size only when each is good by
/// itself and the size is possible (`sized`), for they would follow from the others.
pub(crate) fn all(engine: &Engine, spec: &DataServiceSpec, sized: bool) -> Vec<Fault> {
    let alone: Vec<Fault> =
        spec.parameters.iter().filter_map(|(name, value)| by_itself(engine, spec, name, value)).collect();
    if !alone.is_empty() || !sized {
        return alone;
    }
    let set = engine.resolve_parameters(spec);
    set.keys()
        .filter_map(|name| engine.parameters.get_key_value(name))
        .flat_map(|(name, parameter)| together(engine, spec, &set, name, parameter))
        .collect()
}

fn fault(name: &str, code: &str, message: String, next: impl Into<String>) -> Fault {
    Fault::new(format!("spec.parameters.{name}"), code, message, next)
}

fn by_itself(engine: &Engine, spec: &DataServiceSpec, name: &str, value: &str) -> Option<Fault> {
    let Some(parameter) = engine.parameters.get(name) else {
        return Some(unknown(engine, name));
    };
    if parameter.apply == Apply::Fixed {
        let message = format!("{name} cannot be set: {}", parameter.description);
        return Some(fault(name, "parameter_fixed", message, "Leave it out."));
    }
    if let Some(since) = parameter.since.filter(|since| engine.major_of(&spec.version) < *since) {
        let message = format!("{} {} has no {name}: it came with {since}", engine.title, spec.version);
        return Some(fault(
            name,
            "parameter_too_new",
            message,
            format!("Leave it out, or choose version {since} or later."),
        ));
    }
    let wrong = parameter.refuse(&engine.units, value)?;
    Some(fault(name, "parameter_invalid", format!("{name} {wrong}"), "Choose such a value."))
}

fn unknown(engine: &Engine, name: &str) -> Fault {
    let shown: String = name.chars().take(60).collect();
    let message = format!("{} has no parameter {shown:?} that can be set", engine.title);
    let near =
        engine.parameters.keys().filter(|known| known.len() < 64).min_by_key(|known| distance(known, &shown));
    let next = match near {
        Some(near) if distance(near, &shown) <= 3.min(near.len() / 2) => format!("Did you mean {near}?"),
        _ => format!("The parameters are listed by `culvert engine get {}`.", engine.name),
    };
    fault(&shown, "parameter_unknown", message, next)
}

/// Rules between a parameter and its surroundings, with the values that will be in force.
fn together(
    engine: &Engine,
    spec: &DataServiceSpec,
    set: &BTreeMap<String, String>,
    name: &str,
    parameter: &Parameter,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let own = engine.set_number(name, set);
    faults.extend(against(engine, set, name, parameter, own));
    faults.extend(share(spec, name, own, parameter.memory_percent, Source::Memory));
    faults.extend(share(spec, name, own, parameter.storage_percent, Source::Storage));
    let value = set.get(name);
    if spec.topology.synchronous
        && !parameter.synchronous.is_empty()
        && value.is_some_and(|value| !parameter.synchronous.contains(value))
    {
        let message = format!("with synchronous replication {name} must keep its promise");
        faults.push(fault(
            name,
            "parameter_not_synchronous",
            message,
            format!("Choose one of {}.", parameter.synchronous.join(", ")),
        ));
    }
    faults
}

fn against(
    engine: &Engine,
    set: &BTreeMap<String, String>,
    name: &str,
    parameter: &Parameter,
    own: Option<f64>,
) -> Option<Fault> {
    let number = |other: &Option<String>| other.as_deref().and_then(|other| engine.set_number(other, set));
    let own = own?;
    let above = number(&parameter.at_most).is_some_and(|limit| own > limit);
    let reached = number(&parameter.below).is_some_and(|limit| own >= limit);
    let (other, words) = match (above, reached) {
        (true, _) => (parameter.at_most.as_deref()?, "at most"),
        (_, true) => (parameter.below.as_deref()?, "less than"),
        _ => return None,
    };
    let limit = set.get(other).or_else(|| engine.parameters.get(other)?.default.as_ref())?;
    let message = format!("{name} must be {words} {other}, which is {limit}");
    Some(fault(name, "parameter_contradiction", message, format!("Lower {name}, or raise {other}.")))
}

#[expect(clippy::cast_possible_truncation, reason = "a share of a quantity, which is below 2⁶³")]
fn share(
    spec: &DataServiceSpec,
    name: &str,
    own: Option<f64>,
    percent: Option<u32>,
    of: Source,
) -> Option<Fault> {
    let limit = bytes_of(of, spec)? * f64::from(percent?) / 100.0;
    let (what, field) = match of {
        Source::Memory => ("memory", "spec.resources.memory"),
        Source::Storage => ("volume", "spec.storage.size"),
    };
    (own? > limit).then(|| {
        let message = format!(
            "{name} must be at most {} % of the {what}: {}",
            percent.unwrap_or(100),
            words(limit as i64)
        );
        fault(name, "parameter_exceeds_size", message, format!("Lower it, or raise {field}."))
    })
}

/// Edits from one word to another (Levenshtein), for guessing what was meant.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.chars().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::tests::spec;
    use rstest::rstest;

    fn faults(version: &str, parameters: &[(&str, &str)]) -> Vec<Fault> {
        let mut spec = spec("postgresql", version);
        spec.parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        catalogue().engine("postgresql").unwrap().check(&spec)
    }

    #[rstest]
    #[case(&[("listen_addresses", "*")], "parameter_fixed")]
    #[case(&[("archive_command", "rm -rf /")], "parameter_fixed")]
    #[case(&[("ssl", "off")], "parameter_fixed")]
    #[case(&[("fsync", "off")], "parameter_fixed")]
    #[case(&[("wrok_mem", "4MB")], "parameter_unknown")]
    #[case(&[("work_mem", "-4MB")], "parameter_invalid")]
    #[case(&[("transaction_timeout", "5s")], "parameter_too_new")]
    #[case(&[("min_wal_size", "512MB"), ("max_wal_size", "256MB")], "parameter_contradiction")]
    #[case(&[("superuser_reserved_connections", "10"), ("max_connections", "10")], "parameter_contradiction")]
    #[case(&[("shared_buffers", "400MB")], "parameter_exceeds_size")]
    #[case(&[("max_wal_size", "900MB")], "parameter_exceeds_size")]
    fn what_cannot_be_set_is_refused(#[case] parameters: &[(&str, &str)], #[case] code: &str) {
        let found = faults("15", parameters);
        assert_eq!(found.iter().map(|fault| fault.code.as_str()).collect::<Vec<_>>(), [code], "{found:?}");
    }

    #[test]
    fn a_misspelt_name_is_recognised() {
        assert_eq!(faults("17", &[("wrok_mem", "4MB")])[0].next, "Did you mean work_mem?");
        assert!(!faults("17", &[("x", "4MB")])[0].next.contains("mean"));
    }

    #[test]
    fn a_newer_parameter_is_taken_by_the_newer_major() {
        assert_eq!(faults("17", &[("transaction_timeout", "5s")]), []);
    }

    #[test]
    fn synchronous_replication_is_not_undone_by_a_parameter() {
        let mut spec = spec("postgresql", "17");
        spec.topology.replicas = 2;
        spec.topology.synchronous = true;
        spec.parameters.insert("synchronous_commit".to_owned(), "local".to_owned());
        let engine = catalogue().engine("postgresql").unwrap();
        assert_eq!(engine.check(&spec)[0].code, "parameter_not_synchronous");
        spec.topology.synchronous = false;
        assert_eq!(engine.check(&spec), []);
    }

    #[rstest]
    #[case("", "", 0)]
    #[case("abc", "", 3)]
    #[case("work_mem", "wrok_mem", 2)]
    #[case("kitten", "sitting", 3)]
    fn edits_are_counted(#[case] a: &str, #[case] b: &str, #[case] edits: usize) {
        assert_eq!(distance(a, b), edits);
    }
}
