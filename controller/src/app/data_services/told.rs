//! What agents tell of data services: kept beside the records, in the transaction of the mirror.
//!
//! A record is found by its place in the cluster, never by what an object says of itself. What
//! somebody made with kubectl alone gets a record too, which follows the object: it is not
//! managed until somebody changes it here.

use culvert_resources::{DataServiceSpec, meta};
use serde_json::Value;

use crate::app::{App, Error};
use crate::domain::data_service::Seen;
use crate::domain::observed::{ObjectKey, Observation};
use crate::domain::{
    Caller, Claim, ClusterId, DataService, DataServiceId, Namespace, ObjectKind, ServiceName, Time,
};
use crate::store::OrgTx;

impl App {
    /// Takes on what was told of a cluster's data services; gives those that changed.
    pub(in crate::app) async fn data_services_told<'t>(
        &self,
        tx: &OrgTx,
        cluster: ClusterId,
        told: impl Iterator<Item = &'t Observation>,
        gone: &[ObjectKey],
    ) -> Result<Vec<DataServiceId>, Error> {
        let now = self.now();
        let mut changed = Vec::new();
        for told in told.filter(|told| told.key.kind == ObjectKind::DataService) {
            changed.extend(told_one(tx, cluster, told, now).await?);
        }
        for key in gone.iter().filter(|key| key.kind == ObjectKind::DataService) {
            changed.extend(gone_one(tx, cluster, key, now).await?);
        }
        for id in &changed {
            tx.hurry_operations_on(&id.to_string(), now).await?;
        }
        Ok(changed)
    }

    /// Tells those who watch, and wakes whoever waits for what was told.
    pub(in crate::app) async fn publish_data_services(&self, caller: &Caller, changed: &[DataServiceId]) {
        for id in changed {
            self.publish_data_service(caller, *id).await;
        }
        if !changed.is_empty() {
            self.inner.due.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Where an object of a cluster has its record; `None` for names that no record can have.
fn place(key: &ObjectKey) -> Option<(Namespace, ServiceName)> {
    Some((key.namespace.parse().ok()?, key.name.parse().ok()?))
}

async fn told_one(
    tx: &OrgTx,
    cluster: ClusterId,
    told: &Observation,
    now: Time,
) -> Result<Option<DataServiceId>, Error> {
    let Some(((namespace, name), seen)) = place(&told.key).zip(Seen::of(&told.object, now)) else {
        return Ok(None);
    };
    let Some(known) = tx.data_service_at(cluster, &namespace, &name).await? else {
        return adopt(tx, cluster, (namespace, name), told, seen).await;
    };
    let before = known.seen.as_ref();
    if before.is_some_and(|before| before.is_after(&seen) || before.same_as(&seen)) {
        return Ok(None);
    }
    tx.saw_data_service(known.id, Some(&seen)).await?;
    if known.unmanaged {
        follow(tx, &known, &seen, now).await?;
    }
    Ok(Some(known.id))
}

/// Makes a record of what was made with kubectl alone, unless it is on its way out.
async fn adopt(
    tx: &OrgTx,
    cluster: ClusterId,
    (namespace, name): (Namespace, ServiceName),
    told: &Observation,
    seen: Seen,
) -> Result<Option<DataServiceId>, Error> {
    let leaving = told.object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    let readable = spec_of(&seen.spec);
    let (false, Some((spec, claim))) = (leaving, readable) else { return Ok(None) };
    // News of what was deleted here meanwhile is late, and no wish for it to come back.
    if let Some(id) = record_of(&told.object)
        && tx.data_service(id).await?.is_some()
    {
        return Ok(None);
    }
    let Some(project) = tx.default_project().await? else { return Ok(None) };
    let at = seen.at;
    let service = DataService {
        id: DataServiceId::generate(),
        project: project.id,
        cluster,
        namespace,
        name,
        spec,
        revision: 1,
        sent_revision: 1,
        unmanaged: true,
        created_at: at,
        updated_at: at,
        deleted_at: None,
        undelete_until: None,
        seen: Some(seen),
    };
    tx.add_data_service(&service, claim).await?;
    Ok(Some(service.id))
}

/// The record that an object says it is of.
fn record_of(object: &Value) -> Option<DataServiceId> {
    object.get("metadata")?.get("labels")?.get(meta::RECORD)?.as_str()?.parse().ok()
}

/// What an unmanaged record wants is what is there.
async fn follow(tx: &OrgTx, known: &DataService, seen: &Seen, now: Time) -> Result<(), Error> {
    let Some((spec, claim)) = spec_of(&seen.spec).filter(|(spec, _)| *spec != known.spec) else {
        return Ok(());
    };
    let revision = known.revision.saturating_add(1);
    let new = DataService { spec, revision, sent_revision: revision, updated_at: now, ..known.clone() };
    tx.change_data_service(&new, known.revision, claim).await?;
    Ok(())
}

fn spec_of(spec: &Value) -> Option<(DataServiceSpec, Claim)> {
    let spec: DataServiceSpec = serde_json::from_value(spec.clone()).ok()?;
    let claim = Claim::of(&spec).ok()?;
    Some((spec, claim))
}

/// An object is gone. What was only watched is gone with it; of what is managed nothing is seen.
async fn gone_one(
    tx: &OrgTx,
    cluster: ClusterId,
    key: &ObjectKey,
    now: Time,
) -> Result<Option<DataServiceId>, Error> {
    let Some((namespace, name)) = place(key) else { return Ok(None) };
    let Some(known) = tx.data_service_at(cluster, &namespace, &name).await? else { return Ok(None) };
    if known.unmanaged {
        tx.data_service_gone(known.id, now, None).await?;
    } else {
        tx.saw_data_service(known.id, None).await?;
    }
    Ok(Some(known.id))
}
