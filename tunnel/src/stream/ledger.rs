//! Byte budgets: who holds unread bytes, and who must go when they are too many.
//!
//! The connection window is as large as it can be so that one unread call never
//! stops another; the bound that it would have been is this. A call is entered
//! when its answer turns out to be longer than what came at once, so small calls
//! cost nothing here. The sweep is a task that lives while calls are entered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use h2::Reason;
use tokio::time::Instant;

use super::SharedDuplex;
use super::duplex::WeakDuplex;
use crate::{BodyError, Limits};

/// A call that was read within this long is not without progress.
const STALLED_TICKS: u32 = 2;

/// Calls of one connection, which share a budget.
#[derive(Debug, Default)]
pub(crate) struct Group {
    reaped: AtomicU64,
}

impl Group {
    pub(crate) fn reaped(&self) -> u64 {
        self.reaped.load(Ordering::Relaxed)
    }
}

struct Entry {
    duplex: WeakDuplex,
    group: Arc<Group>,
    waiting: u64,
    taken: u64,
    /// Since when nothing was taken although something waits.
    stalled: Option<Instant>,
}

#[derive(Default)]
struct Book {
    entries: HashMap<u64, Entry>,
    next: u64,
    sweeping: bool,
}

/// All long calls of a process' end of the tunnel.
#[derive(Clone)]
pub(crate) struct Ledger {
    book: Arc<Mutex<Book>>,
    per_group: u64,
    total: u64,
    tick: Duration,
}

/// Keeps a call in the ledger.
#[derive(Debug)]
pub(crate) struct Registration {
    book: std::sync::Weak<Mutex<Book>>,
    id: u64,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            book: Arc::default(),
            per_group: limits.connection_budget,
            total: limits.process_budget,
            tick: limits.reaper_tick,
        }
    }

    /// Enters a call; it leaves when the registration is dropped.
    pub(crate) fn register(&self, duplex: &SharedDuplex, group: &Arc<Group>) -> Registration {
        let mut book = lock(&self.book);
        let id = book.next;
        book.next += 1;
        let entry =
            Entry { duplex: duplex.downgrade(), group: group.clone(), waiting: 0, taken: 0, stalled: None };
        book.entries.insert(id, entry);
        if !std::mem::replace(&mut book.sweeping, true) {
            tokio::spawn(self.clone().sweep());
        }
        Registration { book: Arc::downgrade(&self.book), id }
    }

    /// The connection of a group ends.
    pub(crate) fn end_group(&self, group: &Arc<Group>) {
        let all: Vec<WeakDuplex> = {
            let book = lock(&self.book);
            let of_group = book.entries.values().filter(|entry| Arc::ptr_eq(&entry.group, group));
            of_group.map(|entry| entry.duplex.clone()).collect()
        };
        for duplex in all.iter().filter_map(WeakDuplex::upgrade) {
            duplex.lock().end_unless_whole();
        }
    }

    async fn sweep(self) {
        loop {
            tokio::time::sleep(self.tick).await;
            let now = Instant::now();
            let entries: Vec<(u64, WeakDuplex)> = {
                let mut book = lock(&self.book);
                if book.entries.is_empty() {
                    book.sweeping = false;
                    return;
                }
                book.entries.iter().map(|(id, entry)| (*id, entry.duplex.clone())).collect()
            };
            for (id, duplex) in entries {
                let usage = duplex.upgrade().map(|duplex| duplex.lock().measure());
                if let (Some(usage), Some(entry)) = (usage, lock(&self.book).entries.get_mut(&id)) {
                    entry.note(usage.waiting, usage.taken, now);
                }
            }
            let doomed = lock(&self.book).doomed(self.per_group, self.total, now, self.tick * STALLED_TICKS);
            for (duplex, group) in doomed {
                if let Some(duplex) = duplex.upgrade() {
                    group.reaped.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("call ended because its bytes were not read while memory was short");
                    duplex.lock().end(BodyError::Reaped, Reason::ENHANCE_YOUR_CALM);
                }
            }
        }
    }
}

impl Entry {
    fn note(&mut self, waiting: u64, taken: u64, now: Instant) {
        let still = waiting > 0 && taken == self.taken;
        self.stalled = if still { self.stalled.or(Some(now)) } else { None };
        self.waiting = waiting;
        self.taken = taken;
    }
}

impl Book {
    /// Whom to end, those without progress for longest first, until what is left
    /// fits. Their `waiting` is set to zero.
    fn doomed(
        &mut self,
        per_group: u64,
        total: u64,
        now: Instant,
        patience: Duration,
    ) -> Vec<(WeakDuplex, Arc<Group>)> {
        let mut sums: HashMap<*const Group, u64> = HashMap::new();
        let mut all = 0;
        for entry in self.entries.values() {
            *sums.entry(Arc::as_ptr(&entry.group)).or_default() += entry.waiting;
            all += entry.waiting;
        }
        if all <= total && sums.values().all(|sum| *sum <= per_group) {
            return Vec::new();
        }
        let mut stalled: Vec<(Instant, &mut Entry)> = self
            .entries
            .values_mut()
            .filter_map(|entry| entry.stalled.map(|since| (since, entry)))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= patience)
            .collect();
        stalled.sort_by_key(|(since, _)| *since);
        let mut doomed = Vec::new();
        for (_, entry) in stalled {
            let sum = sums.entry(Arc::as_ptr(&entry.group)).or_default();
            if *sum > per_group || all > total {
                *sum = sum.saturating_sub(entry.waiting);
                all = all.saturating_sub(entry.waiting);
                entry.waiting = 0;
                doomed.push((entry.duplex.clone(), entry.group.clone()));
            }
        }
        doomed
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(book) = self.book.upgrade() {
            lock(&book).entries.remove(&self.id);
        }
    }
}
