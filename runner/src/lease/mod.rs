//! Who is primary: the holder of one Kubernetes Lease.
//!
//! [`record`] is what stands in the Lease, [`rule`] decides what to do with it, [`claim`] decides whether this
//! instance may want it, [`synchronous`] keeps its list of standbys true, and [`keeper`] does all that against the
//! API server. [`fence`] ends the engine when the Lease could not be renewed, even when nothing else of this
//! process gets to run.
//!
//! What holds whatever fails:
//! - Two instances never take writes at once. A holder ends its engine a margin before the Lease can be taken, by its
//!   own clock that does not run backwards; a taker waits the whole time of the Lease from when *it* first saw the
//!   record, by its own. Only the length of a second has to be the same for both, within the margin.
//! - With synchronous replication no acknowledged write is lost: the Lease names a standby only once it has all of
//!   them, commits wait for every standby that the Lease names, and nobody else is promoted.
//! - A single instance never fences itself: nobody else may take its Lease (`fenced: false`), so it serves on while
//!   the API server is away.
//!
//! A machine that is frozen and thawed is beyond this: for the moment until the fence runs its engine may answer.
//! With synchronous replication even that acknowledges nothing, because the standby has left.
pub mod claim;
pub mod fence;
pub mod keeper;
pub mod record;
pub mod rule;
pub mod synchronous;
