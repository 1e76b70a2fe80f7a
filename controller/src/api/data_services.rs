//! Data services.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use culvert_resources::DeletionStrategy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named, NoBody};
use super::operations::{Operation, Reference};
use super::projects::Used;
use super::status::Problem;
use super::wire;
use crate::app::{
    Begun, DataServiceChange, DataServiceFilter, DataServicePlan, DataServiceView, Deletion, NewDataService,
};
use crate::domain::{DataServiceRef, DataServiceState};

/// A database that somebody wants to have.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct DataService {
    /// `dsv_…`
    id: String,
    name: String,
    project: Reference,
    cluster: Reference,
    /// Namespace in the cluster.
    namespace: String,
    /// What is wanted: the spec of the DataService, verbatim.
    #[schema(value_type = Object)]
    spec: Value,
    /// Grows by one with each change of the spec.
    revision: u64,
    /// `pending`, `progressing`, `ready`, `degraded`, `unavailable`, `stopped`, `deleting`, `deleted` or `unknown`.
    state: &'static str,
    /// Whether it was made here; else with kubectl alone, and it is only watched.
    managed: bool,
    /// Whether what is in the cluster is what is wanted; null while that is not known.
    in_sync: Option<bool>,
    /// What the operator found: the status of the DataService, verbatim; null before it was seen.
    #[schema(value_type = Option<Object>)]
    status: Option<Value>,
    /// When the status was seen.
    #[schema(format = DateTime)]
    observed_at: Option<String>,
    /// Whether the status may be out of date, as the cluster is not connected.
    stale: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    deleted_at: Option<String>,
    /// Until when it can be brought back.
    #[schema(format = DateTime)]
    undelete_until: Option<String>,
    /// The operation that is under way.
    operation: Option<Operation>,
}

/// A page of data services.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DataServiceList {
    items: Vec<DataService>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new data service.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateDataService {
    /// 1 to 40 lower-case letters, digits and dashes, beginning with a letter.
    name: String,
    /// Id or name of the cluster it runs in.
    cluster: String,
    /// Id or name of the project it counts in; `default` when not given.
    project: Option<String>,
    /// Namespace in the cluster; `data-<project>` when not given.
    namespace: Option<String>,
    /// Id or name of a template that its spec begins with.
    template: Option<String>,
    /// The spec, or what differs from the template's.
    #[serde(default)]
    #[schema(value_type = Object)]
    spec: Value,
}

/// How a data service shall change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateDataService {
    /// Merge patch of the spec (RFC 7386).
    #[schema(value_type = Object)]
    spec: Value,
    /// The revision the change was made from: refused with `revision_conflict` when there is a newer one.
    revision: Option<u64>,
    /// Take over fields that somebody set in the cluster by hand.
    #[serde(default)]
    force: bool,
}

/// How a data service shall be deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Its name; needed when it is protected from deletion.
    confirm: Option<String>,
    /// What happens to the data: `Retain`, `FinalBackup` or `Delete`; what its spec says when not given.
    strategy: Option<String>,
    /// Take a last backup first: the same as `strategy=FinalBackup`.
    final_backup: Option<bool>,
}

/// Which data services.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DataServiceQuery {
    /// Items a page, 1 to 200; 50 when not given.
    limit: Option<u64>,
    /// `next` of the page before.
    after: Option<String>,
    /// Only those of this project: id or name.
    project: Option<String>,
    /// Only those in this cluster: id or name.
    cluster: Option<String>,
    /// Only those in this state.
    state: Option<String>,
    /// Only those of this engine.
    engine: Option<String>,
    /// Only those whose name contains this.
    name: Option<String>,
    /// Those that are gone, instead of those that are there.
    deleted: Option<bool>,
}

/// A data service, and the operation that brings it to what was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DataServiceBegun {
    data_service: DataService,
    operation: Operation,
}

/// What would be done, and what it would cost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DataServicePlan)]
pub(super) struct Plan {
    /// `summary`, `changes` with what each costs, `interruption` in seconds, `faults`, `warnings`.
    #[schema(value_type = Object)]
    plan: Value,
    /// The whole spec that would be sent.
    #[schema(value_type = Object)]
    spec: Value,
    /// What it would claim of its project's quota.
    claim: Used,
}

