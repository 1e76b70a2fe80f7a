//! What stands in the Lease of a primary, read from the object and written back into it.
use std::collections::BTreeMap;
use std::time::Duration;

use culvert_resources::meta;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::engine::Position;

/// Annotation: name of the pod that was primary last, kept when the Lease is released.
pub const LAST_HOLDER: &str = "data.culvert.dev/last-holder";

/// The Lease, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// resourceVersion: every write is made on condition of it.
    pub version: String,
    /// Pod of the primary; none when it was released.
    pub holder: Option<String>,
    /// uid of that pod.
    pub holder_uid: Option<String>,
    /// Pod that was primary last.
    pub last_holder: Option<String>,
    /// How long it is valid after it was seen to change.
    pub duration: Duration,
    /// When it was renewed, by the holder's clock. Only ever compared for equality.
    pub renewed: Option<String>,
    /// How often it changed hands.
    pub transitions: i32,
    /// Identity of the data that was made once.
    pub initialised: Option<String>,
    /// Standbys that have every acknowledged write; none at all when replication was never synchronous.
    pub synchronous: Option<Vec<String>>,
    /// Pod that shall become primary.
    pub switchover_to: Option<String>,
    /// How far the log had come at the last renewal.
    pub position: Option<Position>,
    /// Whether the holder stops before the Lease expires.
    pub fenced: bool,
}

impl Record {
    /// Reads the object. What cannot be understood counts as absent: it then allows nothing.
    #[must_use]
    pub fn read(lease: &Lease) -> Self {
        let empty = BTreeMap::new();
        let notes = lease.metadata.annotations.as_ref().unwrap_or(&empty);
        let note = |key: &str| notes.get(key).filter(|value| !value.is_empty()).cloned();
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        Self {
            version: lease.metadata.resource_version.clone().unwrap_or_default(),
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            holder_uid: note(meta::HOLDER_UID),
            last_holder: note(LAST_HOLDER),
            duration: Duration::from_secs(seconds),
            renewed: spec.renew_time.map(|time| time.0.to_string()),
            transitions: spec.lease_transitions.unwrap_or(0),
            initialised: note(meta::INITIALISED),
            synchronous: notes.get(meta::SYNCHRONOUS).map(|list| names(list)),
            switchover_to: note(meta::SWITCHOVER_TO),
            position: note(meta::POSITION).and_then(|text| text.parse().ok()),
            fenced: notes.get(meta::FENCED).is_none_or(|value| value != "false"),
        }
    }

    /// Whether this pod, and not an earlier one of its name, is the holder.
    #[must_use]
    pub fn held_by(&self, pod: &str, uid: &str) -> bool {
        self.holder.as_deref() == Some(pod) && self.holder_uid.as_deref() == Some(uid)
    }

