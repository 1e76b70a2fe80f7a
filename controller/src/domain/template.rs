//! Templates: specs that services begin with.
//!
//! A template is resolved when a service is made from it: the service keeps the result, the
//! template's name and its revision, and a later change of the template changes no service.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TemplateId, TemplateName, Time};

/// A template's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// Its name, unique in the organisation.
    pub name: TemplateName,
    /// Grows by one with each change.
    pub revision: u64,
    /// What it is for.
    pub description: String,
    /// The engine.
    pub engine: String,
    /// Part of a data service's spec, as JSON object.
    pub spec: Value,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

/// The most characters a description may have.
pub const DESCRIPTION_MAX: usize = 500;

/// A template as a caller names it: by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TemplateRef {
    /// By id.
    Id(TemplateId),
    /// By name.
    Name(TemplateName),
}

/// A text that can name no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither the id nor the name of a template")]
pub struct NotATemplate;

impl FromStr for TemplateRef {
    type Err = NotATemplate;

    fn from_str(text: &str) -> Result<Self, NotATemplate> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|_| NotATemplate)
    }
}

/// `patch` laid over `base` as RFC 7386 has it: objects are merged, null takes a member away,
/// anything else replaces.
#[must_use]
pub fn merge(base: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut merged = base.as_object().cloned().unwrap_or_default();
    for (name, change) in changes {
        if change.is_null() {
            merged.remove(name);
        } else {
            let below = merged.get(name).cloned().unwrap_or(Value::Null);
            merged.insert(name.clone(), merge(&below, change));
        }
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (base, patch, merged) in cases {
            assert_eq!(merge(&base, &patch), merged, "{base} {patch}");
        }
    }

    proptest! {
        #[test]
        fn merging_twice_changes_nothing_more(a in "[a-c]", b in "[a-c]", n in 0..3) {
            let base = json!({"a": {"b": 1}, "c": [n]});
            let patch = json!({a: {b: n}});
            let once = merge(&base, &patch);
            prop_assert_eq!(merge(&once, &patch), once);
        }
    }
}
