//! What a data service's status means for a step that waits for it. Pure rules.

use culvert_resources::{ConditionType, DataServiceStatus, Phase, WhoCanFix, Why};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::domain::Failure;
use crate::domain::data_service::Seen;
use crate::domain::operation::Went;

/// What the step `step` finds in what was seen; `generation` is that of the spec it waits for.
pub(super) fn found(step: &str, seen: &Seen, generation: i64) -> Went {
    let status = seen.status();
    if seen.generation < generation || status.observed_generation.is_none_or(|seen| seen < generation) {
        return Went::Waiting("the operator has not looked at it yet".to_owned());
    }
    match step {
        "accepted" => accepted(&status),
        "provisioned" => by_condition(&status, ConditionType::Provisioned),
        "available" if status.phase == Some(Phase::Stopped) => Went::Skipped("it is stopped".to_owned()),
        "available" => by_condition(&status, ConditionType::Available),
        "stopped" if status.phase == Some(Phase::Stopped) => Went::Done("no instance runs".to_owned()),
        _ if step == "stopped" => Went::Waiting(waits_for(&status, None)),
        _ => applied(&status),
    }
}

/// Whether the operator takes the spec. A refusal is for good: the same spec is refused again.
fn accepted(status: &DataServiceStatus) -> Went {
    match condition(status, ConditionType::Accepted) {
        Some(accepted) if accepted.status == "True" => Went::Done(accepted.message.clone()),
        Some(refused) if refused.status == "False" => Went::Refused(rejected(refused, status.why.as_ref())),
        other => Went::Waiting(waits_for(status, other)),
    }
}

fn rejected(refused: &Condition, why: Option<&Why>) -> Failure {
    let next = "change what it names, and send it again";
    match why {
        Some(why) => Failure::new(why.code.clone(), why.message.clone(), why.next.clone()),
        None => Failure::new("not_accepted", refused.message.clone(), next),
    }
}

fn by_condition(status: &DataServiceStatus, kind: ConditionType) -> Went {
    match condition(status, kind) {
        Some(condition) if condition.status == "True" => Went::Done(condition.message.clone()),
        other => Went::Waiting(waits_for(status, other)),
    }
}

/// Whether what runs is what was asked for, or will be when its window comes.
fn applied(status: &DataServiceStatus) -> Went {
    let is = |kind, word| condition(status, kind).is_some_and(|c| c.status == word);
    if is(ConditionType::MaintenancePending, "True") {
        let said = condition(status, ConditionType::MaintenancePending).map(|c| c.message.as_str());
        let said = said.unwrap_or_default();
        return Went::Done(format!("taken on; it is carried out in the maintenance window ({said})"));
    }
    let works = status.phase == Some(Phase::Stopped) || is(ConditionType::Available, "True");
    let busy = is(ConditionType::Progressing, "True");
    match condition(status, ConditionType::UpToDate) {
        Some(current) if current.status == "True" && works && !busy => Went::Done(current.message.clone()),
        other => Went::Waiting(waits_for(status, other)),
    }
}

/// The deepest cause there is, in one sentence.
fn waits_for(status: &DataServiceStatus, condition: Option<&Condition>) -> String {
    if let Some(why) = &status.why {
        let who = match why.who {
            WhoCanFix::Nobody => return why.message.clone(),
            WhoCanFix::Developer => "you",
            WhoCanFix::PlatformOperator => "the cluster's owner",
            WhoCanFix::StorageOwner => "the object store's owner",
            WhoCanFix::VendorOperator => "whoever runs the control plane",
        };
        return format!("{}; {who} can mend it: {}", why.message, why.next);
    }
    let said = condition.map(|c| c.message.as_str()).filter(|message| !message.is_empty());
    let doing = status.current_operation.as_deref();
    said.or(doing).unwrap_or("the operator is at work").to_owned()
}

fn condition(status: &DataServiceStatus, kind: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::Time;

    fn seen(status: Value) -> Seen {
        let spec = json!({});
        Seen { at: Time::UNIX_EPOCH, uid: "u".into(), generation: 2, version: None, spec, status }
    }

    fn status(phase: &str, conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "message": format!("{kind} said"),
                    "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        json!({"phase": phase, "observedGeneration": 2, "conditions": conditions})
    }

    #[test]
    fn an_old_status_says_nothing() {
        let mut old = status("Ready", &[("Accepted", "True"), ("Available", "True")]);
        old["observedGeneration"] = json!(1);
        for step in ["accepted", "provisioned", "available", "applied", "stopped"] {
            assert!(matches!(found(step, &seen(old.clone()), 2), Went::Waiting(_)), "{step}");
        }
    }

    #[test]
    fn a_step_is_done_when_its_condition_is_true() {
        let all =
            [("Accepted", "True"), ("Provisioned", "True"), ("Available", "True"), ("UpToDate", "True")];
        for step in ["accepted", "provisioned", "available", "applied"] {
            assert!(matches!(found(step, &seen(status("Ready", &all)), 2), Went::Done(_)), "{step}");
            assert!(matches!(found(step, &seen(status("Pending", &[])), 2), Went::Waiting(_)), "{step}");
        }
        assert!(matches!(found("stopped", &seen(status("Stopped", &[])), 2), Went::Done(_)));
        assert!(matches!(found("available", &seen(status("Stopped", &[])), 2), Went::Skipped(_)));
    }

    #[test]
    fn a_refusal_of_the_operator_is_for_good() {
        let mut refused = status("Pending", &[("Accepted", "False")]);
        let Went::Refused(failure) = found("accepted", &seen(refused.clone()), 2) else {
            panic!("not refused")
        };
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("not_accepted", "Accepted said"));
        refused["why"] = json!({"code": "unknown_parameter", "message": "no such parameter", "who": "developer",
            "next": "remove it"});
        let Went::Refused(failure) = found("accepted", &seen(refused), 2) else { panic!("not refused") };
        assert_eq!((failure.code.as_str(), failure.next.as_str()), ("unknown_parameter", "remove it"));
    }

    #[test]
    fn what_it_waits_for_is_the_deepest_cause() {
        let mut waits = status("Pending", &[("Available", "False")]);
        let Went::Waiting(said) = found("available", &seen(waits.clone()), 2) else { panic!("not waiting") };
        assert_eq!(said, "Available said");
        waits["why"] = json!({"code": "image_pull", "message": "the image cannot be pulled",
            "who": "platform-operator", "next": "add a pull Secret"});
        let Went::Waiting(said) = found("available", &seen(waits), 2) else { panic!("not waiting") };
        assert_eq!(said, "the image cannot be pulled; the cluster's owner can mend it: add a pull Secret");
    }

    #[test]
    fn a_change_that_rolls_is_not_done_and_one_that_waits_for_its_window_is() {
        let rolling = [("UpToDate", "True"), ("Available", "True"), ("Progressing", "True")];
        assert!(matches!(found("applied", &seen(status("Progressing", &rolling)), 2), Went::Waiting(_)));
        let down = [("UpToDate", "True"), ("Available", "False")];
        assert!(matches!(found("applied", &seen(status("Unavailable", &down)), 2), Went::Waiting(_)));
        let window = [("UpToDate", "False"), ("MaintenancePending", "True")];
        assert!(matches!(found("applied", &seen(status("Ready", &window)), 2), Went::Done(_)));
    }
}
