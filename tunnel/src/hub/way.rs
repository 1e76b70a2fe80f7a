//! Where a call goes: to a session here, or to the replica that holds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::session::Session;
use super::{AgentKey, Hub};
use crate::{CallError, Link};

/// How often it is asked anew where an agent is that is on its way back.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Where a call goes.
pub(super) enum Way {
    /// To a session of this replica.
    Here(Arc<Session>),
    /// To another replica.
    There(Arc<Link>),
}

/// How the way is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// How long the agent may take to come back.
    pub(super) give_up: Instant,
    /// Only here: for calls that another replica has sent.
    pub(super) here: bool,
    /// What was found before was wrong.
    pub(super) anew: bool,
}

impl Hub {
    /// Waits for a way to the agent.
    pub(super) async fn way_to(&self, agent: AgentKey, search: Search) -> Result<Way, CallError> {
        let lines = self.0.lines.get().filter(|_| !search.here);
        let mut anew = search.anew;
        loop {
            let arrived = self.0.arrived.notified();
            let usable = self.current(agent).filter(|session| session.queue.is_open());
            if let Some(session) = usable {
                return Ok(Way::Here(session));
            }
            let look = async {
                let lines = lines?;
                if anew {
                    sleep_until(search.give_up.min(Instant::now() + LOOK_AGAIN)).await;
                }
                // Somebody else may be busy with a replica that does not answer.
                timeout_at(search.give_up.max(Instant::now() + LOOK_AGAIN), lines.reach(agent, anew))
                    .await
                    .ok()?
            };
            tokio::select! {
                () = arrived => continue,
                found = look => if let Some(line) = found {
                    return Ok(Way::There(line));
                },
            }
            anew = true;
            if lines.is_none() {
                self.until_arrived(agent, search.give_up).await;
            }
            if search.give_up <= Instant::now() && self.current(agent).is_none_or(|s| !s.queue.is_open()) {
                return Err(CallError::NotConnected { since: self.registry().ended(agent) });
            }
        }
    }

    /// A line takes no new calls any more.
    pub(super) fn retire(&self, line: &Arc<Link>) {
        if let Some(lines) = self.0.lines.get() {
            lines.retire(line);
        }
    }

    /// Waits for a session that takes calls, no longer than `until`.
    async fn until_arrived(&self, agent: AgentKey, until: Instant) {
        let arriving = async {
            loop {
                let arrived = self.0.arrived.notified();
                if self.current(agent).is_some_and(|session| session.queue.is_open()) {
                    return;
                }
                arrived.await;
            }
        };
        // Whether it came is looked at by whoever waits.
        let _ = timeout_at(until, arriving).await;
    }
}
