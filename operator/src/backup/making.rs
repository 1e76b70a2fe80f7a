//! The Jobs of a backup as values: the one that makes it, and the one that deletes it from its target.
use std::collections::BTreeMap;

use culvert_resources::instance::{CREDENTIALS_DIR, TLS_DIR};
use culvert_resources::job::{BackupJob, JobConfig, PruneJob, TARGET_DIR};
use culvert_resources::{
    Backup, BackupTarget, ConditionType, DataService, Database, DeletionPolicy, Endpoint, Method, Why, meta,
};
use k8s_openapi::api::core::v1::{KeyToPath, SecretVolumeSource, Volume};
use kube::ResourceExt as _;

use crate::jobs::build::{Program, Task};
use crate::jobs::causes::{seen_in, why};
use crate::jobs::names;
use crate::jobs::reach::{Plane, Reach, SECRET_MODE, mounted, secret_volume};
use crate::reconcile::owner;

/// Seconds for which the Job of a backup stays, so that its log can be read.
const STAY_SECONDS: i32 = 86_400;
/// Seconds that deleting a backup from its target may take.
const PRUNE_SECONDS: i64 = 3_600;
/// Owner's user, and its database, in every engine.
const OWNER: &str = "app";

/// What a Job that makes a backup is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) service: &'a DataService,
    pub(crate) database: &'a Database,
    pub(crate) target: &'a BackupTarget,
    pub(crate) plane: &'a Plane,
}

/// What was found of the parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) service: Option<DataService>,
    pub(crate) database: Option<Database>,
    pub(crate) target: Option<BackupTarget>,
    pub(crate) plane: Plane,
}

impl Found {
    /// All parts, or what lacks. `service` and `target` are the names that were looked for.
    pub(crate) fn parts(&self, service: &str, target: &str) -> Result<Parts<'_>, Why> {
        let Some(found) = &self.service else {
            let cause = why(
                "no_service",
                format!("There is no data service {service}."),
                "Make it, or name another.",
            );
            return Err(seen_in(cause, "DataService", service));
        };
        let Some(place) = &self.target else {
            let cause =
                why("no_target", format!("There is no backup target {target}."), "Make it, or name another.");
            return Err(seen_in(cause, "BackupTarget", target));
        };
        if found.spec.stopped {
            let cause =
                why("service_stopped", format!("The data service {service} is stopped."), "Start it.");
            return Err(seen_in(cause, "DataService", service));
        }
        match (&self.database, primary(found)) {
            (Some(database), Some(_)) => {
                Ok(Parts { service: found, database, target: place, plane: &self.plane })
            }
            _ => {
                let message = format!("The data service {service} has not begun to answer yet.");
                let cause = why("waiting", message, "Wait, or see why it is not ready.");
                Err(seen_in(cause, "DataService", service))
            }
        }
    }
}

impl Found {
    /// Why a backup begun now would fail: the service does not answer. One that is being deleted is not asked, as its
    /// last backup is due whatever is said of it.
    pub(crate) fn answers(&self) -> Option<Why> {
        let service =
            self.service.as_ref().filter(|service| service.metadata.deletion_timestamp.is_none())?;
        let status = service.status.clone().unwrap_or_default();
        let available = ConditionType::Available.as_str();
        if status.conditions.iter().any(|one| one.type_ == available && one.status == "True") {
            return None;
        }
        let name = service.name_any();
        let cause = status.why.map(|why| format!(": {}", why.message)).unwrap_or_default();
        let cause = why(
            "waiting",
            format!("The data service {name} does not answer{cause}"),
            "Wait, or see why it is not ready.",
        );
        Some(seen_in(cause, "DataService", &name))
    }
}

/// Where the primary answers.
fn primary(service: &DataService) -> Option<&Endpoint> {
    service.status.as_ref()?.endpoints.iter().find(|endpoint| endpoint.name == "primary")
}

/// Folder of a service below the prefix of its target; that of its archive, where both are the same target.
pub(crate) fn folder(service: &DataService, database: Option<&Database>, target: &str) -> String {
    let archive = database.and_then(|database| database.spec.archive.as_ref());
    match archive.filter(|archive| archive.target == target) {
        Some(archive) => archive.path.clone(),
        None => names::folder(
            &service.namespace().unwrap_or_default(),
            &service.name_any(),
            &service.uid().unwrap_or_default(),
        ),
    }
}

/// What differs between a Backup that exists and one that a schedule's Job makes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occasion {
    pub(crate) backup: Option<String>,
    pub(crate) schedule: Option<String>,
    pub(crate) method: Method,
    pub(crate) jitter_seconds: i64,
    pub(crate) deletion_policy: DeletionPolicy,
}

