//! A JSON or YAML value with its fields in their order: what came in goes out.

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

use crate::failure::{Exit, Failure};

/// The value. Nothing is lost but the spelling of numbers and comments of YAML.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Tree {
    #[default]
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Numbers with leading zeros or underscores stay text, as they were meant.
    pub(crate) fn from_yaml(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! {
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
    }

    /// Indented JSON without an end of line.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self).map_err(|error| unwritable(&error))
    }

    /// JSON on one line.
    pub(crate) fn json_line(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| unwritable(&error))
    }

    pub(crate) fn yaml(&self) -> Result<String, Failure> {
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let mut text = String::new();
        serde_saphyr::to_fmt_writer_with_options(&mut text, self, options)
            .map_err(|error| unwritable(&error))?;
        Ok(text)
    }

    /// The value as a typed one.
    pub(crate) fn read<T: de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(serde_json::to_value(self)?)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Sets a field of a map, in place when it is there, else at the end.
    /// On anything but a map it does nothing.
    pub(crate) fn set(&mut self, key: &str, value: Self) {
        if let Some(slot) = self.get_mut(key) {
            *slot = value;
        } else if let Self::Map(fields) = self {
            fields.push((key.to_owned(), value));
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// A map from text fields.
    pub(crate) fn map(fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        Self::Map(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn unwritable(error: &dyn fmt::Display) -> Failure {
    Failure::new(Exit::Failed, "cannot write the answer in this format").because(error)
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(u64::try_from(value).map_or(Tree::Signed(value), Tree::Unsigned))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Deserialize::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut fields: Vec<(String, Tree)> = Vec::new();
        while let Some((key, value)) = access.next_entry::<String, Tree>()? {
            fields.push((key, value));
        }
        Ok(Tree::Map(fields))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any tree, with the strings that YAML could take for something else.
    pub(crate) fn any_tree() -> impl Strategy<Value = Tree> {
        let tricky = prop::sample::select(vec![
            "",
            "null",
            "~",
            "true",
            "No",
            "0755",
            "1_000",
            "0x1F",
            "1e3",
            ".inf",
            "2026-11-23",
            "- a",
            "a: b",
            "#c",
            " x ",
            "a\nb\n",
            "\ttab",
            "&a",
            "*a",
            "!t",
            "|",
            ">",
            "'",
            "\"",
            "\\",
            "%",
            "@",
            "`",
            "é",
            "🦀",
            "<<",
            "=",
            "---",
            "...",
            "a #b",
            "key:",
            "[x",
            "{y",
            "\u{7f}",
            "\u{85}",
            "line\r\nend",
        ])
        .prop_map(str::to_owned);
        let text = prop_oneof![tricky, "[ -~]{0,90}", "\\PC{0,20}"];
        let leaf = prop_oneof![
            Just(Tree::Null),
            any::<bool>().prop_map(Tree::Bool),
            any::<u64>().prop_map(Tree::Unsigned),
            (i64::MIN..0).prop_map(Tree::Signed),
            text.clone().prop_map(Tree::Text),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Tree::List),
                prop::collection::btree_map(text.clone(), inner, 0..6)
                    .prop_map(|map| Tree::Map(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn yaml_gives_back_what_it_took(tree in any_tree()) {
            let text = tree.yaml().unwrap();
            prop_assert_eq!(Tree::from_yaml(&text).map_err(TestCaseError::fail)?, tree, "{}", text);
        }

        #[test]
        fn json_gives_back_what_it_took(tree in any_tree()) {
            prop_assert_eq!(Tree::from_json(tree.json().unwrap().as_bytes()).unwrap(), tree.clone());
            prop_assert_eq!(Tree::from_json(tree.json_line().unwrap().as_bytes()).unwrap(), tree);
        }
    }

    #[test]
    fn fields_keep_their_order() {
        let text = r#"{"z":1,"a":{"y":null,"b":[true,-2,1.5]}}"#;
        assert_eq!(Tree::from_json(text.as_bytes()).unwrap().json_line().unwrap(), text);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "[".repeat(100_000);
        assert!(Tree::from_json(text.as_bytes()).is_err());
        assert!(Tree::from_yaml(&text).is_err());
    }
}
