//! What every controller stands on: one way to run, apply, report and fail.
//!
//! A controller is a module with `run(world, stop)`. It makes a [`kube::runtime::Controller`] and gives it to
//! [`Work::run`] with an async function from an object to a [`Next`]. Around that function stand:
//!
//! - **isolation**: each object is worked on in a task of its own, with a time limit, at most
//!   `--concurrency` at a time; a panic, a hang or an error concerns this object alone;
//! - **backoff**: an object that fails is tried again after a pause that doubles, with jitter, up to
//!   five minutes, whatever events arrive meanwhile;
//! - **one field manager** per controller: [`Work::apply`] takes our children whole (force), [`Work::status`]
//!   writes the part of a status that is this controller's.
//!
//! Conditions are made new in each round ([`Conditions`]); only the time of the last change is taken from what
//! stands there.

mod apply;
mod backoff;
mod conditions;
mod error;
mod events;
pub(crate) mod kept;
mod look;
mod owner;
mod work;
mod world;

pub(crate) use conditions::{Conditions, Verdict};
pub(crate) use error::Error;
pub(crate) use kept::Kept;
pub(crate) use owner::{labels, owned, owner};
pub(crate) use work::{Next, Work};
pub(crate) use world::World;
