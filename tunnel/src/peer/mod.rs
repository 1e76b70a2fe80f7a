//! Several replicas of one controller: a call comes in at one of them, and the agent
//! is connected to another.
//!
//! The replica where a call came in has decided everything; the one that holds the
//! session, its owner, only carries it. The way between the two is one HTTP/2
//! connection, and on it a call is one stream with the messages of an agent's own
//! stream: so windows, budgets, half-close, reset and cancellation are the same code
//! on both stretches, and a small call is one message each way. The owner reports its
//! own troubles by kind ([`trouble`]), so that a refusal reads the same wherever the
//! caller came in.
//!
//! Who owns an agent is not known here: the controller tells it by [`Peering`].
//!
//! Mistakes a newcomer could make:
//! - letting the owner wait for an agent: it may come back anywhere, so the replica
//!   where the caller waits does the waiting;
//! - offering a call again after its upload began, or after a connection broke: it may
//!   have been carried out.

mod forward;
mod lines;
mod serve;
mod trouble;

use std::io;

use futures::future::BoxFuture;
use uuid::Uuid;

use crate::{AgentKey, Io};

pub(crate) use forward::{Forwarded, forward, tell};
pub(crate) use lines::Lines;
pub(crate) use serve::serve;
pub(crate) use trouble::trouble_in;

/// The replica that holds an agent's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub replica: Uuid,
    /// `host:port` at which other replicas reach it.
    pub address: String,
}

/// What a replica knows of the others.
pub trait Peering: Send + Sync + 'static {
    /// The other replica that holds the agent's session, as far as it is known at once.
    fn owner(&self, agent: AgentKey) -> Option<Owner>;

    /// The same, looked up anew; nobody when that fails.
    fn ask(&self, agent: AgentKey) -> BoxFuture<'_, Option<Owner>>;

    /// Connects to a replica, and has proof that it is that one.
    fn dial<'a>(&'a self, owner: &'a Owner) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;
}

/// A session that began at some replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Whose it is.
    pub agent: AgentKey,
    /// Its epoch.
    pub epoch: u64,
    /// The agent's process.
    pub instance: [u8; 16],
    /// Where it comes from.
    pub source: String,
}
