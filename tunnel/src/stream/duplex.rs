//! Both directions of a call behind one lock, so that its reader, its writer and
//! the reaper can each end it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;

use super::{Inbound, Outbound};
use crate::BodyError;

/// Both directions of one stream.
#[derive(Debug)]
pub(crate) struct Duplex {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    ended: Option<BodyError>,
    writer: Option<Waker>,
    /// Who read the inbound direction reads it no more.
    reader_gone: bool,
}

/// A [`Duplex`] that several hold. The lock is held for one poll at a time.
#[derive(Debug, Clone)]
pub(crate) struct SharedDuplex(Arc<Mutex<Duplex>>);

/// Does not keep the call alive.
#[derive(Debug, Clone)]
pub(crate) struct WeakDuplex(std::sync::Weak<Mutex<Duplex>>);

/// What the reaper looks at.
pub(crate) struct Usage {
    pub(crate) waiting: u64,
    pub(crate) taken: u64,
}

impl SharedDuplex {
    pub(crate) fn new(inbound: Inbound, outbound: Outbound) -> Self {
        Self(Arc::new(Mutex::new(Duplex {
            inbound,
            outbound,
            ended: None,
            writer: None,
            reader_gone: false,
        })))
    }

    /// A panic while it was held left at worst one call in disorder, which the
    /// owner of that call ends.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Duplex> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn downgrade(&self) -> WeakDuplex {
        WeakDuplex(Arc::downgrade(&self.0))
    }
}

impl WeakDuplex {
    pub(crate) fn upgrade(&self) -> Option<SharedDuplex> {
        self.0.upgrade().map(SharedDuplex)
    }
}

impl Duplex {
    /// Merges what waits, and tells how much it is.
    pub(crate) fn measure(&mut self) -> Usage {
        self.inbound.compact();
        Usage { waiting: self.inbound.waiting() as u64, taken: self.inbound.taken() }
    }

    /// Ends the call from outside, and tells its reader and its writer.
    pub(crate) fn end(&mut self, error: BodyError, reason: Reason) {
        self.ended.get_or_insert(error.clone());
        self.inbound.fail(error);
        self.outbound.abort(reason);
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// The connection ends: so does the call, unless all of it is here already.
    pub(crate) fn end_unless_whole(&mut self) {
        self.inbound.compact();
        if !self.inbound.has_end() {
            self.end(BodyError::Lost, Reason::CANCEL);
        }
    }

    /// Ends the call unless both directions have ended well.
    pub(crate) fn abandon(&mut self) {
        if !self.inbound.is_finished() || !self.outbound.is_ended() {
            self.outbound.abort(Reason::CANCEL);
        }
        self.inbound.close();
    }

    /// The reader of the inbound direction has gone; the sender may go on.
    pub(crate) fn release_reader(&mut self) {
        self.reader_gone = true;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Ready when the other end has ended too, so that dropping the call resets
    /// nothing that was just sent. What still comes is dropped.
    pub(crate) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_aborted(cx).is_ready() {
            return Poll::Ready(());
        }
        if self.reader_gone { self.inbound.poll_end(cx) } else { Poll::Pending }
    }

    /// The next payload received; see [`Inbound::poll_data`].
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        merge: usize,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.inbound.poll_data(cx, merge)
    }

    /// How many bytes may be sent; see [`Outbound::poll_ready`].
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, BodyError>> {
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        let ready = self.outbound.poll_ready(cx, want);
        self.note_writer(cx, ready.is_pending());
        ready
    }

    /// Ready when the call was ended, here or there.
    pub(crate) fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if let Some(error) = &self.ended {
            return Poll::Ready(error.clone());
        }
        let aborted = self.outbound.poll_aborted(cx);
        self.note_writer(cx, aborted.is_pending());
        aborted
    }

    fn note_writer(&mut self, cx: &Context<'_>, pending: bool) {
        if pending && !self.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
            self.writer = Some(cx.waker().clone());
        }
    }
}
