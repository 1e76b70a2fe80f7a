//! Answers remembered for seconds, and forgotten at once when they may be wrong.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use crate::domain::Time;

/// How long an answer is believed: bounds what another process on the same database
/// can change unseen.
const BELIEVED: time::Duration = time::Duration::seconds(3);
/// Answers remembered at once.
const MOST: usize = 20_000;

/// A small map with a generation: an answer that was looked up before the last
/// [`Cache::forget`] is not kept after it.
#[derive(Debug)]
pub(super) struct Cache<K, V>(Mutex<Inner<K, V>>);

#[derive(Debug)]
struct Inner<K, V> {
    generation: u64,
    entries: HashMap<K, (V, Time)>,
}

/// Proof of when a look-up began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun(u64);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Inner { generation: 0, entries: HashMap::new() }))
    }
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// The answer, if one is remembered.
    pub(super) fn get(&self, key: &K, now: Time) -> Result<V, Begun> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.entries.get(key) {
            Some((value, at)) if now - *at < BELIEVED && now >= *at => Ok(value.clone()),
            _ => Err(Begun(inner.generation)),
        }
    }

    /// Remembers an answer whose look-up began when [`Self::get`] missed.
    pub(super) fn put(&self, begun: Begun, key: K, value: V, now: Time) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.generation != begun.0 {
            return;
        }
        if inner.entries.len() >= MOST {
            inner.entries.retain(|_, (_, at)| now - *at < BELIEVED);
            if inner.entries.len() >= MOST {
                inner.entries.clear();
            }
        }
        inner.entries.insert(key, (value, now));
    }

    /// Forgets everything, and what is being looked up too.
    pub(super) fn forget(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.generation = inner.generation.wrapping_add(1);
        inner.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_for_seconds() {
        let cache = Cache::default();
        let start = Time::UNIX_EPOCH;
        let begun = cache.get(&1, start).unwrap_err();
        cache.put(begun, 1, "a", start);
        assert_eq!(cache.get(&1, start + time::Duration::seconds(2)).unwrap(), "a");
        assert!(cache.get(&1, start + BELIEVED).is_err());
        // A clock that was set back must not make an answer live for hours.
        assert!(cache.get(&1, start - time::Duration::hours(1)).is_err());
    }

    #[test]
    fn an_answer_from_before_is_not_kept() {
        let cache = Cache::default();
        let begun = cache.get(&1, Time::UNIX_EPOCH).unwrap_err();
        cache.forget();
        cache.put(begun, 1, "stale", Time::UNIX_EPOCH);
        assert!(cache.get(&1, Time::UNIX_EPOCH).is_err());
    }
}
