//! Whose turn it is: a connection with many calls lets them speak before it writes.
//!
//! A call that sends wakes its connection's task, which would run next and write that one
//! frame. With other calls ready behind it, going to the end of the queue first makes one
//! record and one system call of what all of them send: a fifth less processor time with 64
//! busy calls. With few calls there is nothing to gather, and only a wake-up to lose.

use std::task::Context;

/// Open calls from which on gathering pays.
const CROWD: usize = 4;

/// The turns of one connection's task.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    waited: bool,
}

impl Turn {
    /// Whether the task is to return now: others come first, and it is woken again.
    pub(crate) fn wait(&mut self, open_calls: usize, cx: &Context<'_>) -> bool {
        self.waited = !self.waited && open_calls >= CROWD;
        if self.waited {
            cx.waker().wake_by_ref();
        }
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn turns(open_calls: usize) -> Vec<bool> {
        let (mut turn, cx) = (Turn::default(), Context::from_waker(Waker::noop()));
        (0..4).map(|_| turn.wait(open_calls, &cx)).collect()
    }

    #[test]
    fn a_crowd_waits_once_before_each_turn_and_a_few_never() {
        assert_eq!(turns(CROWD), [true, false, true, false]);
        assert_eq!(turns(CROWD - 1), [false; 4]);
    }
}
