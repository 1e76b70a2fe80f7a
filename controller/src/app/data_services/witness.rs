//! What happened to a data service, and what it says: events and logs, asked of the cluster.

use std::pin::Pin;
use std::time::Duration;

use culvert_resources::meta;
use culvert_tunnel::CallOptions;
use futures::AsyncBufRead;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams, LogParams};

use super::look::only;
use crate::app::in_cluster::Trouble;
use crate::app::operations::about;
use crate::app::{App, Error};
use crate::domain::{Caller, DataService, DataServiceRef, Operation, RequestId, Time};

/// Events of a namespace that are looked at.
const EVENTS: u32 = 500;
/// The most bytes of a log that is not followed.
const LOG_BYTES: i64 = 4 * 1024 * 1024;
/// The most lines that a log can begin with.
pub const TAIL_MAX: u32 = 10_000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// When.
    pub at: Time,
    /// `Normal` or `Warning`, as Kubernetes has it.
    pub kind: &'static str,
    /// A word for it.
    pub reason: String,
    /// A sentence about it.
    pub message: String,
    /// To what, as `Pod/orders-0`.
    pub object: String,
    /// How often.
    pub count: u32,
}

/// What happened, and why it may not be all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happenings {
    /// Newest first.
    pub items: Vec<Happened>,
    /// Why the cluster's own events are missing.
    pub missing: Option<String>,
}

/// Which log, and how much of it.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// The instance; the primary, or the first, when absent.
    pub instance: Option<String>,
    /// Begin with so many of the last lines.
    pub tail: u32,
    /// Go on as lines are written.
    pub follow: bool,
}

/// A log as it comes.
pub type Log = Pin<Box<dyn AsyncBufRead + Send>>;

impl App {
    /// What happened to a data service: its operations, and the cluster's events of its objects.
    pub async fn data_service_events(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
    ) -> Result<Happenings, Error> {
        let store = self.store().org(caller);
        let service = only(store.data_services_named(which).await?)?;
        let subject = super::create::subject(&service);
        let operations = store.operations(&about(&subject), None, 20).await?;
        let mut items: Vec<Happened> = operations.iter().flat_map(of_operation).collect();
        let missing = match self.cluster_events(caller, &service).await {
            Ok(events) => {
                items.extend(events);
                None
            }
            Err(trouble) => Some(trouble.to_string()),
        };
        items.sort_by_key(|item| std::cmp::Reverse(item.at));
        Ok(Happenings { items, missing })
    }

    async fn cluster_events(&self, caller: &Caller, service: &DataService) -> Result<Vec<Happened>, Trouble> {
        let client = self.in_cluster(caller.org(), service.cluster).await?;
        let events: Api<Event> = Api::namespaced(client, service.namespace.as_str());
        let listed = events.list(&ListParams::default().limit(EVENTS)).await?;
        let name = service.name.as_str();
        let ours =
            |event: &Event| event.involved_object.name.as_deref().is_some_and(|object| belongs(object, name));
        Ok(listed.items.iter().filter(|event| ours(event)).filter_map(of_event).collect())
    }

    /// The log of one instance of a data service.
    pub async fn data_service_log(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        query: &LogQuery,
    ) -> Result<Log, Error> {
        let service = only(self.store().org(caller).data_services_named(which).await?)?;
        let client = self.in_cluster(caller.org(), service.cluster).await?;
        let pods: Api<Pod> = Api::namespaced(client, service.namespace.as_str());
        let selector = format!("{}={}", meta::SERVICE, service.name);
        let listed = pods.list(&ListParams::default().labels(&selector)).await.map_err(Trouble::from)?;
        let (pod, container) = chosen(&listed.items, query.instance.as_deref(), &service)?;
        let params = LogParams {
            container,
            follow: query.follow,
            tail_lines: Some(i64::from(query.tail.min(TAIL_MAX))),
            limit_bytes: (!query.follow).then_some(LOG_BYTES),
            ..LogParams::default()
        };
        let options = CallOptions {
            deadline: Some(Duration::from_secs(10)),
            request_id: RequestId::generate().to_string(),
            ..CallOptions::default()
        };
        let client = self.in_cluster_with(caller.org(), service.cluster, options).await?;
        let pods: Api<Pod> = Api::namespaced(client, service.namespace.as_str());
        Ok(Box::pin(pods.log_stream(&pod, &params).await.map_err(Trouble::from)?))
    }
}

