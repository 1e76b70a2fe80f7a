//! Templates.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named};
use super::join_tokens::PageQuery;
use super::status::Problem;
use super::wire;
use crate::app::TemplateContent;
use crate::domain::{self, Fault, TemplateRef};

/// A spec that data services begin with.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Template {
    /// `tpl_…`
    id: String,
    name: String,
    /// Grows by one with each change.
    revision: u64,
    /// What it is for.
    description: String,
    engine: String,
    /// Part of a DataService's spec.
    #[schema(value_type = Object)]
    spec: Value,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A page of templates.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TemplateList {
    items: Vec<Template>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new template.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTemplate {
    /// 1 to 63 lower-case letters, digits and dashes.
    name: String,
    /// What it is for.
    description: Option<String>,
    /// The engine: `postgresql` or `valkey`.
    engine: String,
    /// Part of a DataService's spec.
    #[schema(value_type = Object)]
    spec: Value,
}

/// What a template shall say from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceTemplate {
    /// Its name, which stays as it is.
    name: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// The engine: `postgresql` or `valkey`.
    engine: String,
    /// Part of a DataService's spec.
    #[schema(value_type = Object)]
    spec: Value,
}

/// The organisation's templates, by name.
#[utoipa::path(
    get,
    path = "/templates",
    tag = "templates",
    params(PageQuery),
    responses((status = 200, description = "A page", body = TemplateList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<PageQuery>,
) -> Result<Json<TemplateList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let page = shared.app.templates(&caller, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(TemplateList { items, next }))
}

/// Make a template.
#[utoipa::path(
    post,
    path = "/templates",
    tag = "templates",
    request_body = CreateTemplate,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The template", body = Template))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateTemplate>,
) -> Result<(StatusCode, Json<Template>), Problem> {
    let CreateTemplate { name, description, engine, spec } = asked.value;
    let name = ask::word("name", &name)?;
    let content = TemplateContent { description: description.unwrap_or_default(), engine, spec };
    let made = shared.app.create_template(&caller, name, content, asked.once.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// One template, by id or name.
#[utoipa::path(
    get,
    path = "/templates/{template}",
    tag = "templates",
    params(("template" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The template", body = Template))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<TemplateRef>,
) -> Result<Json<Template>, Problem> {
    Ok(Json(shared.app.template(&caller, &which).await?.into()))
}

/// Replace what a template says. Data services that were made from it stay as they are.
#[utoipa::path(
    put,
    path = "/templates/{template}",
    tag = "templates",
    request_body = ReplaceTemplate,
    params(("template" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The template", body = Template))
)]
pub(super) async fn replace(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<TemplateRef>,
    asked: Body<ReplaceTemplate>,
) -> Result<Json<Template>, Problem> {
    let ReplaceTemplate { name, description, engine, spec } = asked.value;
    let known = shared.app.template(&caller, &which).await?;
    if name.is_some_and(|name| name != known.name.as_str()) {
        let detail = "the name of a template cannot be changed: make a new one";
        return Err(Problem::invalid(vec![Fault::new("name", "immutable", detail)]));
    }
    let content = TemplateContent { description: description.unwrap_or_default(), engine, spec };
    Ok(Json(shared.app.replace_template(&caller, &which, content).await?.into()))
}

/// Delete a template. Data services that were made from it stay as they are.
#[utoipa::path(
    delete,
    path = "/templates/{template}",
    tag = "templates",
    params(("template" = String, Path, description = "Id or name")),
    responses((status = 204, description = "Deleted"))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<TemplateRef>,
) -> Result<StatusCode, Problem> {
    shared.app.delete_template(&caller, &which).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<domain::Template> for Template {
    fn from(template: domain::Template) -> Self {
        Self {
            id: template.id.to_string(),
            name: template.name.to_string(),
            revision: template.revision,
            description: template.description,
            engine: template.engine,
            spec: template.spec,
            created_at: wire::at(template.created_at),
            updated_at: wire::at(template.updated_at),
        }
    }
}
