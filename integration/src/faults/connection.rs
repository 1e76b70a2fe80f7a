//! One connection through the proxy, and the ways in which it ends.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep_until;

use super::Faults;
use super::line::{Direction, Traffic, carry};

/// What happens to all connections at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Reset,
    CloseToController,
    CloseToAgent,
}

/// A connection, end to end.
pub(super) struct Way {
    agent: (OwnedReadHalf, OwnedWriteHalf),
    controller: (OwnedReadHalf, OwnedWriteHalf),
    faults: watch::Receiver<Faults>,
    events: broadcast::Receiver<Event>,
}

/// Why it does not go on.
enum End {
    /// Both directions ended, or one broke.
    Over,
    /// Something was done to it.
    Done(Event),
    /// The idle killer has forgotten it.
    Forgotten,
}

impl Way {
    pub(super) fn new(
        agent: TcpStream,
        controller: TcpStream,
        faults: watch::Receiver<Faults>,
        events: broadcast::Receiver<Event>,
    ) -> Self {
        for stream in [&agent, &controller] {
            // Only makes small chunks slower where it fails.
            let _ = stream.set_nodelay(true);
        }
        Self { agent: agent.into_split(), controller: controller.into_split(), faults, events }
    }

    /// Carries both directions until the end, and ends in the way of it.
    pub(super) async fn carry(mut self) {
        match self.until_end().await {
            End::Over => {}
            End::Done(Event::Reset) => {
                reset(self.agent);
                reset(self.controller);
            }
            End::Done(Event::CloseToController) => {
                drop(self.controller);
                keep(self.agent, self.events).await;
            }
            End::Done(Event::CloseToAgent) => {
                drop(self.agent);
                keep(self.controller, self.events).await;
            }
            End::Forgotten => keep((self.agent, self.controller), self.events).await,
        }
    }

    async fn until_end(&mut self) -> End {
        let traffic = Traffic::new();
        let ((from_agent, to_agent), (from_controller, to_controller)) =
            (&mut self.agent, &mut self.controller);
        let up = carry(Direction::Up, from_agent, to_controller, self.faults.clone(), &traffic);
        let down = carry(Direction::Down, from_controller, to_agent, self.faults.clone(), &traffic);
        let both = async { tokio::try_join!(up, down) };
        tokio::select! {
            // An error is the end of one of the two, which ends the other one, too.
            _ = both => End::Over,
            Ok(event) = self.events.recv() => End::Done(event),
            () = forgotten(self.faults.clone(), &traffic) => End::Forgotten,
        }
    }
}

/// Ends it with a reset, and no end of a direction before that.
fn reset((reading, writing): (OwnedReadHalf, OwnedWriteHalf)) {
    // A stream that is broken already needs none.
    let _ = reading.as_ref().set_zero_linger();
    writing.forget();
}

/// Holds sockets that nobody serves, until the proxy ends or all is reset.
async fn keep<T>(sockets: T, mut events: broadcast::Receiver<Event>) {
    while !matches!(events.recv().await, Ok(Event::Reset) | Err(_)) {}
    drop(sockets);
}

/// A connection that leads nowhere.
pub(super) async fn dead_end(agent: TcpStream, events: broadcast::Receiver<Event>) {
    keep(agent, events).await;
}

/// Ready when nothing has passed for as long as the line's state allows.
async fn forgotten(mut faults: watch::Receiver<Faults>, traffic: &Traffic) {
    loop {
        let limit = faults.borrow_and_update().forgotten_after;
        let changed = match limit {
            Some(limit) => sleep_until_idle(traffic, limit, &mut faults).await,
            None => faults.changed().await.is_ok(),
        };
        if !changed {
            return;
        }
    }
}

/// Waits for that much silence; true when the state of the line changed before.
async fn sleep_until_idle(traffic: &Traffic, limit: Duration, faults: &mut watch::Receiver<Faults>) -> bool {
    loop {
        let end = traffic.last() + limit;
        tokio::select! {
            Ok(()) = faults.changed() => return true,
            () = sleep_until(end) => if traffic.last() + limit <= end { return false },
        }
    }
}
