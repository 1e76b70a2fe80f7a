//! Controller of backups: their Jobs, their end, their verification, and how they go.
//!
//! [`rules`], [`farewell`] and [`trial`] decide, [`making`] builds the Jobs, [`verify`] restores a backup for a trial;
//! this file looks and acts.
use std::sync::Arc;

use culvert_resources::{
    Backup, BackupPhase, BackupTarget, ConditionType, DataService, Database, Failure, Restore, RestorePhase,
    Trigger, Verified, Why, meta,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::DeleteParams;
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::backup_target::no_runner;
use crate::jobs::names;
use crate::jobs::outcome::Outcome;
use crate::jobs::run::Kept;
use crate::metrics;
use crate::reconcile::{Conditions, Error, Next, Work, World};

mod farewell;
pub(crate) mod making;
mod rules;
mod trial;
mod verify;

use farewell::{Leaving, Step};
use making::Found;
use rules::{Act, Report, Seen};

/// Runs until `stop`.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::Backup, meta::manager::BACKUP);
    let backups = Api::<Backup>::all(world.client());
    let jobs = Api::<Job>::all(world.client());
    let ours = watcher::Config::default().labels("app.kubernetes.io/component=job");
    let controller =
        Controller::new(backups, watcher::Config::default()).watches(jobs, ours, |job| backup_of(&job));
    work.run(controller, reconcile, stop).await;
}

/// The Backup that a Job works for: by its label, or for a schedule's Job by the minute in its name.
fn backup_of(job: &Job) -> Option<ObjectRef<Backup>> {
    let namespace = job.namespace()?;
    let named = |name: &str| Some(ObjectRef::new(name).within(&namespace));
    if let Some(backup) = job.labels().get(meta::BACKUP) {
        return named(backup);
    }
    let schedule = job.labels().get(meta::SCHEDULE)?;
    let name = job.name_any();
    let minute = name.strip_prefix(&names::cron_job(schedule))?.strip_prefix('-')?;
    named(&format!("{schedule}-{minute}"))
}

/// This controller's part of the status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<BackupPhase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
    conditions: Vec<Condition>,
}

async fn reconcile(backup: Arc<Backup>, work: Work) -> Result<Next, Error> {
    if backup.metadata.deletion_timestamp.is_some() {
        return Box::pin(leave(&backup, &work)).await;
    }
    work.finalizer(backup.as_ref(), true).await?;
    let found = look(&work, &backup).await?;
    let (job_name, job) = main_job(&work, &backup).await?;
    let lacks = found.parts(&backup.spec.service, &backup.spec.target).err().or_else(|| found.answers());
    let decision = rules::decide(&Seen { backup: &backup, job, lacks, now: work.world().now() });
    act(&work, &backup, &found, decision.act, &job_name).await?;
    let round = Box::pin(verify::round(&work, &backup, found.target.as_ref())).await?;
    let mut report = decision.report;
    report.verified = round.verified;
    report.why = report.why.or(round.why);
    tell(&work, &backup, report, |_| {}).await?;
    Ok(round.next.unwrap_or(decision.next))
}

/// What a Job would be made from.
async fn look(work: &Work, backup: &Backup) -> Result<Found, Error> {
    work.parts_of(&backup.namespace().unwrap_or_default(), &backup.spec.service, &backup.spec.target).await
}

impl Work {
    /// What a Job that backs up `service` to `target` is made from.
    pub(crate) async fn parts_of(
        &self,
        namespace: &str,
        service: &str,
        target: &str,
    ) -> Result<Found, Error> {
        Ok(Found {
            service: self.find::<DataService>(namespace, service).await?,
            database: self.find::<Database>(namespace, service).await?,
            target: self.find::<BackupTarget>(namespace, target).await?,
            plane: self.plane().await?,
        })
    }
}

/// The Job that makes a backup, with its name: the schedule's, where one made the backup, or our own.
async fn main_job(work: &Work, backup: &Backup) -> Result<(String, Outcome), Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let scheduled = backup.spec.schedule.as_ref().filter(|_| backup.spec.trigger == Trigger::Schedule);
    if let Some(name) = scheduled.and_then(|schedule| names::job_of_run(schedule, &backup.name_any())) {
        let outcome = work.look_at_job(&namespace, &name).await?;
        if outcome != Outcome::Absent {
            return Ok((name, outcome));
        }
    }
    let name = names::job(&backup.name_any(), "backup");
    let outcome = work.look_at_job(&namespace, &name).await?;
    Ok((name, outcome))
}

async fn act(work: &Work, backup: &Backup, found: &Found, act: Act, job: &str) -> Result<(), Error> {
    let namespace = backup.namespace().unwrap_or_default();
    match act {
        Act::Nothing => {}
        Act::Stop => {
            work.end_job(&namespace, job).await?;
        }
        Act::Expire => {
            work.tell(backup, "Expired", "its time has come").await;
            work.delete(backup, DeleteParams::default()).await?;
        }
        Act::Start => {
            // A schedule's Job has its file from the schedule; ours is made here.
            if job == names::job(&backup.name_any(), "backup")
                && let Ok(parts) = found.parts(&backup.spec.service, &backup.spec.target)
            {
                work.keep_job(&making::backup_task(backup, parts)).await?;
            }
        }
    }
    Ok(())
}

