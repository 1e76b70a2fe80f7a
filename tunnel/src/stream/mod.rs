//! One stream of a call: what both ends do alike with it.

mod duplex;
mod gather;
mod inbound;
mod ledger;
mod outbound;

pub(crate) use duplex::SharedDuplex;
pub(crate) use gather::{Batch, Broken, Gatherer};
pub(crate) use inbound::{Inbound, Source};
pub(crate) use ledger::{Group, Ledger, Registration};
pub(crate) use outbound::{Outbound, Side, ok_trailers};
