//! What Jobs do: make a backup, check a target, look at a backup, delete one.
//!
//! ```text
//! job ─ reads job.json ─┬─ make     Dump (the engine's streams) → pack → target; the manifest last
//!                       ├─ probe    write, read, list, delete
//!                       ├─ inspect  the manifest and every digest
//!                       └─ prune    the manifest first, then the rest, then log that nobody needs
//! ```
//!
//! Mistakes a newcomer could make:
//! - To write the manifest before all of what it names is there: it is what makes a backup be one.
//! - To say "failed" of something that another attempt may mend: [`error::JobError::passes`] decides, and the
//!   Job's exit code tells Kubernetes.

pub mod dump;
mod engines;
pub mod error;
mod job;
pub mod make;
pub mod manifest;
pub mod postgresql;
pub mod remove;
pub mod valkey;

pub use job::job;
