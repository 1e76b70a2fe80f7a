//! The kubectl door: parse, authorise, put on record, forward.
//!
//! A request is read the way Kubernetes' API server reads it ([`request`]), so that what is
//! authorised here is what is carried out there; whatever two programs could read in two ways
//! is refused. The caller is a person's certificate or a bearer token. The agent carries the
//! request out in the caller's name, so the cluster's own RBAC is a second lock, and the
//! cluster's local policy a third.
//!
//! Nothing is forwarded whose line of audit could not be written ([`audit`]). A forwarded call
//! is listed with what its right hangs on ([`live`]) and ends within seconds of that right.
//! Bodies and upgraded connections pass as they come; errors of the gateway's own are
//! Kubernetes `Status` objects ([`status`]), and once a stream has begun it is reset instead:
//! text written into it would be taken for data.
//!
//! Mistakes a newcomer could make:
//! - to normalise a path before forwarding: then the path authorised is not the path forwarded;
//! - to let a new header through by deny-listing others ([`headers`] names what passes);
//! - to give a watch, a log or an `exec` a deadline: silence is normal there;
//! - to answer for an upgrade before the cluster has: kubectl falls back from WebSocket to SPDY
//!   by the cluster's real status.

mod access;
mod audit;
mod body;
mod failure;
mod headers;
mod live;
mod metrics;
mod record;
mod request;
mod service;
mod status;
mod upgrade;

pub(crate) use self::audit::Spool;
pub(crate) use self::body::Answer;
pub(crate) use self::live::LiveCalls;
pub(crate) use self::metrics::GatewayMetrics;
pub(crate) use self::record::Books;
pub(crate) use self::service::{Gateway, Visit};
