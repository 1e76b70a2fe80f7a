//! Controller of schedules: the CronJob that fires without us, what came of its runs, and what is kept of them.
//!
//! The CronJob's Jobs make the Backups themselves, named by schedule and minute, so a run needs neither the operator nor
//! the control plane, and a second start of the same run finds what the first one made. The operator keeps the CronJob's
//! file current, watches, prunes, and asks for verification.
use std::sync::Arc;

use culvert_resources::{
    Backup, BackupSchedule, BackupScheduleSpec, BackupSpec, ConditionType, Restore, Trigger, Why, meta,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{DeleteParams, ObjectMeta, Patch};
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::backup::making::Found;
use crate::backup::reads;
use crate::jobs::causes::why;
use crate::jobs::names;
use crate::jobs::outcome::Outcome;
use crate::jobs::run::namespace_ends;
use crate::metrics;
use crate::reconcile::{Conditions, Error, Next, Work, World, owner};
use crate::timetable::Timetable;

mod cron_job;
mod history;
mod retention;

use history::{History, Run};

/// When a schedule without its CronJob is looked at again.
const HINDERED: Next = Next::seconds(5);
/// Backups that one round deletes at most, so that a mistake in a limit is seen before all are gone.
const DELETED_AT_ONCE: usize = 5;

/// Runs until `stop`.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::BackupSchedule, meta::manager::SCHEDULE);
    let all = watcher::Config::default;
    let schedules = Api::<BackupSchedule>::all(world.client());
    let of_schedules = all().labels(meta::SCHEDULE);
    let controller = Controller::new(schedules, all())
        .owns(Api::<CronJob>::all(world.client()), of_schedules.clone())
        .watches(Api::<Job>::all(world.client()), of_schedules, |job| {
            named(job.namespace(), job.labels().get(meta::SCHEDULE).cloned())
        })
        .watches(Api::<Backup>::all(world.client()), all(), |backup| {
            named(backup.namespace(), backup.spec.schedule)
        });
    work.run(controller, reconcile, stop).await;
}

fn named(namespace: Option<String>, name: Option<String>) -> Option<ObjectRef<BackupSchedule>> {
    Some(ObjectRef::new(&name?).within(&namespace?))
}

/// This controller's part of the status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Time>,
    misses_in_a_row: i64,
    kept: i64,
    would_delete: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
    conditions: Vec<Condition>,
}

async fn reconcile(schedule: Arc<BackupSchedule>, work: Work) -> Result<Next, Error> {
    if schedule.metadata.deletion_timestamp.is_some() {
        // The CronJob goes with its owner; the backups stay.
        return Ok(Next::OnChange);
    }
    let spec = &schedule.spec;
    let namespace = schedule.namespace().unwrap_or_default();
    let found = work.parts_of(&namespace, &spec.service, &spec.target).await?;
    let table = Timetable::parse(&spec.cron, &spec.time_zone);
    let hindrance = keep_cron_job(&work, &schedule, &found, table.is_ok()).await?;
    let hindered = hindrance.is_some();
    let backups = backups_of(&work, &schedule).await?;
    let history = history(&work, &schedule, table.as_ref().ok(), &backups).await?;
    let asked = run_now(&work, &schedule, &history).await?;
    let going = prune(&work, &schedule, &backups).await?;
    ask_for_verification(&work, spec, &backups).await?;
    let cause = match &table {
        Err(unfit) => Some(why("bad_schedule", format!("{unfit}."), "Mend spec.cron or spec.timeZone.")),
        Ok(_) => hindrance.or_else(|| history.why()),
    };
    report(&work, &schedule, &history, Said { asked, going, cause, fit: table.is_ok() }).await?;
    // What it waits for, such as the release of a new service, is not watched.
    Ok(if hindered { HINDERED } else { when_next(&history, work.world().now()) })
}

