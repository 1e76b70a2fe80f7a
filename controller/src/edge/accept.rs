//! The accept loop: one small task per connection, nothing a client controls in the loop itself.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::handshake::{self, Connection, DoorTls, TurnedAway};
use super::limits::{EdgeLimits, Pace, PerSource, Place};
use super::metrics::{Early, EdgeMetrics, Outcome};
use super::name::{Arrival, Door, Names};
use crate::supervise::Supervisor;

/// The rooms behind the doors.
pub(crate) trait Rooms: Clone + Send + Sync + 'static {
    /// Serves a connection until it ends.
    fn welcome(&self, connection: Connection) -> impl Future<Output = ()> + Send;

    /// Is told of a client that had named its door and did not get in.
    fn turned_away(&self, arrival: Arrival, cause: TurnedAway) -> impl Future<Output = ()> + Send;
}

/// The port, ready to serve.
pub(crate) struct Edge {
    listener: TcpListener,
    gate: Arc<Gate>,
    supervisor: Supervisor,
}

/// What every connection's task shares.
struct Gate {
    names: Names,
    tls: watch::Receiver<Arc<DoorTls>>,
    limits: EdgeLimits,
    metrics: EdgeMetrics,
    hellos: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    agents: Arc<Semaphore>,
    sources: PerSource,
    pace: Pace,
}

/// How long the loop rests when the process has no file descriptor or memory left.
const REST: Duration = Duration::from_millis(100);

impl Edge {
    pub(crate) fn new(
        listener: TcpListener,
        names: Names,
        tls: watch::Receiver<Arc<DoorTls>>,
        limits: EdgeLimits,
        metrics: EdgeMetrics,
        supervisor: Supervisor,
    ) -> Self {
        let gate = Gate {
            hellos: Arc::new(Semaphore::new(limits.handshakes)),
            clients: Arc::new(Semaphore::new(limits.clients)),
            agents: Arc::new(Semaphore::new(limits.agents)),
            sources: PerSource::new(limits.handshakes_per_source),
            pace: Pace::new(limits.agents_per_second, limits.agents_wait),
            names,
            tls,
            limits,
            metrics,
        };
        Edge { listener, gate: Arc::new(gate), supervisor }
    }

    /// Accepts until the process stops; then the listener is closed.
    pub(crate) async fn run<R: Rooms>(self, rooms: R) -> Result<(), Infallible> {
        let stop = self.supervisor.stopping().clone();
        while let Some((tcp, source, permit)) = stop.run_until_cancelled(self.next()).await {
            let Some(place) = self.gate.sources.place(source.ip()) else {
                self.gate.metrics.early(Early::Source);
                continue;
            };
            let connection = self.gate.clone().receive(tcp, source, (permit, place), rooms.clone());
            self.supervisor.work("connection", connection);
        }
        Ok(())
    }

    /// The next connection, whatever it takes.
    async fn next(&self) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        loop {
            let permit = self.gate.hellos.clone().acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((tcp, source)) => return (tcp, source, permit),
                Err(error) => {
                    self.gate.metrics.early(Early::Accept);
                    if !is_of_one_connection(&error) {
                        tracing::warn!(%error, "no connection can be accepted at the moment");
                        sleep(REST).await;
                    }
                }
            }
        }
    }
}

/// `accept` also reports failures of the connection it was about to return.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Gate {
    async fn receive<R: Rooms>(
        self: Arc<Self>,
        tcp: TcpStream,
        source: SocketAddr,
        (permit, place): (Option<OwnedSemaphorePermit>, Place),
        rooms: R,
    ) {
        let begun = Instant::now();
        if let Err(error) = handshake::tune(&tcp) {
            tracing::debug!(%source, %error, "the connection ended before it began");
            return self.metrics.early(Early::Hello);
        }
        let start = match handshake::hello(tcp, begun, &self.limits).await {
            Ok(start) => start,
            Err(cause) => {
                tracing::debug!(%source, ?cause, "connection closed before it named a door");
                return self.metrics.early(cause);
            }
        };
        drop(permit);
        let arrival = handshake::arrival(&start, source, &self.names);
        let passed = match self.admit(arrival.door).await {
            Some(open) => {
                let tls = self.tls.borrow().clone();
                let deadline = Instant::now() + self.limits.handshake;
                handshake::finish(start, &arrival, &tls, deadline).await.map(|connection| (connection, open))
            }
            None => Err(TurnedAway::Full),
        };
        drop(place);
        match passed {
            Ok((connection, _open)) => {
                self.metrics.handshake(arrival.door, Outcome::Passed);
                let _counted = self.metrics.open(arrival.door);
                rooms.welcome(connection).await;
            }
            Err(cause) => {
                self.metrics.handshake(arrival.door, outcome(&cause));
                tracing::debug!(%source, door = ?arrival.door, cause = %chain(&cause), "connection turned away");
                rooms.turned_away(arrival, cause).await;
            }
        }
    }

    /// A place at the door; for agents, when it is their turn.
    async fn admit(&self, door: Door) -> Option<OwnedSemaphorePermit> {
        if door != Door::Agents {
            return self.clients.clone().try_acquire_owned().ok();
        }
        let permit = self.agents.clone().try_acquire_owned().ok()?;
        sleep(self.pace.turn(Instant::now())?).await;
        Some(permit)
    }
}

fn outcome(cause: &TurnedAway) -> Outcome {
    match cause {
        TurnedAway::Timeout => Outcome::Timeout,
        TurnedAway::Full => Outcome::Full,
        TurnedAway::Tls(_) => Outcome::Tls,
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
