//! Applying manifests.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::ask::{self, Asking, Body};
use super::data_services::DataService;
use super::operations::Operation;
use super::status::Problem;
use crate::app::{Applied, AppliedResult, Manifests};
use crate::domain::Fault;

/// Manifests, and where they belong.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Apply {
    /// Objects of `data.culvert.dev/v1alpha1`, 1 to 100.
    #[schema(value_type = Vec<Object>)]
    objects: Vec<Value>,
    /// Id or name of the project that new ones count in; `default` when not given.
    project: Option<String>,
    /// Id or name of the cluster.
    cluster: Option<String>,
    /// Namespace of objects that name none; `data-<project>` when not given.
    namespace: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

/// What became of the objects, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AppliedList {
    items: Vec<AppliedObject>,
}

/// What became of one object.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AppliedObject {
    kind: &'static str,
    name: String,
    /// `created`, `updated`, `unchanged` or `planned`.
    result: &'static str,
    /// With `planned`: what would be altered, restarted and refused.
    #[schema(value_type = Option<Object>)]
    plan: Option<Value>,
    /// The record, when it was made or changed.
    data_service: Option<DataService>,
    /// The operation that was begun.
    operation: Option<Operation>,
}

/// Bring records to what manifests say. All are read before the first is written.
#[utoipa::path(
    post,
    path = "/apply",
    tag = "data services",
    request_body = Apply,
    responses((status = 200, description = "What became of each", body = AppliedList))
)]
pub(super) async fn apply(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<Apply>,
) -> Result<Json<AppliedList>, Problem> {
    let Apply { objects, project, cluster, namespace, dry_run } = asked.value;
    let project = project.as_deref().unwrap_or(crate::domain::project::DEFAULT);
    let cluster = cluster.ok_or_else(|| {
        let detail = "must be given: the cluster that the objects belong in";
        Problem::invalid(vec![Fault::new("cluster", "missing", detail)])
    })?;
    let manifests = Manifests {
        objects,
        project: ask::reference("project", project)?,
        cluster: ask::reference("cluster", &cluster)?,
        namespace: namespace.map(|text| ask::word("namespace", &text)).transpose()?,
        dry_run,
    };
    let applied = shared.app.apply(&caller, manifests).await?;
    Ok(Json(AppliedList { items: applied.into_iter().map(AppliedObject::from).collect() }))
}

impl From<Applied> for AppliedObject {
    fn from(applied: Applied) -> Self {
        let (result, begun, plan) = match applied.result {
            AppliedResult::Created(begun) => ("created", Some(begun), None),
            AppliedResult::Updated(begun) => ("updated", Some(begun), None),
            AppliedResult::Unchanged => ("unchanged", None, None),
            AppliedResult::Planned(plan) => ("planned", None, serde_json::to_value(plan).ok()),
        };
        let (data_service, operation) =
            begun.map(|begun| (begun.service.into(), begun.operation.into())).unzip();
        Self { kind: applied.kind, name: applied.name.to_string(), result, plan, data_service, operation }
    }
}
