//! What happened to a data service, how it differs from what is recorded, and what it logs.

use std::time::Duration;

use axum::Json;
use axum::body::{Body as Streamed, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{AsyncReadExt as _, Stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{Asking, Filter, Named, NoBody};
use super::data_services::DataService;
use super::events::time_left;
use super::status::Problem;
use super::wire;
use crate::app::{App, Happened, Log, LogQuery, TAIL_MAX};
use crate::domain::{Caller, DataServiceRef, Fault, difference};

/// How long a log may be followed in one request.
const FOLLOW_MAX: Duration = Duration::from_secs(4 * 3600);
/// Bytes of a log handed on at once.
const PIECE: usize = 16 * 1024;

/// Where the cluster differs from what is recorded.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DifferenceList {
    differences: Vec<Difference>,
}

/// One field that differs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Difference {
    /// Path below `spec`, as `parameters.work_mem`.
    field: String,
    /// What is recorded; null when it is not set.
    #[schema(value_type = Option<Object>)]
    recorded: Option<Value>,
    /// What lives in the cluster; null when it is not set.
    #[schema(value_type = Option<Object>)]
    live: Option<Value>,
    /// Field manager that set it last.
    manager: Option<String>,
    #[schema(format = DateTime)]
    changed_at: Option<String>,
}

/// What happened, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HappeningList {
    items: Vec<Happening>,
    /// Why the cluster's own events are missing; null when they are not.
    missing: Option<String>,
}

/// Something that happened: an event of the cluster, or a step of an operation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Happening {
    #[schema(format = DateTime)]
    at: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    kind: &'static str,
    reason: String,
    message: String,
    /// To what, as `Pod/orders-0`.
    object: String,
    count: u32,
}

/// Which log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsQuery {
    /// The instance, as `orders-0`; the primary when not given.
    instance: Option<String>,
    /// Begin with so many of the last lines, at most 10000; 200 when not given.
    tail: Option<u32>,
    /// Go on as lines are written.
    follow: Option<bool>,
}

/// How what lives in the cluster differs from what is recorded, with who made it so.
#[utoipa::path(
    get,
    path = "/data-services/{data_service}/diff",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The difference", body = DifferenceList))
)]
pub(super) async fn diff(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
) -> Result<Json<DifferenceList>, Problem> {
    let found = shared.app.data_service_difference(&caller, &which).await?;
    Ok(Json(DifferenceList { differences: found.into_iter().map(Difference::from).collect() }))
}

/// Take what lives in the cluster as what is wanted: what was edited by hand, or made with kubectl.
#[utoipa::path(
    post,
    path = "/data-services/{data_service}/adopt",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The data service", body = DataService))
)]
pub(super) async fn adopt(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    _: NoBody,
) -> Result<Json<DataService>, Problem> {
    Ok(Json(shared.app.adopt_data_service(&caller, &which).await?.into()))
}

/// A data service as a manifest for kubectl, in YAML.
#[utoipa::path(
    get,
    path = "/data-services/{data_service}/manifest",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The manifest", body = String, content_type = "application/yaml"))
)]
pub(super) async fn manifest(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
) -> Result<Response, Problem> {
    let manifest = shared.app.data_service_manifest(&caller, &which).await?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], manifest).into_response())
}

/// What happened to a data service: its operations, and the cluster's events of its objects.
#[utoipa::path(
    get,
    path = "/data-services/{data_service}/events",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "What happened", body = HappeningList))
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
) -> Result<Json<HappeningList>, Problem> {
    let found = shared.app.data_service_events(&caller, &which).await?;
    let items = found.items.into_iter().map(Happening::from).collect();
    Ok(Json(HappeningList { items, missing: found.missing }))
}

/// The log of one instance, as it comes through the tunnel.
#[utoipa::path(
    get,
    path = "/data-services/{data_service}/logs",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name"), LogsQuery),
    responses((status = 200, description = "The log", body = String, content_type = "text/plain"))
)]
pub(super) async fn logs(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    Filter(query): Filter<LogsQuery>,
) -> Result<Response, Problem> {
    let tail = query.tail.unwrap_or(200);
    if tail > TAIL_MAX {
        let detail = format!("must be at most {TAIL_MAX}");
        return Err(Problem::invalid(vec![Fault::new("tail", "out_of_range", detail)]));
    }
    let permit = shared.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy("too many streams are open"))?;
    let wanted = LogQuery { instance: query.instance, tail, follow: query.follow.unwrap_or(false) };
    let log = shared.app.data_service_log(&caller, &which, &wanted).await?;
    let following = Following {
        end: Instant::now() + time_left(&shared.app, &caller).min(FOLLOW_MAX),
        revocations: shared.app.revocations(),
        app: shared.app,
        caller,
        log,
        stop: shared.stop,
        _permit: permit,
    };
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, Streamed::from_stream(following.stream())).into_response())
}

/// A log that somebody reads.
struct Following {
    app: App,
    caller: Caller,
    log: Log,
    revocations: watch::Receiver<u64>,
    end: Instant,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Following {
    fn stream(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        futures::stream::unfold(self, |mut following| async move {
            let piece = following.piece().await?;
            Some((piece, following))
        })
    }

    /// The next bytes; `None` at the end of the log, of the caller's rights or of the process.
    async fn piece(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let mut bytes = vec![0; PIECE];
            let read = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.end) => return None,
                changed = self.revocations.changed() => match changed {
                    Ok(()) => {
                        self.app.recheck(&self.caller).await.ok()?;
                        continue;
                    }
                    Err(_) => return None,
                },
                read = self.log.read(&mut bytes) => read,
            };
            return match read {
                Ok(0) => None,
                Ok(length) => {
                    bytes.truncate(length);
                    Some(Ok(Bytes::from(bytes)))
                }
                Err(error) => Some(Err(error)),
            };
        }
    }
}

impl From<difference::Difference> for Difference {
    fn from(found: difference::Difference) -> Self {
        let difference::Difference { field, recorded, live, manager, changed_at } = found;
        Self { field, recorded, live, manager, changed_at }
    }
}

impl From<Happened> for Happening {
    fn from(happened: Happened) -> Self {
        Self {
            at: wire::at(happened.at),
            kind: happened.kind,
            reason: happened.reason,
            message: happened.message,
            object: happened.object,
            count: happened.count,
        }
    }
}
