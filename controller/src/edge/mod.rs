//! The controller's one port: accepts connections, limits them, speaks TLS, and finds the door.
//!
//! One TCP port serves browsers, `kubectl` and agents. The name in the TLS ClientHello (SNI)
//! chooses the door, and with it the server certificate, whether a client certificate is asked
//! for, and the protocols on offer. **The name chooses the door, never the rights**: those come
//! from the certificate or token that the room behind the door checks. Everything here runs
//! before anybody is known, so everything here is bounded: the handshakes in flight (of one
//! network and of all), their time, the connections per door, the head of a request and the
//! time it may take, and the pace at which agents are let in.
//!
//! Where a box on the way ends TLS, an agent comes by a WebSocket to the API's door, with the same
//! TLS session inside (`carried`). What the box shows or says grants nothing: the inner session
//! passes the same limits and the same checks.
//!
//! The edge knows no room. Whoever wires the process gives it a [`Rooms`], and is told of each
//! connection that passed and each that did not, with the cause: an agent's operator who sees
//! "handshake failed" in a pod's log shall find the same failure at the controller, by name.
//!
//! Mistakes a newcomer could make:
//! - to wait in the accept loop for anything a client controls: one slow client then stops all;
//! - to end the loop on an error of `accept`: running out of file descriptors passes, the
//!   listener would be gone for good;
//! - to turn on TLS session tickets for a door that takes client certificates: an expired
//!   certificate is then accepted through a resumed session;
//! - to use HTTP/2's defaults: one stalled stream then stops its connection.

mod accept;
mod carried;
mod handshake;
mod limits;
mod metrics;
mod name;
mod serve;

pub(crate) use self::accept::{Edge, Rooms};
pub(crate) use self::carried::{Carried, Inner};
pub(crate) use self::handshake::{Connection, DoorTls, TurnedAway};
pub(crate) use self::limits::EdgeLimits;
pub(crate) use self::metrics::EdgeMetrics;
pub(crate) use self::name::{Arrival, Door, Names};
pub(crate) use self::serve::{HttpLimits, Service, serve};

#[cfg(test)]
mod tests;
