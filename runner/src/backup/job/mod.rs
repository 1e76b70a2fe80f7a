//! Carries out a Job: reads what is wanted, does it, and leaves word of how it ended.
//!
//! Word is left in three places, as each may be all that is left: the status of the object, the termination
//! message of the pod, and the exit code, which tells Kubernetes whether another attempt is worth it.

mod backup;
mod cluster;
mod inspect;
mod probe;
mod prune;
mod report;
mod schedule;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use culvert_resources::Failure;
use culvert_resources::job::{EXIT_PERMANENT, JobConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::JobError;
use crate::args::JobArgs;
use cluster::Cluster;

/// Longest termination message that the kubelet keeps.
const LONGEST_MESSAGE: usize = 4096;
const EXIT_TRY_AGAIN: u8 = 1;

/// How a Job ended that did not do its work.
#[derive(Debug)]
pub(super) struct Ended {
    /// For people.
    failure: Failure,
    /// Whether another attempt may succeed.
    passes: bool,
}

impl Ended {
    fn new(error: &JobError, step: &str) -> Self {
        Self { failure: error.failure(step), passes: error.passes() }
    }
}

/// Carries out the Job in `args.job`; the exit code.
///
/// # Errors
/// The configuration cannot be read, or the signal handler not set.
pub async fn job(args: JobArgs) -> Result<u8> {
    let ended = CancellationToken::new();
    end_on_signal(ended.clone())?;
    let done = match read(&args) {
        Ok(config) => carry_out(&args, config, &ended).await,
        Err(error) => Err(Ended::new(&JobError::Configuration(format!("{error:#}")), "configuration")),
    };
    match done {
        Ok(message) => {
            leave(&args.termination, message.as_deref().unwrap_or_default());
            Ok(0)
        }
        Err(ended) => {
            tracing::error!(code = ended.failure.code, message = ended.failure.message, "the job failed");
            leave(&args.termination, &serde_json::to_string(&ended.failure)?);
            Ok(if ended.passes { EXIT_TRY_AGAIN } else { u8::try_from(EXIT_PERMANENT)? })
        }
    }
}

fn read(args: &JobArgs) -> Result<JobConfig> {
    let path = args.job.join("job.json");
    let text = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not understood", path.display()))
}

/// What a Job that ended well has to say.
async fn carry_out(
    args: &JobArgs,
    config: JobConfig,
    ended: &CancellationToken,
) -> Result<Option<String>, Ended> {
    let cluster = || Cluster::connect(args.kubeconfig.clone());
    let no_cluster = |error: JobError| Ended::new(&error, "connect");
    match config {
        JobConfig::Backup(job) => {
            let cluster = cluster().await.map_err(no_cluster)?;
            backup::run(&args.folders, job, &cluster, ended).await.map(|()| None)
        }
        JobConfig::Probe(job) => {
            let cluster = cluster().await.map_err(no_cluster)?;
            probe::run(&job, &cluster).await.map(|()| None).map_err(|error| Ended::new(&error, "report"))
        }
        JobConfig::Prune(job) => {
            prune::run(&job).await.map(Some).map_err(|error| Ended::new(&error, "delete"))
        }
        JobConfig::Inspect(job) => {
            inspect::run(&job).await.map(Some).map_err(|error| Ended::new(&error, "inspect"))
        }
    }
}

fn end_on_signal(ended: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    // Ends with the process.
    drop(tokio::spawn(async move {
        terminate.recv().await;
        ended.cancel();
    }));
    Ok(())
}

/// Leaves word for the operator. Outside of a pod there is no such file, and nobody who would read it.
fn leave(path: &PathBuf, message: &str) {
    let mut cut = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(cut) {
        cut -= 1;
    }
    if let Err(error) = std::fs::write(path, message.get(..cut).unwrap_or_default()) {
        tracing::debug!(%error, path = %path.display(), "no word was left");
    }
}
