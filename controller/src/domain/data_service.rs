//! Data services as the control plane keeps them: what is wanted, and what was last seen.

use std::str::FromStr;

use culvert_resources::{DataServiceSpec, DataServiceStatus, Phase};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::operation::NoSuchWord;
use super::{ClusterId, DataServiceId, Namespace, ProjectId, ServiceName, Time};

/// A data service's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataService {
    /// Its id.
    pub id: DataServiceId,
    /// The project it counts in.
    pub project: ProjectId,
    /// The cluster it runs in.
    pub cluster: ClusterId,
    /// The namespace there.
    pub namespace: Namespace,
    /// Its name, and that of its objects.
    pub name: ServiceName,
    /// What is wanted.
    pub spec: DataServiceSpec,
    /// Grows by one with each change of the spec.
    pub revision: u64,
    /// The revision that the cluster has, as far as this side sent it.
    pub sent_revision: u64,
    /// Whether it was made with kubectl alone, and this side only watches.
    pub unmanaged: bool,
    /// When the record was made.
    pub created_at: Time,
    /// When what is wanted last changed.
    pub updated_at: Time,
    /// When it was gone.
    pub deleted_at: Option<Time>,
    /// Until when its volumes are kept, so that it can be brought back.
    pub undelete_until: Option<Time>,
    /// What was last seen of it.
    pub seen: Option<Seen>,
}

impl DataService {
    /// Whether what is there is what is wanted; unknown before it was seen. What was never sent
    /// is not compared: it is on its way.
    #[must_use]
    pub fn in_sync(&self) -> Option<bool> {
        let seen = self.seen.as_ref().filter(|_| self.sent_revision == self.revision)?;
        let live: DataServiceSpec = serde_json::from_value(seen.spec.clone()).ok()?;
        Some(live == self.spec)
    }
}

/// What was seen of a data service's object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// When.
    pub at: Time,
    /// The object's uid.
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
    /// The API server's number of this very state; it grows.
    #[serde(default)]
    pub version: Option<u64>,
    /// Its spec, as it stands in the cluster.
    pub spec: Value,
    /// Its status, as it stands in the cluster.
    pub status: Value,
}

impl Seen {
    /// What an object as the API server gives it shows; `None` when it is no such object.
    #[must_use]
    pub fn of(object: &Value, at: Time) -> Option<Self> {
        let metadata = object.get("metadata")?;
        Some(Self {
            at,
            uid: metadata.get("uid")?.as_str()?.to_owned(),
            generation: metadata.get("generation")?.as_i64()?,
            version: metadata.get("resourceVersion").and_then(Value::as_str).and_then(|v| v.parse().ok()),
            spec: object.get("spec").cloned().unwrap_or_default(),
            status: object.get("status").cloned().unwrap_or_default(),
        })
    }

    /// Whether `other` shows the same object as it was earlier: what comes late says nothing new.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        self.uid == other.uid && self.version.zip(other.version).is_some_and(|(own, other)| own > other)
    }

    /// Whether both show the same, apart from when.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        *self == Self { at: self.at, ..other.clone() }
    }

    /// The status, as far as it can be read.
    #[must_use]
    pub fn status(&self) -> DataServiceStatus {
        serde_json::from_value(self.status.clone()).unwrap_or_default()
    }

    /// Whether the operator has looked at this very spec.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.status().observed_generation.is_some_and(|seen| seen >= self.generation)
    }
}

/// What a data service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataServiceState {
    /// Waits for what it needs.
    Pending,
    /// Is being made or changed.
    Progressing,
    /// A login and a write succeed.
    Ready,
    /// Works, with less than was asked for.
    Degraded,
    /// Does not work.
    Unavailable,
    /// Stopped on purpose.
    Stopped,
    /// Is being deleted.
    Deleting,
    /// Is gone.
    Deleted,
    /// Nothing was seen of it.
    Unknown,
}

impl DataServiceState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Progressing,
        Self::Ready,
        Self::Degraded,
        Self::Unavailable,
        Self::Stopped,
        Self::Deleting,
        Self::Deleted,
        Self::Unknown,
    ];

    /// The state of a service; `busy` and `leaving` say whether an operation, or its deletion,
    /// is under way.
    #[must_use]
    pub fn of(service: &DataService, busy: bool, leaving: bool) -> Self {
        if service.deleted_at.is_some() {
            return Self::Deleted;
        }
        if leaving {
            return Self::Deleting;
        }
        let Some(seen) = &service.seen else {
            return if busy { Self::Pending } else { Self::Unknown };
        };
        match seen.status().phase {
            _ if busy && !seen.is_observed() => Self::Progressing,
            None => Self::Pending,
            Some(Phase::Pending) => Self::Pending,
            Some(Phase::Progressing) => Self::Progressing,
            Some(Phase::Ready) => Self::Ready,
            Some(Phase::Degraded) => Self::Degraded,
            Some(Phase::Unavailable) => Self::Unavailable,
            Some(Phase::Stopped) => Self::Stopped,
            Some(Phase::Deleting) => Self::Deleting,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Progressing => "progressing",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
            Self::Stopped => "stopped",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Unknown => "unknown",
        }
    }
}