/// What the runner is told.
pub(crate) fn config(parts: Parts<'_>, occasion: Occasion, reach: &Reach) -> BackupJob {
    let (service, database) = (parts.service, parts.database);
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let target = parts.target.name_any();
    let endpoint = primary(service);
    let archive = database.spec.archive.as_ref();
    BackupJob {
        host: endpoint.map_or_else(|| format!("{name}.{namespace}.svc"), |endpoint| endpoint.host.clone()),
        port: endpoint.and_then(|endpoint| u16::try_from(endpoint.port).ok()).unwrap_or_default(),
        namespace,
        backup: occasion.backup,
        schedule: occasion.schedule,
        service: name,
        service_uid: service.uid().unwrap_or_default(),
        engine: service.spec.engine.clone(),
        method: occasion.method,
        owner: OWNER.to_owned(),
        target: reach.config.clone(),
        path: folder(service, Some(database), &target),
        archived: archive.is_some_and(|archive| archive.target == target),
        jitter_seconds: occasion.jitter_seconds,
        service_spec: serde_json::to_value(&service.spec).unwrap_or_default(),
        deletion_policy: occasion.deletion_policy,
    }
}

/// The way to a target as Jobs of backups see it, with the engine's credentials and the authority of its certificate.
pub(crate) fn reach(parts: Parts<'_>) -> Reach {
    let mut reach = Reach::to(parts.target, parts.plane.proxy.as_deref(), "target", TARGET_DIR);
    let name = parts.service.name_any();
    let passwords = ["admin-password", "replication-password"];
    reach.volumes.push(some_keys("credentials", &format!("{name}-credentials"), &passwords));
    reach.volumes.push(secret_volume("ca", &format!("{name}-ca")));
    reach.mounts.push(mounted("credentials", CREDENTIALS_DIR, true));
    reach.mounts.push(mounted("ca", TLS_DIR, true));
    reach
}

fn some_keys(volume: &str, secret: &str, keys: &[&str]) -> Volume {
    let items = keys.iter().map(|key| KeyToPath {
        key: (*key).to_owned(),
        path: (*key).to_owned(),
        ..KeyToPath::default()
    });
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        default_mode: Some(SECRET_MODE),
        items: Some(items.collect()),
        ..SecretVolumeSource::default()
    };
    Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() }
}

/// The Job that makes a Backup.
pub(crate) fn backup_task(backup: &Backup, parts: Parts<'_>) -> Task {
    let reach = reach(parts);
    let occasion = Occasion {
        backup: Some(backup.name_any()),
        schedule: backup.spec.schedule.clone(),
        method: backup.spec.method,
        jitter_seconds: 0,
        deletion_policy: backup.spec.deletion_policy,
    };
    let config = config(parts, occasion, &reach);
    Task {
        name: names::job(&backup.name_any(), "backup"),
        namespace: backup.namespace().unwrap_or_default(),
        labels: labels(backup),
        owner: owner(backup),
        config: JobConfig::Backup(config),
        program: program(parts.database),
        pull_secrets: parts.database.spec.image.pull_secrets.clone(),
        volumes: reach.volumes,
        mounts: reach.mounts,
        deadline_seconds: backup.spec.deadline_seconds,
        attempts: backup.spec.attempts,
        stay_seconds: STAY_SECONDS,
    }
}

/// The engine's own tools, with the runner beside them.
pub(crate) fn program(database: &Database) -> Program {
    Program::Engine { engine: database.spec.image.engine.clone(), runner: database.spec.image.runner.clone() }
}

/// The Job that deletes a Backup from its target. Nobody owns it: an owner that is deleted in the foreground would
/// take it away before it has done its work.
pub(crate) fn prune_task(backup: &Backup, path: &str, target: &BackupTarget, plane: &Plane) -> Option<Task> {
    let reach = Reach::to(target, plane.proxy.as_deref(), "target", TARGET_DIR);
    let prune = PruneJob {
        namespace: backup.namespace().unwrap_or_default(),
        backup: backup.name_any(),
        target: reach.config,
        path: path.to_owned(),
        wal_path: names::log_folder(path).filter(|_| backup.spec.method == Method::Physical),
    };
    Some(Task {
        name: names::job(&backup.name_any(), "prune"),
        namespace: backup.namespace().unwrap_or_default(),
        labels: labels(backup),
        owner: None,
        config: JobConfig::Prune(prune),
        program: Program::Runner(plane.runner.clone()?),
        pull_secrets: plane.pull_secrets.clone(),
        volumes: reach.volumes,
        mounts: reach.mounts,
        deadline_seconds: PRUNE_SECONDS,
        attempts: 3,
        stay_seconds: 600,
    })
}

