//! Deleting data services, and bringing them back while their volumes are kept.

use culvert_resources::DeletionStrategy;
use serde_json::json;

use super::create::{claim_of, in_use, operation, subject, taken};
use super::look::only;
use super::{Begun, Kept};
use crate::app::operations::about;
use crate::app::{App, Error, Once, require_admin};
use crate::domain::{
    Act, Caller, Claim, DataService, DataServiceRef, Operation, OperationKind, ProjectRef, Time,
};
use crate::store::OrgTx;

/// How a data service shall be deleted.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// Its name, as proof that this very one is meant; needed when it is protected.
    pub confirm: Option<String>,
    /// What happens to its data; what the spec says when absent.
    pub strategy: Option<DeletionStrategy>,
}

impl App {
    /// Begins the deletion of a data service; what else was under way for it ends.
    pub async fn delete_data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        deletion: Deletion,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(kept) = self.recall::<Kept>(caller, &tx, once, now).await? {
            drop(tx);
            return self.begun(caller, &kept).await;
        }
        let service = only(tx.data_services_named(which).await?)?;
        super::change::may_change(&tx, &service).await?;
        confirmed(&service, &deletion)?;
        let never_sent = end_others(&tx, &service, now).await?;
        let strategy = deletion.strategy.unwrap_or(service.spec.deletion.strategy);
        let intent = json!({
            "strategy": strategy,
            "confirmed": deletion.confirm.is_some(),
            "never_sent": never_sent,
        });
        let operation = operation(&service, OperationKind::Delete, caller, intent, now);
        let operation = self.begin_operation(&tx, operation).await?;
        tx.audit(Act::DataServiceDeleted, service.id, service.name.as_str(), now).await?;
        let kept = Kept { service: service.id, operation: operation.id };
        self.remember(caller, &tx, once, &kept).await?;
        tx.commit().await?;
        self.announce(caller, &kept).await
    }

    /// Brings a deleted data service back on the volumes that were kept.
    pub async fn undelete_data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(kept) = self.recall::<Kept>(caller, &tx, once, now).await? {
            drop(tx);
            return self.begun(caller, &kept).await;
        }
        let service = only(tx.data_services_named(which).await?)?;
        can_come_back(&service, now)?;
        let intent = json!({"kept_until": service.undelete_until});
        let operation = operation(&service, OperationKind::Undelete, caller, intent, now);
        let operation = self.revive(&tx, service, operation, now).await?;
        tx.audit(Act::DataServiceUndeleted, &operation.subject.id, "", now).await?;
        let kept = Kept { service: operation.subject.id.parse()?, operation: operation.id };
        self.remember(caller, &tx, once, &kept).await?;
        tx.commit().await?;
        self.announce(caller, &kept).await
    }

    async fn revive(
        &self,
        tx: &OrgTx,
        service: DataService,
        mut operation: Operation,
        now: Time,
    ) -> Result<Operation, Error> {
        let claim = claim_of(&service.spec)?;
        let used = self.reserve(tx, service.project, service.id, claim, Claim::default()).await?;
        let project =
            tx.project(&ProjectRef::Id(service.project)).await?.ok_or(Error::NotFound("project"))?;
        operation.done_already("reserve-quota", &in_use(&project, used), now);
        let revision = service.revision.saturating_add(1);
        let (deleted_at, undelete_until) = (None, None);
        let new = DataService { revision, deleted_at, undelete_until, updated_at: now, ..service.clone() };
        let changed = tx.change_data_service(&new, service.revision, claim).await;
        if !changed.map_err(|error| taken(error, &service))? {
            let reason = "somebody else changed it at the same time";
            return Err(Error::refused("changed_meanwhile", reason, "look at it, and try again"));
        }
        self.begin_operation(tx, operation).await
    }
}

fn confirmed(service: &DataService, deletion: &Deletion) -> Result<(), Error> {
    match &deletion.confirm {
        Some(name) if name != service.name.as_str() => {
            let detail = "must be the name of the data service that is to be deleted";
            Err(Error::invalid("confirm", "wrong_name", detail))
        }
        None if service.spec.deletion.protection => Err(Error::refused(
            "protected",
            format!("the data service {} is protected from deletion", service.name),
            "confirm with its name, or set deletion.protection to false first",
        )),
        _ => Ok(()),
    }
}

fn can_come_back(service: &DataService, now: Time) -> Result<(), Error> {
    if service.deleted_at.is_none() {
        let reason = format!("the data service {} is not deleted", service.name);
        return Err(Error::refused("not_deleted", reason, "there is nothing to bring back"));
    }
    if service.undelete_until.is_none_or(|until| until <= now) {
        let reason = format!("the volumes of the data service {} are not kept any more", service.name);
        return Err(Error::refused("volumes_gone", reason, "restore it from a backup"));
    }
    Ok(())
}

/// Ends what else is under way for a service that is to be deleted. Whether nothing can have
/// reached the cluster: then there is nothing to delete there.
async fn end_others(tx: &OrgTx, service: &DataService, now: Time) -> Result<bool, Error> {
    for active in tx.active_operations_of(&[service.id.to_string()]).await? {
        let Some(mut operation) = tx.hold_operation(active.id).await? else { continue };
        if !operation.state.is_over() {
            operation.stopped("the data service is being deleted", now);
            tx.seize_operation(&mut operation).await?;
        }
    }
    let mut never_sent = service.sent_revision == 0 && service.seen.is_none() && !service.unmanaged;
    for past in tx.operations(&about(&subject(service)), None, 200).await? {
        never_sent &= past.step("send").is_none_or(|step| step.started_at.is_none());
    }
    Ok(never_sent)
}
