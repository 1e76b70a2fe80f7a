//! Changing data services: a patch of the spec, and the acts that are patches in disguise.

use culvert_resources::DataServiceSpec;
use serde_json::{Value, json};

use super::create::{claim_of, in_use, operation};
use super::look::only;
use super::{Begun, DataServicePlan, Kept};
use crate::app::engines::{over_quota, refuse};
use crate::app::{App, Error, Once, require_admin, spec};
use crate::domain::template::merge;
use crate::domain::{Act, Caller, DataService, DataServiceRef, Operation, OperationKind, ProjectRef, Time};
use crate::store::OrgTx;

/// How a data service's spec shall change.
#[derive(Debug, Clone, Default)]
pub struct DataServiceChange {
    /// The revision that the change was made from; any when absent.
    pub revision: Option<u64>,
    /// Merge patch of the spec.
    pub spec: Value,
    /// `spec` is the whole spec and no patch.
    pub replace: bool,
    /// Take over fields that somebody set in the cluster by hand.
    pub force: bool,
}

impl App {
    /// Changes a data service's spec, and begins the operation that brings it to the cluster.
    pub async fn update_data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        change: DataServiceChange,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        require_admin(caller)?;
        let service = only(self.store().org(caller).data_services_named(which).await?)?;
        // The revision is compared again in the transaction, so what was checked is what is written.
        let spec = patched(&service, &change)?;
        refuse(&self.plan_in(caller, service.cluster, Some(&service), &spec).await?)?;
        let revision = change.revision.or(Some(service.revision));
        let change = DataServiceChange { revision, ..change };
        self.change(caller, which, OperationKind::Update, once, &change).await
    }

    /// What a change would do. Nothing is written.
    pub async fn plan_data_service_change(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        change: &DataServiceChange,
    ) -> Result<DataServicePlan, Error> {
        let service = only(self.store().org(caller).data_services_named(which).await?)?;
        let spec = patched(&service, change)?;
        let claim = claim_of(&spec)?;
        let mut plan = self.plan_in(caller, service.cluster, Some(&service), &spec).await?;
        let store = self.store().org(caller);
        let used = store.used_of(service.project, Some(service.id)).await?;
        let project = store.project(&ProjectRef::Id(service.project)).await?;
        let quota = project.and_then(|project| project.quota).unwrap_or_default();
        let before = claim_of(&service.spec)?;
        plan.faults.extend(over_quota(&quota.exceeded_by(used, claim, before)));
        Ok(DataServicePlan { plan, spec, claim })
    }

    /// Restarts a data service's instances, one after the other.
    pub async fn restart_data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        let spec = json!({"restartedAt": stamp(self.now())});
        self.act(caller, which, OperationKind::Restart, once, spec).await
    }

    /// Stops a data service; its volumes and its claim stay.
    pub async fn stop_data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        self.act(caller, which, OperationKind::Stop, once, json!({"stopped": true})).await
    }

    /// Starts a data service that is stopped.
    pub async fn start_data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        self.act(caller, which, OperationKind::Start, once, json!({"stopped": false})).await
    }

    /// Has new passwords and certificates made.
    pub async fn rotate_data_service_credentials(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        let spec = json!({"credentialsRotatedAt": stamp(self.now())});
        self.act(caller, which, OperationKind::RotateCredentials, once, spec).await
    }

    async fn act(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        kind: OperationKind,
        once: Option<&Once>,
        spec: Value,
    ) -> Result<Begun, Error> {
        require_admin(caller)?;
        let change = DataServiceChange { spec, ..DataServiceChange::default() };
        self.change(caller, which, kind, once, &change).await
    }

    async fn change(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        kind: OperationKind,
        once: Option<&Once>,
        change: &DataServiceChange,
    ) -> Result<Begun, Error> {
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(kept) = self.recall::<Kept>(caller, &tx, once, now).await? {
            drop(tx);
            return self.begun(caller, &kept).await;
        }
        let service = only(tx.data_services_named(which).await?)?;
        may_change(&tx, &service).await?;
        let spec = patched(&service, change)?;
        let intent = json!({"before": service.spec, "force": change.force});
        let operation = operation(&service, kind, caller, intent, now);
        let operation = self.revise(&tx, service, spec, change, operation, now).await?;
        let service = operation.subject.id.parse()?;
        let detail = format!("{} by {}", kind.as_str(), operation.id);
        tx.audit(Act::DataServiceChanged, &operation.subject.id, detail, now).await?;
        let kept = Kept { service, operation: operation.id };
        self.remember(caller, &tx, once, &kept).await?;
        tx.commit().await?;
        self.announce(caller, &kept).await
    }

    /// Writes the new spec as the next revision, with the operation that sends it.
    async fn revise(
        &self,
        tx: &OrgTx,
        service: DataService,
        spec: DataServiceSpec,
        change: &DataServiceChange,
        mut operation: Operation,
        now: Time,
    ) -> Result<Operation, Error> {
        let (claim, before) = (claim_of(&spec)?, claim_of(&service.spec)?);
        let used = self.reserve(tx, service.project, service.id, claim, before).await?;
        let project =
            tx.project(&ProjectRef::Id(service.project)).await?.ok_or(Error::NotFound("project"))?;
        operation.done_already("reserve-quota", &in_use(&project, used), now);
        let revision = service.revision.saturating_add(1);
        let new = DataService { spec, revision, updated_at: now, unmanaged: false, ..service.clone() };
        if !tx.change_data_service(&new, service.revision, claim).await? {
            let yours = serde_json::to_value(&new.spec).unwrap_or_default();
            let current = tx.data_service(service.id).await?.unwrap_or(service);
            return Err(revision_conflict(&current, change.revision, yours));
        }
        if let Some(plan) = &new.spec.backup {
            self.want_target(tx, &plan.target, new.cluster, &new.namespace).await?;
        }
        if let Value::Object(intent) = &mut operation.intent {
            intent.insert("revision".to_owned(), json!(revision));
        }
        self.begin_operation(tx, operation).await
    }
}

