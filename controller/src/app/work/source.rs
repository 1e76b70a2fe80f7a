//! What a restore brings back: which backup, where it lies, and of which service it is.

use culvert_resources::{BackupPhase, BackupSpec, BackupStatus};
use k8s_openapi::jiff::Timestamp;

use super::restores::RestoreFrom;
use crate::app::data_services::only;
use crate::app::{App, Error};
use crate::domain::{
    BackupTargetRef, Caller, ClusterId, DataService, DataServiceRef, ObjectKind, ObservedObject, Time,
};
use crate::store::{ObservedFilter, OrgStore};

/// What is brought back.
pub(super) struct Origin {
    /// Cluster and namespace of the backup's object, when there is one.
    pub(super) place: Option<(ClusterId, String)>,
    /// Its name.
    pub(super) backup: Option<String>,
    /// Name of the target that it lies in.
    pub(super) target: String,
    /// Folder below the target's prefix.
    pub(super) path: String,
    /// The record of the service it is of, also when that is gone.
    pub(super) service: Option<DataService>,
}

/// Backups looked at in one go, and in all, to find the newest that fits.
const STRIDE: u64 = 200;
const LOOKED_AT: usize = 5_000;
/// The longest path, bytes.
const PATH_MAX: usize = 1024;

impl App {
    /// Finds what is to be brought back.
    pub(super) async fn origin(
        &self,
        caller: &Caller,
        from: &RestoreFrom,
        at: Option<Time>,
    ) -> Result<Origin, Error> {
        let store = self.store().org(caller);
        match from {
            RestoreFrom::Backup(which) => {
                let seen = self.find_work(&store, ObjectKind::Backup, which).await?;
                of_backup(&store, &seen).await
            }
            RestoreFrom::Service(which) => {
                let seen = newest(&store, which, at).await?;
                of_backup(&store, &seen).await
            }
            RestoreFrom::Folder { target, path } => of_folder(&store, target, path).await,
        }
    }
}

async fn of_backup(store: &OrgStore, seen: &ObservedObject) -> Result<Origin, Error> {
    let name = &seen.told.key.name;
    let (spec, status) = read(seen).ok_or_else(|| {
        Error::refused("not_readable", format!("the backup {name} cannot be read"), "look at it with kubectl")
    })?;
    if status.phase != Some(BackupPhase::Complete) {
        let reason = format!("the backup {name} is not complete");
        return Err(Error::refused("backup_incomplete", reason, "wait for its end, or choose another one"));
    }
    let path = status.path.unwrap_or_default();
    let services = store.data_services_called(&[seen.cluster], std::slice::from_ref(&spec.service)).await?;
    let namespace = seen.told.key.namespace.clone();
    let service = services.into_iter().find(|service| service.namespace.as_str() == namespace);
    let place = Some((seen.cluster, namespace));
    Ok(Origin { place, backup: Some(name.clone()), target: spec.target, path, service })
}

async fn of_folder(store: &OrgStore, target: &BackupTargetRef, path: &str) -> Result<Origin, Error> {
    let target = store.backup_target(target).await?.ok_or(Error::NotFound("backup target"))?;
    if !is_folder(path) {
        let detail = "must be a folder below the target's prefix, such as services/shop.orders.1a2b3c4d";
        return Err(Error::invalid("source.path", "invalid", detail));
    }
    let (place, backup, service) = (None, None, None);
    Ok(Origin { place, backup, target: target.name.to_string(), path: path.to_owned(), service })
}

/// Whether a text names a folder, and none outside of the target's prefix.
fn is_folder(path: &str) -> bool {
    (1..=PATH_MAX).contains(&path.len())
        && !path.chars().any(|c| c.is_control() || c == '\\')
        && path.trim_end_matches('/').split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The newest complete backup of a service from which the moment can be reached.
async fn newest(store: &OrgStore, which: &DataServiceRef, at: Option<Time>) -> Result<ObservedObject, Error> {
    let service = only(store.data_services_named(which).await?)?;
    let mut rows = ObservedFilter {
        kind: Some(ObjectKind::Backup),
        cluster: Some(service.cluster),
        namespace: Some(service.namespace.to_string()),
        ..ObservedFilter::default()
    };
    let mut looked_at = 0;
    loop {
        let page = store.observed(&rows, STRIDE).await?;
        looked_at += page.len();
        let last = (page.len() as u64) < STRIDE || looked_at >= LOOKED_AT;
        rows.after = page.last().map(|object| (object.told.made_at, object.id));
        if let Some(found) = page.into_iter().find(|object| fits(object, service.name.as_str(), at)) {
            return Ok(found);
        }
        if last {
            let reason = format!("no complete backup of {} reaches that far", service.name);
            let next = format!("look at what there is: culvert backup list --data-service {}", service.name);
            return Err(Error::refused("no_backup", reason, next));
        }
    }
}

fn fits(object: &ObservedObject, service: &str, at: Option<Time>) -> bool {
    let Some((spec, status)) = read(object) else { return false };
    let from = status.recoverable.as_ref().map(|range| range.from.0);
    spec.service == service
        && status.phase == Some(BackupPhase::Complete)
        && reaches(from.or(status.ended_at.map(|at| at.0)), at)
}

/// Whether what begins at `from` reaches the moment; the end is the cluster's to judge, as the
/// archive goes on after the backup.
fn reaches(from: Option<Timestamp>, at: Option<Time>) -> bool {
    match (from, at) {
        (_, None) => true,
        (Some(from), Some(at)) => from.as_second() <= at.unix_timestamp(),
        (None, Some(_)) => false,
    }
}

fn read(seen: &ObservedObject) -> Option<(BackupSpec, BackupStatus)> {
    let spec = serde_json::from_value(seen.told.object.get("spec")?.clone()).ok()?;
    let status = seen.told.object.get("status").cloned().unwrap_or_default();
    Some((spec, serde_json::from_value(status).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_below_the_prefix() {
        for good in ["services/shop.orders.1a2b3c4d", "a/", "a/b c"] {
            assert!(is_folder(good), "{good}");
        }
        for bad in ["", "/", "/etc", "a/../b", "..", "a//b", "./a", "a\\b", "a\nb", &"x".repeat(1025)] {
            assert!(!is_folder(bad), "{bad}");
        }
    }

    #[test]
    fn a_backup_reaches_what_came_after_its_beginning() {
        let from = Timestamp::from_second(100).ok();
        let at = |seconds| Some(Time::UNIX_EPOCH + time::Duration::seconds(seconds));
        assert!(reaches(from, None) && reaches(None, None));
        assert!(reaches(from, at(100)) && reaches(from, at(101)));
        assert!(!reaches(from, at(99)) && !reaches(None, at(99)));
    }
}
