//! The phase: one word, computed from the conditions and never decided upon.
use culvert_resources::{ConditionType, Phase, WhoCanFix, Why};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// What the phase is computed from.
pub(super) struct Facts<'a> {
    pub(super) conditions: &'a [Condition],
    pub(super) why: Option<&'a Why>,
    /// Whether it was asked to be stopped.
    pub(super) stopped: bool,
    /// Whether it has ever served.
    pub(super) served: bool,
    pub(super) ready: i32,
    pub(super) wanted: i32,
    /// Instances that exist.
    pub(super) instances: i32,
}

impl Facts<'_> {
    fn is(&self, kind: ConditionType, status: &str) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == kind.as_str() && condition.status == status)
    }

    /// Whether somebody has to do something before it goes on.
    fn waits(&self) -> bool {
        self.why.is_some_and(|why| why.who != WhoCanFix::Nobody)
    }
}

/// The phase.
pub(super) fn phase(facts: &Facts<'_>) -> Phase {
    use ConditionType as C;
    let refused = facts.is(C::Accepted, "False") || facts.is(C::Preflight, "False");
    if facts.stopped && facts.served {
        return if facts.instances == 0 { Phase::Stopped } else { Phase::Progressing };
    }
    if facts.is(C::Available, "True") {
        return serving(facts);
    }
    match (facts.served, refused || facts.waits()) {
        (true, _) => Phase::Unavailable,
        (false, true) => Phase::Pending,
        (false, false) if facts.stopped && facts.instances == 0 => Phase::Stopped,
        (false, false) => Phase::Progressing,
    }
}

fn serving(facts: &Facts<'_>) -> Phase {
    use ConditionType as C;
    let changing = facts.is(C::UpToDate, "False");
    if facts.ready < facts.wanted {
        // An instance that is away because something is being changed comes back by itself.
        return if changing && !facts.waits() { Phase::Progressing } else { Phase::Degraded };
    }
    if facts.is(C::StorageHealthy, "False") || facts.is(C::BackupHealthy, "False") {
        return Phase::Degraded;
    }
    if changing { Phase::Progressing } else { Phase::Ready }
}

/// What is being done, in words.
pub(super) fn operation(facts: &Facts<'_>, phase: Phase, doing: Option<&str>) -> Option<String> {
    let words = match (phase, doing) {
        (Phase::Deleting, _) => "deleting",
        (Phase::Progressing, _) if facts.stopped => "stopping",
        (Phase::Progressing, _) if !facts.served => "creating",
        (_, Some("Restarting")) => "rolling restart",
        (_, Some("Switchover")) => "switchover",
        (Phase::Unavailable, _) if facts.wanted > 1 => "failover",
        (Phase::Progressing, _) => "changing",
        _ => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::why::why;
    use ConditionType as C;

    fn conditions(list: &[(ConditionType, &str)]) -> Vec<Condition> {
        list.iter()
            .map(|(kind, status)| Condition {
                type_: kind.as_str().to_owned(),
                status: (*status).to_owned(),
                reason: "R".to_owned(),
                message: String::new(),
                observed_generation: None,
                last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                    k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
                ),
            })
            .collect()
    }

    fn of(list: &[(ConditionType, &str)], why: Option<&Why>, served: bool, ready: i32) -> Phase {
        let conditions = conditions(list);
        phase(&Facts { conditions: &conditions, why, stopped: false, served, ready, wanted: 2, instances: 2 })
    }

    #[test]
    fn each_state_has_its_word() {
        let stuck = why("quota", WhoCanFix::PlatformOperator, "", "");
        let passing = why("starting", WhoCanFix::Nobody, "", "");
        assert_eq!(of(&[(C::Accepted, "False")], None, false, 0), Phase::Pending);
        assert_eq!(of(&[(C::Available, "False")], Some(&stuck), false, 0), Phase::Pending);
        assert_eq!(of(&[(C::Available, "False")], Some(&passing), false, 0), Phase::Progressing);
        assert_eq!(of(&[(C::Available, "False")], Some(&passing), true, 0), Phase::Unavailable);
        let serves = [(C::Available, "True"), (C::UpToDate, "True")];
        assert_eq!(of(&serves, None, true, 2), Phase::Ready);
        assert_eq!(of(&serves, None, true, 1), Phase::Degraded);
        let changing = [(C::Available, "True"), (C::UpToDate, "False")];
        assert_eq!(of(&changing, None, true, 1), Phase::Progressing);
        assert_eq!(of(&changing, Some(&stuck), true, 1), Phase::Degraded);
        let full = [(C::Available, "True"), (C::UpToDate, "True"), (C::StorageHealthy, "False")];
        assert_eq!(of(&full, Some(&stuck), true, 2), Phase::Degraded);
    }

    #[test]
    fn a_fault_in_a_new_wish_does_not_hide_that_it_serves() {
        let refused = [(C::Accepted, "False"), (C::Available, "True"), (C::UpToDate, "True")];
        assert_eq!(of(&refused, None, true, 2), Phase::Ready);
    }

    #[test]
    fn stopped_is_said_when_the_last_instance_is_gone() {
        let none = [];
        let facts = |instances| Facts {
            conditions: &none,
            why: None,
            stopped: true,
            served: true,
            ready: 0,
            wanted: 0,
            instances,
        };
        assert_eq!(phase(&facts(1)), Phase::Progressing);
        assert_eq!(phase(&facts(0)), Phase::Stopped);
        assert_eq!(operation(&facts(1), Phase::Progressing, None).as_deref(), Some("stopping"));
    }
}
