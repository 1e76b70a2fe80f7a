//! A customer's cluster as we know it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ClusterId, ClusterName, Labels, Time};

/// A cluster's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name, unique in the organisation.
    pub name: ClusterName,
    /// Labels people gave it.
    pub labels: Labels,
    /// When the record was made.
    pub created_at: Time,
    /// Set while nobody may use it.
    pub lock: Option<Lock>,
}

/// An instant refusal, enforced on live streams too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Why, for whoever is refused.
    pub message: String,
    /// Since when.
    pub at: Time,
}

/// The most characters a lock's message may have.
pub const LOCK_MESSAGE_MAX: usize = 500;

/// What a cluster is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// No agent has enrolled yet.
    Pending,
    /// An agent answers heartbeats.
    Connected,
    /// An agent has enrolled, and is not here now.
    Disconnected,
    /// Somebody locked it.
    Locked,
    /// It was deleted; only the change feed ever says so.
    Deleted,
}

impl ClusterState {
    /// The state of a cluster that exists.
    #[must_use]
    pub fn of(cluster: &Cluster, enrolled: bool, connected: bool) -> Self {
        match (&cluster.lock, enrolled, connected) {
            (Some(_), _, _) => Self::Locked,
            (None, _, true) => Self::Connected,
            (None, true, false) => Self::Disconnected,
            (None, false, false) => Self::Pending,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Locked => "locked",
            Self::Deleted => "deleted",
        }
    }
}

/// A cluster as a caller names it: by id or by name. A name has no underscore and
/// an id has one, so a text is never both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClusterRef {
    /// By id.
    Id(ClusterId),
    /// By name.
    Name(ClusterName),
}

/// A text that can name no cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither the id nor the name of a cluster")]
pub struct NotACluster;

impl FromStr for ClusterRef {
    type Err = NotACluster;

    fn from_str(text: &str) -> Result<Self, NotACluster> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|_| NotACluster)
    }
}

impl From<ClusterId> for ClusterRef {
    fn from(id: ClusterId) -> Self {
        Self::Id(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_an_id_or_a_name() {
        let id = ClusterId::generate();
        assert_eq!(id.to_string().parse(), Ok(ClusterRef::Id(id)));
        assert!(matches!("plant-7".parse(), Ok(ClusterRef::Name(_))));
        for bad in ["", "cls_x", "../x", "Plant"] {
            assert!(bad.parse::<ClusterRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lock_hides_everything_else() {
        let mut cluster = Cluster {
            id: ClusterId::generate(),
            name: "a".parse().unwrap(),
            labels: Labels::default(),
            created_at: Time::UNIX_EPOCH,
            lock: None,
        };
        assert_eq!(ClusterState::of(&cluster, false, false), ClusterState::Pending);
        assert_eq!(ClusterState::of(&cluster, true, false), ClusterState::Disconnected);
        assert_eq!(ClusterState::of(&cluster, true, true), ClusterState::Connected);
        cluster.lock = Some(Lock { message: "audit".to_owned(), at: Time::UNIX_EPOCH });
        assert_eq!(ClusterState::of(&cluster, true, true), ClusterState::Locked);
    }
}
