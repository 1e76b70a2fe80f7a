//! Objects of a customer's cluster as its agent told them: what may be taken, and under which names.
//!
//! An agent is a stranger's program. What it tells is kept under the cluster of its
//! certificate, whatever the object says, and only when the object is of a kind of ours, not
//! too large, and says of itself what the agent says of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use super::{ClusterId, Time};

/// The most bytes of one object's JSON. An agent cuts what is larger.
pub const OBJECT_MAX: usize = 64 * 1024;
/// The most objects kept of one cluster.
pub const OBJECTS_MAX: u64 = 5_000;
/// The most bytes of JSON kept of one cluster.
pub const OBJECTS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most objects and deletions in one report.
pub const REPORT_MAX: usize = 500;

/// Label that names the control plane's record of an object.
const RECORD: &str = culvert_resources::meta::RECORD;

/// Kinds of the group `data.culvert.dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectKind {
    /// What a cluster can run.
    DataPlane,
    /// A wish for a database.
    DataService,
    /// What was released of it.
    Database,
    /// Where backups go.
    BackupTarget,
    /// When backups are made.
    BackupSchedule,
    /// One backup.
    Backup,
    /// One restore.
    Restore,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::DataPlane,
        Self::DataService,
        Self::Database,
        Self::BackupTarget,
        Self::BackupSchedule,
        Self::Backup,
        Self::Restore,
    ];

    /// The word in the object's `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DataPlane => "DataPlane",
            Self::DataService => "DataService",
            Self::Database => "Database",
            Self::BackupTarget => "BackupTarget",
            Self::BackupSchedule => "BackupSchedule",
            Self::Backup => "Backup",
            Self::Restore => "Restore",
        }
    }

    /// Whether objects of it lie in namespaces.
    #[must_use]
    pub fn namespaced(self) -> bool {
        self != Self::DataPlane
    }
}

impl std::str::FromStr for ObjectKind {
    type Err = Untakable;

    fn from_str(text: &str) -> Result<Self, Untakable> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(Untakable::Kind)
    }
}

/// Why something that was told of an object is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Untakable {
    /// Not a kind of ours.
    #[error("not a kind of data.culvert.dev")]
    Kind,
    /// No name that Kubernetes would have allowed.
    #[error("not a name of Kubernetes")]
    Name,
    /// Not the id of an object.
    #[error("not a uid")]
    Uid,
    /// Larger than [`OBJECT_MAX`].
    #[error("larger than 64 KiB")]
    TooLarge,
    /// Not JSON, or not an object with metadata.
    #[error("not an object in JSON")]
    Json,
    /// The object says of itself something else.
    #[error("the object's own kind, name or uid is another")]
    Disagrees,
    /// The cluster has as much as is kept.
    #[error("as many objects as are kept of one cluster are known")]
    Full,
}

/// Names one object of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace; empty for an object of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Reads what an agent told.
    ///
    /// # Errors
    /// [`Untakable`] when it names no object of ours.
    pub fn parse(kind: &str, namespace: &str, name: &str) -> Result<Self, Untakable> {
        let kind: ObjectKind = kind.parse()?;
        let placed = if kind.namespaced() { is_label(namespace) } else { namespace.is_empty() };
        if !placed || !is_name(name) {
            return Err(Untakable::Name);
        }
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        let kind = kind.as_str();
        if namespace.is_empty() { write!(f, "{kind}/{name}") } else { write!(f, "{kind}/{namespace}/{name}") }
    }
}

/// A name of Kubernetes: a DNS subdomain.
fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label_of_any_length)
}

/// A namespace's name: a DNS label.
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_label_of_any_length(text)
}

fn is_label_of_any_length(text: &str) -> bool {
    let end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| end(byte) || byte == b'-';
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| end(*b))
        && bytes.last().is_some_and(|b| end(*b))
        && bytes.iter().all(|b| inner(*b))
}

