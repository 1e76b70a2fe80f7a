//! Both ends of the tunnel.
mod body;
mod bridge;
mod dial;
mod error;
mod holder;
mod hub;
mod keepalive;
mod limits;
mod link;
mod meter;
mod refusal;
mod stream;
mod upgraded;
mod wire;

pub use body::Body;
pub use dial::{Carrier, DialError, Dialer, Phase, Proxy, ProxyCredentials, Timeouts, bypasses_proxy, tune};
pub use error::{BodyError, CallError, Failure, FailureCode, RejectReason};
pub use hub::{
    Admission, Admitted, AgentKey, CallOptions, Cluster, Ended, Hub, HubCounts, Peer, SessionEvent,
    SessionInfo,
};
pub use limits::Limits;
pub use link::{
    Backoff, Call, Channel, Handler, Io, Kind, Link, LinkEnd, LinkError, Reply, ReplyBody, Signal, Welcome,
};
pub use refusal::{REFUSAL, RETRY_AFTER, Refusal, RefusalCode};
pub use upgraded::Upgraded;
pub use wire::WireError;

/// Any error that a body or a service may have.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
