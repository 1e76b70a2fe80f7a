//! Reading a spec that somebody sent: whole, or the part that a template holds.
//!
//! Serde lets unknown fields pass, as an API server must that prunes them. Here they are named:
//! a field that was mistyped would otherwise be dropped without a word.

use culvert_resources::DataServiceSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::domain::Fault;
use crate::domain::template::merge;

/// The most that a spec may be nested; ours goes no deeper than seven.
const DEPTH_MAX: usize = 16;

/// The spec that `value` holds, or what is wrong with it.
pub(super) fn read<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, Vec<Fault>> {
    if !value.is_object() {
        return Err(vec![Fault::new("spec", "invalid", "must be an object")]);
    }
    if depth(value) > DEPTH_MAX {
        return Err(vec![Fault::new("spec", "too_deep", "is nested too deeply")]);
    }
    let spec: T = serde_json::from_value(value.clone()).map_err(|error| vec![fault(&error)])?;
    let known = serde_json::to_value(&spec).unwrap_or_default();
    let mut unknown = Vec::new();
    strangers("spec", value, &known, &mut unknown);
    if unknown.is_empty() { Ok(spec) } else { Err(unknown) }
}

/// Checks the part of a spec that a template of `engine` holds: with an engine and a version
/// added where they are missing it must be a spec.
pub(super) fn read_partial(engine: &str, value: &Value) -> Result<DataServiceSpec, Vec<Fault>> {
    if value.get("engine").is_some_and(|own| own != engine) {
        return Err(vec![Fault::new("spec.engine", "invalid", "must be the template's own engine")]);
    }
    read(&merge(&json!({"engine": engine, "version": "1"}), value))
}

fn fault(error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    match text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(field) => Fault::new(format!("spec.{field}"), "missing", "must be given"),
        None => Fault::new("spec", "invalid", text),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Members of `given` that did not survive being read, where they say anything.
fn strangers(path: &str, given: &Value, known: &Value, found: &mut Vec<Fault>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let below = format!("{path}.{}", name.chars().take(60).collect::<String>());
                match known.get(name) {
                    Some(known) => strangers(&below, value, known, found),
                    None if is_empty(value) => {}
                    None => found.push(Fault::new(below, "unknown_field", "there is no such field")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (n, (given, known)) in given.iter().zip(known).enumerate() {
                strangers(&format!("{path}[{n}]"), given, known, found);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mistyped_field_is_named() {
        let spec = json!({"engine": "postgresql", "version": "17", "storage": {"sizee": "1Gi"}, "tls": {},
            "parameters": {}, "backup": null, "network": {"allow": [{"pod": {"matchLabels": {"a": "b"}}}]}});
        let faults = read::<DataServiceSpec>(&spec).unwrap_err();
        let fields: Vec<_> = faults.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["spec.network.allow[0].pod", "spec.storage.sizee"]);
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(
            read::<DataServiceSpec>(&json!({"engine": "postgresql"})).unwrap_err()[0].field,
            "spec.version"
        );
        assert_eq!(read::<DataServiceSpec>(&json!("x")).unwrap_err()[0].code, "invalid");
        assert_eq!(
            read::<DataServiceSpec>(&json!({"engine": "a", "version": 17})).unwrap_err()[0].field,
            "spec"
        );
    }

    #[test]
    fn a_template_holds_part_of_a_spec() {
        assert!(read_partial("postgresql", &json!({"topology": {"replicas": 3}})).is_ok());
        assert!(read_partial("postgresql", &json!({"engine": "valkey"})).is_err());
        assert!(read_partial("postgresql", &json!({"replicas": 3})).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!({"a": deep});
        }
        assert_eq!(read::<DataServiceSpec>(&deep).unwrap_err()[0].code, "too_deep");
    }

    proptest! {
        #[test]
        fn parameters_are_taken_as_they_are(name in "[a-z_]{1,30}", value in "\\PC{1,40}") {
            let spec = json!({"engine": "postgresql", "version": "17", "parameters": {name.clone(): value.clone()}});
            let read = read::<DataServiceSpec>(&spec).unwrap();
            prop_assert_eq!(read.parameters.get(&name), Some(&value));
        }
    }
}
