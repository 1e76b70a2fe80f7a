//! The deepest cause why something is not ready, in one sentence, with who can mend it and the next step.
//!
//! Kubernetes tells the surface: a pod is Pending. What a person needs lies below it: the quota that the claim of the
//! pod ran into. So causes are asked for from the bottom up, and the first answer is the one: what was refused
//! before a pod existed, then volumes, scheduling, nodes, images, containers, and last what the engine itself says.
//! An instance that never comes up is looked at before one that came up and is unwell.
//!
//! Everything here is a pure function of a [`Snapshot`]; the messages of Kubernetes that it reads are those of 1.28
//! to 1.37, and the tests hold examples of each.
//!
//! Mistakes a newcomer could make:
//! - to believe an old event: events outlive what they tell of, so each is only looked at while its object is in
//!   the state that it explains;
//! - to hand on the log of a tenant's engine at length: one line, cut.

mod claims;
mod creation;
mod pods;
mod refusal;
mod told;

use std::collections::BTreeMap;

use culvert_resources::instance::InstanceStatus;
use culvert_resources::{WhoCanFix, Why};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;

pub(crate) use claims::no_class;
pub(crate) use refusal::refusal;
pub(crate) use told::problem;

/// What is looked at: all of one database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    /// Its pods.
    pub(crate) pods: &'a [Pod],
    /// Events of its namespace.
    pub(crate) events: &'a [Event],
    /// Its claims.
    pub(crate) claims: &'a [PersistentVolumeClaim],
    /// Names of its StatefulSet.
    pub(crate) stateful_set: &'a str,
    /// Pods that are missing.
    pub(crate) missing: usize,
    /// What each instance told.
    pub(crate) told: &'a BTreeMap<String, InstanceStatus>,
    /// Last line of the log of containers that crashed, by pod.
    pub(crate) logs: &'a BTreeMap<String, String>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// The deepest cause; nothing when all that can be seen is well.
pub(crate) fn deepest(seen: &Snapshot<'_>) -> Option<Why> {
    let created = (seen.missing > 0).then(|| creation::cause(seen)).flatten();
    created
        .or_else(|| claims::cause(seen))
        .or_else(|| seen.pods.iter().find_map(|pod| pods::cause(seen, pod)))
        .or_else(|| told::cause(seen.told))
}

/// A cause.
pub(crate) fn why(code: &str, who: WhoCanFix, message: impl Into<String>, next: impl Into<String>) -> Why {
    Why { code: code.to_owned(), message: message.into(), who, next: next.into(), object: None }
}

/// A cause, seen in an object.
fn seen_in(why: Why, kind: &str, name: &str) -> Why {
    Why { object: Some(format!("{kind}/{name}")), ..why }
}

/// The newest event of an object with one of these reasons.
fn event<'a>(seen: &Snapshot<'a>, kind: &str, name: &str, reasons: &[&str]) -> Option<&'a Event> {
    let about = |event: &&Event| {
        event.involved_object.kind.as_deref() == Some(kind)
            && event.involved_object.name.as_deref() == Some(name)
            && event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
    };
    seen.events.iter().filter(about).max_by_key(|event| at(event))
}

fn at(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    last.or(series).or_else(|| event.event_time.as_ref().map(|time| time.0))
}

/// One line of text that came from elsewhere, cut to what a person reads.
fn line(text: &str) -> String {
    let first = text.trim().lines().next().unwrap_or_default().trim();
    let mut cut: String = first.chars().filter(|c| !c.is_control()).take(240).collect();
    if cut.len() < first.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pod(json: serde_json::Value) -> Pod {
        let mut whole = serde_json::json!({"metadata": {"name": "orders-0", "namespace": "shop"}});
        merge(&mut whole, json);
        serde_json::from_value(whole).unwrap()
    }

    fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
        match (into, from) {
            (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    pub(crate) fn event(kind: &str, name: &str, reason: &str, message: &str) -> Event {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": kind, "name": name},
            "reason": reason, "message": message, "lastTimestamp": "2026-11-25T12:00:00Z",
        }))
        .unwrap()
    }

    /// The cause that is found in these objects.
    pub(crate) fn cause(
        pods: &[Pod],
        claims: &[PersistentVolumeClaim],
        events: &[Event],
        missing: usize,
    ) -> Option<Why> {
        deepest(&Snapshot {
            pods,
            events,
            claims,
            stateful_set: "orders",
            missing,
            told: &BTreeMap::new(),
            logs: &BTreeMap::from([("orders-0".to_owned(), "FATAL: no space".to_owned())]),
            now: "2026-11-25T12:00:30Z".parse().unwrap(),
        })
    }

    #[test]
    fn what_was_refused_before_the_pod_is_deeper_than_the_pod() {
        let pending = pod(serde_json::json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}}));
        let refused = event(
            "StatefulSet",
            "orders",
            "FailedCreate",
            "pods \"orders-1\" is forbidden: exceeded quota: small, requested: requests.memory=1Gi, used: requests.memory=1Gi, limited: requests.memory=1Gi",
        );
        let (pods, events) = ([pending], [refused]);
        assert_eq!(cause(&pods, &[], &events, 1).unwrap().code, "quota");
        let later = cause(&pods, &[], &events, 0).unwrap();
        assert_eq!(later.code, "unschedulable", "the old event tells of the past");
    }

    #[test]
    fn text_from_elsewhere_is_one_line_and_short() {
        assert_eq!(line("  first\nsecond"), "first");
        assert!(line(&"x".repeat(4000)).chars().count() <= 241);
        assert_eq!(line("a\u{1b}[31mb"), "a[31mb…");
    }
}
