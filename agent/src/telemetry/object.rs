//! One object of the cluster as it is told: without what nobody needs, and not too large.
use bytes::Bytes;
use culvert_proto::telemetry::v1 as wire;
use culvert_resources::meta::{GROUP, VERSION};
use kube::api::DynamicObject;
use serde_json::{Map, Value};

/// The most bytes of an object's JSON; the controller takes no more.
pub(super) const MAX_LEN: usize = 64 * 1024;

/// Annotation in which kubectl keeps a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What remains of a status that is too large: what says how the object is.
const CORE_OF_STATUS: [&str; 6] = ["phase", "observedGeneration", "conditions", "why", "failure", "endedAt"];

/// Identity of an object: kind, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn of(kind: &'static str, object: &DynamicObject) -> Key {
        Key {
            kind,
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        }
    }

    pub(super) fn to_wire(&self) -> wire::Key {
        wire::Key { kind: self.kind.to_owned(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// The object as it goes on the wire.
pub(super) fn encode(key: &Key, object: DynamicObject) -> wire::Object {
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let (json, cut) = bounded(plain(key.kind, object));
    wire::Object { key: Some(key.to_wire()), uid, generation, json, cut }
}

/// The whole object, without the bookkeeping of the API server, copies of itself and ciphertext.
fn plain(kind: &str, mut object: DynamicObject) -> Value {
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    let mut fields = match object.data {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.insert("apiVersion".to_owned(), format!("{GROUP}/{VERSION}").into());
    fields.insert("kind".to_owned(), kind.into());
    // Metadata is plain data: it always has a JSON form.
    fields.insert("metadata".to_owned(), serde_json::to_value(&object.metadata).unwrap_or_default());
    let mut whole = Value::Object(fields);
    if let Some(sealed) = whole.pointer_mut("/spec/sealed").and_then(Value::as_object_mut) {
        sealed.remove("ciphertext");
    }
    whole
}

/// The text of an object, with parts left out until it is short enough: first the annotations,
/// then most of the status, then the spec, at last all but its name.
fn bounded(mut whole: Value) -> (Bytes, bool) {
    let cuts: [fn(&mut Value); 4] = [without_annotations, core_of_status, without_spec, name_only];
    let mut text = whole.to_string();
    let mut cut = false;
    for shorten in cuts {
        if text.len() <= MAX_LEN {
            break;
        }
        shorten(&mut whole);
        text = whole.to_string();
        cut = true;
    }
    (text.into(), cut)
}

fn without_annotations(whole: &mut Value) {
    if let Some(metadata) = whole.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("annotations");
    }
}

fn core_of_status(whole: &mut Value) {
    if let Some(status) = whole.get_mut("status").and_then(Value::as_object_mut) {
        status.retain(|name, _| CORE_OF_STATUS.contains(&name.as_str()));
    }
}

fn without_spec(whole: &mut Value) {
    if let Some(whole) = whole.as_object_mut() {
        whole.remove("spec");
    }
}

fn name_only(whole: &mut Value) {
    if let Some(whole) = whole.as_object_mut() {
        whole.remove("status");
    }
    if let Some(metadata) = whole.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        let kept = ["name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp"];
        metadata.retain(|name, _| kept.contains(&name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(object: Value) -> (Value, bool) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let key = Key::of("BackupTarget", &object);
        let wire = encode(&key, object);
        (serde_json::from_slice(&wire.json).unwrap(), wire.cut)
    }

    fn target(more: &Value) -> Value {
        let mut target = json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupTarget",
            "metadata": {"name": "s3", "namespace": "data", "uid": "u", "generation": 4,
                "managedFields": [{"manager": "x"}], "labels": {"a": "b"},
                "annotations": {LAST_APPLIED: "{}", "mine": "1"}},
            "spec": {"prefix": "p", "sealed": {"generation": 2, "keyId": "k", "ciphertext": "c2VhbGVk"}},
            "status": {"phase": "Ready"},
        });
        for (name, value) in more.as_object().unwrap() {
            target[name] = value.clone();
        }
        target
    }

    #[test]
    fn bookkeeping_copies_and_ciphertext_stay_here() {
        let (seen, cut) = told(target(&json!({})));
        assert!(!cut);
        assert_eq!(seen["metadata"]["annotations"], json!({"mine": "1"}));
        assert_eq!(seen["metadata"].get("managedFields"), None);
        assert_eq!(seen["spec"]["sealed"], json!({"generation": 2, "keyId": "k"}));
        assert_eq!((&seen["kind"], &seen["status"]["phase"]), (&json!("BackupTarget"), &json!("Ready")));
        assert_eq!(seen["apiVersion"], "data.culvert.dev/v1alpha1");
    }

    #[test]
    fn a_large_object_keeps_what_says_how_it_is() {
        let status = json!({"phase": "Failed", "why": {"code": "x"}, "log": "x".repeat(MAX_LEN)});
        let (seen, cut) = told(target(&json!({"status": status})));
        assert!(cut);
        assert_eq!(seen["status"], json!({"phase": "Failed", "why": {"code": "x"}}));
        assert_eq!(seen["spec"]["prefix"], "p");
        let (seen, cut) = told(target(&json!({"spec": {"pad": "x".repeat(MAX_LEN)}})));
        assert!(cut && seen.get("spec").is_none());
        assert_eq!(seen["status"]["phase"], "Ready");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn nothing_is_told_that_is_too_large(
            spec in 0_usize..2 * MAX_LEN, status in 0_usize..2 * MAX_LEN, label in 0_usize..2 * MAX_LEN,
        ) {
            let mut large = target(&json!({
                "spec": {"pad": "\u{1}".repeat(spec)},
                "status": {"phase": "x".repeat(status)},
            }));
            large["metadata"]["labels"]["pad"] = json!("x".repeat(label));
            let object: DynamicObject = serde_json::from_value(large).unwrap();
            let wire = encode(&Key::of("BackupTarget", &object), object);
            prop_assert!(wire.json.len() <= MAX_LEN);
            let seen: Value = serde_json::from_slice(&wire.json).unwrap();
            prop_assert_eq!(&seen["metadata"]["uid"], "u");
        }
    }
}
