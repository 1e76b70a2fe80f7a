//! What is known of the cluster's objects, and which of it the controller does not know yet.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_proto::telemetry::v1 as wire;
use tokio::sync::watch;

use super::object::Key;

/// The most objects that are told of, and the most bytes of them; the controller keeps no more.
const MAX_OBJECTS: usize = 5_000;
const MAX_BYTES: usize = 48 * 1024 * 1024;

/// How far one kind is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// Nobody has asked the API server yet.
    NotYet,
    /// All of its objects are on the shelf.
    Whole,
    /// The API server does not let us see them.
    Barred,
}

/// Shared by those who watch and the one who tells.
#[derive(Debug)]
pub(super) struct Shelf {
    inner: Mutex<Inner>,
    bell: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    kinds: BTreeMap<&'static str, Knowledge>,
    objects: BTreeMap<Key, Arc<wire::Object>>,
    bytes: usize,
    /// Something had no place.
    overflowed: bool,
    changed: BTreeSet<Key>,
    gone: BTreeSet<Key>,
}

/// All that is known at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) objects: Vec<Arc<wire::Object>>,
    /// Not everything there is.
    pub(super) partial: bool,
}

/// What changed since the last telling.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) objects: Vec<Arc<wire::Object>>,
    pub(super) gone: Vec<Key>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.gone.is_empty()
    }
}

impl Shelf {
    pub(super) fn new(kinds: impl IntoIterator<Item = &'static str>) -> Shelf {
        let kinds = kinds.into_iter().map(|kind| (kind, Knowledge::NotYet)).collect();
        let inner = Inner { kinds, ..Inner::default() };
        Shelf { inner: Mutex::new(inner), bell: watch::Sender::new(0) }
    }

