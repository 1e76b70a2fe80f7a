//! Making restores: into a new data service, here or in another cluster, or in place.

use culvert_resources::{InPlace, RestoreOverrides, RestoreSource, RestoreSpec};
use serde_json::Value;

use super::backups::kubernetes_time;
use super::source::Origin;
use super::{Kept, WorkBegun, WorkIntent};
use crate::app::data_services::{claim_of, may_change, only};
use crate::app::{App, Error, Once, require_admin, spec};
use crate::domain::template::merge;
use crate::domain::{
    Act, BackupRef, BackupTargetRef, Caller, Claim, ClusterId, ClusterRef, DataServiceId, DataServiceRef,
    Fault, Namespace, OperationKind, Project, ProjectRef, ServiceName, SubjectKind, TargetName, Time,
};
use crate::store::OrgTx;

/// How long a restore may take, seconds.
const DEADLINE_SECONDS: i64 = 21_600;

/// What is brought back.
#[derive(Debug, Clone)]
pub enum RestoreFrom {
    /// This backup.
    Backup(BackupRef),
    /// The newest backup of this data service that fits the time.
    Service(DataServiceRef),
    /// A folder of a target, when nothing but the bucket is left.
    Folder {
        /// The target.
        target: BackupTargetRef,
        /// The folder below the target's prefix.
        path: String,
    },
}

/// A restore that somebody wants.
#[derive(Debug, Clone)]
pub struct NewRestore {
    /// Name of the data service that is made, or replaced.
    pub name: ServiceName,
    /// What is brought back.
    pub from: RestoreFrom,
    /// The cluster; that of the backup when absent.
    pub cluster: Option<ClusterRef>,
    /// The project of the new service; that of the old one when absent.
    pub project: Option<ProjectRef>,
    /// The namespace; that of the backup when absent.
    pub namespace: Option<Namespace>,
    /// Bring it back to this moment.
    pub point_in_time: Option<Time>,
    /// What the new service has otherwise than the old one.
    pub overrides: Value,
    /// Replace the service of this name: its id, as proof that this very one is meant.
    pub in_place: Option<String>,
}

/// Where a restore acts.
struct Goal {
    cluster: ClusterId,
    namespace: Namespace,
    /// The project that the new service counts in; absent in place.
    project: Option<Project>,
    /// The uid of the service that is replaced.
    replaces: Option<String>,
}

impl App {
    /// Begins a restore.
    pub async fn create_restore(
        &self,
        caller: &Caller,
        new: NewRestore,
        once: Option<&Once>,
    ) -> Result<WorkBegun, Error> {
        require_admin(caller)?;
        let now = self.now();
        let overrides = read_overrides(&new.overrides)?;
        if new.point_in_time.is_some_and(|at| at > now) {
            return Err(Error::invalid("point_in_time", "invalid", "must be in the past"));
        }
        let origin = self.origin(caller, &new.from, new.point_in_time).await;
        let tx = self.store().write(caller).await?;
        if let Some(kept) = self.recall::<Kept>(caller, &tx, once, now).await? {
            drop(tx);
            return self.work_begun(caller, &kept).await;
        }
        let origin = origin?;
        let goal = goal(&tx, &new, &origin).await?;
        let source = self.source_at(&tx, &origin, &goal).await?;
        self.may_be_made(&tx, &new, &origin, &goal, overrides.as_ref()).await?;
        if let Some(plan) = overrides.as_ref().and_then(|overrides| overrides.backup.as_ref()) {
            self.want_target(&tx, &plan.target, goal.cluster, &goal.namespace).await?;
        }
        let spec = spec_of(&new, source, overrides, goal.replaces.clone())?;
        let (place, service) = ((goal.cluster, &goal.namespace), new.name.as_str());
        let name = self.fresh_name(&tx, SubjectKind::Restore, place, service, now).await?;
        let intent = WorkIntent {
            object: Value::Null,
            namespace: goal.namespace,
            name,
            target: origin.target,
            uid: None,
            project: goal.project.map(|project| project.id),
            service: service.to_owned(),
        };
        let place = (OperationKind::Restore, goal.cluster);
        let operation = self.begin_work(&tx, caller, place, intent, spec).await?;
        let detail = format!("{} into {service}", operation.subject.name);
        tx.audit(Act::RestoreCreated, &operation.subject.id, detail, now).await?;
        let kept = Kept { operation: operation.id };
        self.remember(caller, &tx, once, &kept).await?;
        tx.commit().await?;
        self.announce_work(caller, &kept).await
    }

    /// The source as the goal's namespace can read it; its target is wanted there from now on.
    async fn source_at(&self, tx: &OrgTx, origin: &Origin, goal: &Goal) -> Result<RestoreSource, Error> {
        let here = origin.place.as_ref().is_some_and(|(cluster, namespace)| {
            *cluster == goal.cluster && *namespace == goal.namespace.as_str()
        });
        self.want_target(tx, &origin.target, goal.cluster, &goal.namespace).await?;
        if let (true, Some(backup)) = (here, &origin.backup) {
            return Ok(RestoreSource { backup: Some(backup.clone()), ..RestoreSource::default() });
        }
        let ours = match origin.target.parse::<TargetName>() {
            Ok(name) => tx.backup_target(&BackupTargetRef::Name(name)).await?,
            Err(_) => None,
        };
        if ours.is_none() && origin.place.is_some() {
            let reason =
                format!("the target {} was made in the backup's own cluster, not here", origin.target);
            let next = "make it here with its credentials: culvert backup-target create";
            return Err(Error::refused("target_elsewhere", reason, next));
        }
        let (target, path) = (Some(origin.target.clone()), Some(origin.path.clone()));
        Ok(RestoreSource { backup: None, target, path })
    }