/// Writes what is the operator's to say.
async fn tell(
    work: &Work,
    backup: &Backup,
    report: Report,
    more: impl FnOnce(&mut Conditions<'_>),
) -> Result<(), Error> {
    let status = backup.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&status.conditions, backup.metadata.generation, work.world().now());
    if let (Some(BackupPhase::Failed), Some(failure)) = (report.phase, &report.failure) {
        conditions.say(ConditionType::Failed, true, "Failed", failure.message.clone());
    }
    if report.phase == Some(BackupPhase::Cancelled) {
        conditions.say(ConditionType::Failed, true, "Cancelled", "it was cancelled");
    }
    more(&mut conditions);
    work.tell_changes(backup, &conditions).await;
    let offered = report.phase == Some(BackupPhase::Pending);
    let document = Status {
        phase: report.phase,
        attempt: report.attempt,
        ended_at: report.ended_at,
        failure: report.failure,
        verified: report.verified.or(status.verified),
        why: report.why,
        conditions: conditions.done(),
    };
    // As long as it only waits, the runner may have begun to speak meanwhile, and has the last word.
    if offered { work.offer_status(backup, &document).await } else { work.status(backup, &document).await }
}

/// A backup that is being deleted.
async fn leave(backup: &Backup, work: &Work) -> Result<Next, Error> {
    if !backup.finalizers().iter().any(|held| held == meta::FINALIZER) {
        return Ok(Next::OnChange);
    }
    let namespace = backup.namespace().unwrap_or_default();
    let found = look(work, backup).await?;
    let (job_name, job) = main_job(work, backup).await?;
    let prune_name = names::job(&backup.name_any(), "prune");
    let seen = Leaving {
        backup,
        job,
        prune: work.look_at_job(&namespace, &prune_name).await?,
        readers: readers(work, backup).await?,
        namespace_ends: work.namespace_ends(&namespace).await?,
        target: found.target.is_some(),
        path: path(backup, &found),
        now: work.world().now(),
    };
    match farewell::next(&seen) {
        Step::Stop => {
            work.end_job(&namespace, &job_name).await?;
            leaving(work, backup, None).await?;
            Ok(Next::seconds(2))
        }
        Step::Prune => prune(work, backup, &found, seen.path.as_deref()).await,
        Step::Again(cause) => {
            work.end_job(&namespace, &prune_name).await?;
            leaving(work, backup, Some(cause)).await?;
            Ok(Next::seconds(5))
        }
        Step::Wait(cause) => {
            leaving(work, backup, Some(cause)).await?;
            Ok(Next::seconds(15))
        }
        Step::Release { note } => {
            verify::end(work, backup, found.target.as_ref()).await?;
            release(work, backup, note).await
        }
    }
}

async fn prune(work: &Work, backup: &Backup, found: &Found, path: Option<&str>) -> Result<Next, Error> {
    let task = match (&found.target, path) {
        (Some(target), Some(path)) => making::prune_task(backup, path, target, &found.plane),
        _ => None,
    };
    let Some(task) = task else {
        leaving(work, backup, Some(no_runner())).await?;
        return Ok(Next::seconds(30));
    };
    if work.keep_job(&task).await? == Kept::NamespaceEnds {
        return Ok(Next::seconds(1));
    }
    leaving(work, backup, None).await?;
    Ok(Next::seconds(15))
}

async fn release(work: &Work, backup: &Backup, note: Option<String>) -> Result<Next, Error> {
    if let Some(note) = note {
        work.warn(backup, "LeftInTarget", &note).await;
    }
    work.finalizer(backup, false).await?;
    Ok(Next::OnChange)
}

/// Says why a backup that is being deleted is still there.
async fn leaving(work: &Work, backup: &Backup, cause: Option<Why>) -> Result<(), Error> {
    let report = Report { phase: Some(BackupPhase::Deleting), why: cause.clone(), ..Report::kept(backup) };
    tell(work, backup, report, |conditions| {
        if let Some(cause) = &cause {
            let message = format!("{} {}", cause.message, cause.next);
            conditions.say(ConditionType::DeletionBlocked, true, "Waiting", message);
        }
    })
    .await
}

/// Where a backup lies, as far as anything was written: as the runner told, or where it would have begun.
fn path(backup: &Backup, found: &Found) -> Option<String> {
    let status = backup.status.as_ref()?;
    if status.path.is_some() {
        return status.path.clone();
    }
    let service = found.service.as_ref().filter(|_| status.attempt > 0)?;
    let folder = making::folder(service, found.database.as_ref(), &backup.spec.target);
    Some(format!("{folder}/backups/{}", backup.name_any()))
}

/// Restores that read a backup now.
async fn readers(work: &Work, backup: &Backup) -> Result<Vec<String>, Error> {
    let restores: Vec<Restore> = work.all(&backup.namespace().unwrap_or_default()).await?;
    let reading = restores.iter().filter(|restore| reads(restore, &backup.name_any()));
    Ok(reading.map(|restore| format!("Restore/{}", restore.name_any())).collect())
}

/// Whether a restore reads a backup now.
pub(crate) fn reads(restore: &Restore, backup: &str) -> bool {
    let phase = restore.status.as_ref().and_then(|status| status.phase);
    let open = matches!(phase, None | Some(RestorePhase::Pending | RestorePhase::Running));
    open && restore.spec.source.backup.as_deref() == Some(backup)
}
