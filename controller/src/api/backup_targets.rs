//! Backup targets.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named};
use super::join_tokens::PageQuery;
use super::operations::Reference;
use super::status::Problem;
use super::wire;
use crate::app::{BackupTargetView, NewBackupTarget, PlacementView};
use crate::domain::BackupTargetRef;

/// Where backups go: a bucket or a file share. Its endpoint is dialled from the clusters that use it,
/// never by the control plane.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackupTarget {
    /// `bkt_…`
    id: String,
    name: String,
    /// The spec of the BackupTarget, verbatim, without Secret and sealed credentials.
    #[schema(value_type = Object)]
    spec: Value,
    /// Counts the changes of the credentials, from 1.
    credential_generation: u64,
    /// Where it is used, and how it is there.
    placements: Vec<TargetPlacement>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Set while it is being deleted.
    #[schema(format = DateTime)]
    deleted_at: Option<String>,
}

/// How a target is in one namespace of a cluster.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TargetPlacement {
    cluster: Reference,
    namespace: String,
    /// Generation of the credentials that the cluster has.
    applied_generation: Option<u64>,
    /// Whether the last check succeeded; null before the first.
    reachable: Option<bool>,
    /// When it was last checked.
    #[schema(format = DateTime)]
    checked_at: Option<String>,
    /// Why it is not as it should be: the deepest cause, who can mend it, and the next step.
    #[schema(value_type = Option<Object>)]
    why: Option<Value>,
    /// Why it could not be sent, or its credentials not be opened; null when they could.
    trouble: Option<String>,
    /// Whether what is known may be out of date, as the cluster is not connected.
    stale: bool,
}

/// A page of backup targets.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackupTargetList {
    items: Vec<BackupTarget>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new backup target.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBackupTarget {
    /// 1 to 40 lower-case letters, digits and dashes.
    name: String,
    /// The spec of the BackupTarget; exactly one of `s3`, `azure`, `gcs`, `fileShare`.
    #[schema(value_type = Object)]
    spec: Value,
    /// S3: `access-key-id`, `secret-access-key` and perhaps `session-token`; Azure: `account-key` or
    /// `sas-token`; GCS: `service-account.json`. Never shown again.
    #[serde(default)]
    #[schema(write_only)]
    credentials: BTreeMap<String, String>,
}

/// How a backup target shall change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBackupTarget {
    /// Merge patch of the spec (RFC 7386).
    #[schema(value_type = Object)]
    spec: Value,
}

/// Other credentials.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetCredentials {
    /// As for a new target. Never shown again.
    #[schema(write_only)]
    credentials: BTreeMap<String, String>,
}

/// The organisation's backup targets, by name.
#[utoipa::path(
    get,
    path = "/backup-targets",
    tag = "backups",
    params(PageQuery),
    responses((status = 200, description = "A page", body = BackupTargetList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<PageQuery>,
) -> Result<Json<BackupTargetList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let page = shared.app.backup_targets(&caller, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(BackupTargetList { items, next }))
}

/// Make a backup target. It reaches a cluster when something there uses it.
#[utoipa::path(
    post,
    path = "/backup-targets",
    tag = "backups",
    request_body = CreateBackupTarget,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The backup target", body = BackupTarget))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateBackupTarget>,
) -> Result<(StatusCode, Json<BackupTarget>), Problem> {
    let CreateBackupTarget { name, spec, credentials } = asked.value;
    let new = NewBackupTarget { name: ask::word("name", &name)?, spec, credentials };
    let made = shared.app.create_backup_target(&caller, new, asked.once.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// One backup target, by id or name.
#[utoipa::path(
    get,
    path = "/backup-targets/{backup_target}",
    tag = "backups",
    params(("backup_target" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The backup target", body = BackupTarget))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupTargetRef>,
) -> Result<Json<BackupTarget>, Problem> {
    Ok(Json(shared.app.backup_target(&caller, &which).await?.into()))
}

/// Change a backup target's spec. Its kind stays.
#[utoipa::path(
    patch,
    path = "/backup-targets/{backup_target}",
    tag = "backups",
    request_body = ChangeBackupTarget,
    params(("backup_target" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The backup target", body = BackupTarget))
)]
pub(super) async fn change(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupTargetRef>,
    asked: Body<ChangeBackupTarget>,
) -> Result<Json<BackupTarget>, Problem> {
    Ok(Json(shared.app.change_backup_target(&caller, &which, &asked.value.spec).await?.into()))
}

/// Delete a backup target: its credentials go from every cluster. What lies in it stays.
#[utoipa::path(
    delete,
    path = "/backup-targets/{backup_target}",
    tag = "backups",
    params(("backup_target" = String, Path, description = "Id or name")),
    responses((status = 202, description = "It is being deleted", body = BackupTarget))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupTargetRef>,
) -> Result<(StatusCode, Json<BackupTarget>), Problem> {
    let gone = shared.app.delete_backup_target(&caller, &which).await?;
    Ok((StatusCode::ACCEPTED, Json(gone.into())))
}

/// Give a backup target other credentials. Every cluster that uses it gets them.
#[utoipa::path(
    put,
    path = "/backup-targets/{backup_target}/credentials",
    tag = "backups",
    request_body = TargetCredentials,
    params(("backup_target" = String, Path, description = "Id or name")),
    responses((status = 202, description = "They are on their way", body = BackupTarget))
)]
pub(super) async fn credentials(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupTargetRef>,
    asked: Body<TargetCredentials>,
) -> Result<(StatusCode, Json<BackupTarget>), Problem> {
    let given = asked.value.credentials;
    let target = shared.app.rotate_target_credentials(&caller, &which, given).await?;
    Ok((StatusCode::ACCEPTED, Json(target.into())))
}

/// Check a backup target in every cluster that uses it: write, read, list, delete.
#[utoipa::path(
    post,
    path = "/backup-targets/{backup_target}/check",
    tag = "backups",
    params(("backup_target" = String, Path, description = "Id or name")),
    responses((status = 202, description = "It is being checked", body = BackupTarget))
)]
pub(super) async fn check(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupTargetRef>,
) -> Result<(StatusCode, Json<BackupTarget>), Problem> {
    let target = shared.app.check_backup_target(&caller, &which).await?;
    Ok((StatusCode::ACCEPTED, Json(target.into())))
}

impl From<BackupTargetView> for BackupTarget {
    fn from(view: BackupTargetView) -> Self {
        let BackupTargetView { target, placements } = view;
        Self {
            id: target.id.to_string(),
            name: target.name.to_string(),
            spec: serde_json::to_value(target.spec).unwrap_or_default(),
            credential_generation: target.credential_generation,
            placements: placements.into_iter().map(TargetPlacement::from).collect(),
            created_at: wire::at(target.created_at),
            deleted_at: target.deleted_at.map(wire::at),
        }
    }
}

impl From<PlacementView> for TargetPlacement {
    fn from(view: PlacementView) -> Self {
        Self {
            cluster: Reference { id: view.cluster.to_string(), name: view.cluster_name.to_string() },
            namespace: view.namespace.to_string(),
            applied_generation: view.applied_generation,
            reachable: view.reachable,
            checked_at: view.checked_at,
            why: view.why.and_then(|why| serde_json::to_value(why).ok()),
            trouble: Some(view.trouble).filter(|trouble| !trouble.is_empty()),
            stale: view.stale,
        }
    }
}
