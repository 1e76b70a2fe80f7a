//! Restores.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named};
use super::backups::{WorkQuery, filter, moment};
use super::operations::{Operation, Reference};
use super::status::Problem;
use super::wire;
use crate::app::{NewRestore, RestoreFrom, WorkView};
use crate::domain::{Fault, ObjectKind, RestoreId, RestoreRef};

/// One restore, as its cluster has it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Restore {
    /// `rst_…`. While it is only asked for, the id under which it was: it goes on naming it.
    id: String,
    name: String,
    /// The data service that it makes or replaces; null while there is no record of it.
    data_service: Option<Reference>,
    cluster: Reference,
    /// Namespace in the cluster.
    namespace: String,
    /// The spec of the Restore, verbatim.
    #[schema(value_type = Object)]
    spec: Value,
    /// What is known of it: the status of the Restore, verbatim; null before there is any.
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

/// A page of restores.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RestoreList {
    items: Vec<Restore>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new restore.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateRestore {
    /// Name of the data service that is made, or with `in_place` is replaced.
    data_service: String,
    source: Source,
    /// Id or name of the cluster; that of the backup when not given.
    cluster: Option<String>,
    /// Id or name of the project; that of the old data service, or `default`, when not given.
    project: Option<String>,
    /// Namespace in the cluster; that of the backup, or the project's, when not given.
    namespace: Option<String>,
    /// Bring it back to this moment; as far as there is something to bring back when not given.
    #[schema(format = DateTime)]
    point_in_time: Option<String>,
    /// What the new data service has otherwise: `version`, `topology`, `resources`, `storage`,
    /// `parameters`, `backup`.
    #[serde(default)]
    #[schema(value_type = Object)]
    overrides: Value,
    /// Replace a data service that is there; a backup of it is made first.
    in_place: Option<ConfirmInPlace>,
}

/// What is brought back: exactly one of `backup`, `data_service`, or `target` with `path`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RestoreSource)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// Id or name of a backup, in whatever cluster.
    backup: Option<String>,
    /// Id or name of a data service: its newest backup that fits the moment.
    data_service: Option<String>,
    /// Id or name of a target.
    target: Option<String>,
    /// A folder below the target's prefix: that of a backup, or of a data service.
    path: Option<String>,
}

/// Proof that this very data service is to be replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RestoreInPlace)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmInPlace {
    /// Its id.
    confirm: String,
}

/// A restore, and the operation that carries it out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RestoreBegun {
    restore: Restore,
    operation: Operation,
}

/// The organisation's restores, the newest first.
#[utoipa::path(
    get,
    path = "/restores",
    tag = "backups",
    params(WorkQuery),
    responses((status = 200, description = "A page", body = RestoreList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<WorkQuery>,
) -> Result<Json<RestoreList>, Problem> {
    let (limit, after) = query.page();
    let (size, after) = ask::page(limit, after)?;
    let filter = filter(query)?;
    let page = shared.app.works(&caller, ObjectKind::Restore, &filter, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(RestoreList { items, next }))
}

/// Bring a backup back: into a new data service, here or in another cluster, or in place.
#[utoipa::path(
    post,
    path = "/restores",
    tag = "backups",
    request_body = CreateRestore,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 202, description = "It is being brought back", body = RestoreBegun))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateRestore>,
) -> Result<(StatusCode, Json<RestoreBegun>), Problem> {
    let new = new_restore(asked.value)?;
    let begun = shared.app.create_restore(&caller, new, asked.once.as_ref()).await?;
    let (restore, operation) = (begun.work.into(), begun.operation.into());
    Ok((StatusCode::ACCEPTED, Json(RestoreBegun { restore, operation })))
}

/// One restore, by id or name.
#[utoipa::path(
    get,
    path = "/restores/{restore}",
    tag = "backups",
    params(("restore" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The restore", body = Restore))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<RestoreRef>,
) -> Result<Json<Restore>, Problem> {
    Ok(Json(shared.app.work(&caller, ObjectKind::Restore, &which).await?.into()))
}

fn new_restore(asked: CreateRestore) -> Result<NewRestore, Problem> {
    Ok(NewRestore {
        name: ask::word("data_service", &asked.data_service)?,
        from: from(&asked.source)?,
        cluster: asked.cluster.map(|text| ask::reference("cluster", &text)).transpose()?,
        project: asked.project.map(|text| ask::reference("project", &text)).transpose()?,
        namespace: asked.namespace.map(|text| ask::word("namespace", &text)).transpose()?,
        point_in_time: asked.point_in_time.map(|text| moment("point_in_time", &text)).transpose()?,
        overrides: asked.overrides,
        in_place: asked.in_place.map(|given| given.confirm),
    })
}

fn from(source: &Source) -> Result<RestoreFrom, Problem> {
    let Source { backup, data_service, target, path } = source;
    match (backup, data_service, target, path) {
        (Some(backup), None, None, None) => Ok(RestoreFrom::Backup(ask::reference("backup", backup)?)),
        (None, Some(service), None, None) => {
            Ok(RestoreFrom::Service(ask::reference("data service", service)?))
        }
        (None, None, Some(target), Some(path)) => {
            let target = ask::reference("backup target", target)?;
            Ok(RestoreFrom::Folder { target, path: path.clone() })
        }
        _ => {
            let detail = "must be exactly one of backup, data_service, or target with path";
            Err(Problem::invalid(vec![Fault::new("source", "invalid", detail)]))
        }
    }
}

impl From<WorkView> for Restore {
    fn from(view: WorkView) -> Self {
        Self {
            id: RestoreId::from(view.id).to_string(),
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
