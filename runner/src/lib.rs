//! The runner: the small static program beside a database engine. It starts the engine, keeps it well, and backs it up.
//!
//! Rooms, from the ground up: [`args`] is the command line and the folders; [`credentials`] are passwords;
//! [`engine`] is the trait that each driver fills; `postgresql` and `valkey` are the drivers; [`storage`] reaches
//! a target; [`wal`] archives the log; [`backup`] is what Jobs do; [`commands`] wires them.
//!
//! Mistakes a newcomer could make:
//! - To put a password into an argument, the environment or an error. Files and the wire of the engine are
//!   the only ways.
//! - To trust the wall clock. Who is primary is decided by how long a Lease has not changed, by a clock that does
//!   not run backwards.
//! - To make data where data was. Only the Lease says whether a database has never been initialised.
pub mod args;
pub mod backup;
pub mod board;
pub mod clock;
pub mod commands;
pub mod credentials;
pub mod drivers;
pub mod engine;
pub mod files;
pub mod filling;
mod http;
pub mod init;
pub mod install;
mod label;
pub mod lease;
pub mod member;
pub mod pack;
pub mod peers;
pub mod postgresql;
pub mod process;
pub mod programs;
pub mod restore;
pub mod run;
pub mod storage;
pub mod valkey;
pub mod volume;
pub mod wal;
pub mod wish;

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
