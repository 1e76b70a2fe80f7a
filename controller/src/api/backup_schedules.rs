//! Backup schedules.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use culvert_resources::meta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named, NoBody};
use super::operations::Reference;
use super::status::Problem;
use super::wire;
use crate::app::{BackupScheduleFilter, BackupScheduleView, NewBackupSchedule};
use crate::domain::{BackupScheduleId, BackupScheduleRef};

/// When backups of a data service are made, and how long they are kept. It lives in the cluster;
/// what is shown is what the cluster told last.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackupSchedule {
    /// `bsc_…`
    id: String,
    name: String,
    /// Null when no data service of that name is known there.
    data_service: Option<Reference>,
    cluster: Reference,
    namespace: String,
    /// The spec of the BackupSchedule, verbatim.
    #[schema(value_type = Object)]
    spec: Value,
    /// Its status, verbatim: among others `next`, `lastSuccess`, `missesInARow`, `kept`, and in
    /// `wouldDelete` what the retention would delete now. Null before the operator saw it.
    #[schema(value_type = Option<Object>)]
    status: Option<Value>,
    /// The last run that was asked for; `status.asked` is the same when its backup was made.
    run_asked: Option<String>,
    #[schema(format = DateTime)]
    observed_at: String,
    /// Whether what is known may be out of date, as the cluster is not connected.
    stale: bool,
    #[schema(format = DateTime)]
    created_at: String,
}

/// A page of backup schedules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackupScheduleList {
    items: Vec<BackupSchedule>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new backup schedule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBackupSchedule {
    /// Id or name of the data service.
    data_service: String,
    /// 1 to 40 lower-case letters, digits and dashes; the data service's name when absent.
    name: Option<String>,
    /// The spec of the BackupSchedule: `cron`, and perhaps `target` (where the data service's
    /// backups go when absent), `timeZone`, `jitterSeconds`, `method`, `retention`, `verifyEvery`,
    /// `concurrency`, `suspended`. With `retention.dryRun` nothing is deleted, and the status says
    /// what would be.
    #[schema(value_type = Object)]
    spec: Value,
}

/// How a backup schedule shall change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBackupSchedule {
    /// Merge patch of the spec (RFC 7386).
    #[schema(value_type = Object)]
    spec: Value,
}

/// Which schedules.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScheduleQuery {
    /// Only those of this data service, by id or name.
    data_service: Option<String>,
    /// Only those in this cluster, by id or name.
    cluster: Option<String>,
    /// Items a page, 1 to 200; 50 when not given.
    limit: Option<u64>,
    /// `next` of the page before.
    after: Option<String>,
}

/// The organisation's backup schedules, those made last first.
#[utoipa::path(
    get,
    path = "/backup-schedules",
    tag = "backups",
    params(ScheduleQuery),
    responses((status = 200, description = "A page", body = BackupScheduleList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<ScheduleQuery>,
) -> Result<Json<BackupScheduleList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let filter = BackupScheduleFilter {
        data_service: query.data_service.map(|text| ask::reference("data service", &text)).transpose()?,
        cluster: query.cluster.map(|text| ask::reference("cluster", &text)).transpose()?,
    };
    let page = shared.app.backup_schedules(&caller, &filter, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(BackupScheduleList { items, next }))
}

/// Make a backup schedule in the cluster of its data service.
#[utoipa::path(
    post,
    path = "/backup-schedules",
    tag = "backups",
    request_body = CreateBackupSchedule,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The backup schedule", body = BackupSchedule))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateBackupSchedule>,
) -> Result<(StatusCode, Json<BackupSchedule>), Problem> {
    let CreateBackupSchedule { data_service, name, spec } = asked.value;
    let new = NewBackupSchedule {
        data_service: ask::reference("data service", &data_service)?,
        name: name.map(|text| ask::word("name", &text)).transpose()?,
        spec,
    };
    let made = shared.app.create_backup_schedule(&caller, new, asked.once.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// One backup schedule, by id or name.
#[utoipa::path(
    get,
    path = "/backup-schedules/{backup_schedule}",
    tag = "backups",
    params(("backup_schedule" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The backup schedule", body = BackupSchedule))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupScheduleRef>,
) -> Result<Json<BackupSchedule>, Problem> {
    Ok(Json(shared.app.backup_schedule(&caller, &which).await?.into()))
}

/// Change a backup schedule's spec, in its cluster. Its data service stays.
#[utoipa::path(
    patch,
    path = "/backup-schedules/{backup_schedule}",
    tag = "backups",
    request_body = ChangeBackupSchedule,
    params(("backup_schedule" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The backup schedule", body = BackupSchedule))
)]
pub(super) async fn change(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupScheduleRef>,
    asked: Body<ChangeBackupSchedule>,
) -> Result<Json<BackupSchedule>, Problem> {
    Ok(Json(shared.app.change_backup_schedule(&caller, &which, &asked.value.spec).await?.into()))
}

/// Delete a backup schedule. The backups that it made stay.
#[utoipa::path(
    delete,
    path = "/backup-schedules/{backup_schedule}",
    tag = "backups",
    params(("backup_schedule" = String, Path, description = "Id or name")),
    responses((status = 202, description = "It is being deleted", body = BackupSchedule))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupScheduleRef>,
) -> Result<(StatusCode, Json<BackupSchedule>), Problem> {
    let gone = shared.app.delete_backup_schedule(&caller, &which).await?;
    Ok((StatusCode::ACCEPTED, Json(gone.into())))
}

/// Have one of a schedule's backups made now.
#[utoipa::path(
    post,
    path = "/backup-schedules/{backup_schedule}/run",
    tag = "backups",
    params(("backup_schedule" = String, Path, description = "Id or name")),
    responses((status = 202, description = "The operator was asked", body = BackupSchedule))
)]
pub(super) async fn run(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<BackupScheduleRef>,
    _: NoBody,
) -> Result<(StatusCode, Json<BackupSchedule>), Problem> {
    let asked = shared.app.run_backup_schedule(&caller, &which).await?;
    Ok((StatusCode::ACCEPTED, Json(asked.into())))
}

impl From<BackupScheduleView> for BackupSchedule {
    fn from(view: BackupScheduleView) -> Self {
        let part = |pointer: &str| view.part(pointer).cloned();
        let text = |value: Value| value.as_str().map(str::to_owned);
        let annotations = view.part("/metadata/annotations");
        let run_asked = annotations.and_then(|all| all.get(meta::RUN_NOW)).cloned().and_then(text);
        let service = part("/spec/service").and_then(text).unwrap_or_default();
        let told = &view.object.told;
        Self {
            id: BackupScheduleId::from(view.object.id).to_string(),
            name: told.key.name.clone(),
            data_service: view.data_service.map(|id| Reference { id: id.to_string(), name: service }),
            cluster: Reference { id: view.object.cluster.to_string(), name: view.cluster_name.to_string() },
            namespace: told.key.namespace.clone(),
            spec: part("/spec").unwrap_or_default(),
            status: part("/status"),
            run_asked,
            observed_at: wire::at(view.object.observed_at),
            stale: view.stale,
            created_at: wire::at(told.made_at),
        }
    }
}
