//! Holds each request of the command, and each answer that a test makes up, against the API's committed
//! document: a test cannot pass on a route or a field that no controller knows.

use std::sync::LazyLock;

use serde_json::Value;

use super::{Reply, Seen};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../controller/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// What is wrong with a request and its answer.
pub(super) fn faults(seen: &Seen, reply: &Reply) -> Vec<String> {
    let route = format!("{} {}", seen.method, seen.path);
    let Some(operation) = operation(&seen.method, &seen.path) else {
        return vec![format!("{route}: the API has no such route")];
    };
    let mut faults = Vec::new();
    let known = |name: &str| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.clone().any(|one| one["in"] == "query" && one["name"] == name)
    };
    for (name, _) in seen.query.split('&').filter_map(|pair| pair.split_once('=')) {
        if !known(name) {
            faults.push(format!("{route}: no query {name}"));
        }
    }
    let wanted = &operation["requestBody"]["content"]["application/json"]["schema"];
    if let Ok(body) = serde_json::from_str::<Value>(&seen.body) {
        differences(wanted, &body, &format!("{route}: sent"), &mut faults);
    }
    let told = &operation["responses"][reply.status.to_string()]["content"]["application/json"]["schema"];
    if let (true, Ok(body)) = (reply.status < 400, serde_json::from_str::<Value>(&reply.body)) {
        differences(told, &body, &format!("{route}: answered"), &mut faults);
    }
    faults
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let (mut parts, mut asked) = (template.split('/'), path.split('/'));
        let same = |(part, asked): (&str, &str)| part.starts_with('{') || part == asked;
        parts.by_ref().zip(asked.by_ref()).all(same) && template.split('/').count() == path.split('/').count()
    };
    let paths = DOCUMENT["paths"].as_object()?;
    let exact = paths.get_key_value(path);
    let found = exact.or_else(|| paths.iter().find(|(template, _)| fits(template)));
    found?.1.get(method.to_lowercase())
}

/// Names every field of a value that its schema has not.
fn differences(schema: &'static Value, value: &Value, place: &str, into: &mut Vec<String>) {
    let schema = plain(schema);
    match value {
        Value::Object(fields) => {
            // Without properties it is free.
            let Some(known) = schema["properties"].as_object() else { return };
            for (name, value) in fields {
                match known.get(name) {
                    Some(schema) => differences(schema, value, &format!("{place}.{name}"), into),
                    None => into.push(format!("{place}.{name}, which is no field")),
                }
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| differences(&schema["items"], item, place, into));
        }
        _ => {}
    }
}

fn plain(schema: &'static Value) -> &'static Value {
    if let Some(name) = schema["$ref"].as_str() {
        return plain(DOCUMENT.pointer(name.trim_start_matches('#')).unwrap());
    }
    let either = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
    either.and_then(|all| all.iter().find(|one| one["type"] != "null")).map_or(schema, plain)
}
