//! The walk of a deletion: protection, a last backup, the volumes, and then the name.
//!
//! Nothing in it waits for anything outside of the cluster, and nothing at all is waited for in a namespace that is
//! being deleted: its volumes go with it, whatever was wished.
use culvert_resources::{
    Backup, BackupPhase, BackupSpec, ConditionType, DataService, DataServiceStatus, Database, DeletionPolicy,
    DeletionStrategy, Phase, Trigger, WhoCanFix, Why, meta,
};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::DeleteParams;

use super::retained::VERSION;
use crate::database::Names;
use crate::driver;
use crate::jobs::names::digest;
use crate::reconcile::{Conditions, Error, Next, Work};
use crate::why::why;

/// A last backup that takes longer has failed.
const FINAL_BACKUP_SECONDS: i64 = 7200;

/// What becomes of the volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Volumes {
    /// They go now.
    Delete,
    /// They stay until then, or until somebody deletes them.
    Retain(Option<Timestamp>),
}

/// One round of the walk.
pub(super) async fn walk(work: &Work, service: &DataService) -> Result<Next, Error> {
    let namespace = service.namespace().unwrap_or_default();
    if !service.finalizers().iter().any(|held| held == meta::FINALIZER) {
        return Ok(Next::OnChange);
    }
    if work.namespace_ends(&namespace).await? {
        work.finalizer(service, false).await?;
        return Ok(Next::OnChange);
    }
    let now = work.world().now();
    if let Some(why) = protection(service) {
        return blocked(work, service, &why, now).await;
    }
    if let Some(why) = final_backup(work, service).await? {
        return blocked(work, service, &why, now).await;
    }
    report(work, service, None, now).await?;
    if !ended(work, service).await? {
        return Ok(Next::seconds(1));
    }
    settle(work, service, volumes(service, now)).await?;
    work.tell(service, "Deleted", "the service is gone; its backups stay").await;
    work.finalizer(service, false).await?;
    Ok(Next::OnChange)
}

async fn blocked(work: &Work, service: &DataService, why: &Why, now: Timestamp) -> Result<Next, Error> {
    report(work, service, Some(why), now).await?;
    Ok(Next::seconds(if why.who == WhoCanFix::Nobody { 3 } else { 30 }))
}

fn protection(service: &DataService) -> Option<Why> {
    let confirmed = service.annotations().contains_key(meta::DELETE_CONFIRMED);
    (service.spec.deletion.protection && !confirmed).then(|| {
        why(
            "deletion_protected",
            WhoCanFix::Developer,
            "The service is protected from deletion; it goes on serving.",
            format!("Set spec.deletion.protection to false, or the annotation {}.", meta::DELETE_CONFIRMED),
        )
    })
}

/// What a last backup still needs; nothing when it is complete or none was wished.
async fn final_backup(work: &Work, service: &DataService) -> Result<Option<Why>, Error> {
    if service.spec.deletion.strategy != DeletionStrategy::FinalBackup {
        return Ok(None);
    }
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let Some(database) = work.find::<Database>(&namespace, &name).await? else { return Ok(None) };
    if database.status.as_ref().and_then(|status| status.running_version.as_ref()).is_none() {
        // It never served: there is nothing to back up.
        return Ok(None);
    }
    let Some(plan) = &service.spec.backup else { return Ok(Some(no_target())) };
    let backup = backup_name(service);
    match work.find::<Backup>(&namespace, &backup).await? {
        Some(found) => Ok(backup_state(&found)),
        None => {
            make_backup(work, service, &backup, &plan.target).await?;
            Ok(Some(backup_runs(&backup)))
        }
    }
}

/// The same for every try of this deletion, and another for a later service of the same name.
fn backup_name(service: &DataService) -> String {
    format!("{}-f{}", service.name_any(), digest(&service.uid().unwrap_or_default()))
}

fn no_target() -> Why {
    why(
        "no_target",
        WhoCanFix::Developer,
        "A last backup is wished, and the service names no backup target.",
        "Name one in spec.backup, or choose another spec.deletion.strategy.",
    )
}

