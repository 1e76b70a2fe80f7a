//! Backups.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use culvert_resources::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named, NoBody};
use super::operations::{Operation, Reference};
use super::status::Problem;
use super::wire;
use crate::app::{NewBackup, WorkBegun, WorkFilter, WorkView};
use crate::domain::{BackupId, BackupRef, BackupState, Fault, ObjectKind, Time};

/// One backup, as its cluster has it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Backup {
    /// `bkp_…`. While it is only asked for, the id under which it was: it goes on naming it.
    id: String,
    name: String,
    /// The data service it is of; null when there is no record of one.
    data_service: Option<Reference>,
    cluster: Reference,
    /// Namespace in the cluster.
    namespace: String,
    /// The spec of the Backup, verbatim.
    #[schema(value_type = Object)]
    spec: Value,
    /// What is known of it: the status of the Backup, verbatim; null before there is any.
    #[schema(value_type = Option<Object>)]
    status: Option<Value>,
    /// When its object was made; null while it is only asked for.
    #[schema(format = DateTime)]
    created_at: Option<String>,
    /// When the cluster last told of a change.
    #[schema(format = DateTime)]
    observed_at: Option<String>,
    /// Whether it may be out of date, as the cluster is not connected.
    stale: bool,
}

/// A page of backups.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackupList {
    items: Vec<Backup>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new backup.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBackup {
    /// Id or name of the data service.
    data_service: String,
    /// Id or name of the target; where the service's own backups go when not given.
    target: Option<String>,
    /// `physical` or `logical`; as the engine does it best when not given.
    #[schema(value_type = Option<String>)]
    method: Option<Method>,
    /// Restore it into a throwaway service afterwards, query it and time it.
    #[serde(default)]
    verify: bool,
    /// At most 52 lower-case letters, digits and dashes; made of service and time when not given.
    name: Option<String>,
    /// When it shall be deleted; never when not given.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Which backups or restores.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WorkQuery {
    /// Items a page, 1 to 200; 50 when not given.
    limit: Option<u64>,
    /// `next` of the page before.
    after: Option<String>,
    /// Only those of this project's data services: id or name.
    project: Option<String>,
    /// Only those in this cluster: id or name.
    cluster: Option<String>,
    /// Only those of this data service: id or name.
    data_service: Option<String>,
    /// Only those in the target of this name.
    target: Option<String>,
    /// Only those in this state: `pending`, `running`, `complete`, `failed`, `cancelled`, `deleting`.
    state: Option<String>,
}

/// A backup, and the operation that makes or deletes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackupBegun {
    backup: Backup,
    operation: Operation,
}

/// The organisation's backups, the newest first.
#[utoipa::path(
    get,
    path = "/backups",
    tag = "backups",
    params(WorkQuery),
    responses((status = 200, description = "A page", body = BackupList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<WorkQuery>,
) -> Result<Json<BackupList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let filter = filter(query)?;
    let page = shared.app.works(&caller, ObjectKind::Backup, &filter, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(BackupList { items, next }))
}

/// Make a backup of a data service now.
#[utoipa::path(
    post,
    path = "/backups",
    tag = "backups",
    request_body = CreateBackup,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 202, description = "It is being made", body = BackupBegun))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateBackup>,
) -> Result<(StatusCode, Json<BackupBegun>), Problem> {
    let CreateBackup { data_service, target, method, verify, name, expires_at } = asked.value;
    let new = NewBackup {
        data_service: ask::reference("data service", &data_service)?,
        target,
        method,
        verify,
        name: name.map(|text| ask::word("name", &text)).transpose()?,
        expires_at: expires_at.map(|text| moment("expires_at", &text)).transpose()?,
    };
    accepted(shared.app.create_backup(&caller, new, asked.once.as_ref()).await?)
}

/// One backup, by id or name.
#[utoipa::path(
    get,
    path = "/backups/{backup}",
    tag = "backups",
    params(("backup" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The backup", body = Backup))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupRef>,
) -> Result<Json<Backup>, Problem> {
    Ok(Json(shared.app.work(&caller, ObjectKind::Backup, &which).await?.into()))
}

/// Delete a backup, and what lies in its target unless its spec says that it stays.
#[utoipa::path(
    delete,
    path = "/backups/{backup}",
    tag = "backups",
    params(
        ("backup" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")
    ),
    responses((status = 202, description = "It is being deleted", body = BackupBegun))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupRef>,
    asked: NoBody,
) -> Result<(StatusCode, Json<BackupBegun>), Problem> {
    accepted(shared.app.delete_backup(&caller, &which, asked.once.as_ref()).await?)
}

fn accepted(begun: WorkBegun) -> Result<(StatusCode, Json<BackupBegun>), Problem> {
    let (backup, operation) = (begun.work.into(), begun.operation.into());
    Ok((StatusCode::ACCEPTED, Json(BackupBegun { backup, operation })))
}

impl WorkQuery {
    /// The page that is wanted.
    pub(super) fn page(&self) -> (Option<u64>, Option<&str>) {
        (self.limit, self.after.as_deref())
    }
}

pub(super) fn filter(query: WorkQuery) -> Result<WorkFilter, Problem> {
    let states = BackupState::ALL.map(BackupState::as_str);
    Ok(WorkFilter {
        project: query.project.map(|text| ask::reference("project", &text)).transpose()?,
        cluster: query.cluster.map(|text| ask::reference("cluster", &text)).transpose()?,
        data_service: query.data_service.map(|text| ask::reference("data service", &text)).transpose()?,
        target: query.target.filter(|name| !name.is_empty()),
        state: ask::one_of("state", query.state.as_deref(), &states)?,
    })
}

/// A moment in a body.
pub(super) fn moment(field: &str, text: &str) -> Result<Time, Problem> {
    Time::parse(text, &Rfc3339).map_err(|_| {
        let detail = "must be a time such as 2026-11-24T18:00:00Z";
        Problem::invalid(vec![Fault::new(field, "invalid", detail)])
    })
}

impl From<WorkView> for Backup {
    fn from(view: WorkView) -> Self {
        Self {
            id: BackupId::from(view.id).to_string(),
            name: view.name,
            data_service: view
                .data_service
                .map(|(id, name)| Reference { id: id.to_string(), name: name.to_string() }),
            cluster: Reference { id: view.cluster.to_string(), name: view.cluster_name.to_string() },
            namespace: view.namespace,
            spec: view.spec,
            status: Some(view.status).filter(|status| !status.is_null()),
            created_at: view.created_at.map(wire::at),
            observed_at: view.observed_at.map(wire::at),
            stale: view.stale,
        }
    }
}