/// Whether a data service can be changed now.
pub(in crate::app) async fn may_change(tx: &OrgTx, service: &DataService) -> Result<(), Error> {
    if service.deleted_at.is_some() {
        let reason = format!("the data service {} is deleted", service.name);
        return Err(Error::refused("deleted", reason, "undelete it first"));
    }
    let active = tx.active_operations_of(&[service.id.to_string()]).await?;
    if active.iter().any(|operation| operation.kind == OperationKind::Delete) {
        let reason = format!("the data service {} is being deleted", service.name);
        return Err(Error::refused("deleting", reason, "wait for its end, then undelete it"));
    }
    Ok(())
}

/// The spec that a change leads to.
fn patched(service: &DataService, change: &DataServiceChange) -> Result<DataServiceSpec, Error> {
    let current =
        serde_json::to_value(&service.spec).map_err(|e| Error::internal("a spec was not read", e))?;
    if !change.spec.is_object() {
        return Err(Error::invalid("spec", "invalid", "must be an object"));
    }
    let wanted = if change.replace { change.spec.clone() } else { merge(&current, &change.spec) };
    if change.revision.is_some_and(|revision| revision != service.revision) {
        return Err(revision_conflict(service, change.revision, wanted));
    }
    let spec: DataServiceSpec = spec::read(&wanted).map_err(Error::Invalid)?;
    if spec.engine != service.spec.engine {
        return Err(Error::invalid(
            "spec.engine",
            "immutable",
            "the engine of a data service cannot be changed",
        ));
    }
    if spec.source != service.spec.source {
        return Err(Error::invalid(
            "spec.source",
            "immutable",
            "the source of a data service cannot be changed",
        ));
    }
    Ok(spec)
}

fn revision_conflict(current: &DataService, made_from: Option<u64>, yours: Value) -> Error {
    let made_from = made_from.map_or_else(|| "an older one".to_owned(), |revision| revision.to_string());
    Error::Refused {
        code: "revision_conflict",
        reason: format!(
            "the data service {} is at revision {}, and your change was made from {made_from}",
            current.name, current.revision
        ),
        next: "look at what changed, and make your change anew from the current revision".to_owned(),
        details: Some(Box::new(json!({
            "revision": current.revision,
            "current": current.spec,
            "yours": yours,
        }))),
    }
}

/// A moment as specs hold it.
fn stamp(now: Time) -> String {
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
