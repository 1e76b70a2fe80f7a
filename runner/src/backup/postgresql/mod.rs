//! How PostgreSQL is dumped and filled: with its own programs, through pipes.

mod logical;
mod physical;
mod program;
mod server;

pub use logical::Logical;
pub use physical::Physical;
pub use program::Programs;
pub use server::{Place, Server};
