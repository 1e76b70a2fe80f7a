//! Changes as they happen: server-sent events.
//!
//! Fetch the list, then watch: an event tells how one thing is now. Every event has
//! a number; a watcher that comes back names the last it has (`Last-Event-ID`) and
//! gets what it missed, or the event `gap`, after which it fetches the list again.
//! A comment every ten seconds shows that the stream lives. The stream ends when
//! the caller's credential does.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::Shared;
use super::ask::{Asking, Filter};
use super::data_services::DataService;
use super::operations::Operation;
use super::status::Problem;
use super::wire::{Agent, Attempt, Cluster};
use crate::app::{App, Change, Error, News, Noted, Since};
use crate::domain::{Caller, ClusterId, ClusterRef, Fault, ObjectKind};

/// How often a comment shows that the stream lives.
const BEAT: Duration = Duration::from_secs(10);

/// What to watch.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only what is about this cluster: id or name.
    cluster: Option<String>,
}

/// Watch changes. Events: `cluster`, `agent`, `attempt`, `data_service`, `operation` with the
/// API's own objects, and `gap` when changes were missed.
#[utoipa::path(
    get,
    path = "/events",
    tag = "changes",
    params(
        EventsQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "Number of the last event the watcher has")
    ),
    responses((status = 200, description = "The stream", body = String, content_type = "text/event-stream"))
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let permit = shared.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy("too many event streams are open"))?;
    let cluster = match query.cluster {
        Some(text) => Some(resolve(&shared.app, &caller, &text).await?),
        None => None,
    };
    let last = last_event_id(&headers)?;
    let watching = Watching::new(shared, caller, cluster, last, permit);
    let mut response = Sse::new(watching.stream()).into_response();
    // Proxies that buffer would hold the stream back for ever.
    let no_buffer = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(no_buffer.0, no_buffer.1);
    Ok(response)
}

async fn resolve(app: &App, caller: &Caller, text: &str) -> Result<ClusterId, Problem> {
    let which: ClusterRef = text.parse().map_err(Error::from)?;
    Ok(app.cluster(caller, &which).await?.cluster.id)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().filter(|text| !text.is_empty()).and_then(|text| text.parse().ok());
    let wrong =
        || Problem::invalid(vec![Fault::new("Last-Event-ID", "invalid", "must be the id of an event")]);
    number.map(Some).ok_or_else(wrong)
}

/// One watcher.
struct Watching {
    app: App,
    caller: Caller,
    cluster: Option<ClusterId>,
    /// The number of the last change that was looked at.
    seen: u64,
    ready: VecDeque<Event>,
    bell: watch::Receiver<u64>,
    revocations: watch::Receiver<u64>,
    beat: Interval,
    end: Instant,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// What a watcher woke up for.
enum Woken {
    Changes,
    Revocation,
    Beat,
    End,
}

impl Watching {
    fn new(
        shared: Shared,
        caller: Caller,
        cluster: Option<ClusterId>,
        last: Option<u64>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let app = shared.app;
        let mut beat = tokio::time::interval_at(Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bell = app.feed().bell();
        bell.mark_changed();
        let seen = last.unwrap_or_else(|| app.feed().newest());
        Self {
            revocations: app.revocations(),
            end: Instant::now() + time_left(&app, &caller),
            // The number at once, so that a watcher can come back before the first event.
            ready: [Event::default().id(seen.to_string()).comment("connected")].into(),
            app,
            caller,
            cluster,
            seen,
            bell,
            beat,
            stop: shared.stop,
            _permit: permit,
        }
    }

    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        futures::stream::unfold(self, |mut watching| async move {
            let event = watching.next().await?;
            Some((Ok(event), watching))
        })
    }

    /// The next event; `None` when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.wait().await {
                Woken::Changes => self.look(),
                Woken::Beat => return Some(Event::default().comment("beat")),
                Woken::Revocation => match self.app.recheck(&self.caller).await {
                    Ok(()) => {}
                    // Whoever cannot be checked is not let on.
                    Err(_) => return None,
                },
                Woken::End => return None,
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::End,
            () = tokio::time::sleep_until(self.end) => Woken::End,
            changed = self.revocations.changed() => if changed.is_ok() { Woken::Revocation } else { Woken::End },
            changed = self.bell.changed() => if changed.is_ok() { Woken::Changes } else { Woken::End },
            _ = self.beat.tick() => Woken::Beat,
        }
    }

    fn look(&mut self) {
        match self.app.feed().since(self.caller.org(), self.seen) {
            Since::Gap(newest) => {
                self.seen = newest;
                let event = Event::default().event("gap").id(newest.to_string());
                self.ready.push_back(event.data("{}"));
            }
            Since::Changes(changes, newest) => {
                self.seen = newest;
                let wanted = |c: &&Arc<Change>| self.cluster.is_none_or(|cluster| c.cluster == Some(cluster));
                self.ready.extend(changes.iter().filter(wanted).flat_map(|c| told_of(c)));
            }
        }
    }
}

/// How long the caller's credential lasts; a far future when it has no end.
pub(super) fn time_left(app: &App, caller: &Caller) -> Duration {
    let far = Duration::from_secs(12 * 3600);
    let left = caller.credential().expires_at.map(|end| end - app.now());
    left.map_or(far, |left| Duration::try_from(left).unwrap_or_default().min(far))
}

/// What a watcher is told of a change. The last one carries its number: whoever comes back with
/// it has seen all of them.
fn told_of(change: &Change) -> Vec<Event> {
    let event = Event::default();
    let filled = match &change.news {
        News::Cluster(view) => vec![event.event("cluster").json_data(Cluster::from((**view).clone()))],
        News::Agent(view) => vec![event.event("agent").json_data(Agent::from((**view).clone()))],
        News::Attempt(attempt) => {
            vec![event.event("attempt").json_data(Attempt::from((**attempt).clone()))]
        }
        News::DataService(view) => {
            vec![event.event("data_service").json_data(DataService::from((**view).clone()))]
        }
        News::Operation(view) => {
            vec![event.event("operation").json_data(Operation::from((**view).clone()))]
        }
        News::Observed(noted) => noted.iter().filter_map(|one| object_event(change, one)).collect(),
    };
    let mut rendered: Vec<Event> = filled.into_iter().filter_map(rendered).collect();
    if let Some(last) = rendered.pop() {
        rendered.push(last.id(change.id.to_string()));
    }
    rendered
}

fn rendered(event: Result<Event, axum::Error>) -> Option<Event> {
    if let Err(error) = &event {
        tracing::error!(error = error as &dyn std::error::Error, "change not rendered");
    }
    event.ok()
}

/// That an object of a cluster changed: enough to know what to fetch again.
fn object_event(change: &Change, noted: &Noted) -> Option<Result<Event, axum::Error>> {
    let name = match noted.key.kind {
        ObjectKind::DataPlane => "data_plane",
        ObjectKind::BackupTarget => "backup_target",
        ObjectKind::BackupSchedule => "backup_schedule",
        ObjectKind::Backup => "backup",
        ObjectKind::Restore => "restore",
        // These are told as records of ours, with the status in them.
        ObjectKind::DataService | ObjectKind::Database => return None,
    };
    let data = serde_json::json!({
        "cluster_id": change.cluster,
        "namespace": noted.key.namespace,
        "name": noted.key.name,
        "record": noted.record,
        "gone": noted.gone,
    });
    Some(Event::default().event(name).json_data(data))
}