/// An object as an agent told it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Which object.
    pub key: ObjectKey,
    /// The object's own id.
    pub uid: Uuid,
    /// Id of the control plane's record, as the object's label says; nobody's word but the cluster's.
    pub record: Option<String>,
    /// The object's generation.
    pub generation: i64,
    /// When the cluster made the object.
    pub made_at: Time,
    /// The object.
    pub object: Value,
    /// Parts of it were left out because it is too large.
    pub cut: bool,
}

impl Observation {
    /// Reads what an agent told.
    ///
    /// # Errors
    /// [`Untakable`].
    pub fn parse(
        key: ObjectKey,
        uid: &str,
        generation: i64,
        json: &[u8],
        cut: bool,
    ) -> Result<Self, Untakable> {
        if json.len() > OBJECT_MAX {
            return Err(Untakable::TooLarge);
        }
        let uid = Uuid::try_parse(uid).map_err(|_| Untakable::Uid)?;
        let object: Value = serde_json::from_slice(json).map_err(|_| Untakable::Json)?;
        let told = Metadata::of(&object).ok_or(Untakable::Json)?;
        let agrees = told.kind == key.kind.as_str()
            && told.name == key.name
            && told.namespace == key.namespace
            && Uuid::try_parse(told.uid).is_ok_and(|own| own == uid);
        if !agrees {
            return Err(Untakable::Disagrees);
        }
        let record = told.record.filter(|record| record.len() <= 63).map(str::to_owned);
        let made_at = told.made_at.unwrap_or(Time::UNIX_EPOCH);
        Ok(Self { key, uid, record, generation, made_at, object, cut })
    }
}

/// What an object says of itself.
struct Metadata<'o> {
    kind: &'o str,
    namespace: &'o str,
    name: &'o str,
    uid: &'o str,
    record: Option<&'o str>,
    made_at: Option<Time>,
}

impl<'o> Metadata<'o> {
    fn of(object: &'o Value) -> Option<Self> {
        let text = |value: Option<&'o Value>| value.and_then(Value::as_str);
        let metadata = object.get("metadata")?;
        let made_at = text(metadata.get("creationTimestamp"));
        let rfc3339 = &time::format_description::well_known::Rfc3339;
        Some(Self {
            kind: text(object.get("kind"))?,
            namespace: text(metadata.get("namespace")).unwrap_or_default(),
            name: text(metadata.get("name"))?,
            uid: text(metadata.get("uid"))?,
            record: text(metadata.get("labels").and_then(|labels| labels.get(RECORD))),
            made_at: made_at.and_then(|text| Time::parse(text, rfc3339).ok()),
        })
    }
}

/// The id under which the control plane shows an object: made of the cluster and the object's own
/// uid, so that no cluster can tell of an object under the id of another's.
#[must_use]
pub fn object_id(cluster: ClusterId, uid: Uuid) -> Uuid {
    let mut digest = Sha256::new();
    digest.update(b"culvert-object-v1");
    digest.update(cluster.uuid().as_bytes());
    digest.update(uid.as_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    let (half, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    uuid::Builder::from_custom_bytes(*half).into_uuid()
}

/// An object as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedObject {
    /// See [`object_id`].
    pub id: Uuid,
    /// The cluster it lies in.
    pub cluster: ClusterId,
    /// What was told of it last.
    pub told: Observation,
    /// When it was last told that it had changed.
    pub observed_at: Time,
}

/// Where in a list of observed objects, those made last first, an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// When the object was made.
    pub made_at: Time,
    /// See [`object_id`].
    pub id: Uuid,
}

impl Position {
    /// Where this object stands.
    #[must_use]
    pub fn of(object: &ObservedObject) -> Self {
        Self { made_at: object.told.made_at, id: object.id }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.made_at.unix_timestamp_nanos() / 1_000_000, self.id)
    }
}

/// A text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no position of a list")]
pub struct NoPosition;

