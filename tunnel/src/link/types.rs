//! What the agent's end tells and asks: values only.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Body, BoxError, Failure, Refusal};

/// The body of a reply. An error in it aborts the call.
pub type ReplyBody = UnsyncBoxBody<Bytes, BoxError>;

/// A byte stream that a call is connected to.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Carries out calls. One task runs per call; its future is dropped when the
/// caller gives up, the deadline passes or the connection ends.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Carries out one call.
    fn handle(&self, call: Call) -> impl Future<Output = Result<Reply, Failure>> + Send;
}

/// What a call asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One HTTP request.
    Http,
    /// An HTTP request that asks for an upgrade; refused ones are answered as
    /// [`Reply::Http`] with the target's own status.
    Upgrade,
    /// A byte stream to a target of the local policy.
    Tcp(String),
}

/// A call to carry out.
#[derive(Debug)]
pub struct Call {
    /// What it asks for.
    pub kind: Kind,
    /// Method, path and query, headers and body; for TCP an empty one.
    pub request: http::Request<Body>,
    /// In whose name.
    pub caller: proto::Caller,
    /// The id that logs of both ends share.
    pub request_id: String,
    /// W3C trace context, empty when there is none.
    pub traceparent: String,
    /// Until the head must be there. The controller watches it; a handler may
    /// use it to fail earlier with a better cause.
    pub deadline: Option<Duration>,
}

/// The answer to a call.
pub enum Reply {
    /// An HTTP response, streamed as its body comes.
    Http(http::Response<ReplyBody>),
    /// Bytes both ways: after an upgrade (head 101), or TCP (head 200).
    Stream {
        /// The head.
        head: http::Response<()>,
        /// The target.
        io: Box<dyn Io>,
    },
}

/// What the owner of a link must know while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// The session began. Keep the epoch for the next `Hello`.
    Welcome(Welcome),
    /// Renew the certificate now.
    Renew,
    /// Open another connection within this time; this one ends when its calls have.
    Drain {
        /// Spread the new connection over this time.
        spread: Duration,
        /// This connection is closed after this time.
        deadline: Duration,
    },
    /// The next process of this agent took over: calls that run may end, and until then
    /// no connection is opened and no certificate asked for.
    HandedOver,
    /// A heartbeat's round trip.
    Beat {
        /// From sending to its echo.
        rtt: Duration,
    },
}

/// The begin of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Its epoch.
    pub epoch: u64,
    /// The replica that holds it.
    pub replica: String,
    /// The controller's clock minus ours, milliseconds.
    pub clock_skew_ms: i64,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// The controller asked to move, and the calls have ended.
    #[error("drained")]
    Drained,
    /// Another session of this identity took over.
    #[error("another connection with this identity took over, from {from}")]
    Superseded {
        /// Whether it was this same process, so that nothing is wrong.
        same_instance: bool,
        /// Where the other came from.
        from: String,
    },
    /// The next process of this agent took over, and the calls have ended.
    #[error("handed over to {from}")]
    HandedOver {
        /// Where the other came from.
        from: String,
    },
    /// The controller will not have it.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection was lost.
    #[error("the connection to the controller was lost: {0}")]
    Lost(String),
}