/// Labels of a backup's Jobs. That of the service lets its network policy know them; none of a pod that serves.
fn labels(backup: &Backup) -> BTreeMap<String, String> {
    BTreeMap::from([
        (meta::BACKUP.to_owned(), backup.name_any()),
        (meta::SERVICE.to_owned(), backup.spec.service.clone()),
        (meta::TARGET.to_owned(), backup.spec.target.clone()),
    ])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn found() -> Found {
        Found {
            service: serde_json::from_value(json!({
                "apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
                "metadata": {"name": "orders", "namespace": "shop", "uid": "0a1b2c3d-1111"},
                "spec": {"engine": "postgresql", "version": "17", "backup": {"target": "away"}},
                "status": {"endpoints": [{"name": "primary", "host": "orders.shop.svc", "port": 5432}]},
            }))
            .unwrap(),
            database: serde_json::from_value(json!({
                "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Database",
                "metadata": {"name": "orders", "namespace": "shop"},
                "spec": {"engine": "postgresql", "driver": "postgresql", "version": "17.1", "topology": {},
                    "image": {"engine": "pg:17.1", "runner": "runner:1"}, "resources": {}, "storage": {},
                    "archive": {"target": "away", "path": "services/shop.orders.0a1b2c3d"}},
            }))
            .unwrap(),
            target: serde_json::from_value(json!({
                "apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupTarget",
                "metadata": {"name": "away", "namespace": "shop"},
                "spec": {"s3": {"bucket": "b"}, "secret": {"name": "keys"}},
            }))
            .unwrap(),
            plane: Plane { runner: Some("runner:1".to_owned()), ..Plane::default() },
        }
    }

    fn backup() -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "shop", "uid": "u"},
            "spec": {"service": "orders", "target": "away"},
        }))
        .unwrap()
    }

    #[test]
    fn the_job_sees_the_store_and_the_engine_and_no_secret_in_its_file() {
        let found = found();
        let task = backup_task(&backup(), found.parts("orders", "away").unwrap());
        let JobConfig::Backup(config) = &task.config else { panic!("a backup") };
        assert_eq!((config.host.as_str(), config.port), ("orders.shop.svc", 5432));
        assert_eq!(config.path, "services/shop.orders.0a1b2c3d");
        assert!(config.archived);
        let has_volume = |name: &str| task.volumes.iter().any(|volume| volume.name == name);
        assert!(task.mounts.iter().all(|mount| has_volume(&mount.name)));
        let job = task.job();
        let labels = job.spec.unwrap().template.metadata.unwrap().labels.unwrap();
        assert!(!labels.contains_key(meta::DATABASE) && !labels.contains_key(meta::ROLE));
    }

    #[test]
    fn another_target_than_the_archives_gives_no_points_in_time() {
        let mut found = found();
        found.target.as_mut().unwrap().metadata.name = Some("other".to_owned());
        let task = backup_task(&backup(), found.parts("orders", "other").unwrap());
        let JobConfig::Backup(config) = &task.config else { panic!("a backup") };
        assert!(!config.archived);
        assert_eq!(config.path, "services/shop.orders.0a1b2c3d");
    }

    #[test]
    fn what_lacks_is_named() {
        let code = |found: &Found| found.parts("orders", "away").err().map(|why| why.code);
        let mut one = found();
        one.service.as_mut().unwrap().spec.stopped = true;
        assert_eq!(code(&one).as_deref(), Some("service_stopped"));
        one.target = None;
        assert_eq!(code(&one).as_deref(), Some("no_target"));
        one.service = None;
        assert_eq!(code(&one).as_deref(), Some("no_service"));
        let mut young = found();
        young.database = None;
        assert_eq!(code(&young).as_deref(), Some("waiting"));
    }

    #[test]
    fn a_service_that_does_not_answer_is_waited_for_unless_it_goes() {
        let mut found = found();
        assert_eq!(found.answers().unwrap().code, "waiting");
        let service = found.service.as_mut().unwrap();
        service.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-05-01T12:00:00Z")).unwrap());
        assert_eq!(found.answers(), None);
    }

    #[test]
    fn pruning_takes_the_log_along_and_belongs_to_nobody() {
        let found = found();
        let path = "services/shop.orders.0a1b2c3d/backups/b";
        let task = prune_task(&backup(), path, found.target.as_ref().unwrap(), &found.plane).unwrap();
        let JobConfig::Prune(config) = &task.config else { panic!("a prune") };
        assert_eq!(config.wal_path.as_deref(), Some("services/shop.orders.0a1b2c3d/wal"));
        assert_eq!(task.owner, None);
    }
}