/// The organisation's data services, oldest first.
#[utoipa::path(
    get,
    path = "/data-services",
    tag = "data services",
    params(DataServiceQuery),
    responses((status = 200, description = "A page", body = DataServiceList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<DataServiceQuery>,
) -> Result<Json<DataServiceList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let page = shared.app.data_services(&caller, &filter(query)?, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(DataServiceList { items, next }))
}

fn filter(query: DataServiceQuery) -> Result<DataServiceFilter, Problem> {
    let states = DataServiceState::ALL.map(DataServiceState::as_str);
    Ok(DataServiceFilter {
        project: query.project.map(|text| ask::reference("project", &text)).transpose()?,
        cluster: query.cluster.map(|text| ask::reference("cluster", &text)).transpose()?,
        state: ask::one_of("state", query.state.as_deref(), &states)?,
        engine: query.engine,
        name: query.name.filter(|name| !name.is_empty()),
        deleted: query.deleted.unwrap_or(false),
    })
}

/// Make a data service.
#[utoipa::path(
    post,
    path = "/data-services",
    tag = "data services",
    request_body = CreateDataService,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 202, description = "It is being made", body = DataServiceBegun))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateDataService>,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    let new = new_data_service(asked.value)?;
    accepted(shared.app.create_data_service(&caller, new, asked.once.as_ref()).await?)
}

/// What making a data service would do. Nothing is written.
#[utoipa::path(
    post,
    path = "/data-services/plan",
    tag = "data services",
    request_body = CreateDataService,
    responses((status = 200, description = "The plan", body = Plan))
)]
pub(super) async fn plan_new(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateDataService>,
) -> Result<Json<Plan>, Problem> {
    let new = new_data_service(asked.value)?;
    Ok(Json(shared.app.plan_data_service(&caller, &new).await?.into()))
}

/// One data service, by id or name.
#[utoipa::path(
    get,
    path = "/data-services/{data_service}",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The data service", body = DataService))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
) -> Result<Json<DataService>, Problem> {
    Ok(Json(shared.app.data_service(&caller, &which).await?.into()))
}

/// Change a data service's spec.
#[utoipa::path(
    patch,
    path = "/data-services/{data_service}",
    tag = "data services",
    request_body = UpdateDataService,
    params(
        ("data_service" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")
    ),
    responses((status = 202, description = "It is being changed", body = DataServiceBegun))
)]
pub(super) async fn update(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    asked: Body<UpdateDataService>,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    let once = asked.once;
    let change = asked.value.into();
    accepted(shared.app.update_data_service(&caller, &which, change, once.as_ref()).await?)
}

/// What a change would do: what restarts, and for how long it is down. Nothing is written.
#[utoipa::path(
    post,
    path = "/data-services/{data_service}/plan",
    tag = "data services",
    request_body = UpdateDataService,
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The plan", body = Plan))
)]
pub(super) async fn plan(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    asked: Body<UpdateDataService>,
) -> Result<Json<Plan>, Problem> {
    Ok(Json(shared.app.plan_data_service_change(&caller, &which, &asked.value.into()).await?.into()))
}

/// Delete a data service. Its record is kept while it can be brought back.
#[utoipa::path(
    delete,
    path = "/data-services/{data_service}",
    tag = "data services",
    params(
        ("data_service" = String, Path, description = "Id or name"),
        DeleteQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")
    ),
    responses((status = 202, description = "It is being deleted", body = DataServiceBegun))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    Filter(query): Filter<DeleteQuery>,
    asked: NoBody,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    let last = query.final_backup.unwrap_or(false).then_some(DeletionStrategy::FinalBackup);
    let strategy = strategy(query.strategy.as_deref())?.or(last);
    let deletion = Deletion { confirm: query.confirm, strategy };
    accepted(shared.app.delete_data_service(&caller, &which, deletion, asked.once.as_ref()).await?)
}

fn strategy(text: Option<&str>) -> Result<Option<DeletionStrategy>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let known: Result<DeletionStrategy, _> = serde_json::from_value(Value::String(text.to_owned()));
    known.map(Some).map_err(|_| {
        let detail = "must be Retain, FinalBackup or Delete";
        Problem::invalid(vec![crate::domain::Fault::new("strategy", "invalid", detail)])
    })
}

