//! Where what lives in a cluster differs from what is recorded, and who made it so.

use serde_json::{Map, Value};

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Path below `spec`, as `parameters.work_mem`.
    pub field: String,
    /// What is recorded; absent when it is not set.
    pub recorded: Option<Value>,
    /// What lives in the cluster; absent when it is not set.
    pub live: Option<Value>,
    /// Field manager that set it last, as Kubernetes tells.
    pub manager: Option<String>,
    /// When that was, RFC 3339.
    pub changed_at: Option<String>,
}

/// Field by field, how `live` differs from `recorded`; `managed` is the object's `managedFields`,
/// and `ours` our own field manager, which is named only where nobody else holds the field.
#[must_use]
pub fn differences(recorded: &Value, live: &Value, managed: &Value, ours: &str) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(&mut Vec::new(), Some(recorded), Some(live), &mut found);
    let entries: Vec<&Value> = managed.as_array().map(|list| list.iter().collect()).unwrap_or_default();
    let named = |(path, recorded, live): (Vec<String>, Option<Value>, Option<Value>)| {
        let (manager, changed_at) = holder(&path, &entries, ours).unzip();
        Difference { field: path.join("."), recorded, live, manager, changed_at: changed_at.flatten() }
    };
    found.into_iter().map(named).collect()
}

type Found = Vec<(Vec<String>, Option<Value>, Option<Value>)>;

fn walk(path: &mut Vec<String>, recorded: Option<&Value>, live: Option<&Value>, found: &mut Found) {
    if recorded == live {
        return;
    }
    let none = Map::new();
    let members = |value: Option<&Value>| match value {
        Some(Value::Object(members)) => Some(members.clone()),
        None => Some(none.clone()),
        Some(_) => None,
    };
    let both = recorded.is_some_and(Value::is_object) || live.is_some_and(Value::is_object);
    match (members(recorded), members(live)) {
        (Some(left), Some(right)) if both => {
            let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                path.push(name.clone());
                walk(path, left.get(name), right.get(name), found);
                path.pop();
            }
        }
        _ => found.push((path.clone(), recorded.cloned(), live.cloned())),
    }
}

/// Who holds the field, and since when: the latest other than `ours`, else `ours`.
fn holder(path: &[String], entries: &[&Value], ours: &str) -> Option<(String, Option<String>)> {
    let text = |entry: &Value, name| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut holders: Vec<(bool, Option<String>, String)> = entries
        .iter()
        .filter(|entry| entry.get("fieldsV1").and_then(|f| f.get("f:spec")).is_some_and(|f| holds(f, path)))
        .filter_map(|entry| {
            let manager = text(entry, "manager")?;
            Some((manager != ours, text(entry, "time"), manager))
        })
        .collect();
    holders.sort();
    holders.pop().map(|(_, at, manager)| (manager, at))
}

/// Whether a set of fields has the path. Lists are held as a whole or by keys: both count.
fn holds(fields: &Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    match fields.get(format!("f:{first}")) {
        Some(below) => rest.is_empty() || below.as_object().is_some_and(Map::is_empty) || holds(below, rest),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hand_edit_is_found_with_its_hand() {
        let recorded =
            json!({"version": "17", "parameters": {"work_mem": "8MB", "gone": "1"}, "stopped": false});
        let live = json!({"version": "17", "parameters": {"work_mem": "32MB", "new": "2"}, "stopped": false});
        let fields = |name: &str| json!({"f:spec": {"f:parameters": {(format!("f:{name}")): {}}}});
        let managed = json!([
            {"manager": "ours", "time": "2026-01-03T00:00:00Z", "fieldsV1": fields("work_mem")},
            {"manager": "kubectl-edit", "time": "2026-01-02T00:00:00Z", "fieldsV1": fields("work_mem")},
            {"manager": "ours", "fieldsV1": fields("new")},
        ]);
        let found = differences(&recorded, &live, &managed, "ours");
        let told: Vec<_> = found.iter().map(|d| (d.field.as_str(), d.manager.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("parameters.gone", None),
                ("parameters.new", Some("ours")),
                ("parameters.work_mem", Some("kubectl-edit"))
            ]
        );
        assert_eq!((&found[0].recorded, &found[0].live), (&Some(json!("1")), &None));
        assert_eq!(found[2].changed_at.as_deref(), Some("2026-01-02T00:00:00Z"));
    }

    #[test]
    fn an_object_that_is_missing_differs_member_by_member() {
        let found = differences(&json!({}), &json!({"backup": {"target": "s3"}}), &json!(null), "ours");
        assert_eq!(found[0].field, "backup.target");
        assert_eq!(differences(&json!({"a": [1]}), &json!({"a": [2]}), &json!([]), "ours").len(), 1);
    }

    proptest! {
        #[test]
        fn only_what_differs_is_found(a in "[a-c]{1,2}", b in "[a-c]{1,2}", x in 0..3, y in 0..3) {
            let (left, right) = (json!({(a.clone()): {"n": x}}), json!({(b.clone()): {"n": y}}));
            prop_assert!(differences(&left, &left, &json!([]), "o").is_empty());
            let found = differences(&left, &right, &json!([{"manager": 7, "fieldsV1": "x"}]), "o");
            prop_assert_eq!(found.is_empty(), left == right);
        }
    }
}
