//! Keeps the agent connected: dials, waits after failures, and changes connections without a gap.
//!
//! One loop owns every decision ([`Life`]); what may take time runs in tasks of
//! its own and reports back. Usually there is one connection. There are two
//! while one takes over from another: after a renewal, or when the controller
//! drains. The older one takes no new calls, finishes its own, and ends.
//!
//! Mistakes a newcomer could make:
//! - To close the old connection when the new one is dialled. Only the
//!   controller's welcome proves that the new one works.
//! - To fight. When another process of the same identity took over, this one
//!   goes into reserve and asks now and then whether the other has gone.
//! - To dial at once after every loss: a controller that restarts would meet all
//!   its agents in the same second.
mod attempt;
mod carrier;
mod life;
mod way;

pub use life::{Life, LifeEnd, Timing};
pub use way::Way;