/// Restart a data service's instances, one after the other.
#[utoipa::path(
    post,
    path = "/data-services/{data_service}/restart",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 202, description = "It is being restarted", body = DataServiceBegun))
)]
pub(super) async fn restart(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    asked: NoBody,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    accepted(shared.app.restart_data_service(&caller, &which, asked.once.as_ref()).await?)
}

/// Stop a data service. Its volumes stay.
#[utoipa::path(
    post,
    path = "/data-services/{data_service}/stop",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 202, description = "It is being stopped", body = DataServiceBegun))
)]
pub(super) async fn stop(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    asked: NoBody,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    accepted(shared.app.stop_data_service(&caller, &which, asked.once.as_ref()).await?)
}

/// Start a data service that is stopped.
#[utoipa::path(
    post,
    path = "/data-services/{data_service}/start",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 202, description = "It is being started", body = DataServiceBegun))
)]
pub(super) async fn start(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    asked: NoBody,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    accepted(shared.app.start_data_service(&caller, &which, asked.once.as_ref()).await?)
}

/// Make new passwords and certificates for a data service.
#[utoipa::path(
    post,
    path = "/data-services/{data_service}/rotate-credentials",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 202, description = "They are being made", body = DataServiceBegun))
)]
pub(super) async fn rotate_credentials(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    asked: NoBody,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    let once = asked.once.as_ref();
    accepted(shared.app.rotate_data_service_credentials(&caller, &which, once).await?)
}

/// Bring a deleted data service back on the volumes that were kept.
#[utoipa::path(
    post,
    path = "/data-services/{data_service}/undelete",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id")),
    responses((status = 202, description = "It is being brought back", body = DataServiceBegun))
)]
pub(super) async fn undelete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    asked: NoBody,
) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    accepted(shared.app.undelete_data_service(&caller, &which, asked.once.as_ref()).await?)
}

fn accepted(begun: Begun) -> Result<(StatusCode, Json<DataServiceBegun>), Problem> {
    let (data_service, operation) = (begun.service.into(), begun.operation.into());
    Ok((StatusCode::ACCEPTED, Json(DataServiceBegun { data_service, operation })))
}

fn new_data_service(asked: CreateDataService) -> Result<NewDataService, Problem> {
    let project = asked.project.as_deref().unwrap_or(crate::domain::project::DEFAULT);
    Ok(NewDataService {
        name: ask::word("name", &asked.name)?,
        project: ask::reference("project", project)?,
        cluster: ask::reference("cluster", &asked.cluster)?,
        namespace: asked.namespace.map(|text| ask::word("namespace", &text)).transpose()?,
        template: asked.template.map(|text| ask::reference("template", &text)).transpose()?,
        spec: if asked.spec.is_null() { Value::Object(serde_json::Map::new()) } else { asked.spec },
    })
}

impl From<UpdateDataService> for DataServiceChange {
    fn from(asked: UpdateDataService) -> Self {
        Self { revision: asked.revision, spec: asked.spec, replace: false, force: asked.force }
    }
}

impl From<DataServicePlan> for Plan {
    fn from(plan: DataServicePlan) -> Self {
        Self {
            plan: serde_json::to_value(plan.plan).unwrap_or_default(),
            spec: serde_json::to_value(plan.spec).unwrap_or_default(),
            claim: plan.claim.into(),
        }
    }
}

impl From<DataServiceView> for DataService {
    fn from(view: DataServiceView) -> Self {
        let DataServiceView { service, project_name, cluster_name, state, stale, in_sync, operation } = view;
        let (status, observed_at) = service.seen.map(|seen| (seen.status, wire::at(seen.at))).unzip();
        Self {
            id: service.id.to_string(),
            name: service.name.to_string(),
            project: Reference { id: service.project.to_string(), name: project_name.to_string() },
            cluster: Reference { id: service.cluster.to_string(), name: cluster_name.to_string() },
            namespace: service.namespace.to_string(),
            spec: serde_json::to_value(service.spec).unwrap_or_default(),
            revision: service.revision,
            state: state.as_str(),
            managed: !service.unmanaged,
            in_sync,
            status: status.filter(|status| !status.is_null()),
            observed_at,
            stale,
            created_at: wire::at(service.created_at),
            updated_at: wire::at(service.updated_at),
            deleted_at: service.deleted_at.map(wire::at),
            undelete_until: service.undelete_until.map(wire::at),
            operation: operation.map(Operation::from),
        }
    }
}