fn backup_runs(name: &str) -> Why {
    let message = format!("The last backup {name} is being made.");
    why("final_backup_runs", WhoCanFix::Nobody, message, "Wait: deletion goes on by itself.")
}

fn backup_state(backup: &Backup) -> Option<Why> {
    let status = backup.status.as_ref();
    match status.and_then(|status| status.phase) {
        Some(BackupPhase::Complete) => None,
        Some(BackupPhase::Failed | BackupPhase::Cancelled | BackupPhase::Deleting) => {
            let failure = status.and_then(|status| status.failure.as_ref());
            let cause = failure.map_or("it was cancelled", |failure| failure.message.as_str());
            Some(why(
                "final_backup_failed",
                WhoCanFix::Developer,
                format!("The last backup {} failed: {cause}", backup.name_any()),
                "Delete that Backup to have it tried again, or choose another spec.deletion.strategy.",
            ))
        }
        _ => Some(backup_runs(&backup.name_any())),
    }
}

async fn make_backup(work: &Work, service: &DataService, name: &str, target: &str) -> Result<(), Error> {
    let namespace = service.namespace().unwrap_or_default();
    let mut backup = Backup::new(
        name,
        BackupSpec {
            service: service.name_any(),
            target: target.to_owned(),
            method: culvert_resources::Method::default(),
            trigger: Trigger::Final,
            schedule: None,
            expires_at: None,
            deletion_policy: DeletionPolicy::Retain,
            verify: false,
            deadline_seconds: FINAL_BACKUP_SECONDS,
            attempts: 3,
        },
    );
    backup.metadata.namespace = Some(namespace.clone());
    backup.metadata.labels = Some([(meta::SERVICE.to_owned(), service.name_any())].into());
    match work.api::<Backup>(&namespace).create(&work.posting(), &backup).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(Error::kube(format!("creating the last backup {name}"), error)),
    }
}

/// Whether the database and what would bring its volumes back are gone.
async fn ended(work: &Work, service: &DataService) -> Result<bool, Error> {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    if let Some(database) = work.find::<Database>(&namespace, &name).await? {
        if database.metadata.deletion_timestamp.is_none() {
            work.delete(&database, DeleteParams::background()).await?;
        }
        return Ok(false);
    }
    Ok(work.find::<StatefulSet>(&namespace, &name).await?.is_none())
}

fn volumes(service: &DataService, now: Timestamp) -> Volumes {
    let deletion = &service.spec.deletion;
    let until = now.checked_add(SignedDuration::from_hours(deletion.undelete_hours)).ok();
    match (deletion.strategy, deletion.undelete_hours) {
        (DeletionStrategy::Delete, _) | (DeletionStrategy::FinalBackup, 0) => Volumes::Delete,
        (DeletionStrategy::Retain, 0) => Volumes::Retain(None),
        (DeletionStrategy::Retain | DeletionStrategy::FinalBackup, _) => Volumes::Retain(until),
    }
}

/// Deletes the volumes, or says until when they stay.
async fn settle(work: &Work, service: &DataService, volumes: Volumes) -> Result<(), Error> {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let claims = work.list::<PersistentVolumeClaim>(&namespace, meta::SERVICE, &name).await?;
    let names = Names::new(&name, &namespace);
    let ours = claims.iter().filter(|claim| (0..16).any(|ordinal| names.claim(ordinal) == claim.name_any()));
    for claim in ours {
        match volumes {
            Volumes::Delete => work.delete(claim, DeleteParams::default()).await?,
            Volumes::Retain(until) => {
                let changes =
                    [(meta::PURGE_AFTER, until.map(|until| until.to_string())), (VERSION, version(service))];
                work.annotate(claim, &changes).await?;
            }
        }
    }
    if volumes == Volumes::Delete
        && let Some(lease) = work.find::<Lease>(&namespace, &names.lease()).await?
    {
        // It says who held the newest data, and there is none any more.
        work.delete(&lease, DeleteParams::default()).await?;
    }
    Ok(())
}

