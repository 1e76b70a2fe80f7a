//! Controller of restores: into a new service, or in place by an exchange of volumes that can be undone.
//!
//! [`rules`] decides, [`compose`] says what the new service is like, [`exchange`] moves volumes, [`looking`] and
//! [`acting`] read and write the cluster.
use std::sync::Arc;

use culvert_resources::{
    ConditionType, DataService, Failure, Restore, RestorePhase, Step, StepState, Why, meta,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::reconcile::{Conditions, Error, Next, Work, World};

mod acting;
pub(crate) mod compose;
mod exchange;
mod looking;
mod rules;
mod steps;

use rules::Decision;
use steps::{FETCH, RECOVER};

/// Runs until `stop`.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::Restore, meta::manager::RESTORE);
    let of_restores = watcher::Config::default().labels(meta::RESTORE);
    let controller = Controller::new(Api::<Restore>::all(world.client()), watcher::Config::default())
        .owns(Api::<Job>::all(world.client()), of_restores.clone())
        .watches(Api::<DataService>::all(world.client()), of_restores, |service| {
            let name = service.labels().get(meta::RESTORE)?.clone();
            Some(ObjectRef::new(&name).within(&service.namespace()?))
        });
    work.run(controller, reconcile, stop).await;
}

/// This controller's part of the status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: RestorePhase,
    steps: Vec<Step>,
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
    conditions: Vec<Condition>,
}

async fn reconcile(restore: Arc<Restore>, work: Work) -> Result<Next, Error> {
    if restore.metadata.deletion_timestamp.is_some() {
        return Box::pin(let_go(&restore, &work)).await;
    }
    work.finalizer(restore.as_ref(), true).await?;
    let seen = Box::pin(looking::look(&work, &restore)).await?;
    let decision = rules::decide(&seen);
    let hindrance = Box::pin(acting::act(&work, &seen, &decision.act)).await?;
    let seconds = decision.seconds;
    report(&work, &restore, decision, hindrance).await?;
    Ok(Next::seconds(seconds))
}

async fn report(
    work: &Work,
    restore: &Restore,
    decision: Decision,
    hindrance: Option<Why>,
) -> Result<(), Error> {
    let now = work.world().now();
    let standing = restore.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&standing.conditions, restore.metadata.generation, now);
    say(&decision, &mut conditions);
    work.tell_changes(restore, &conditions).await;
    let over = !matches!(decision.phase, RestorePhase::Pending | RestorePhase::Running);
    let steps = decision.steps.ours(restore);
    let offered = steps
        .iter()
        .any(|step| matches!(step.name.as_str(), FETCH | RECOVER) && step.state == StepState::Pending);
    let found = decision.found;
    let status = Status {
        phase: decision.phase,
        steps,
        started_at: standing.started_at.unwrap_or(Time(now)),
        ended_at: over.then(|| standing.ended_at.unwrap_or(Time(now))),
        target: found.as_ref().map(|found| found.target.clone()),
        path: found.as_ref().map(|found| found.path.clone()),
        manifest_digest: found.map(|found| found.digest),
        failure: decision.failure,
        why: decision.why.or(hindrance),
        conditions: conditions.done(),
    };
    // The runner may have begun to speak of its steps meanwhile, and has the last word.
    if offered { work.offer_status(restore, &status).await } else { work.status(restore, &status).await }
}

fn say(decision: &Decision, conditions: &mut Conditions<'_>) {
    use ConditionType::{Complete, Failed, Progressing};
    let told = decision.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
    match decision.phase {
        RestorePhase::Pending | RestorePhase::Running => {
            conditions.say(Progressing, true, "Running", decision.steps.current().to_owned());
        }
        RestorePhase::Complete => {
            conditions.say(Complete, true, "Restored", "the service answers with the data");
        }
        RestorePhase::Failed => {
            conditions.say(Failed, true, "Failed", told);
        }
        RestorePhase::Cancelled => {
            conditions.say(Failed, true, "Cancelled", told);
        }
    }
}

/// A restore that is deleted before its end is undone first; one that has ended has nothing to undo.
async fn let_go(restore: &Restore, work: &Work) -> Result<Next, Error> {
    if !restore.finalizers().iter().any(|held| held == meta::FINALIZER) {
        return Ok(Next::OnChange);
    }
    let namespace = restore.namespace().unwrap_or_default();
    if !work.namespace_ends(&namespace).await? {
        let mut seen = looking::look(work, restore).await?;
        let mut ended = restore.clone();
        let status = ended.status.get_or_insert_default();
        if matches!(status.phase, None | Some(RestorePhase::Pending | RestorePhase::Running)) {
            status.phase = Some(RestorePhase::Cancelled);
        }
        seen.restore = &ended;
        let decision = rules::decide(&seen);
        if decision.act != rules::Act::Nothing {
            acting::act(work, &seen, &decision.act).await?;
            return Ok(Next::seconds(3));
        }
    }
    work.finalizer(restore, false).await?;
    Ok(Next::OnChange)
}
