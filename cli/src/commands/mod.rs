//! One file per noun; each verb asks the controller and shows the answer.
//!
//! A command is an async function of an `Invocation` that ends in a `Failure` or
//! not; this file runs it, listens for Ctrl-C and turns the end into an exit
//! code. Ctrl-C ends the command and never the work at the controller: a command
//! that follows work catches it itself, to say how to go on.

pub(crate) mod agent;
pub(crate) mod api;
pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod backup_schedule;
pub(crate) mod backup_target;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod context;
#[cfg(test)]
mod contract;
pub(crate) mod data_service;
pub(crate) mod doctor;
pub(crate) mod engine;
mod figures;
pub(crate) mod follow;
pub(crate) mod kube;
pub(crate) mod login;
pub(crate) mod operation;
pub(crate) mod plan;
pub(crate) mod project;
pub(crate) mod restore;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod version;
pub(crate) mod view;

use std::io::{self, Write};

use crate::args::{Command, Culvert};
use crate::failure::{Exit, Failure};
use crate::invocation::{Invocation, interrupted};
use crate::surroundings::Surroundings;

/// Runs the command and gives the exit code.
pub(crate) fn run(around: Surroundings, culvert: Culvert) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::new(Exit::Failed, "cannot start").because(error))),
    };
    let run = Invocation::new(around, culvert.globals);
    let outcome = runtime.block_on(async {
        tokio::select! {
            // A command that handles Ctrl-C itself is asked first.
            biased;
            outcome = dispatch(&run, culvert.command) => outcome,
            _ = tokio::signal::ctrl_c() => Err(interrupted()),
        }
    });
    // A read of standard input may still hang in its thread; it must not hold the exit.
    runtime.shutdown_background();
    ended(outcome)
}

fn ended(outcome: Result<(), Failure>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            // Standard error may be closed; the exit code still tells.
            let _ = io::stderr().lock().write_all(failure.render().as_bytes());
            failure.exit as u8
        }
    }
}

async fn dispatch(run: &Invocation, command: Command) -> Result<(), Failure> {
    match command {
        Command::Login(args) => Box::pin(login::login(run, args)).await,
        Command::Logout(args) => login::logout(run, &args).await,
        Command::Whoami(_) => login::whoami(run).await,
        Command::Context(args) => context::run(run, args).await,
        Command::Cluster(args) => Box::pin(cluster::run(run, args)).await,
        Command::Agent(args) => agent::run(run, args).await,
        Command::DataService(args) => Box::pin(data_service::run(run, args)).await,
        Command::Backup(args) => Box::pin(backup::run(run, args)).await,
        Command::BackupSchedule(args) => Box::pin(backup_schedule::run(run, args)).await,
        Command::BackupTarget(args) => Box::pin(backup_target::run(run, args)).await,
        Command::Restore(args) => Box::pin(restore::run(run, args)).await,
        Command::Operation(args) => Box::pin(operation::run(run, args)).await,
        Command::Project(args) => project::run(run, args).await,
        Command::Template(args) => template::run(run, args).await,
        Command::Engine(args) => engine::run(run, args).await,
        Command::Apply(args) => Box::pin(apply::run(run, args)).await,
        Command::Token(args) => token::run(run, args).await,
        Command::Kube(args) => Box::pin(kube::run(run, args)).await,
        Command::Api(args) => api::run(run, args).await,
        Command::Completion(args) => completion::run(run, &args),
        Command::Doctor(args) => Box::pin(doctor::run(run, &args)).await,
        Command::Version(args) => version::run(run, &args).await,
    }
}
