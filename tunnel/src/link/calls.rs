//! The calls of a session at the agent: how many, and how to end one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::AbortHandle;

use crate::wire::CallId;

#[derive(Default)]
struct State {
    running: HashMap<CallId, AbortHandle>,
    /// Who waits for there to be none.
    waiting: Option<Waker>,
}

/// The running calls; all end when this is dropped.
#[derive(Default)]
pub(super) struct Calls(Arc<Mutex<State>>);

/// Takes its call out when it is dropped, as the task's future is.
pub(super) struct Running {
    state: Arc<Mutex<State>>,
    id: CallId,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        lock(&self.0).running.len()
    }

    /// Starts a task for a call; an id that runs already is refused.
    pub(super) fn start<F>(&self, id: CallId, work: impl FnOnce(Running) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut state = lock(&self.0);
        if state.running.contains_key(&id) {
            return false;
        }
        // Under the lock, so that a task that ends at once finds itself.
        let task = tokio::spawn(work(Running { state: self.0.clone(), id }));
        state.running.insert(id, task.abort_handle());
        true
    }

    pub(super) fn cancel(&self, id: CallId) {
        let task = lock(&self.0).running.remove(&id);
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Ready when no call runs.
    pub(super) fn poll_none(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.running.is_empty() {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let running = std::mem::take(&mut lock(&self.0).running);
        for task in running.values() {
            task.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.running.remove(&self.id);
        if state.running.is_empty()
            && let Some(waiting) = state.waiting.take()
        {
            waiting.wake();
        }
    }
}
