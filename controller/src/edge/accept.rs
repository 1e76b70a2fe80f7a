//! The accept loop: one small task per connection, nothing a client controls in the loop itself.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tokio_rustls::StartHandshake;

use super::carried::{Carried, Inner};
use super::handshake::{self, Connection, DoorTls, TurnedAway};
use super::limits::{EdgeLimits, Pace, PerSource, Place};
use super::metrics::{Early, EdgeMetrics, Outcome};
use super::name::{Arrival, Door, Names};
use crate::supervise::Supervisor;

/// The rooms behind the doors.
pub(crate) trait Rooms: Clone + Send + Sync + 'static {
    /// Serves a connection until it ends.
    fn welcome(&self, connection: Connection<TcpStream>) -> impl Future<Output = ()> + Send;

    /// Serves an agent whose connection came inside a WebSocket, until it ends.
    fn welcome_carried(&self, connection: Connection<Inner>) -> impl Future<Output = ()> + Send;

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
pub(super) struct Gate {
    names: Names,
    tls: watch::Receiver<Arc<DoorTls>>,
    limits: EdgeLimits,
    metrics: EdgeMetrics,
    hellos: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    agents: Arc<Semaphore>,
    total: Arc<Semaphore>,
    greeting: PerSource,
    open: PerSource,
    pace: Pace,
}

/// What a connection takes up: the first two until it is through the door.
struct Held {
    hello: Option<OwnedSemaphorePermit>,
    greeting: Place,
    open: Place,
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
            clients: Arc::new(Semaphore::new(limits.side())),
            agents: Arc::new(Semaphore::new(limits.side())),
            total: Arc::new(Semaphore::new(limits.connections)),
            greeting: PerSource::new(limits.handshakes_per_source),
            open: PerSource::new(limits.connections_per_source),
            pace: Pace::new(limits.agents_per_second, limits.agents_wait),
            names,
            tls,
            limits,
            metrics,
        };
        Edge { listener, gate: Arc::new(gate), supervisor }
    }

    /// What takes agents that come inside a WebSocket.
    pub(crate) fn carried(&self) -> Carried {
        Carried::new(self.gate.clone(), self.supervisor.clone())
    }

    /// Accepts until the process stops; then the listener is closed.
    pub(crate) async fn run<R: Rooms>(self, rooms: R) -> Result<(), Infallible> {
        let stop = self.supervisor.stopping().clone();
        while let Some((tcp, source, permit)) = stop.run_until_cancelled(self.next()).await {
            let places = (self.gate.greeting.place(source.ip()), self.gate.open.place(source.ip()));
            let (Some(greeting), Some(open)) = places else {
                self.gate.metrics.early(Early::Source);
                continue;
            };
            let held = Held { hello: permit, greeting, open };
            let connection = self.gate.clone().receive(tcp, source, held, rooms.clone());
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
    async fn receive<R: Rooms>(self: Arc<Self>, tcp: TcpStream, source: SocketAddr, held: Held, rooms: R) {
        let Held { hello, greeting, open: _open } = held;
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
        drop(hello);
        let arrival = handshake::arrival(&start, source, &self.names);
        let passed = self.let_in(start, &arrival).await;
        drop(greeting);
        match passed {
            Ok((connection, _place)) => {
                if arrival.door == Door::Agents {
                    handshake::limit_unsent(connection.stream.get_ref().0);
                }
                let _counted = self.metrics.open(arrival.door);
                rooms.welcome(connection).await;
            }
            Err(cause) => rooms.turned_away(arrival, cause).await,
        }
    }

    /// One stream inside a WebSocket, until it ends. Only agents come so.
    pub(super) async fn receive_carried<R: Rooms>(&self, io: Inner, source: SocketAddr, rooms: R) {
        let places = (self.greeting.place(source.ip()), self.open.place(source.ip()));
        let (Some(greeting), Some(_open)) = places else { return self.metrics.early(Early::Source) };
        let start = match handshake::inner_hello(io, Instant::now(), &self.limits).await {
            Ok(start) => start,
            Err(cause) => return self.metrics.early(cause),
        };
        let arrival = handshake::arrival(&start, source, &self.names);
        if arrival.door != Door::Agents {
            tracing::debug!(%source, door = ?arrival.door, "a WebSocket that leads to no agents' door was closed");
            return self.metrics.early(Early::Hello);
        }
        let passed = self.let_in(start, &arrival).await;
        drop(greeting);
        match passed {
            Ok((connection, _place)) => {
                let _counted = self.metrics.open(arrival.door);
                rooms.welcome_carried(connection).await;
            }
            Err(cause) => rooms.turned_away(arrival, cause).await,
        }
    }

    /// From a named door to a place behind it.
    async fn let_in<IO>(
        &self,
        start: StartHandshake<IO>,
        arrival: &Arrival,
    ) -> Result<(Connection<IO>, [OwnedSemaphorePermit; 2]), TurnedAway>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let passed = match self.admit(arrival.door).await {
            Some(place) => {
                let tls = self.tls.borrow().clone();
                let deadline = Instant::now() + self.limits.handshake;
                handshake::finish(start, arrival, &tls, deadline).await.map(|connection| (connection, place))
            }
            None => Err(TurnedAway::Full),
        };
        self.metrics.handshake(arrival.door, passed.as_ref().map_or_else(outcome, |_| Outcome::Passed));
        if let Err(cause) = &passed {
            tracing::debug!(source = %arrival.source, door = ?arrival.door, cause = %chain(cause), "connection turned away");
        }
        passed
    }

    /// A place at the door; for agents, when it is their turn.
    async fn admit(&self, door: Door) -> Option<[OwnedSemaphorePermit; 2]> {
        let side = if door == Door::Agents { &self.agents } else { &self.clients };
        let places = [side.clone().try_acquire_owned().ok()?, self.total.clone().try_acquire_owned().ok()?];
        if door == Door::Agents {
            sleep(self.pace.turn(Instant::now())?).await;
        }
        Some(places)
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
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