/// Keeps the CronJob current; a cause when that is not possible now. What is there stays as it is then.
async fn keep_cron_job(
    work: &Work,
    schedule: &BackupSchedule,
    found: &Found,
    fit: bool,
) -> Result<Option<Why>, Error> {
    let namespace = schedule.namespace().unwrap_or_default();
    let name = names::cron_job(&schedule.name_any());
    let standing = work.find::<CronJob>(&namespace, &name).await?;
    // A run would fail and be counted; the next round makes it again.
    let idle = found.service.as_ref().is_none_or(|service| service.spec.stopped);
    if let Some(standing) = standing.filter(|_| !fit || idle) {
        work.delete(&standing, DeleteParams::background()).await?;
    }
    let parts = match found.parts(&schedule.spec.service, &schedule.spec.target) {
        Ok(parts) => parts,
        Err(cause) => return Ok(Some(cause)),
    };
    if !fit {
        return Ok(None);
    }
    work.give_access(&namespace).await?;
    let (wanted, task) = cron_job::build(schedule, parts);
    let applied = match work.apply(&wanted).await {
        Ok(applied) => applied,
        Err(error) => return refused(error),
    };
    work.apply(&task.config_map(owner(&applied)).map_err(Error::making)?).await?;
    Ok(None)
}

/// A schedule that Kubernetes does not take is for a person to mend.
fn refused(error: Error) -> Result<Option<Why>, Error> {
    match error.status() {
        Some(status) if status.code == 422 => {
            let message = format!("Kubernetes refuses the CronJob: {}", status.message);
            Ok(Some(why("bad_schedule", message, "Mend spec.cron or spec.timeZone.")))
        }
        _ => Err(error),
    }
}

async fn backups_of(work: &Work, schedule: &BackupSchedule) -> Result<Vec<Backup>, Error> {
    let all: Vec<Backup> = work.all(&schedule.namespace().unwrap_or_default()).await?;
    let name = schedule.name_any();
    Ok(all.into_iter().filter(|backup| backup.spec.schedule.as_ref() == Some(&name)).collect())
}

async fn history(
    work: &Work,
    schedule: &BackupSchedule,
    table: Option<&Timetable>,
    backups: &[Backup],
) -> Result<History, Error> {
    let runs: Vec<Run> = backups.iter().map(Run::of).collect();
    let failed = last_failed_job(work, schedule).await?;
    Ok(History::new(schedule, table, &runs, failed, work.world().now()))
}

/// Why the newest Job of the CronJob failed or does not go on, when it has.
async fn last_failed_job(work: &Work, schedule: &BackupSchedule) -> Result<Option<Why>, Error> {
    let namespace = schedule.namespace().unwrap_or_default();
    let jobs: Vec<Job> = work.list(&namespace, meta::SCHEDULE, &schedule.name_any()).await?;
    let newest = jobs.iter().filter(|job| of_cron_job(job)).max_by_key(|job| job.creation_timestamp());
    let Some(newest) = newest else { return Ok(None) };
    Ok(match work.look_at_job(&namespace, &newest.name_any()).await? {
        Outcome::Failed { failure, .. } => Some(crate::jobs::causes::why_of(&failure)),
        Outcome::Active { why, .. } => why,
        Outcome::Absent | Outcome::Succeeded { .. } => None,
    })
}

fn of_cron_job(job: &Job) -> bool {
    job.owner_references().iter().any(|owner| owner.kind == "CronJob")
}

/// Makes the Backup that somebody asked for; the request that is answered now.
async fn run_now(work: &Work, schedule: &BackupSchedule, history: &History) -> Result<Option<String>, Error> {
    let answered = schedule.status.as_ref().and_then(|status| status.asked.clone());
    let Some(asked) = schedule.annotations().get(meta::RUN_NOW).cloned() else { return Ok(answered) };
    if Some(&asked) == answered.as_ref() || history.must_wait() {
        return Ok(answered);
    }
    let backup = asked_backup(schedule, &asked);
    let api: Api<Backup> = work.api(&schedule.namespace().unwrap_or_default());
    match api.create(&work.posting(), &backup).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        Err(error) if namespace_ends(&error) => {}
        Err(error) => return Err(Error::kube("creating a Backup", error)),
    }
    Ok(Some(asked))
}

