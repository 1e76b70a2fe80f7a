//! Controller of backup targets: is there a Secret, can the store be used, may the target go.
//!
//! The store is only ever asked by a Job (see [`crate::jobs`]), which writes `status.probe` itself.
use std::collections::BTreeMap;
use std::sync::Arc;

use culvert_resources::job::{JobConfig, ProbeJob, TARGET_DIR};
use culvert_resources::{
    Backup, BackupSchedule, BackupTarget, ConditionType, DataService, DeletionPolicy, TargetKind, Why, meta,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Controller;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::jobs::build::{Program, Task};
use crate::jobs::causes::why;
use crate::jobs::names;
use crate::jobs::outcome::Outcome;
use crate::jobs::reach::{Plane, Reach};
use crate::metrics;
use crate::reconcile::{Conditions, Error, Next, Work, World, owner};

mod access;
mod rules;

use rules::{Secret, Seen};

/// Seconds that a check may take.
const DEADLINE_SECONDS: i64 = 120;
/// Seconds for which the Job of a check stays; one that failed without a word is tried again after it.
const STAY_SECONDS: i32 = 300;
/// Label of checks, which tells them from a target's other Jobs.
const CHECKS: &str = "data.culvert.dev/checks";

/// Runs until `stop`.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::BackupTarget, meta::manager::TARGET);
    let targets = Api::<BackupTarget>::all(world.client());
    let jobs = Api::<Job>::all(world.client());
    let controller = Controller::new(targets, watcher::Config::default())
        .owns(jobs, watcher::Config::default().labels(CHECKS));
    work.run(controller, reconcile, stop).await;
}

/// This controller's part of the status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    observed_generation: Option<i64>,
    kind: Option<TargetKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
    conditions: Vec<Condition>,
}

async fn reconcile(target: Arc<BackupTarget>, work: Work) -> Result<Next, Error> {
    if target.metadata.deletion_timestamp.is_some() {
        return let_go(&target, &work).await;
    }
    work.finalizer(target.as_ref(), true).await?;
    let plane = work.plane().await?;
    access::give(&work, &target, plane.agent.as_ref()).await?;
    let namespace = target.namespace().unwrap_or_default();
    let (name, active) = newest_check(&work, &target).await?;
    let job = match name {
        Some(name) => work.look_at_job(&namespace, &name).await?,
        None => Outcome::Absent,
    };
    let seen = Seen {
        target: &target,
        secret: secret(&work, &target).await?,
        asked: target.annotations().get(meta::RUN_NOW).cloned(),
        job,
        now: work.world().now(),
    };
    let hindrance = if seen.check_now() && !active { check(&work, &seen, &plane).await? } else { None };
    report(&work, &seen, hindrance).await?;
    Ok(when_next(&seen))
}

/// Begins a check; the cause when that is not possible.
async fn check(work: &Work, seen: &Seen<'_>, plane: &Plane) -> Result<Option<Why>, Error> {
    let Some(image) = plane.runner.clone() else { return Ok(Some(no_runner())) };
    work.keep_job(&task(seen, image, plane)).await?;
    Ok(None)
}

/// Nothing can run where nobody said which image holds the runner.
pub(crate) fn no_runner() -> Why {
    why(
        "no_runner_image",
        "The DataPlane names no image with the runner.",
        "Set spec.runnerImage of the DataPlane default.",
    )
}

fn task(seen: &Seen<'_>, image: String, plane: &Plane) -> Task {
    let (name, namespace) = (seen.target.name_any(), seen.target.namespace().unwrap_or_default());
    let reach = Reach::to(seen.target, plane.proxy.as_deref(), "target", TARGET_DIR);
    let probe = ProbeJob {
        namespace: namespace.clone(),
        name: name.clone(),
        generation: seen.target.metadata.generation.unwrap_or_default(),
        credential_generation: seen.credential_generation(),
        asked: seen.asked.clone(),
        target: reach.config,
    };
    Task {
        name: names::job_for(&name, "check", &seen.state()),
        namespace,
        labels: BTreeMap::from([(meta::TARGET.to_owned(), name.clone()), (CHECKS.to_owned(), name)]),
        owner: owner(seen.target),
        config: JobConfig::Probe(probe),
        program: Program::Runner(image),
        pull_secrets: plane.pull_secrets.clone(),
        volumes: reach.volumes,
        mounts: reach.mounts,
        deadline_seconds: DEADLINE_SECONDS,
        attempts: 2,
        stay_seconds: STAY_SECONDS,
    }
}

