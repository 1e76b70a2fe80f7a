//! What waits for `Control`: bounded, never awaited by who puts in.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::Ended;

/// Why an `Open` was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushError {
    /// Too much waits.
    Full,
    /// The session takes no new calls.
    Closed,
}

#[derive(Debug)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    open: bool,
    end: Option<Ended>,
    waker: Option<Waker>,
}

/// Messages down to one agent, and the order to end its session.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    max_frames: usize,
    max_bytes: usize,
}

impl Queue {
    pub(super) fn new(max_frames: usize, max_bytes: usize) -> Self {
        let state = State { frames: VecDeque::new(), bytes: 0, open: true, end: None, waker: None };
        Self { state: Mutex::new(state), max_frames, max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an `Open` in, if there is room.
    pub(super) fn push_open(&self, frame: Bytes) -> Result<(), PushError> {
        let mut state = self.lock();
        if !state.open {
            return Err(PushError::Closed);
        }
        if state.frames.len() >= self.max_frames || state.bytes + frame.len() > self.max_bytes {
            return Err(PushError::Full);
        }
        state.push(frame);
        Ok(())
    }

    /// Puts in what must go in any case and is bounded by the calls there are.
    pub(super) fn push(&self, frame: Bytes) {
        self.lock().push(frame);
    }

    /// Puts in what can as well be left out when much waits.
    pub(super) fn push_if_room(&self, frame: Bytes) {
        let mut state = self.lock();
        if state.frames.len() < self.max_frames {
            state.push(frame);
        }
    }

    /// No `Open` after this message.
    pub(super) fn close_with(&self, last: Option<Bytes>) {
        let mut state = self.lock();
        state.open = false;
        if let Some(last) = last {
            state.push(last);
        }
        state.wake();
    }

    /// Ends the session once what waits was sent; the first cause stays.
    pub(super) fn end(&self, why: Ended) {
        let mut state = self.lock();
        state.open = false;
        state.end.get_or_insert(why);
        state.wake();
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    pub(super) fn why_ended(&self) -> Option<Ended> {
        self.lock().end.clone()
    }

    /// Makes the session's task look around.
    pub(super) fn wake(&self) {
        self.lock().wake();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// Bytes that wait; registers for more when there are none.
    pub(super) fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        if state.bytes == 0 { Poll::Pending } else { Poll::Ready(state.bytes) }
    }

    /// As many whole messages as fit into `room`, as one piece.
    pub(super) fn take(&self, room: usize) -> Option<Bytes> {
        let mut state = self.lock();
        let first = state.frames.pop_front_if(|frame| frame.len() <= room)?;
        let mut left = room - first.len();
        let mut merged: Option<BytesMut> = None;
        while let Some(next) = state.frames.pop_front_if(|frame| frame.len() <= left) {
            left -= next.len();
            merged.get_or_insert_with(|| BytesMut::from(first.as_ref())).extend_from_slice(&next);
        }
        let taken = merged.map_or(first, BytesMut::freeze);
        state.bytes -= taken.len();
        Some(taken)
    }

    /// Throws away what waits: nobody reads it any more.
    pub(super) fn discard(&self) {
        let mut state = self.lock();
        state.frames.clear();
        state.bytes = 0;
    }

    /// Bytes of the first message.
    pub(super) fn first_len(&self) -> usize {
        self.lock().frames.front().map_or(0, Bytes::len)
    }
}

impl State {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_a_full_queue_refuses_at_once_and_a_cancel_still_goes() {
        let queue = Queue::new(2, 100);
        let frame = Bytes::from_static(&[0; 40]);
        assert_eq!(queue.push_open(frame.clone()), Ok(()));
        assert_eq!(queue.push_open(Bytes::from_static(&[0; 70])), Err(PushError::Full), "too many bytes");
        assert_eq!(queue.push_open(frame.clone()), Ok(()));
        assert_eq!(queue.push_open(Bytes::new()), Err(PushError::Full), "too many messages");
        queue.push(frame);
        assert_eq!(queue.take(1000).map(|all| all.len()), Some(120), "all in one piece");
        assert!(queue.is_empty());
    }

    #[test]
    fn only_whole_messages_leave() {
        let queue = Queue::new(10, 1000);
        for _ in 0..3 {
            queue.push(Bytes::from_static(&[0; 40]));
        }
        assert_eq!(queue.take(39), None);
        assert_eq!(queue.take(100).map(|two| two.len()), Some(80));
        assert_eq!(queue.first_len(), 40);
    }

    #[test]
    fn no_open_follows_the_closing_message() {
        let queue = Queue::new(10, 1000);
        queue.close_with(Some(Bytes::from_static(b"drain")));
        assert_eq!(queue.push_open(Bytes::from_static(b"open")), Err(PushError::Closed));
        assert_eq!(queue.take(100), Some(Bytes::from_static(b"drain")));
    }
}