fn asked_backup(schedule: &BackupSchedule, asked: &str) -> Backup {
    let spec = &schedule.spec;
    let name = names::asked_backup(&schedule.name_any(), asked);
    let made = BackupSpec {
        service: spec.service.clone(),
        target: spec.target.clone(),
        method: spec.method,
        trigger: Trigger::Manual,
        schedule: Some(schedule.name_any()),
        expires_at: None,
        deletion_policy: culvert_resources::DeletionPolicy::Delete,
        verify: false,
        deadline_seconds: cron_job::DEADLINE_SECONDS,
        attempts: cron_job::ATTEMPTS,
    };
    let labels =
        [(meta::SCHEDULE.to_owned(), schedule.name_any()), (meta::SERVICE.to_owned(), spec.service.clone())];
    let metadata = ObjectMeta {
        namespace: schedule.namespace(),
        labels: Some(labels.into()),
        finalizers: Some(vec![meta::FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    let backup = Backup::new(&name, made);
    Backup { metadata: ObjectMeta { name: Some(name), ..metadata }, ..backup }
}

/// Deletes what is beyond the retention, or only names it.
async fn prune(work: &Work, schedule: &BackupSchedule, backups: &[Backup]) -> Result<Vec<String>, Error> {
    let restores: Vec<Restore> = work.all(&schedule.namespace().unwrap_or_default()).await?;
    let standing = backups.iter().filter(|backup| backup.metadata.deletion_timestamp.is_none());
    let candidates: Vec<_> = standing
        .map(|backup| {
            let read = restores.iter().any(|restore| reads(restore, &backup.name_any()));
            history::candidate(backup, read)
        })
        .collect();
    let going = retention::beyond(&schedule.spec.retention, &candidates, work.world().now());
    if schedule.spec.retention.dry_run {
        return Ok(going);
    }
    for backup in backups.iter().filter(|backup| going.contains(&backup.name_any())).take(DELETED_AT_ONCE) {
        work.tell(schedule, "Pruned", &format!("{} is beyond the retention", backup.name_any())).await;
        work.delete(backup, DeleteParams::default()).await?;
    }
    Ok(going)
}

/// Asks for the verification of the newest backup, when it is one's turn.
async fn ask_for_verification(
    work: &Work,
    spec: &BackupScheduleSpec,
    backups: &[Backup],
) -> Result<(), Error> {
    let Some(backup) = history::due_for_verification(spec.verify_every, backups) else { return Ok(()) };
    let api: Api<Backup> = work.api(&backup.namespace().unwrap_or_default());
    let patch = serde_json::json!({ "metadata": { "uid": backup.uid() }, "spec": { "verify": true } });
    match api.patch(&backup.name_any(), &work.patching(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
        Err(error) => Err(Error::kube("asking for a verification", error)),
    }
}

/// What a round found out, for the report.
struct Said {
    asked: Option<String>,
    going: Vec<String>,
    cause: Option<Why>,
    fit: bool,
}

async fn report(work: &Work, schedule: &BackupSchedule, history: &History, said: Said) -> Result<(), Error> {
    let before = schedule.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::new(before, schedule.metadata.generation, work.world().now());
    match (&said.cause, said.fit) {
        (Some(cause), false) => conditions.not(ConditionType::Accepted, cause),
        _ => conditions.say(ConditionType::Accepted, true, "Valid", ""),
    };
    history.say(said.cause.as_ref(), &mut conditions);
    work.tell_changes(schedule, &conditions).await;
    let status = Status {
        observed_generation: schedule.metadata.generation,
        last_success: history.last_success.map(Time),
        next: history.next.map(Time),
        misses_in_a_row: history.misses,
        kept: history.kept,
        would_delete: said.going,
        asked: said.asked,
        why: said.cause,
        conditions: conditions.done(),
    };
    work.status(schedule, &status).await
}

fn when_next(history: &History, now: k8s_openapi::jiff::Timestamp) -> Next {
    let until = history.next.map_or(600, |next| next.duration_since(now).as_secs());
    Next::seconds(u64::try_from(until).unwrap_or(0).clamp(5, 60))
}
