//! Operations.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{self, Asking, Filter, Named, NoBody};
use super::status::Problem;
use super::wire;
use crate::app::{OperationFilter, OperationView};
use crate::domain::{self, OperationId, OperationKind, OperationState, operation};

/// Long work in ordered steps.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Operation {
    /// `opn_…`
    id: String,
    /// `create`, `update`, `restart`, `stop`, `start`, `rotate_credentials`, `delete`, `undelete` …
    kind: &'static str,
    subject: Subject,
    /// Where it acts.
    cluster: Option<Reference>,
    /// `pending`, `running`, `cancelling`, `succeeded`, `failed` or `cancelled`.
    state: &'static str,
    steps: Vec<Step>,
    /// How long it should take.
    expected_seconds: Expected,
    /// How far it is, when bytes are moved.
    progress: Option<Progress>,
    /// Why it was given up.
    failure: Option<Failure>,
    /// Name of who asked for it.
    created_by: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// When it is given up.
    #[schema(format = DateTime)]
    deadline: String,
}

/// What an operation is about.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OperationSubject)]
pub(super) struct Subject {
    /// `data_service` …
    kind: &'static str,
    id: String,
    name: String,
}

/// Something else, by id and name.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Reference {
    pub(super) id: String,
    pub(super) name: String,
}

/// One step of an operation.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OperationStep)]
pub(super) struct Step {
    /// A stable word, such as `reserve-quota`.
    name: String,
    /// What it does.
    title: String,
    /// `pending`, `running`, `done`, `failed` or `skipped`.
    state: &'static str,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// What it waits for, or what it did.
    message: String,
}

/// Seconds that operations of the kind take, from the latest ones.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ExpectedSeconds)]
pub(super) struct Expected {
    low: u64,
    high: u64,
}

/// Bytes that are moved.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OperationProgress)]
pub(super) struct Progress {
    done_bytes: u64,
    total_bytes: Option<u64>,
}

/// Why an operation was given up.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OperationFailure)]
pub(super) struct Failure {
    /// A stable word for programs.
    code: String,
    message: String,
    /// What to do.
    next: String,
}

/// A page of operations.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OperationList {
    items: Vec<Operation>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// Which operations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OperationQuery {
    /// Items a page, 1 to 200; 50 when not given.
    limit: Option<u64>,
    /// `next` of the page before.
    after: Option<String>,
    /// Only operations on the thing with this id.
    subject: Option<String>,
    /// Only operations in this state: `pending`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`.
    state: Option<String>,
    /// Only operations of this kind.
    kind: Option<String>,
}

/// The organisation's operations, newest first.
#[utoipa::path(
    get,
    path = "/operations",
    tag = "operations",
    params(OperationQuery),
    responses((status = 200, description = "A page", body = OperationList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<OperationQuery>,
) -> Result<Json<OperationList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let states = OperationState::ALL.map(OperationState::as_str);
    let kinds: Vec<&str> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let filter = OperationFilter {
        subject: query.subject,
        state: ask::one_of("state", query.state.as_deref(), &states)?,
        kind: ask::one_of("kind", query.kind.as_deref(), &kinds)?,
    };
    let page = shared.app.operations(&caller, &filter, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(OperationList { items, next }))
}

/// One operation.
#[utoipa::path(
    get,
    path = "/operations/{operation}",
    tag = "operations",
    params(("operation" = String, Path, description = "Id")),
    responses((status = 200, description = "The operation", body = Operation))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(id): Named<OperationId>,
) -> Result<Json<Operation>, Problem> {
    Ok(Json(shared.app.operation(&caller, id).await?.into()))
}

/// Ask an operation to stop. What was not sent to the cluster is taken back.
#[utoipa::path(
    post,
    path = "/operations/{operation}/cancel",
    tag = "operations",
    params(("operation" = String, Path, description = "Id")),
    responses((status = 202, description = "It stops", body = Operation))
)]
pub(super) async fn cancel(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(id): Named<OperationId>,
    _: NoBody,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(shared.app.cancel_operation(&caller, id).await?.into())))
}

/// Let a failed operation go on from the step that failed.
#[utoipa::path(
    post,
    path = "/operations/{operation}/retry",
    tag = "operations",
    params(("operation" = String, Path, description = "Id")),
    responses((status = 202, description = "It goes on", body = Operation))
)]
pub(super) async fn retry(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(id): Named<OperationId>,
    _: NoBody,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(shared.app.retry_operation(&caller, id).await?.into())))
}

impl From<OperationView> for Operation {
    fn from(view: OperationView) -> Self {
        let OperationView { operation, cluster_name } = view;
        let name =
            |id: domain::ClusterId| cluster_name.map_or_else(|| id.to_string(), |name| name.to_string());
        Self {
            id: operation.id.to_string(),
            kind: operation.kind.as_str(),
            subject: Subject {
                kind: operation.subject.kind.as_str(),
                id: operation.subject.id,
                name: operation.subject.name,
            },
            cluster: operation.cluster.map(|id| Reference { id: id.to_string(), name: name(id) }),
            state: operation.state.as_str(),
            steps: operation.steps.into_iter().map(Step::from).collect(),
            expected_seconds: Expected { low: operation.expected.low, high: operation.expected.high },
            progress: operation
                .progress
                .map(|p| Progress { done_bytes: p.done_bytes, total_bytes: p.total_bytes }),
            failure: operation.failure.map(|f| Failure { code: f.code, message: f.message, next: f.next }),
            created_by: operation.created_by,
            created_at: wire::at(operation.created_at),
            started_at: operation.started_at.map(wire::at),
            ended_at: operation.ended_at.map(wire::at),
            deadline: wire::at(operation.deadline),
        }
    }
}

impl From<operation::Step> for Step {
    fn from(step: operation::Step) -> Self {
        Self {
            name: step.name,
            title: step.title,
            state: step.state.as_str(),
            started_at: step.started_at.map(wire::at),
            ended_at: step.ended_at.map(wire::at),
            message: step.message,
        }
    }
}
