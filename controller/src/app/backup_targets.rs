//! Backup targets: make, look, change, give other credentials, check, delete.
//!
//! Credentials come in and never go out again: they are kept sealed under the organisation's
//! data key, bound to their row, and what leaves is sealed to the agent of the one cluster that
//! needs them ([`super::placements`]). With them goes the organisation's key for backups, made
//! once, so that every cluster of the organisation can read what another one wrote.

use culvert_pki::seal::{Place, fresh_key};
use culvert_resources::{BackupTargetStatus, TargetKind, Why};
use serde_json::{Value, json};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{App, Error, Once, require_admin};
use crate::domain::backup_target::{Credentials, Placement, read_spec};
use crate::domain::template::merge;
use crate::domain::{
    Act, BackupTarget, BackupTargetId, BackupTargetRef, Caller, ClusterId, ClusterName, ClusterState, Cursor,
    Namespace, ObjectKey, ObjectKind, Page, PageSize, TargetName, Time,
};
use crate::store::{DataServiceRows, ObservedFilter, OrgStore, OrgTx, StoreError};

/// A target as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupTargetView {
    /// Its record.
    pub target: BackupTarget,
    /// Where it is wanted, and how it is there.
    pub placements: Vec<PlacementView>,
}

/// How a target is in one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: ClusterName,
    /// The namespace.
    pub namespace: Namespace,
    /// Generation of the credentials that are in the cluster's Secret.
    pub applied_generation: Option<u64>,
    /// Whether the last check succeeded; unknown before the first.
    pub reachable: Option<bool>,
    /// When it was last checked.
    pub checked_at: Option<String>,
    /// Why it is not as it should be.
    pub why: Option<Why>,
    /// Why it could not be sent, or its credentials not be opened; empty when they could.
    pub trouble: String,
    /// Whether what is known may be out of date, as the cluster is not connected.
    pub stale: bool,
}

/// A new target.
#[derive(Debug, Clone)]
pub struct NewBackupTarget {
    /// Its name.
    pub name: TargetName,
    /// Where backups go.
    pub spec: Value,
    /// The credentials for it.
    pub credentials: std::collections::BTreeMap<String, String>,
}

/// The cursor's name of this list.
const LIST: &str = "backup-targets";

impl App {
    /// Makes a target. No cluster has it yet: it is placed where something uses it.
    pub async fn create_backup_target(
        &self,
        caller: &Caller,
        new: NewBackupTarget,
        once: Option<&Once>,
    ) -> Result<BackupTargetView, Error> {
        require_admin(caller)?;
        let spec = read_spec(&new.spec).map_err(Error::Invalid)?;
        let kind = spec.kind().unwrap_or(TargetKind::FileShare);
        let credentials = Credentials::parse(kind, new.credentials).map_err(Error::Invalid)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(earlier) = self.recall::<BackupTarget>(caller, &tx, once, now).await? {
            drop(tx);
            return self.backup_target(caller, &BackupTargetRef::Id(earlier.id)).await;
        }
        let target = BackupTarget {
            id: BackupTargetId::generate(),
            name: new.name,
            spec,
            revision: 1,
            credential_generation: 1,
            check_asked_at: None,
            created_at: now,
            deleted_at: None,
        };
        let sealed = self.seal_credentials(caller, target.id, &credentials)?;
        tx.add_backup_target(&target, &sealed).await.map_err(|error| taken(error, &target.name))?;
        tx.audit(Act::BackupTargetCreated, target.id, target.name.as_str(), now).await?;
        self.remember(caller, &tx, once, &target).await?;
        tx.commit().await?;
        Ok(BackupTargetView { target, placements: Vec::new() })
    }

