//! The order of changes: which instance is restarted next, and when the primary hands over.
//!
//! Replicas first, then a switchover, then the old primary. Nothing is restarted while an instance that is up to
//! date does not serve, because each restart takes one away. What is out of date and does not serve is restarted at
//! once: it may be the very thing that the change mends.
use std::time::Duration;

/// A primary that was asked to hand over and did not within this time is restarted all the same: its replicas take
/// over when its Lease ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// An instance, as far as the order depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Instance {
    /// Name of the pod.
    pub(super) pod: String,
    /// Number of the pod.
    pub(super) ordinal: i32,
    /// Whether the pod exists.
    pub(super) exists: bool,
    /// Whether the pod is being deleted.
    pub(super) ending: bool,
    /// Why it has to be restarted; nothing when it is up to date.
    pub(super) outdated: Option<&'static str>,
    /// Whether it serves.
    pub(super) ready: bool,
    /// Whether it is the primary.
    pub(super) primary: bool,
    /// Whether commits wait for it.
    pub(super) synchronous: bool,
    /// Bytes behind the primary.
    pub(super) lag: Option<i64>,
}

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: all is as it shall be.
    Nothing,
    /// Something is under way.
    Wait(String),
    /// The pod is deleted, and comes back as it shall be.
    Restart {
        /// The pod.
        pod: String,
        /// Why.
        why: &'static str,
    },
    /// The primary is asked to hand over.
    Switchover {
        /// Pod that shall be primary.
        to: String,
    },
}

/// A switchover that was asked for, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) to: String,
    pub(super) since: Duration,
}

/// The next step. `replicas` are wanted; those beyond are about to go.
pub(super) fn next(instances: &[Instance], replicas: i32, asked: Option<&Asked>) -> Step {
    let staying: Vec<&Instance> = instances.iter().filter(|instance| instance.ordinal < replicas).collect();
    if replicas == 0 {
        return Step::Nothing;
    }
    if let Some(ending) = instances.iter().find(|instance| instance.ending) {
        return Step::Wait(format!("{} is ending", ending.pod));
    }
    if let Some(broken) = staying.iter().find(|one| one.exists && !one.ready && one.outdated.is_some()) {
        return restart(broken);
    }
    if let Some(absent) = staying.iter().find(|instance| !instance.ready) {
        return Step::Wait(format!("{} does not serve yet", absent.pod));
    }
    if let Some(leaving) = instances.iter().find(|one| one.primary && one.ordinal >= replicas) {
        return hand_over(leaving, &staying, asked);
    }
    let outdated = |one: &&&Instance| one.outdated.is_some();
    if let Some(replica) = staying.iter().rev().filter(outdated).find(|one| !one.primary) {
        return restart(replica);
    }
    match staying.iter().find(|one| one.outdated.is_some()) {
        Some(primary) => hand_over(primary, &staying, asked),
        None => Step::Nothing,
    }
}

fn restart(instance: &Instance) -> Step {
    Step::Restart { pod: instance.pod.clone(), why: instance.outdated.unwrap_or("it has to go") }
}

/// The primary goes: first another takes over, when there is one.
fn hand_over(primary: &Instance, staying: &[&Instance], asked: Option<&Asked>) -> Step {
    let heirs = staying.iter().filter(|one| one.pod != primary.pod && one.ready && one.outdated.is_none());
    // One for which commits wait, else the one that is behind least.
    let best = heirs.min_by_key(|one| (!one.synchronous, one.lag.unwrap_or(i64::MAX), one.ordinal));
    match (best, asked) {
        (None, _) => restart(primary),
        (Some(_), Some(asked)) if asked.since >= PATIENCE => restart(primary),
        (Some(_), Some(asked)) => Step::Wait(format!("{} takes over from {}", asked.to, primary.pod)),
        (Some(best), None) => Step::Switchover { to: best.pod.clone() },
    }
}

