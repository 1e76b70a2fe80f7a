//! Holds what the tables show against the API's committed document and the kinds' schemas.

use serde_json::Value;

use super::view::Noun;
use super::{backup, backup_schedule, backup_target, data_service, operation, project, restore, template};

/// Every noun whose list the API describes, with the kind that its spec and status are of.
const NOUNS: [(Noun, Option<&str>); 8] = [
    (data_service::NOUN, Some("dataservices")),
    (operation::NOUN, None),
    (project::NOUN, None),
    (template::NOUN, None),
    (backup_target::NOUN, Some("backuptargets")),
    (backup::NOUN, Some("backups")),
    (backup_schedule::NOUN, Some("backupschedules")),
    (restore::NOUN, Some("restores")),
];

fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A schema without references and the `null` beside it.
fn plain<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    if let Some(name) = schema["$ref"].as_str() {
        return plain(document, document.pointer(name.trim_start_matches('#')).unwrap());
    }
    let either = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
    let other = either.and_then(|all| all.iter().find(|one| one["type"] != "null"));
    other.map_or(schema, |other| plain(document, other))
}

/// Whether a path of names leads to something in the schema; below `spec` and `status` the kind decides.
fn leads(document: &Value, schema: &Value, kind: Option<&Value>, path: &str) -> bool {
    let schema = plain(document, schema);
    let Some((first, rest)) =
        path.split_once('.').or(Some((path, ""))).filter(|(first, _)| !first.is_empty())
    else {
        return true;
    };
    match (&schema["properties"][first], kind) {
        (Value::Null, _) => false,
        (_, Some(kind)) if ["spec", "status"].contains(&first) => {
            leads(kind, &kind["properties"][first], None, rest)
        }
        (found, _) => leads(document, found, None, rest),
    }
}

#[test]
fn every_column_is_a_field_of_the_api() {
    let document: Value = serde_json::from_str(&read("controller/openapi.json")).unwrap();
    for (noun, kind) in NOUNS {
        let kind: Option<Value> = kind.map(|kind| {
            let kind: Value = serde_saphyr::from_str(&read(&format!("resources/crds/{kind}.yaml"))).unwrap();
            kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
        });
        let listed = &document["paths"][format!("/api/v1/{}", noun.collection)]["get"];
        let page = &listed["responses"]["200"]["content"]["application/json"]["schema"];
        let item = &plain(&document, page)["properties"]["items"]["items"];
        assert!(item.is_object(), "{} cannot be listed", noun.collection);
        for column in noun.columns {
            let known = leads(&document, item, kind.as_ref(), column.path);
            assert!(known, "{} have no {}", noun.collection, column.path);
        }
    }
}

#[test]
fn what_is_no_field_is_found_out() {
    let document: Value = serde_json::from_str(
        r##"{"s": {"properties": {"a": {"oneOf": [{"type": "null"}, {"$ref": "#/t"}]}}},
            "t": {"properties": {"b": {"type": "string"}}}}"##,
    )
    .unwrap();
    let leads = |path| super::contract::leads(&document, &document["s"], None, path);
    assert!(leads("a") && leads("a.b"));
    assert!(!leads("b") && !leads("a.c") && !leads("a.b.c"));
}