impl std::str::FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let (ms, id) = text.split_once('.').ok_or(NoPosition)?;
        let ms: i64 = ms.parse().map_err(|_| NoPosition)?;
        let made_at = Time::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map_err(|_| NoPosition)?;
        Ok(Self { made_at, id: Uuid::try_parse(id).map_err(|_| NoPosition)? })
    }
}

/// How much is known of a cluster's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// When all of them were last told.
    pub synced_at: Time,
    /// Whether some were left out then.
    pub partial: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const UID: &str = "11111111-2222-4333-8444-555555555555";

    fn object(name: &str) -> Value {
        json!({"kind": "Backup", "metadata": {"namespace": "data", "name": name, "uid": UID,
            "creationTimestamp": "2026-03-01T10:00:00Z", "labels": {RECORD: "dsv_1"}}})
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::parse("Backup", "data", name).unwrap()
    }

    fn told(object: &Value) -> Result<Observation, Untakable> {
        Observation::parse(key("nightly"), UID, 3, object.to_string().as_bytes(), false)
    }

    #[test]
    fn an_object_that_agrees_with_itself_is_taken() {
        let taken = told(&object("nightly")).unwrap();
        assert_eq!((taken.record.as_deref(), taken.generation), (Some("dsv_1"), 3));
        assert_eq!(taken.made_at, time::macros::datetime!(2026-03-01 10:00 UTC));
        assert_eq!(taken.key.to_string(), "Backup/data/nightly");
    }

    #[test]
    fn another_object_under_a_false_name_is_not() {
        assert_eq!(told(&object("weekly")), Err(Untakable::Disagrees));
        let mut other = object("nightly");
        other["kind"] = json!("Restore");
        assert_eq!(told(&other), Err(Untakable::Disagrees));
        let mut other = object("nightly");
        other["metadata"]["uid"] = json!("99999999-2222-4333-8444-555555555555");
        assert_eq!(told(&other), Err(Untakable::Disagrees));
        assert_eq!(told(&json!([])), Err(Untakable::Json));
        let mut large = object("nightly");
        large["spec"] = json!("x".repeat(OBJECT_MAX));
        assert_eq!(told(&large), Err(Untakable::TooLarge));
        assert_eq!(Observation::parse(key("nightly"), "1", 3, b"{}", false), Err(Untakable::Uid));
    }

    #[test]
    fn only_kinds_of_ours_have_keys() {
        assert!(ObjectKey::parse("DataPlane", "", "default").is_ok());
        assert_eq!(ObjectKey::parse("DataPlane", "data", "default"), Err(Untakable::Name));
        assert_eq!(ObjectKey::parse("Backup", "", "nightly"), Err(Untakable::Name));
        assert_eq!(ObjectKey::parse("Secret", "data", "nightly"), Err(Untakable::Kind));
        for kind in ObjectKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
    }

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let made_at = time::macros::datetime!(2026-03-01 10:00:00.123 UTC);
        let position = Position { made_at, id: Uuid::from_u128(7) };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "1", "x.1", "9223372036854775807.00000000-0000-0000-0000-000000000007"] {
            assert_eq!(bad.parse::<Position>(), Err(NoPosition), "{bad}");
        }
    }

    #[test]
    fn two_clusters_never_share_an_id() {
        let (one, two) = (ClusterId::generate(), ClusterId::generate());
        let uid = Uuid::from_u128(7);
        assert_eq!(object_id(one, uid), object_id(one, uid));
        assert_ne!(object_id(one, uid), object_id(two, uid));
        assert_ne!(object_id(one, uid), object_id(one, Uuid::from_u128(8)));
    }

    proptest! {
        #[test]
        fn a_key_holds_nothing_that_kubernetes_would_refuse(name in "\\PC{0,300}") {
            if let Ok(key) = ObjectKey::parse("Backup", "data", &name) {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
                prop_assert!(!key.name.is_empty() && key.name.len() <= 253 && key.name.chars().all(plain));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_taken(json in any::<Vec<u8>>()) {
            prop_assert!(Observation::parse(key("nightly"), UID, 1, &json, false).is_err());
        }
    }
}