    /// Whether the new service's name and its project's quota are free, as far as its size is known.
    async fn may_be_made(
        &self,
        tx: &OrgTx,
        new: &NewRestore,
        origin: &Origin,
        goal: &Goal,
        overrides: Option<&RestoreOverrides>,
    ) -> Result<(), Error> {
        let Some(project) = &goal.project else { return Ok(()) };
        if tx.data_service_at(goal.cluster, &goal.namespace, &new.name).await?.is_some() {
            let (name, namespace) = (&new.name, &goal.namespace);
            let reason =
                format!("there is a data service {name} in the namespace {namespace} of this cluster");
            let next = "choose another name, or restore it in place";
            return Err(Error::refused("name_taken", reason, next));
        }
        let Some(old) = &origin.service else { return Ok(()) };
        let value = serde_json::to_value(&old.spec).unwrap_or_default();
        let value = merge(&value, &serde_json::to_value(overrides).unwrap_or_default());
        let wanted = serde_json::from_value(value).unwrap_or_else(|_| old.spec.clone());
        let claim = claim_of(&wanted)?;
        self.reserve(tx, project.id, DataServiceId::generate(), claim, Claim::default()).await?;
        Ok(())
    }
}

async fn goal(tx: &OrgTx, new: &NewRestore, origin: &Origin) -> Result<Goal, Error> {
    let cluster = match &new.cluster {
        Some(which) => Some(tx.cluster(which).await?.ok_or(Error::NotFound("cluster"))?.id),
        None => None,
    };
    if let Some(confirm) = &new.in_place {
        return replaced(tx, new, cluster, confirm).await;
    }
    let theirs = origin.place.as_ref();
    let cluster = cluster.or(theirs.map(|(cluster, _)| *cluster)).ok_or_else(|| {
        Error::invalid("cluster", "missing", "must be given, as the folder does not tell of one")
    })?;
    let which = match (&new.project, &origin.service) {
        (Some(which), _) => which.clone(),
        (None, Some(old)) => ProjectRef::Id(old.project),
        (None, None) => crate::domain::project::DEFAULT.parse().map_err(|_| Error::NotFound("project"))?,
    };
    let project = tx.project(&which).await?.ok_or(Error::NotFound("project"))?;
    let near = theirs.filter(|_| new.project.is_none()).and_then(|(_, namespace)| namespace.parse().ok());
    let namespace = new.namespace.clone().or(near).unwrap_or_else(|| project.name.namespace());
    Ok(Goal { cluster, namespace, project: Some(project), replaces: None })
}

/// The service that is replaced, after the proof that this very one is meant.
async fn replaced(
    tx: &OrgTx,
    new: &NewRestore,
    cluster: Option<ClusterId>,
    confirm: &str,
) -> Result<Goal, Error> {
    let which = match confirm.parse::<DataServiceId>() {
        Ok(id) => DataServiceRef::Id(id),
        Err(_) => DataServiceRef::Name(new.name.clone()),
    };
    let service = only(tx.data_services_named(&which).await?)?;
    let uid = service.seen.as_ref().map(|seen| seen.uid.clone());
    let meant = service.name == new.name
        && (service.id.to_string() == confirm || uid.as_deref() == Some(confirm))
        && cluster.is_none_or(|cluster| cluster == service.cluster)
        && new.namespace.as_ref().is_none_or(|namespace| *namespace == service.namespace);
    if !meant {
        let detail = "must be the id of the data service of this name that is to be replaced";
        return Err(Error::invalid("in_place.confirm", "wrong_service", detail));
    }
    may_change(tx, &service).await?;
    let Some(uid) = uid else {
        let reason = format!("the data service {} was not seen in its cluster yet", service.name);
        return Err(Error::refused("not_in_cluster", reason, "wait until its cluster has it"));
    };
    let (cluster, namespace) = (service.cluster, service.namespace);
    Ok(Goal { cluster, namespace, project: None, replaces: Some(uid) })
}

fn spec_of(
    new: &NewRestore,
    source: RestoreSource,
    overrides: Option<RestoreOverrides>,
    replaces: Option<String>,
) -> Result<Value, Error> {
    let spec = RestoreSpec {
        service: new.name.to_string(),
        source,
        point_in_time: new.point_in_time.map(kubernetes_time).transpose()?,
        overrides,
        in_place: replaces.map(|confirm| InPlace { confirm, prior_backup: None }),
        deadline_seconds: DEADLINE_SECONDS,
    };
    serde_json::to_value(spec).map_err(|error| Error::internal("a spec was not written", error))
}

/// Reads what the new service shall have otherwise, by the rules for a spec.
fn read_overrides(given: &Value) -> Result<Option<RestoreOverrides>, Error> {
    if given.is_null() {
        return Ok(None);
    }
    spec::read(given).map(Some).map_err(|faults| {
        let moved = |mut fault: Fault| {
            fault.field = fault.field.replacen("spec", "overrides", 1);
            fault
        };
        Error::Invalid(faults.into_iter().map(moved).collect())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(given: Value) -> String {
        match read_overrides(&given) {
            Err(Error::Invalid(faults)) => faults[0].field.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn only_what_a_restore_can_change_is_taken() {
        let taken = read_overrides(&json!({"topology": {"replicas": 2}, "version": "17"})).unwrap().unwrap();
        assert_eq!(taken.topology.map(|topology| topology.replicas), Some(2));
        assert!(read_overrides(&Value::Null).unwrap().is_none());
        assert_eq!(fault(json!({"engine": "valkey"})), "overrides.engine");
        assert_eq!(fault(json!({"topology": {"replica": 2}})), "overrides.topology.replica");
        assert_eq!(fault(json!([])), "overrides");
        assert_eq!(fault(json!({"topology": 7})), "overrides");
    }
}