/// Replicas that the StatefulSet may have: it removes the highest numbers first, and never the primary.
pub(super) fn replicas(wanted: i32, now: i32, primary: Option<i32>) -> i32 {
    if wanted == 0 {
        return 0;
    }
    let kept = primary.filter(|ordinal| *ordinal < now).map_or(0, |ordinal| ordinal.saturating_add(1));
    wanted.max(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instance(ordinal: i32) -> Instance {
        Instance { pod: format!("o-{ordinal}"), ordinal, exists: true, ready: true, ..Instance::default() }
    }

    /// Three that serve; the first leads.
    fn three() -> Vec<Instance> {
        let mut all: Vec<Instance> = (0..3).map(instance).collect();
        all[0].primary = true;
        all
    }

    fn outdated(mut all: Vec<Instance>) -> Vec<Instance> {
        all.iter_mut().for_each(|one| one.outdated = Some("its template changed"));
        all
    }

    fn restarts(step: &Step, pod: &str) -> bool {
        matches!(step, Step::Restart { pod: named, .. } if named == pod)
    }

    #[test]
    fn replicas_first_then_a_switchover_then_the_old_primary() {
        let mut all = outdated(three());
        assert!(restarts(&next(&all, 3, None), "o-2"));
        (all[2].outdated, all[2].ready) = (None, false);
        assert!(matches!(next(&all, 3, None), Step::Wait(_)), "one at a time");
        all[2].ready = true;
        assert!(restarts(&next(&all, 3, None), "o-1"));
        all[1].outdated = None;
        all[1].lag = Some(10);
        all[2].lag = Some(0);
        assert_eq!(next(&all, 3, None), Step::Switchover { to: "o-2".to_owned() });
        let asked = |since| Some(Asked { to: "o-2".to_owned(), since });
        assert!(matches!(next(&all, 3, asked(Duration::from_secs(5)).as_ref()), Step::Wait(_)));
        assert!(restarts(&next(&all, 3, asked(PATIENCE).as_ref()), "o-0"), "patience ends");
        (all[0].primary, all[2].primary) = (false, true);
        assert!(restarts(&next(&all, 3, None), "o-0"));
        all[0].outdated = None;
        assert_eq!(next(&all, 3, None), Step::Nothing);
    }

    #[test]
    fn a_single_instance_is_simply_restarted() {
        let mut one = vec![instance(0)];
        one[0].primary = true;
        assert_eq!(next(&one, 1, None), Step::Nothing);
        assert!(restarts(&next(&outdated(one), 1, None), "o-0"));
    }

    #[test]
    fn what_a_bad_setting_broke_gets_the_way_back() {
        let mut all = outdated(three());
        all.iter_mut().for_each(|one| one.ready = false);
        assert!(matches!(next(&all, 3, None), Step::Restart { .. }));
        let broken_but_current: Vec<Instance> =
            three().into_iter().map(|one| Instance { ready: false, ..one }).collect();
        assert!(matches!(next(&broken_but_current, 3, None), Step::Wait(_)));
    }

    #[test]
    fn the_one_for_which_commits_wait_takes_over() {
        let mut all = three();
        all[0].outdated = Some("x");
        (all[1].lag, all[2].lag, all[1].synchronous) = (Some(5), Some(0), true);
        assert_eq!(next(&all, 3, None), Step::Switchover { to: "o-1".to_owned() });
    }

    #[test]
    fn a_primary_that_is_scaled_away_hands_over_before() {
        let mut all = three();
        (all[0].primary, all[2].primary) = (false, true);
        assert_eq!(replicas(1, 3, Some(2)), 3, "the primary is not removed");
        assert_eq!(next(&all, 1, None), Step::Switchover { to: "o-0".to_owned() });
        (all[0].primary, all[2].primary) = (true, false);
        assert_eq!(replicas(1, 3, Some(0)), 1);
        assert_eq!(next(&all, 1, None), Step::Nothing);
    }

    #[test]
    fn a_stop_waits_for_nobody() {
        assert_eq!(replicas(0, 3, Some(2)), 0);
        assert_eq!(next(&outdated(three()), 0, None), Step::Nothing);
    }

    proptest! {
        /// Whatever the state: at most one step, never one that takes a serving instance while another is away.
        #[test]
        fn a_serving_instance_goes_only_when_all_others_serve(
            states in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..5),
            leader in 0_usize..5,
        ) {
            let mut all: Vec<Instance> = Vec::new();
            for (number, (ready, old, ending)) in states.iter().enumerate() {
                let mut one = instance(i32::try_from(number).unwrap());
                (one.ready, one.ending, one.primary) = (*ready, *ending, number == leader);
                one.outdated = old.then_some("x");
                all.push(one);
            }
            let count = i32::try_from(all.len()).unwrap();
            if let Step::Restart { pod, .. } = next(&all, count, None) {
                let chosen = all.iter().find(|one| one.pod == pod).unwrap();
                prop_assert!(chosen.outdated.is_some());
                prop_assert!(!chosen.ready || all.iter().all(|one| one.ready && !one.ending));
            }
        }
    }
}