    /// Whether a pod of this name was the last primary.
    #[must_use]
    pub fn led_by(&self, pod: &str) -> bool {
        self.holder.as_deref().or(self.last_holder.as_deref()) == Some(pod)
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What a holder writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing<'a> {
    /// Pod, and whether it keeps the Lease or gives it back.
    pub pod: &'a str,
    /// uid of the pod.
    pub uid: &'a str,
    /// Whether the Lease is given back.
    pub release: bool,
    /// How long it is valid.
    pub duration: Duration,
    /// Wall clock, for people.
    pub wall: jiff::Timestamp,
    /// Identity of the data, once it was made.
    pub initialised: Option<&'a str>,
    /// Standbys that have every acknowledged write; `None` leaves the list as it is.
    pub synchronous: Option<Option<&'a [String]>>,
    /// Takes the wish for a switchover away.
    pub switched: bool,
    /// How far the log has come.
    pub position: Option<Position>,
    /// Whether the holder stops before the Lease expires.
    pub fenced: bool,
}

/// The object with what the holder writes; everything else in it stays as it was.
#[must_use]
pub fn write(mut lease: Lease, writing: &Writing<'_>) -> Lease {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    let now = MicroTime(writing.wall);
    if spec.holder_identity.as_deref() != Some(writing.pod) {
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        spec.acquire_time = Some(now.clone());
    }
    spec.holder_identity = Some(if writing.release { String::new() } else { writing.pod.to_owned() });
    spec.lease_duration_seconds = Some(i32::try_from(writing.duration.as_secs()).unwrap_or(i32::MAX));
    spec.renew_time = Some(now);
    annotate(lease.metadata.annotations.get_or_insert_with(BTreeMap::new), writing);
    lease
}

fn annotate(notes: &mut BTreeMap<String, String>, writing: &Writing<'_>) {
    let mut set = |key: &str, value: String| notes.insert(key.to_owned(), value);
    set(meta::HOLDER_UID, writing.uid.to_owned());
    set(LAST_HOLDER, writing.pod.to_owned());
    set(meta::FENCED, writing.fenced.to_string());
    if let Some(position) = writing.position {
        set(meta::POSITION, position.to_string());
    }
    if let Some(identity) = writing.initialised {
        set(meta::INITIALISED, identity.to_owned());
    }
    match writing.synchronous {
        Some(Some(list)) => {
            set(meta::SYNCHRONOUS, list.join(","));
        }
        Some(None) => {
            notes.remove(meta::SYNCHRONOUS);
        }
        None => {}
    }
    if writing.switched {
        notes.remove(meta::SWITCHOVER_TO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writing() -> Writing<'static> {
        Writing {
            pod: "orders-0",
            uid: "u1",
            release: false,
            duration: Duration::from_secs(15),
            wall: jiff::Timestamp::UNIX_EPOCH,
            initialised: Some("77"),
            synchronous: None,
            switched: false,
            position: Some(Position { epoch: 1, offset: 9 }),
            fenced: true,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let lease = write(Lease::default(), &writing());
        let record = Record::read(&lease);
        assert!(record.held_by("orders-0", "u1"));
        assert!(!record.held_by("orders-0", "u2"));
        assert_eq!(record.initialised.as_deref(), Some("77"));
        assert_eq!(record.position, Some(Position { epoch: 1, offset: 9 }));
        assert_eq!(record.synchronous, None);
        assert_eq!((record.transitions, record.fenced), (1, true));
    }

    #[test]
    fn a_release_keeps_who_was_primary() {
        let lease = write(Lease::default(), &writing());
        let record = Record::read(&write(lease, &Writing { release: true, ..writing() }));
        assert_eq!(record.holder, None);
        assert!(record.led_by("orders-0") && !record.held_by("orders-0", "u1"));
        assert_eq!(record.transitions, 1);
    }

    #[test]
    fn an_empty_list_is_not_the_same_as_no_list() {
        let empty = write(Lease::default(), &Writing { synchronous: Some(Some(&[])), ..writing() });
        assert_eq!(Record::read(&empty).synchronous, Some(Vec::new()));
        let none = write(empty, &Writing { synchronous: Some(None), ..writing() });
        assert_eq!(Record::read(&none).synchronous, None);
    }

    #[test]
    fn what_others_wrote_stays() {
        let mut lease = Lease::default();
        lease.metadata.annotations = Some(
            [("else".to_owned(), "x".to_owned()), (meta::SWITCHOVER_TO.to_owned(), "b".to_owned())].into(),
        );
        let kept = write(lease, &writing());
        assert_eq!(Record::read(&kept).switchover_to.as_deref(), Some("b"));
        let switched = write(kept, &Writing { switched: true, ..writing() });
        assert_eq!(Record::read(&switched).switchover_to, None);
        assert!(switched.metadata.annotations.unwrap().contains_key("else"));
    }

    #[test]
    fn nonsense_in_the_object_allows_nothing() {
        let mut lease = Lease::default();
        lease.metadata.annotations = Some([(meta::POSITION.to_owned(), "far".to_owned())].into());
        lease.spec = Some(LeaseSpec { lease_duration_seconds: Some(-4), ..LeaseSpec::default() });
        let record = Record::read(&lease);
        assert_eq!((record.position, record.duration), (None, Duration::ZERO));
        assert!(record.fenced);
    }
}
