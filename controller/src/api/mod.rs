//! REST for the console, the command line and customers: one file per noun.
//!
//! A handler takes the caller and a parsed request, calls one function of the app
//! and turns the result into its wire type. It holds no rule: who may do what is
//! decided below, how a failure reads on the wire is decided in `status`, and
//! nowhere else.
//!
//! The document `openapi.json` is made from the handlers and committed; a test says
//! when the two differ, and another walks every route of it with every role and
//! compares with the committed matrix.
//!
//! Mistakes a newcomer could make:
//! - a handler without [`ask::Asking`]: it is open to the world. The matrix test
//!   shows it as such.
//! - serialising a domain value: the wire would change with the domain.
//! - `axum::Json` or `axum::Query` as an argument: their refusals are not
//!   problem+json, and they take unknown fields. Use [`ask::Body`] and
//!   [`ask::Filter`].

mod agents;
mod api_tokens;
mod apply;
mod ask;
mod backup_schedules;
mod backup_targets;
mod backups;
mod certificates;
mod clusters;
mod cookie;
mod data_services;
mod diagnosis;
mod document;
mod engines;
mod events;
mod figures;
mod info;
mod join_tokens;
mod kubeconfig;
mod me;
mod operations;
mod outermost;
mod projects;
mod restores;
mod sessions;
mod status;
mod templates;
mod unreadable;
mod wire;
mod witness;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::config::Config;
use status::Problem;

pub use document::document;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    app: App,
    /// Event streams that may still be opened.
    streams: Arc<Semaphore>,
    /// Ends event streams when the process stops.
    stop: CancellationToken,
}

/// The API's service. Whoever serves it puts the peer's address into each request
/// as `axum::extract::ConnectInfo<SocketAddr>`. Event streams end with `stop`.
pub fn router(app: &App, config: &Config, stop: CancellationToken) -> Router {
    let streams = Arc::new(Semaphore::new(config.limits.event_streams));
    let shared = Shared { app: app.clone(), streams, stop };
    let (routes, _) = described().split_for_parts();
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(shared)
        .layer(middleware::from_fn(outermost::outermost))
}

/// Every route with its description.
fn described() -> OpenApiRouter<Shared> {
    let below = OpenApiRouter::new()
        .routes(routes!(info::info))
        .routes(routes!(document::openapi))
        .routes(routes!(sessions::sign_in))
        .routes(routes!(sessions::sign_out))
        .routes(routes!(sessions::create_code))
        .routes(routes!(me::me))
        .routes(routes!(clusters::list, clusters::create))
        .routes(routes!(clusters::get, clusters::delete))
        .routes(routes!(clusters::lock, clusters::unlock))
        .routes(routes!(join_tokens::list, join_tokens::create))
        .routes(routes!(join_tokens::revoke))
        .routes(routes!(diagnosis::diagnosis))
        .routes(routes!(kubeconfig::kubeconfig))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get))
        .routes(routes!(certificates::create))
        .routes(routes!(api_tokens::list, api_tokens::create))
        .routes(routes!(api_tokens::revoke))
        .routes(routes!(events::events))
        .merge(data());
    OpenApiRouter::with_openapi(document::base()).nest("/api/v1", below)
}

/// The routes about data services.
fn data() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::get, projects::change, projects::delete))
        .routes(routes!(engines::list))
        .routes(routes!(engines::get))
        .routes(routes!(engines::of_cluster))
        .routes(routes!(engines::data_plane))
        .routes(routes!(templates::list, templates::create))
        .routes(routes!(templates::get, templates::replace, templates::delete))
        .routes(routes!(data_services::list, data_services::create))
        .routes(routes!(data_services::plan_new))
        .routes(routes!(data_services::get, data_services::update, data_services::delete))
        .routes(routes!(data_services::plan))
        .routes(routes!(data_services::restart))
        .routes(routes!(data_services::stop))
        .routes(routes!(data_services::start))
        .routes(routes!(data_services::rotate_credentials))
        .routes(routes!(data_services::undelete))
        .routes(routes!(witness::diff))
        .routes(routes!(witness::adopt))
        .routes(routes!(witness::manifest))
        .routes(routes!(witness::events))
        .routes(routes!(witness::logs))
        .routes(routes!(figures::metrics))
        .routes(routes!(figures::of_operator))
        .routes(routes!(apply::apply))
        .routes(routes!(backup_targets::list, backup_targets::create))
        .routes(routes!(backup_targets::get, backup_targets::change, backup_targets::delete))
        .routes(routes!(backup_targets::credentials))
        .routes(routes!(backup_targets::check))
        .routes(routes!(backup_schedules::list, backup_schedules::create))
        .routes(routes!(backup_schedules::get, backup_schedules::change, backup_schedules::delete))
        .routes(routes!(backup_schedules::run))
        .routes(routes!(backups::list, backups::create))
        .routes(routes!(backups::get, backups::delete))
        .routes(routes!(restores::list, restores::create))
        .routes(routes!(restores::get))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(operations::cancel))
        .routes(routes!(operations::retry))
}

async fn no_such_route() -> Problem {
    Problem::no_such_route()
}

async fn no_such_method() -> Problem {
    Problem::no_such_method()
}
