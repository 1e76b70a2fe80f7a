//! The agent: keeps a Kubernetes cluster reachable for its control plane, by one connection that it dials itself.
//!
//! Rooms, from the ground up: [`causes`] puts failures into words; [`policy`] is
//! the cluster owner's last word; [`identity`] is key and certificate;
//! [`forward`] carries out calls; [`facts`] looks around; [`link`] keeps the
//! connection; [`telemetry`] tells of data services on it, and [`sealing`] opens the
//! credentials that are sealed for them; [`run`] wires them. [`preflight`] and [`health`] are for the
//! person and the probe beside a running agent.
//!
//! Mistakes a newcomer could make:
//! - To listen on a port. Nothing of the agent can be dialled, not even its
//!   health: that is a file, read by a probe that runs beside it.
//! - To trust the controller with more than the policy gives. The controller
//!   may be taken over; the policy file is in the cluster's own hands.
mod atomic;
pub mod causes;
pub mod commands;
pub mod config;
pub mod facts;
pub mod forward;
pub mod health;
pub mod identity;
pub mod link;
pub mod log;
pub mod policy;
pub mod preflight;
mod report;
pub mod run;
pub mod sealing;
pub mod telemetry;
#[cfg(test)]
mod testing;

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
