//! Projects.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named};
use super::join_tokens::PageQuery;
use super::status::Problem;
use super::wire;
use crate::app::{ProjectChange, ProjectView};
use crate::domain::quota::{milli, quantity, shown, whole};
use crate::domain::{Claim, Fault, ProjectRef, Quota};

/// A project: what data services are grouped and bounded by.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Project {
    /// `prj_…`
    id: String,
    name: String,
    /// What its services may use together; null without bound.
    quota: Option<Amounts>,
    /// What its services claim together, instances counted.
    used: Used,
    #[schema(format = DateTime)]
    created_at: String,
}

/// Bounds; what is null is without bound.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = ProjectQuota)]
#[serde(deny_unknown_fields)]
pub(super) struct Amounts {
    /// Data services.
    data_services: Option<u64>,
    /// CPU, such as `4` or `500m`.
    cpu: Option<String>,
    /// Memory, such as `16Gi`.
    memory: Option<String>,
    /// Volumes, such as `1Ti`.
    storage: Option<String>,
}

/// What is in use.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ProjectUsage)]
pub(super) struct Used {
    data_services: u64,
    /// CPU, such as `4` or `500m`.
    cpu: String,
    /// Memory, such as `16Gi`.
    memory: String,
    /// Volumes, such as `1Ti`.
    storage: String,
}

/// A page of projects.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProjectList {
    items: Vec<Project>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateProject {
    /// 1 to 50 lower-case letters, digits and dashes.
    name: String,
    /// What its services may use together.
    quota: Option<Amounts>,
}

/// What of a project shall be otherwise.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeProject {
    /// A new name.
    name: Option<String>,
    /// A new quota; null takes it away, left out it stays.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Amounts>)]
    quota: Option<Option<Amounts>>,
}

/// Tells null from what was left out.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Amounts>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// The organisation's projects, by name.
#[utoipa::path(
    get,
    path = "/projects",
    tag = "projects",
    params(PageQuery),
    responses((status = 200, description = "A page", body = ProjectList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<PageQuery>,
) -> Result<Json<ProjectList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let page = shared.app.projects(&caller, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(ProjectList { items, next }))
}

/// Make a project.
#[utoipa::path(
    post,
    path = "/projects",
    tag = "projects",
    request_body = CreateProject,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The project", body = Project))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateProject>,
) -> Result<(StatusCode, Json<Project>), Problem> {
    let name = ask::word("name", &asked.value.name)?;
    let quota = asked.value.quota.map(quota).transpose()?;
    let made = shared.app.create_project(&caller, name, quota, asked.once.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// One project, by id or name.
#[utoipa::path(
    get,
    path = "/projects/{project}",
    tag = "projects",
    params(("project" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The project", body = Project))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ProjectRef>,
) -> Result<Json<Project>, Problem> {
    Ok(Json(shared.app.project(&caller, &which).await?.into()))
}

/// Change a project's name or quota. Nothing is stopped by a quota below what is in use.
#[utoipa::path(
    patch,
    path = "/projects/{project}",
    tag = "projects",
    request_body = ChangeProject,
    params(("project" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The project", body = Project))
)]
pub(super) async fn change(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ProjectRef>,
    asked: Body<ChangeProject>,
) -> Result<Json<Project>, Problem> {
    let name = asked.value.name.map(|name| ask::word("name", &name)).transpose()?;
    let quota = asked.value.quota.map(|given| given.map(quota).transpose()).transpose()?;
    let changed = shared.app.change_project(&caller, &which, ProjectChange { name, quota }).await?;
    Ok(Json(changed.into()))
}

/// Delete a project that has no data services.
#[utoipa::path(
    delete,
    path = "/projects/{project}",
    tag = "projects",
    params(("project" = String, Path, description = "Id or name")),
    responses((status = 204, description = "Deleted"))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ProjectRef>,
) -> Result<StatusCode, Problem> {
    shared.app.delete_project(&caller, &which).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn quota(given: Amounts) -> Result<Quota, Problem> {
    let mut faults = Vec::new();
    let mut read = |field: &str, text: Option<String>, amount: fn(culvert_engines::Amount) -> u64| {
        let text = text?;
        let read = quantity(&text).map(amount);
        if read.is_none() {
            let detail = "must be a quantity such as 500m, 2 or 1Gi";
            faults.push(Fault::new(format!("quota.{field}"), "invalid", detail));
        }
        read
    };
    let quota = Quota {
        data_services: given.data_services,
        cpu_milli: read("cpu", given.cpu, milli),
        memory_bytes: read("memory", given.memory, whole),
        storage_bytes: read("storage", given.storage, whole),
    };
    if faults.is_empty() { Ok(quota) } else { Err(Problem::invalid(faults)) }
}

impl From<Quota> for Amounts {
    fn from(quota: Quota) -> Self {
        Self {
            data_services: quota.data_services,
            cpu: quota.cpu_milli.map(|amount| shown("cpu", amount)),
            memory: quota.memory_bytes.map(|amount| shown("memory", amount)),
            storage: quota.storage_bytes.map(|amount| shown("storage", amount)),
        }
    }
}

impl From<Claim> for Used {
    fn from(claim: Claim) -> Self {
        Self {
            data_services: claim.data_services,
            cpu: shown("cpu", claim.cpu_milli),
            memory: shown("memory", claim.memory_bytes),
            storage: shown("storage", claim.storage_bytes),
        }
    }
}

impl From<ProjectView> for Project {
    fn from(view: ProjectView) -> Self {
        Self {
            id: view.project.id.to_string(),
            name: view.project.name.to_string(),
            quota: view.project.quota.map(Amounts::from),
            used: view.used.into(),
            created_at: wire::at(view.project.created_at),
        }
    }
}
