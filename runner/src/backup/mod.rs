//! What Jobs do: make, check, look at and delete backups.
use anyhow::Result;

use crate::args::JobArgs;

/// Carries out the Job in `args.job`; the exit code.
///
/// # Errors
/// What went wrong.
pub async fn job(args: JobArgs) -> Result<u8> {
    anyhow::bail!("{}: no such job", args.job.display())
}