/// Whether an object is one of the chain below the service.
fn belongs(object: &str, service: &str) -> bool {
    let rest = object.strip_prefix("data-").unwrap_or(object);
    [object, rest]
        .iter()
        .any(|name| name.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
}

/// The pod and its container whose log is wanted.
fn chosen(
    pods: &[Pod],
    instance: Option<&str>,
    service: &DataService,
) -> Result<(String, Option<String>), Error> {
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    let role = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(meta::ROLE)).cloned();
    let found = match instance {
        Some(instance) => pods.iter().find(|pod| name(pod) == instance),
        None => pods
            .iter()
            .find(|pod| role(pod).as_deref() == Some("primary"))
            .or_else(|| pods.iter().min_by_key(|pod| name(pod))),
    };
    let pod = found.ok_or_else(|| {
        let names: Vec<String> = pods.iter().map(name).collect();
        let reason = format!("the data service {} has no such instance now", service.name);
        let next = if names.is_empty() {
            "none of its instances runs; look at its events".to_owned()
        } else {
            format!("choose one of {}", names.join(", "))
        };
        Error::refused("no_such_instance", reason, next)
    })?;
    let container =
        pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|first| first.name.clone());
    Ok((name(pod), container))
}

fn of_event(event: &Event) -> Option<Happened> {
    let micro = event.event_time.as_ref().map(|at| at.0);
    let moment = event
        .last_timestamp
        .as_ref()
        .map(|at| at.0)
        .or(micro)
        .or(event.first_timestamp.as_ref().map(|at| at.0));
    let at = Time::from_unix_timestamp_nanos(moment?.as_nanosecond()).ok()?;
    let involved = &event.involved_object;
    let (kind, name) = (involved.kind.as_deref().unwrap_or_default(), involved.name.as_deref()?);
    Some(Happened {
        at,
        kind: if event.type_.as_deref() == Some("Warning") { "Warning" } else { "Normal" },
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
        object: format!("{kind}/{name}"),
        count: event.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
    })
}

/// The beginning of an operation, its steps, and its end.
fn of_operation(operation: &Operation) -> Vec<Happened> {
    let told = |at: Time, reason: &str, message: String, warning: bool| Happened {
        at,
        kind: if warning { "Warning" } else { "Normal" },
        reason: reason.to_owned(),
        message,
        object: format!("Operation/{}", operation.id),
        count: 1,
    };
    let kind = operation.kind.as_str();
    let mut items =
        vec![told(operation.created_at, kind, format!("{} asked for it", operation.created_by), false)];
    let steps = operation.steps.iter().filter_map(|step| {
        let at = step.ended_at.or(step.started_at)?;
        let failed = step.state == crate::domain::operation::StepState::Failed;
        Some(told(at, &step.name, format!("{}: {}", step.title, step.message), failed))
    });
    items.extend(steps);
    if let Some(at) = operation.ended_at {
        let failed = operation.failure.as_ref();
        let message =
            failed.map_or_else(|| format!("it has {}", operation.state.as_str()), |f| f.message.clone());
        items.push(told(at, kind, message, failed.is_some()));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_of_the_chain_belong() {
        for ours in ["orders", "orders-0", "orders-pods", "data-orders-0", "orders-primary"] {
            assert!(belongs(ours, "orders"), "{ours}");
        }
        for other in ["orders2", "ordersx-0", "data-ordersx-0", "my-orders", ""] {
            assert!(!belongs(other, "orders"), "{other}");
        }
    }
}
