//! The command line of Culvert, as a library with one door: [`run`].
//!
//! A command is a noun and a verb. Its file in `commands` says what it accepts,
//! asks the controller through `client`, and shows the answer through `output`;
//! nothing else talks to the network or to the terminal. Data goes to standard
//! output and everything else to standard error, so a pipe gets data only.
//!
//! Mistakes a newcomer could make here:
//! - printing with `println!`: it panics on a closed pipe, and it does not know
//!   about `-o`, `--quiet` or the width of the terminal;
//! - reading the environment: [`Surroundings`] read it once, and tests rely on that;
//! - accepting a secret as an argument: other people on the machine can read
//!   those. Secrets come from standard input, a file or the environment;
//! - turning an expired sign-in into a network error: commands that wait for
//!   something ask for the session first (`Invocation::client`);
//! - showing text from the controller as it came: a cluster can be given a name
//!   with escape sequences in it, so everything passes through `output::clean`.

mod args;
mod client;
mod commands;
mod context;
mod credential;
mod failure;
mod files;
mod invocation;
mod kubeconfig;
mod output;
mod surroundings;

use std::ffi::OsString;

pub use surroundings::Surroundings;

/// The whole command as clap sees it, for help, completion and the reference page.
#[must_use]
pub fn command() -> clap::Command {
    <args::Culvert as clap::CommandFactory>::command()
}

/// The exit codes and what each means, zero first.
pub fn exit_codes() -> impl Iterator<Item = (u8, &'static str)> {
    let failures = failure::Exit::TABLE.iter().map(|(exit, meaning)| (*exit as u8, *meaning));
    std::iter::once((0, "ok")).chain(failures)
}

/// Runs one command and gives the exit code (the table is in `failure`).
pub fn run(surroundings: Surroundings, arguments: impl IntoIterator<Item = OsString>) -> u8 {
    match args::parse(&surroundings, arguments) {
        Ok(culvert) => commands::run(surroundings, culvert),
        Err(code) => code,
    }
}
