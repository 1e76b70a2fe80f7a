//! What is remembered of one request while it runs, and written down when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use tokio::time::Instant;

use super::audit::{Line, Slot, Spool};
use super::live::Lease;
use super::metrics::{GatewayMetrics, OpenGuard, VerbClass};
use crate::supervise::Supervisor;

/// Bytes moved, counted where they pass.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    up: AtomicU64,
    down: AtomicU64,
}

impl Moved {
    pub(crate) fn up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Where records go.
#[derive(Debug, Clone)]
pub(crate) struct Books {
    pub(crate) spool: Spool,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) supervisor: Supervisor,
}

/// One request. Dropping it, by whatever way the request ended, writes its last line.
#[derive(Debug)]
pub(crate) struct Record {
    books: Books,
    line: Line,
    slot: Option<Slot>,
    begun: Instant,
    class: VerbClass,
    moved: Arc<Moved>,
    lease: Option<Lease>,
    _open: OpenGuard,
}

impl Record {
    pub(crate) fn begin(books: Books, slot: Slot, line: Line, class: VerbClass, begun: Instant) -> Record {
        let open = books.metrics.open(class);
        Record {
            books,
            line,
            slot: Some(slot),
            begun,
            class,
            moved: Arc::default(),
            lease: None,
            _open: open,
        }
    }

    pub(crate) fn moved(&self) -> Arc<Moved> {
        self.moved.clone()
    }

    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub(crate) fn hold(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// The cluster was found.
    pub(crate) fn of_cluster(&mut self, id: &str) {
        id.clone_into(&mut self.line.cluster);
    }

    /// The head of the answer is known.
    pub(crate) fn answered(&mut self, status: StatusCode, cause: &str) {
        self.line.status = status.as_u16();
        cause.clone_into(&mut self.line.cause);
        self.books.metrics.answered(self.class, status, self.begun.elapsed());
    }

    /// The answer is a stream: a line says so now, and another one when it ends.
    pub(crate) fn streams(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.write(&Line { stage: "started", duration_ms: self.elapsed_ms(), ..self.line.clone() });
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (up, down) = (self.moved.up.load(Ordering::Relaxed), self.moved.down.load(Ordering::Relaxed));
        let cut = self.lease.as_ref().and_then(Lease::cut);
        self.books.metrics.ended(up, down, cut.is_some());
        if self.line.status == 0 {
            // The caller left before there was an answer; nginx's number for that.
            self.line.status = 499;
        }
        if let Some(cut) = cut {
            cut.as_str().clone_into(&mut self.line.cause);
        }
        let mut line = std::mem::take(&mut self.line);
        (line.bytes_up, line.bytes_down, line.duration_ms) = (up, down, self.elapsed_ms());
        match self.slot.take() {
            Some(slot) => slot.write(&Line { stage: "complete", ..line }),
            None => {
                let line = Line { stage: "ended", ..line };
                let spool = self.books.spool.clone();
                self.books
                    .supervisor
                    .work("last audit line of a stream", async move { spool.write_late(&line).await });
            }
        }
    }
}