async fn report(work: &Work, seen: &Seen<'_>, hindrance: Option<Why>) -> Result<(), Error> {
    let target = seen.target;
    let before = target.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::new(before, target.metadata.generation, seen.now);
    conditions.say(ConditionType::Accepted, true, "Valid", "");
    seen.say(&mut conditions);
    work.tell_changes(target, &conditions).await;
    let status = Status {
        observed_generation: target.metadata.generation,
        kind: target.spec.kind(),
        why: seen.why().or(hindrance),
        conditions: conditions.done(),
    };
    work.status(target, &status).await
}

fn when_next(seen: &Seen<'_>) -> Next {
    if matches!(seen.job, Outcome::Active { .. }) || seen.hindrance().is_some() {
        return Next::seconds(15);
    }
    match seen.until_check() {
        Some(time) => Next::seconds(u64::try_from(time.as_secs()).unwrap_or(0).max(5)),
        None => Next::OnChange,
    }
}

/// The newest Job that checks a target, and whether any is at work.
async fn newest_check(work: &Work, target: &BackupTarget) -> Result<(Option<String>, bool), Error> {
    let jobs: Vec<Job> =
        work.list(&target.namespace().unwrap_or_default(), CHECKS, &target.name_any()).await?;
    let over = |job: &Job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|one| matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True")
    };
    let active = jobs.iter().any(|job| !over(job));
    let newest = jobs.into_iter().max_by_key(|job| job.creation_timestamp());
    Ok((newest.map(|job| job.name_any()), active))
}

/// What is known of the Secret. Its values are dropped here.
async fn secret(work: &Work, target: &BackupTarget) -> Result<Secret, Error> {
    let Some(named) = &target.spec.secret else { return Ok(Secret::NotNamed) };
    let namespace = target.namespace().unwrap_or_default();
    let Some(secret) = work.find::<v1::Secret>(&namespace, &named.name).await? else {
        return Ok(Secret::Missing);
    };
    let generation = secret.annotations().get(meta::CREDENTIAL_GENERATION).and_then(|text| text.parse().ok());
    let keys = secret.data.unwrap_or_default().into_keys().collect();
    Ok(Secret::There { keys, generation: generation.unwrap_or(0) })
}

/// A target that is being deleted goes when nothing uses it any more, or when all of its namespace goes.
async fn let_go(target: &BackupTarget, work: &Work) -> Result<Next, Error> {
    let namespace = target.namespace().unwrap_or_default();
    if !target.finalizers().iter().any(|held| held == meta::FINALIZER) {
        return Ok(Next::OnChange);
    }
    let users = if work.namespace_ends(&namespace).await? { Vec::new() } else { users(work, target).await? };
    if users.is_empty() {
        work.finalizer(target, false).await?;
        return Ok(Next::OnChange);
    }
    let message = format!("used by {}", users.join(", "));
    let before = target.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::new(before, target.metadata.generation, work.world().now());
    conditions.say(ConditionType::DeletionBlocked, true, "InUse", message.clone());
    work.tell_changes(target, &conditions).await;
    let next = "Point them to another target, or delete them; backups with the policy Retain do not count.";
    let status = Status {
        observed_generation: target.metadata.generation,
        kind: target.spec.kind(),
        why: Some(why("in_use", format!("It is {message}."), next)),
        conditions: conditions.done(),
    };
    work.status(target, &status).await?;
    Ok(Next::seconds(15))
}

/// What needs a target, as `Kind/name`, at most ten.
async fn users(work: &Work, target: &BackupTarget) -> Result<Vec<String>, Error> {
    let (name, namespace) = (target.name_any(), target.namespace().unwrap_or_default());
    let services: Vec<DataService> = work.all(&namespace).await?;
    let schedules: Vec<BackupSchedule> = work.all(&namespace).await?;
    let backups: Vec<Backup> = work.all(&namespace).await?;
    let of_services = services
        .iter()
        .filter(|service| service.spec.backup.as_ref().is_some_and(|plan| plan.target == name))
        .map(|service| format!("DataService/{}", service.name_any()));
    let of_schedules = schedules
        .iter()
        .filter(|schedule| schedule.spec.target == name)
        .map(|schedule| format!("BackupSchedule/{}", schedule.name_any()));
    let of_backups = backups
        .iter()
        .filter(|backup| backup.spec.target == name && backup.spec.deletion_policy == DeletionPolicy::Delete)
        .map(|backup| format!("Backup/{}", backup.name_any()));
    Ok(of_services.chain(of_schedules).chain(of_backups).take(10).collect())
}