fn version(service: &DataService) -> Option<String> {
    service.status.as_ref()?.version.as_ref()?.running.clone()
}

async fn report(work: &Work, service: &DataService, why: Option<&Why>, now: Timestamp) -> Result<(), Error> {
    let mut status: DataServiceStatus = service.status.clone().unwrap_or_default();
    let before = status.conditions.clone();
    let mut conditions = Conditions::new(&before, service.metadata.generation, now);
    match why {
        Some(why) => {
            let message = format!("{} {}", why.message, why.next);
            conditions.say(ConditionType::DeletionBlocked, true, "Waits", message)
        }
        None => conditions.say(ConditionType::DeletionBlocked, false, "UnderWay", "Nothing is in the way."),
    };
    work.tell_changes(service, &conditions).await;
    let mut made = conditions.done();
    made.extend(before.iter().filter(|old| old.type_ != ConditionType::DeletionBlocked.as_str()).cloned());
    made.sort_by(|a, b| a.type_.cmp(&b.type_));
    status.conditions = made;
    status.phase = Some(Phase::Deleting);
    status.current_operation = Some("deleting".to_owned());
    status.why = why.cloned();
    status.observed_generation = service.metadata.generation;
    // Of an engine that this operator does not know nothing can be said but this.
    if driver::engine(&service.spec.engine).is_none() {
        status.endpoints.clear();
    }
    work.status(service, &status).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn service(deletion: serde_json::Value) -> DataService {
        let spec = json!({"engine": "postgresql", "version": "15", "deletion": deletion});
        DataService::new("orders", serde_json::from_value(spec).unwrap())
    }

    #[rstest]
    #[case(json!({}), Volumes::Retain(Some("2026-11-28T12:00:00Z".parse().unwrap())))]
    #[case(json!({"undeleteHours": 0}), Volumes::Retain(None))]
    #[case(json!({"strategy": "Delete"}), Volumes::Delete)]
    #[case(json!({"strategy": "FinalBackup", "undeleteHours": 0}), Volumes::Delete)]
    #[case(json!({"strategy": "FinalBackup", "undeleteHours": 1}), Volumes::Retain(Some("2026-11-25T13:00:00Z".parse().unwrap())))]
    fn volumes_stay_unless_it_was_said_otherwise(
        #[case] deletion: serde_json::Value,
        #[case] wanted: Volumes,
    ) {
        assert_eq!(volumes(&service(deletion), "2026-11-25T12:00:00Z".parse().unwrap()), wanted);
    }

    #[test]
    fn protection_is_lifted_by_the_field_or_the_annotation() {
        let mut guarded = service(json!({"protection": true}));
        assert_eq!(protection(&guarded).unwrap().code, "deletion_protected");
        guarded.annotations_mut().insert(meta::DELETE_CONFIRMED.to_owned(), "yes".to_owned());
        assert_eq!(protection(&guarded), None);
        assert_eq!(protection(&service(json!({}))), None);
    }

    #[test]
    fn a_last_backup_is_waited_for_and_its_failure_told() {
        let backup = |phase: &str| -> Backup {
            serde_json::from_value(json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
                "metadata": {"name": "orders-f1"}, "spec": {"service": "orders", "target": "t"},
                "status": {"phase": phase, "failure": {"step": "s", "code": "c", "message": "The key has expired."}}}))
            .unwrap()
        };
        assert_eq!(backup_state(&backup("Complete")), None);
        assert_eq!(backup_state(&backup("Running")).unwrap().who, WhoCanFix::Nobody);
        let failed = backup_state(&backup("Failed")).unwrap();
        assert!(failed.message.contains("The key has expired."));
    }

    #[test]
    fn every_service_has_its_own_last_backup() {
        let mut first = service(json!({}));
        first.metadata.uid = Some("a".to_owned());
        let mut second = service(json!({}));
        second.metadata.uid = Some("b".to_owned());
        assert_ne!(backup_name(&first), backup_name(&second));
        assert!(backup_name(&first).len() <= 52);
    }
}
