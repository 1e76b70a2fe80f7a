//! The Job that makes a backup.

use std::sync::Arc;
use std::time::Duration;

use culvert_resources::job::{BackupJob, JOB_NAME};
use culvert_resources::{Backup, BackupPhase, meta};
use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio_util::sync::CancellationToken;

use super::Ended;
use super::cluster::{Cluster, insist};
use super::report::Report;
use super::schedule;
use crate::args::Folders;
use crate::backup::engines;
use crate::backup::error::JobError;
use crate::backup::make::{Wanted, make};
use crate::backup::manifest::{Sealed, Service};
use crate::pack::Meter;
use crate::storage::{Patience, Storage};

/// Pause between two reports of progress at least.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Reports without progress: so often it says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// Makes the backup, and reports on it.
pub(super) async fn run(
    folders: &Folders,
    job: BackupJob,
    cluster: &Cluster,
    ended: &CancellationToken,
) -> Result<(), Ended> {
    let begun = begin(&job, cluster, ended).await.map_err(|error| Ended::new(&error, "start"))?;
    let Some((backup, mut report)) = begun else { return Ok(()) };
    let work = Work { folders, job: &job, cluster, backup: &backup };
    match work.carry_out(&mut report, ended).await {
        Ok(made) => {
            report.complete(&made, Timestamp::now());
            let said = insist(|| work.say(&report)).await;
            // It is there, and another attempt finds it and says so.
            said.map_err(|error| Ended { failure: error.failure("report"), passes: true })
        }
        Err((error, step)) => Err(work.give_up(&error, step, &mut report).await),
    }
}

/// The Backup, and the attempt that begins; none when there is nothing to do.
async fn begin(
    job: &BackupJob,
    cluster: &Cluster,
    ended: &CancellationToken,
) -> Result<Option<(Backup, Report)>, JobError> {
    let name = match (&job.backup, &job.schedule) {
        (Some(name), _) => name.clone(),
        (None, Some(schedule)) => scheduled(schedule, job, cluster, ended).await?,
        (None, None) => {
            return Err(JobError::Configuration("neither a Backup nor a schedule is named".to_owned()));
        }
    };
    let backup = insist(|| cluster.backup(&job.namespace, &name)).await?;
    let backup = backup.ok_or_else(|| JobError::Configuration(format!("the Backup {name} was deleted")))?;
    if is_cancelled(&backup) {
        return Err(JobError::Cancelled);
    }
    let status = backup.status.as_ref();
    if status.and_then(|status| status.phase) == Some(BackupPhase::Complete) {
        return Ok(None);
    }
    let report = Report::begin(status, &folder(job, &name), Timestamp::now());
    Ok(Some((backup, report)))
}

/// Waits for the schedule's own second, and makes the Backup.
async fn scheduled(
    schedule: &str,
    job: &BackupJob,
    cluster: &Cluster,
    ended: &CancellationToken,
) -> Result<String, JobError> {
    let job_name = std::env::var(JOB_NAME).map_err(|_| {
        JobError::Configuration(format!("{JOB_NAME} is not set, and tells when the run was due"))
    })?;
    let run = schedule::run(schedule, &job_name)?;
    let wait = run.wait(job.jitter_seconds, Timestamp::now());
    tokio::select! {
        () = ended.cancelled() => return Err(JobError::Ended),
        () = tokio::time::sleep(wait) => {}
    }
    let object = run.object(schedule, job);
    insist(|| cluster.make_backup(&job.namespace, &object)).await?;
    Ok(run.backup)
}

fn folder(job: &BackupJob, name: &str) -> String {
    format!("{}/backups/{name}", job.path)
}

fn is_cancelled(backup: &Backup) -> bool {
    backup.metadata.deletion_timestamp.is_some() || backup.annotations().contains_key(meta::CANCEL)
}

struct Work<'a> {
    folders: &'a Folders,
    job: &'a BackupJob,
    cluster: &'a Cluster,
    backup: &'a Backup,
}

impl Work<'_> {
    /// Makes the backup while somebody looks and reports. The step that was under way stands beside an error.
    async fn carry_out(
        &self,
        report: &mut Report,
        ended: &CancellationToken,
    ) -> Result<Sealed, (JobError, &'static str)> {
        let (meter, stop) = (Arc::new(Meter::default()), CancellationToken::new());
        meter.step("starting");
        report.progress(&meter, Timestamp::now());
        insist(|| self.say(report)).await.map_err(|error| (error, "report"))?;
        let wanted = self.wanted(report);
        let making = self.make(&wanted, &meter, &stop);
        tokio::pin!(making);
        let mut cancelled = None;
        loop {
            tokio::select! {
                made = &mut making => {
                    // Whoever stopped it knows why better than what was stopped.
                    let made = made.map_err(|error| cancelled.take().unwrap_or(error));
                    return made.map_err(|error| (error, meter.current_step()));
                }
                () = ended.cancelled(), if cancelled.is_none() => cancelled = Some(JobError::Ended),
                why = self.watch(report, &meter), if cancelled.is_none() => cancelled = Some(why),
            }
            stop.cancel();
        }
    }

    async fn make(
        &self,
        wanted: &Wanted,
        meter: &Meter,
        stop: &CancellationToken,
    ) -> Result<Sealed, JobError> {
        let storage = Storage::open(&self.job.target, Patience::WORK)?;
        let mut dump = engines::dump(self.folders, self.job)?;
        make(wanted, &storage, &mut *dump, meter, stop).await
    }

    /// Reports until the backup is not wanted any more. That the API is away does not stop the work.
    async fn watch(&self, report: &mut Report, meter: &Meter) -> JobError {
        let mut said = (meter.done(), tokio::time::Instant::now());
        loop {
            tokio::time::sleep(REPORT_EVERY).await;
            if meter.done() != said.0 || said.1.elapsed() >= ALIVE_EVERY {
                report.progress(meter, Timestamp::now());
                if let Err(error) = self.say(report).await {
                    tracing::warn!(%error, "progress could not be reported");
                }
                said = (meter.done(), tokio::time::Instant::now());
            }
            match self.cluster.backup(&self.job.namespace, &self.backup.name_any()).await {
                Ok(Some(backup)) if !is_cancelled(&backup) => {}
                Ok(_) => return JobError::Cancelled,
                Err(error) => tracing::debug!(%error, "the backup could not be looked at"),
            }
        }
    }

    /// Says how it failed, in the status where there is one still.
    async fn give_up(&self, error: &JobError, step: &str, report: &mut Report) -> Ended {
        let ended = Ended::new(error, step);
        let last = report.attempt() >= self.backup.spec.attempts && !matches!(error, JobError::Ended);
        report.failed(&ended.failure, !ended.passes || last, Timestamp::now());
        if let Err(error) = insist(|| self.say(report)).await {
            tracing::warn!(%error, "the failure stands in the termination message only");
        }
        ended
    }

    async fn say(&self, report: &Report) -> Result<(), JobError> {
        let status = report.value().map_err(|error| JobError::Configuration(error.to_string()))?;
        self.cluster.report_backup(&self.job.namespace, &self.backup.name_any(), &status).await
    }

    fn wanted(&self, report: &Report) -> Wanted {
        let (job, name) = (self.job, self.backup.name_any());
        Wanted {
            folder: folder(job, &name),
            name,
            engine: job.engine.clone(),
            method: job.method,
            service: Service {
                namespace: job.namespace.clone(),
                name: job.service.clone(),
                uid: job.service_uid.clone(),
                owner: job.owner.clone(),
                spec: job.service_spec.clone(),
            },
            started_at: report.started_at(Timestamp::now()),
        }
    }
}
