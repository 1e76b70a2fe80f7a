//! Events for people who look with kubectl.
use culvert_resources::ConditionType;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::conditions::Conditions;
use super::work::Work;
use super::world::World;

/// Longest note that the API server takes.
const NOTE: usize = 1000;

/// Writes events as one controller.
#[derive(Clone)]
pub(crate) struct Events(Recorder);

impl Events {
    pub(super) fn new(world: &World, manager: &'static str) -> Self {
        let reporter =
            Reporter { controller: manager.to_owned(), instance: Some(world.identity().to_owned()) };
        Self(Recorder::new(world.client(), reporter))
    }

    async fn write<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        note: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // An event is for people; a namespace that is being deleted takes none, and work goes on without.
        if let Err(error) = self.0.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(error = %error, reason, "an event was not written");
        }
    }
}

impl Work {
    /// Tells that something happened as it should.
    pub(crate) async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.events.write(object, EventType::Normal, reason, note).await;
    }

    /// Warns of something.
    pub(crate) async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.events.write(object, EventType::Warning, reason, note).await;
    }

    /// Tells of each condition that changed, but for those that come and go with every step.
    pub(crate) async fn tell_changes<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        conditions: &Conditions<'_>,
    ) {
        let passing = [ConditionType::Progressing.as_str(), ConditionType::UpToDate.as_str()];
        let told = conditions
            .changed()
            .filter(|changed| changed.status != "Unknown" && !passing.contains(&changed.type_.as_str()));
        for changed in told {
            let note = format!("{} is {}: {}", changed.type_, changed.status, changed.message);
            let type_ = if changed.status == "False" { EventType::Warning } else { EventType::Normal };
            self.events.write(object, type_, &changed.reason, &note).await;
        }
    }
}