impl FromStr for DataServiceState {
    type Err = NoSuchWord;

    fn from_str(text: &str) -> Result<Self, NoSuchWord> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(NoSuchWord)
    }
}

/// A data service as a caller names it: by id or by name. A name has no underscore and an id
/// has one, so a text is never both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DataServiceRef {
    /// By id.
    Id(DataServiceId),
    /// By name: the one that is not deleted if there is one only, else the last that was.
    Name(ServiceName),
}

/// A text that can name no data service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither the id nor the name of a data service")]
pub struct NotADataService;

impl FromStr for DataServiceRef {
    type Err = NotADataService;

    fn from_str(text: &str) -> Result<Self, NotADataService> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|_| NotADataService)
    }
}

impl From<DataServiceId> for DataServiceRef {
    fn from(id: DataServiceId) -> Self {
        Self::Id(id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(seen: Option<Seen>) -> DataService {
        DataService {
            id: DataServiceId::generate(),
            project: ProjectId::generate(),
            cluster: ClusterId::generate(),
            namespace: "data-default".parse().unwrap(),
            name: "orders".parse().unwrap(),
            spec: DataServiceSpec::default(),
            revision: 1,
            sent_revision: 0,
            unmanaged: false,
            created_at: Time::UNIX_EPOCH,
            updated_at: Time::UNIX_EPOCH,
            deleted_at: None,
            undelete_until: None,
            seen,
        }
    }

    fn seen(phase: &str, generation: i64, observed: i64) -> Seen {
        let status = json!({"phase": phase, "observedGeneration": observed});
        Seen { at: Time::UNIX_EPOCH, uid: "u".into(), generation, version: None, spec: json!({}), status }
    }

    #[test]
    fn the_state_is_what_was_seen_last() {
        let state = |seen, busy, leaving| DataServiceState::of(&service(seen), busy, leaving);
        assert_eq!(state(None, true, false), DataServiceState::Pending);
        assert_eq!(state(None, false, false), DataServiceState::Unknown);
        assert_eq!(state(Some(seen("Ready", 1, 1)), false, false), DataServiceState::Ready);
        assert_eq!(state(Some(seen("Ready", 2, 1)), true, false), DataServiceState::Progressing);
        assert_eq!(state(Some(seen("Ready", 1, 1)), true, true), DataServiceState::Deleting);
        let mut gone = service(Some(seen("Ready", 1, 1)));
        gone.deleted_at = Some(Time::UNIX_EPOCH);
        assert_eq!(DataServiceState::of(&gone, true, true), DataServiceState::Deleted);
    }

    #[test]
    fn what_comes_late_says_nothing_new() {
        let object = |version: &str| json!({"metadata": {"uid": "u", "generation": 1, "resourceVersion": version}, "spec": {}});
        let seen = |version| Seen::of(&object(version), Time::UNIX_EPOCH).unwrap();
        assert!(seen("11").is_after(&seen("9")));
        assert!(!seen("9").is_after(&seen("11")));
        assert!(!seen("opaque").is_after(&seen("9")));
        let other = Seen { uid: "v".into(), ..seen("11") };
        assert!(!other.is_after(&seen("9")));
    }

    #[test]
    fn a_status_of_nonsense_is_no_status() {
        let mut nonsense = seen("Ready", 1, 1);
        nonsense.status = json!({"phase": ["no"], "conditions": 7});
        assert_eq!(DataServiceState::of(&service(Some(nonsense)), false, false), DataServiceState::Pending);
    }

    #[test]
    fn a_reference_is_an_id_or_a_name() {
        let id = DataServiceId::generate();
        assert_eq!(id.to_string().parse(), Ok(DataServiceRef::Id(id)));
        assert!(matches!("orders".parse(), Ok(DataServiceRef::Name(_))));
        for bad in ["", "dsv_x", "../x", "Orders", "7"] {
            assert!(bad.parse::<DataServiceRef>().is_err(), "{bad}");
        }
    }
}