    /// Rings when something is to be told, or a kind became known.
    pub(super) fn bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    /// Whether every kind was asked for, with or without success.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().kinds.values().all(|knowledge| *knowledge != Knowledge::NotYet)
    }

    /// An object is there, or has changed.
    pub(super) fn put(&self, key: Key, object: wire::Object) {
        if self.lock().put(key, object) {
            self.ring();
        }
    }

    /// An object is gone.
    pub(super) fn remove(&self, key: &Key) {
        if self.lock().remove(key) {
            self.ring();
        }
    }

    /// These are all objects of a kind there are; others of it are gone.
    pub(super) fn settle(&self, kind: &'static str, named: &BTreeSet<Key>) {
        let mut inner = self.lock();
        let stale = |key: &&Key| key.kind == kind && !named.contains(*key);
        let gone: Vec<Key> = inner.objects.keys().filter(stale).cloned().collect();
        for key in &gone {
            inner.remove(key);
        }
        let before = inner.kinds.insert(kind, Knowledge::Whole);
        drop(inner);
        if !gone.is_empty() || before != Some(Knowledge::Whole) {
            self.ring();
        }
    }

    /// A kind cannot be seen now. What is known of it stays as it was.
    pub(super) fn bar(&self, kind: &'static str) {
        if self.lock().kinds.insert(kind, Knowledge::Barred) != Some(Knowledge::Barred) {
            self.ring();
        }
    }

    /// Everything, for a full telling. What changed until now needs no telling besides.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut inner = self.lock();
        inner.changed.clear();
        inner.gone.clear();
        Snapshot { objects: inner.objects.values().cloned().collect(), partial: inner.is_partial() }
    }

    /// The objects of one kind.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<Arc<wire::Object>> {
        let inner = self.lock();
        inner
            .objects
            .iter()
            .filter(|(key, _)| key.kind == kind)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Whether a full telling would be a partial one now.
    pub(super) fn is_partial(&self) -> bool {
        self.lock().is_partial()
    }

    /// Takes at most `count` changes of at most `bytes` bytes, at least one if there is any.
    pub(super) fn take_changes(&self, count: usize, bytes: usize) -> Changes {
        let mut inner = self.lock();
        let mut changes = Changes::default();
        let mut room = bytes;
        while changes.objects.len() + changes.gone.len() < count {
            let Some(key) = inner.changed.first().cloned() else { break };
            let object = inner.objects.get(&key).cloned();
            let size = object.as_ref().map_or(0, |object| object.json.len());
            if size > room && !changes.is_empty() {
                return changes;
            }
            room = room.saturating_sub(size);
            inner.changed.remove(&key);
            changes.objects.extend(object);
        }
        while changes.objects.len() + changes.gone.len() < count {
            let Some(key) = inner.gone.pop_first() else { break };
            changes.gone.push(key);
        }
        changes
    }

    fn ring(&self) {
        self.bell.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_partial(&self) -> bool {
        self.overflowed || self.kinds.values().any(|knowledge| *knowledge != Knowledge::Whole)
    }

    /// `false` when nothing is to be told of it.
    fn put(&mut self, key: Key, object: wire::Object) -> bool {
        let before = self.objects.get(&key);
        if before.is_some_and(|before| **before == object) {
            return false;
        }
        let less = before.map_or(0, |before| before.json.len());
        let full = before.is_none() && self.objects.len() >= MAX_OBJECTS;
        if full || self.bytes - less + object.json.len() > MAX_BYTES {
            self.overflowed = true;
            return false;
        }
        self.bytes = self.bytes - less + object.json.len();
        self.gone.remove(&key);
        self.changed.insert(key.clone());
        self.objects.insert(key, Arc::new(object));
        true
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(object) = self.objects.remove(key) else { return false };
        self.bytes -= object.json.len();
        self.changed.remove(key);
        self.gone.insert(key.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { kind: "Backup", namespace: "data".to_owned(), name: name.to_owned() }
    }

    fn object(name: &str, size: usize) -> wire::Object {
        let json = vec![b'x'; size].into();
        wire::Object { key: Some(key(name).to_wire()), json, ..wire::Object::default() }
    }

    fn shelf() -> Shelf {
        Shelf::new(["Backup", "Restore"])
    }

    #[test]
    fn what_did_not_change_is_not_told_again() {
        let shelf = shelf();
        shelf.put(key("a"), object("a", 1));
        let bell = shelf.bell();
        assert_eq!(shelf.take_changes(10, 100).objects.len(), 1);
        shelf.put(key("a"), object("a", 1));
        assert!(!bell.has_changed().unwrap() && shelf.take_changes(10, 100).is_empty());
        shelf.put(key("a"), object("a", 2));
        assert!(bell.has_changed().unwrap());
        shelf.remove(&key("a"));
        let changes = shelf.take_changes(10, 100);
        assert!(changes.objects.is_empty() && changes.gone == [key("a")]);
        shelf.remove(&key("a"));
        assert!(shelf.take_changes(10, 100).is_empty());
    }

    #[test]
    fn a_batch_has_an_end() {
        let shelf = shelf();
        for name in ["a", "b", "c"] {
            shelf.put(key(name), object(name, 60));
        }
        assert_eq!(shelf.take_changes(10, 100).objects.len(), 1);
        assert_eq!(shelf.take_changes(1, 1000).objects.len(), 1);
        assert_eq!(shelf.take_changes(10, 10).objects.len(), 1, "one at least");
    }

    #[test]
    fn a_kind_that_is_listed_anew_loses_what_is_gone() {
        let shelf = shelf();
        shelf.put(key("a"), object("a", 1));
        shelf.put(key("b"), object("b", 1));
        assert!(shelf.snapshot().partial && !shelf.is_settled());
        shelf.settle("Backup", &[key("b")].into());
        shelf.settle("Restore", &BTreeSet::new());
        let snapshot = shelf.snapshot();
        assert!(!snapshot.partial && shelf.is_settled());
        assert_eq!(snapshot.objects.len(), 1);
        assert!(shelf.take_changes(10, 100).is_empty(), "a full telling holds them already");
        shelf.bar("Restore");
        assert!(shelf.snapshot().partial && shelf.is_settled());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let shelf = Shelf::new(["Backup"]);
        for n in 0..=MAX_OBJECTS {
            shelf.put(key(&format!("b{n}")), object("", 1));
        }
        shelf.settle("Restore", &BTreeSet::new());
        let snapshot = shelf.snapshot();
        assert!(snapshot.partial && snapshot.objects.len() == MAX_OBJECTS);
    }
}