    /// The caller's targets by name.
    pub async fn backup_targets(
        &self,
        caller: &Caller,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<BackupTargetView>, Error> {
        let after: Option<TargetName> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let store = self.store().org(caller);
        let mut views = Vec::new();
        for target in store.backup_targets(after.as_ref(), size.get() as u64 + 1).await? {
            views.push(self.target_view(&store, target).await?);
        }
        Ok(Page::cut(views, size, LIST, |view| view.target.name.to_string()))
    }

    /// One target.
    pub async fn backup_target(
        &self,
        caller: &Caller,
        which: &BackupTargetRef,
    ) -> Result<BackupTargetView, Error> {
        let store = self.store().org(caller);
        let target = store.backup_target(which).await?.ok_or(Error::NotFound("backup target"))?;
        self.target_view(&store, target).await
    }

    /// Changes where a target's backups go. Its kind stays.
    pub async fn change_backup_target(
        &self,
        caller: &Caller,
        which: &BackupTargetRef,
        patch: &Value,
    ) -> Result<BackupTargetView, Error> {
        require_admin(caller)?;
        if !patch.is_object() {
            return Err(Error::invalid("spec", "invalid", "must be an object"));
        }
        let change = |target: &mut BackupTarget| {
            let current = serde_json::to_value(&target.spec)
                .map_err(|error| Error::internal("a spec was not read", error))?;
            let spec = read_spec(&merge(&current, patch)).map_err(Error::Invalid)?;
            if spec.kind() != target.spec.kind() {
                let detail = "the kind of a target cannot be changed: make another target";
                return Err(Error::invalid("spec", "immutable", detail));
            }
            target.spec = spec;
            Ok(())
        };
        self.alter_target(caller, which, Act::BackupTargetChanged, None, change).await
    }

    /// Gives a target other credentials; every cluster that has it gets them.
    pub async fn rotate_target_credentials(
        &self,
        caller: &Caller,
        which: &BackupTargetRef,
        given: std::collections::BTreeMap<String, String>,
    ) -> Result<BackupTargetView, Error> {
        require_admin(caller)?;
        let store = self.store().org(caller);
        let target = store.backup_target(which).await?.ok_or(Error::NotFound("backup target"))?;
        let kind = target.spec.kind().unwrap_or(TargetKind::FileShare);
        let credentials = Credentials::parse(kind, given).map_err(Error::Invalid)?;
        let sealed = self.seal_credentials(caller, target.id, &credentials)?;
        let change = |target: &mut BackupTarget| {
            target.credential_generation = target.credential_generation.saturating_add(1);
            Ok(())
        };
        let act = Act::BackupTargetCredentialsChanged;
        self.alter_target(caller, which, act, Some(&sealed), change).await
    }

    /// Has a target checked in every cluster that has it.
    pub async fn check_backup_target(
        &self,
        caller: &Caller,
        which: &BackupTargetRef,
    ) -> Result<BackupTargetView, Error> {
        require_admin(caller)?;
        let now = self.now();
        let change = |target: &mut BackupTarget| {
            target.check_asked_at = Some(now);
            Ok(())
        };
        self.alter_target(caller, which, Act::BackupTargetChecked, None, change).await
    }

    /// Deletes a target: its credentials go from every cluster, then its record. What lies in it stays.
    pub async fn delete_backup_target(
        &self,
        caller: &Caller,
        which: &BackupTargetRef,
    ) -> Result<BackupTargetView, Error> {
        require_admin(caller)?;
        let store = self.store().org(caller);
        let target = store.backup_target(which).await?.ok_or(Error::NotFound("backup target"))?;
        if let Some(user) = self.user_of_target(&store, &target).await? {
            let reason = format!("the backup target {} is used by {user}", target.name);
            return Err(Error::refused(
                "in_use",
                reason,
                "let it use another target, or none, then try again",
            ));
        }
        let now = self.now();
        let change = |target: &mut BackupTarget| {
            target.deleted_at.get_or_insert(now);
            Ok(())
        };
        let view = self.alter_target(caller, which, Act::BackupTargetDeleted, None, change).await?;
        let tx = self.store().write(caller).await?;
        if tx.forget_backup_target(view.target.id).await? {
            tx.commit().await?;
        }
        Ok(view)
    }

    /// Writes a change of a target as its next revision, and has it sent.
    async fn alter_target(
        &self,
        caller: &Caller,
        which: &BackupTargetRef,
        act: Act,
        sealed: Option<&[u8]>,
        change: impl FnOnce(&mut BackupTarget) -> Result<(), Error>,
    ) -> Result<BackupTargetView, Error> {
        let now = self.now();
        let tx = self.store().write(caller).await?;
        let mut target = tx.backup_target(which).await?.ok_or(Error::NotFound("backup target"))?;
        let leaving = target.deleted_at.is_some() && act != Act::BackupTargetDeleted;
        if leaving {
            let reason = format!("the backup target {} is being deleted", target.name);
            return Err(Error::refused("deleting", reason, "make another one"));
        }
        change(&mut target)?;
        target.revision = target.revision.saturating_add(1);
        if !tx.change_backup_target(&target, sealed, now).await? {
            let reason = format!("somebody else changed the backup target {} at the same time", target.name);
            return Err(Error::refused(
                "changed_meanwhile",
                reason,
                "look at it, and send your change again",
            ));
        }
        tx.audit(act, target.id, target.name.as_str(), now).await?;
        tx.commit().await?;
        self.placing();
        self.target_view(&self.store().org(caller), target).await
    }

    /// Something may have to be sent.
    pub(super) fn placing(&self) {
        self.inner.placing.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Rings when something of a target may have to be sent.
    #[must_use]
    pub fn placements_due(&self) -> watch::Receiver<u64> {
        self.inner.placing.subscribe()
    }

    /// The target of this name is wanted where a service is, from this transaction on. A name that
    /// is no target of the control plane's is the cluster's own affair.
    pub(super) async fn want_target(
        &self,
        tx: &OrgTx,
        name: &str,
        cluster: ClusterId,
        namespace: &Namespace,
    ) -> Result<(), Error> {
        let Ok(name) = name.parse::<TargetName>() else { return Ok(()) };
        let Some(target) = tx.backup_target(&BackupTargetRef::Name(name)).await? else { return Ok(()) };
        if target.deleted_at.is_some() {
            let reason = format!("the backup target {} is being deleted", target.name);
            return Err(Error::refused("deleting", reason, "use another one"));
        }
        tx.want_placement(target.id, cluster, namespace, self.now()).await?;
        Ok(())
    }

    /// Who uses a target, if anybody does.
    async fn user_of_target(&self, store: &OrgStore, target: &BackupTarget) -> Result<Option<String>, Error> {
        let mut after = None;
        loop {
            let services = store.data_services(&DataServiceRows::default(), after, 200).await?;
            let uses = |plan: &culvert_resources::BackupPlan| plan.target == target.name.as_str();
            if let Some(user) = services.iter().find(|s| s.spec.backup.as_ref().is_some_and(uses)) {
                return Ok(Some(format!("the data service {}", user.name)));
            }
            after = services.last().map(|service| service.id);
            if services.len() < 200 {
                break;
            }
        }
        for placement in store.placements_of(target.id).await? {
            let filter = ObservedFilter {
                kind: Some(ObjectKind::BackupSchedule),
                cluster: Some(placement.cluster),
                namespace: Some(placement.namespace.to_string()),
                ..ObservedFilter::default()
            };
            for schedule in store.observed(&filter, 500).await? {
                if schedule.told.object.pointer("/spec/target") == Some(&json!(target.name)) {
                    return Ok(Some(format!("the backup schedule {}", schedule.told.key.name)));
                }
            }
        }
        Ok(None)
    }

    async fn target_view(&self, store: &OrgStore, target: BackupTarget) -> Result<BackupTargetView, Error> {
        let placements = store.placements_of(target.id).await?;
        let ids: Vec<ClusterId> = placements.iter().map(|placement| placement.cluster).collect();
        let clusters = self.views(store, store.clusters_of(&ids).await?).await?;
        let mut views = Vec::new();
        for placement in placements {
            let Some(cluster) = clusters.iter().find(|view| view.cluster.id == placement.cluster) else {
                continue;
            };
            let status = observed_status(store, &target, &placement).await?;
            let stale = cluster.state != ClusterState::Connected;
            views.push(placement_view(placement, cluster.cluster.name.clone(), status, stale));
        }
        Ok(BackupTargetView { target, placements: views })
    }

    fn seal_credentials(
        &self,
        caller: &Caller,
        id: BackupTargetId,
        credentials: &Credentials,
    ) -> Result<Vec<u8>, Error> {
        let row = id.uuid();
        let place = credentials_place(row.as_bytes());
        let key = self.inner.keys.data.of(caller.org().uuid())?;
        key.seal(place, credentials.to_text().as_bytes())
            .map_err(|error| Error::internal("credentials were not sealed", error))
    }

    /// The credentials of a target in the clear, with the organisation's key for backups.
    pub(super) async fn open_credentials(
        &self,
        caller: &Caller,
        id: BackupTargetId,
    ) -> Result<Credentials, Error> {
        let sealed = self.store().org(caller).sealed_credentials(id).await?;
        let sealed = sealed.ok_or(Error::NotFound("backup target"))?;
        let row = id.uuid();
        let key = self.inner.keys.data.of(caller.org().uuid())?;
        let opened = key
            .open(credentials_place(row.as_bytes()), &sealed)
            .map_err(|error| Error::internal("credentials do not open", error))?;
        let credentials = Credentials::from_text(&opened)
            .ok_or_else(|| Error::internal("credentials are broken", "not their text form"))?;
        Ok(credentials.with_encryption_key(&self.backup_key(caller).await?))
    }

    /// The organisation's key for backups; made when it is first needed.
    async fn backup_key(&self, caller: &Caller) -> Result<Zeroizing<Vec<u8>>, Error> {
        let org = caller.org().uuid();
        let place = Place { table: "backup_keys", column: "sealed_key", row: org.as_bytes() };
        let data = self.inner.keys.data.of(org)?;
        if self.store().org(caller).backup_key().await?.is_none() {
            let fresh = fresh_key()?;
            let sealed = data.seal(place, fresh.as_slice());
            let sealed = sealed.map_err(|error| Error::internal("a key was not sealed", error))?;
            let tx = self.store().write(caller).await?;
            tx.add_backup_key(&sealed, self.now()).await?;
            tx.commit().await?;
        }
        // Whoever was first has made it; what is kept is what counts.
        let kept = self.store().org(caller).backup_key().await?;
        let kept = kept.ok_or_else(|| Error::internal("no key for backups", "it was not kept"))?;
        data.open(place, &kept).map_err(|error| Error::internal("the key for backups does not open", error))
    }
}

fn credentials_place(row: &[u8]) -> Place<'_> {
    Place { table: "backup_targets", column: "sealed_credentials", row }
}

/// What the mirror knows of a target in a namespace; `None` when it is not there, or another's.
async fn observed_status(
    store: &OrgStore,
    target: &BackupTarget,
    placement: &Placement,
) -> Result<Option<BackupTargetStatus>, StoreError> {
    let namespace = placement.namespace.to_string();
    let key = ObjectKey { kind: ObjectKind::BackupTarget, namespace, name: target.name.to_string() };
    let seen = store.observed_one(placement.cluster, &key).await?;
    let ours = seen.filter(|seen| seen.told.record.as_deref() == Some(&target.id.to_string()));
    Ok(ours.map(|seen| {
        let status = seen.told.object.get("status").cloned().unwrap_or_default();
        serde_json::from_value(status).unwrap_or_default()
    }))
}

fn placement_view(
    placement: Placement,
    cluster_name: ClusterName,
    status: Option<BackupTargetStatus>,
    stale: bool,
) -> PlacementView {
    let status = status.unwrap_or_default();
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Reachable");
    let reachable = match condition.map(|condition| condition.status.as_str()) {
        Some("True") => Some(true),
        Some("False") => Some(false),
        _ => None,
    };
    let trouble = if placement.trouble.is_empty() {
        status.credential_error.unwrap_or_default()
    } else {
        placement.trouble
    };
    let probe_why = status.probe.as_ref().and_then(|probe| probe.why.clone());
    PlacementView {
        cluster: placement.cluster,
        cluster_name,
        namespace: placement.namespace,
        applied_generation: status.credential_generation.and_then(|n| u64::try_from(n).ok()),
        reachable,
        checked_at: status.probe.as_ref().map(|probe| probe.at.0.to_string()),
        why: status.why.or(probe_why),
        trouble,
        stale,
    }
}

fn taken(error: StoreError, name: &TargetName) -> Error {
    match error {
        StoreError::Duplicate(_) => {
            let reason = format!("there is a backup target named {name} already");
            Error::refused("name_taken", reason, "choose another name, or change that target")
        }
        other => other.into(),
    }
}

/// A moment as annotations hold it.
pub(super) fn stamp(moment: Time) -> String {
    moment.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
