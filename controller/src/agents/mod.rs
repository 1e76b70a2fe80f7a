//! The agents' door: enrolment, renewal, and the way into the tunnel.
//!
//! A connection is handed to the tunnel's hub, which speaks HTTP/2 on it; what is not the
//! tunnel's own goes to the [`enrolment`] service here. TLS asks for a client certificate and
//! takes none for an answer, because an agent that enrols has none yet: so each call decides
//! for itself what it needs, and nothing trusts the server name.
//!
//! The second duty of this room is to see. An agent's operator sees a pod that does not come
//! up; the person in front of the console sees a cluster that stays grey. An agent that enrols
//! therefore says its token's public id in the server name, before anything else, and each
//! step from there is written down as the controller itself observed it ([`sight`]): a
//! handshake that fails is told apart by its alert, a connection that asks for nothing after
//! TLS points at something that opens TLS in between.
//!
//! Mistakes a newcomer could make:
//! - to let a failure to write an attempt down stop the enrolment: it is only for eyes;
//! - to tell an agent a cause in free text: causes and remedies come from one table;
//! - to take the identity from anything but the certificate of the connection.

mod admission;
mod door;
mod enrolment;
mod figures;
mod metrics;
mod news;
mod refusal;
mod sight;
mod silence;
mod telemetry;

pub(crate) use self::door::{Agents, Caller, LEAD};
pub(crate) use self::metrics::AgentMetrics;
