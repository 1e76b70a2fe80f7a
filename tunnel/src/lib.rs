//! Both ends of the tunnel between an agent and its controller.
//!
//! The agent dials; then the controller asks and the agent answers. One HTTP/2
//! connection carries it all: a `Control` stream on which calls are opened and
//! cancelled, and one `Answer` stream for each call, started by the agent. The
//! wire contract is `proto/culvert/tunnel/v1/tunnel.proto`, and it is plain gRPC:
//! a generated client interoperates, a test says so.
//!
//! # Why it is built on `h2` and not on tonic
//!
//! The tunnel is judged by what happens under pressure, and there the layers above
//! `h2` decide the wrong things. With our own framing
//!
//! - payload is handed on as it arrives, as slices of what was read, never
//!   collected into messages and never copied into frames;
//! - HTTP/2 credit goes back when the consumer takes bytes, so a slow reader slows
//!   its own sender and nobody else;
//! - an `Answer` that is complete leaves as one frame in one write;
//! - what a dropped future must cause on the wire (a reset, a `Cancel`, nothing)
//!   is decided here, for each state of a call.
//!
//! # Who runs where
//!
//! At the controller a connection is one task ([`Hub::serve`]): it drives HTTP/2,
//! reads `Control`, writes what the bounded queue holds, watches the clock, and
//! hands each `Answer` to the future that waits for it. A call has no task: the
//! caller's own future reads the answer's stream. Only a request body that is
//! longer than what rides in `Open` gets one. At the agent ([`Link`]) `Control`
//! runs inside the connection's task, and each call is one task.
//!
//! Several controllers share one database and one another's agents: what a call needs to
//! cross from the replica where it came in to the one that holds the session is `peer`.
//!
//! # Mistakes a newcomer could make
//!
//! - **Waiting in a connection's task.** No dial, no database, no consumer, no
//!   channel send is awaited there; admission is polled beside the rest.
//! - **Shrinking the connection window.** It is 2³¹−1 so that an unread call never
//!   stops another. What bounds memory instead is the reaper: it merges what
//!   nobody takes (a frame inside h2 costs far more than 20 bytes of payload) and,
//!   over a budget, ends the calls without progress for longest.
//! - **Lowering h2's limits on resets.** Calls that end by a reset are everyday
//!   business. With h2's defaults some twenty aborts in one read, or a thousand in
//!   a connection's life, end the connection with every other call on it.
//! - **Dropping a stream right after its last byte.** h2 then sends a reset behind
//!   it, which can overtake the accept at the other end, and throws away what of the
//!   stream still waits to be sent. The agent waits for the end of the controller's
//!   side first, HTTP/2's own and not only the `end` message, and the controller can
//!   read an answer whose stream was reset after it was whole.
//! - **Taking the end of `Control` for the end of the connection.** Streams overtake
//!   each other: what was answered before may come after.
//! - **Taking the end of a stream for the end of a body.** Only an `end` message
//!   ends a direction; a stream that just stops was cut.
//! - **Writing an error into a stream that has begun.** Abort it.
//! - **Trusting a call id alone.** A call is looked up in the session of the very
//!   connection its answer came on; identity and epoch are right by construction.
//!   As `Control` is ordered, a `Cancel` never overtakes its `Open`, and an answer
//!   that comes too late finds no call: no tombstones are needed.

mod body;
mod bridge;
mod copy;
mod dial;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod holder;
mod hub;
mod keepalive;
mod limits;
mod link;
mod meter;
mod peer;
mod refusal;
mod stream;
mod turn;
mod upgraded;
pub mod websocket;
mod wire;

pub use body::Body;
pub use dial::{
    Carrier, DialError, Dialer, Phase, Proxy, ProxyCredentials, Timeouts, Via, bypasses_proxy, tune,
};
pub use error::{BodyError, CallError, Failure, FailureCode, RejectReason};
pub use hub::{
    Admission, Admitted, AgentKey, CallOptions, Cluster, Ended, Hub, HubCounts, Peer, SessionEvent,
    SessionInfo,
};
pub use limits::Limits;
pub use link::{
    Backoff, Call, Channel, Handler, Io, Kind, Link, LinkEnd, LinkError, Reply, ReplyBody, Signal, Welcome,
};
pub use peer::{Moved, Owner, Peering};
pub use refusal::{REFUSAL, RETRY_AFTER, Refusal, RefusalCode};
pub use upgraded::Upgraded;
pub use wire::WireError;

/// Any error that a body or a service may have.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
