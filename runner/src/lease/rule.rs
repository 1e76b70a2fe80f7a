//! What to do with the Lease now: a pure function of what was seen and when.
use std::time::Duration;

use super::record::Record;

/// The times of a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long it is valid.
    pub lease: Duration,
}

impl Terms {
    /// From the seconds in the configuration; at least 3.
    #[must_use]
    pub fn new(seconds: i32) -> Self {
        Self { lease: Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(3)) }
    }

    /// Time between renewals.
    #[must_use]
    pub fn renew(self) -> Duration {
        self.lease / 3
    }

    /// Time before the end at which the holder stops: enough for the engine to end and for clocks of which one is
    /// a tenth faster than the other.
    #[must_use]
    pub fn margin(self) -> Duration {
        self.lease / 4
    }

    /// Longest time to wait for one answer of the API server.
    #[must_use]
    pub fn patience(self) -> Duration {
        self.lease / 6
    }
}

/// What this process knows of its own hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When the request of the last renewal that succeeded was sent.
    pub renewed: Duration,
    /// When the engine has to be down; none when nobody else may take the Lease.
    pub until: Option<Duration>,
}

impl Held {
    /// The hold that a renewal gives, which was sent at `sent`.
    #[must_use]
    pub fn from(sent: Duration, terms: Terms, fenced: bool) -> Self {
        let until = sent + terms.lease.saturating_sub(terms.margin());
        Self { renewed: sent, until: fenced.then_some(until) }
    }
}

/// All that the decision depends on. Times are of one clock of this process that does not run backwards.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Now.
    pub now: Duration,
    /// Name of this pod.
    pub pod: &'a str,
    /// uid of this pod.
    pub uid: &'a str,
    /// The times in the configuration.
    pub terms: Terms,
    /// The record as it was read last; none when there is no Lease.
    pub record: Option<&'a Record>,
    /// Since when the record, or its absence, has been as it is.
    pub since: Duration,
    /// What this process holds.
    pub held: Option<Held>,
    /// Whether this instance may and wants to be primary.
    pub claim: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Write the record: as holder, or to become holder.
    Write,
    /// The hold has ended: the engine must not take writes any more.
    Fence,
}

/// Decides.
#[must_use]
pub fn step(view: &View<'_>) -> Step {
    let mine = view.record.is_some_and(|record| record.held_by(view.pod, view.uid));
    // It was deleted, and perhaps the operator has made it again; nobody took it since, or there would be a name.
    let nobodys = view.record.is_none_or(|record| record.holder.is_none());
    match view.held {
        Some(held) if held.until.is_some_and(|until| view.now >= until) => Step::Fence,
        Some(_) if !mine && !nobodys => Step::Fence,
        Some(held) if nobodys || view.now >= held.renewed + view.terms.renew() => Step::Write,
        Some(_) => Step::Wait,
        None if view.claim && (mine || free(view)) => Step::Write,
        None => Step::Wait,
    }
}

/// Whether the Lease may be taken by one that is not its holder.
fn free(view: &View<'_>) -> bool {
    let Some(record) = view.record else { return true };
    if record.holder.is_none() {
        return true;
    }
    // The longer of the two: the configuration may just have changed.
    let expired = view.now >= view.since + record.duration.max(view.terms.lease);
    expired && (record.fenced || record.holder.as_deref() == Some(view.pod))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { lease: Duration::from_secs(15) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(holder: &str, uid: &str) -> Record {
        Record {
            holder: (!holder.is_empty()).then(|| holder.to_owned()),
            holder_uid: Some(uid.to_owned()),
            duration: TERMS.lease,
            fenced: true,
            ..Record::default()
        }
    }

    fn view(record: Option<&Record>, now: u64) -> View<'_> {
        View { now: at(now), pod: "a", uid: "1", terms: TERMS, record, since: at(0), held: None, claim: true }
    }

    #[test]
    fn a_holder_renews_each_third_and_fences_a_quarter_early() {
        let record = record("a", "1");
        let held = Some(Held::from(at(100), TERMS, true));
        let step_at = |now| step(&View { held, ..view(Some(&record), now) });
        assert_eq!(step_at(104), Step::Wait);
        assert_eq!(step_at(105), Step::Write);
        assert_eq!(step_at(111), Step::Write);
        assert_eq!(step_at(112), Step::Fence);
    }

    #[test]
    fn a_single_instance_never_fences_and_nobody_takes_its_lease() {
        let record = Record { fenced: false, ..record("a", "1") };
        let held = Some(Held::from(at(100), TERMS, false));
        assert_eq!(step(&View { held, ..view(Some(&record), 90_000) }), Step::Write);
        let other = View { pod: "b", uid: "2", ..view(Some(&record), 90_000) };
        assert_eq!(step(&other), Step::Wait);
        let next_of_its_name = View { uid: "9", ..view(Some(&record), 90_000) };
        assert_eq!(step(&next_of_its_name), Step::Write);
    }

    #[test]
    fn the_same_pod_goes_on_at_once_and_another_of_its_name_waits() {
        let record = record("a", "1");
        assert_eq!(step(&view(Some(&record), 1)), Step::Write);
        let again = |now| step(&View { uid: "2", ..view(Some(&record), now) });
        assert_eq!(again(14), Step::Wait);
        assert_eq!(again(15), Step::Write);
    }

    #[test]
    fn a_lease_is_taken_when_it_was_released_or_has_expired_and_only_by_a_claim() {
        let released = record("", "1");
        assert_eq!(step(&view(Some(&released), 1)), Step::Write);
        let other = record("b", "2");
        assert_eq!(step(&view(Some(&other), 14)), Step::Wait);
        assert_eq!(step(&view(Some(&other), 15)), Step::Write);
        assert_eq!(step(&View { claim: false, ..view(Some(&other), 99) }), Step::Wait);
        assert_eq!(step(&view(None, 0)), Step::Write);
    }

    #[test]
    fn a_holder_who_sees_another_name_fences_and_one_whose_lease_was_deleted_makes_it_again() {
        let held = Some(Held::from(at(0), TERMS, true));
        let other = record("b", "2");
        assert_eq!(step(&View { held, ..view(Some(&other), 1) }), Step::Fence);
        assert_eq!(step(&View { held, ..view(None, 1) }), Step::Write);
        let made_again = Record { fenced: true, ..Record::default() };
        assert_eq!(step(&View { held, ..view(Some(&made_again), 1) }), Step::Write);
    }

    // --- two nodes, their own clocks, a network that loses and delays -------------------------

    /// One node of the simulation.
    struct Node {
        name: &'static str,
        /// Ticks of its clock for 1000 of the true one.
        rate: u64,
        /// Its clock's head start.
        ahead: Duration,
        seen: Option<Record>,
        since: Duration,
        held: Option<Held>,
    }

    impl Node {
        fn new(name: &'static str, rate: u64, ahead: u64) -> Self {
            Self { name, rate, ahead: at(ahead), seen: None, since: at(ahead), held: None }
        }

        fn clock(&self, truth: u64) -> Duration {
            self.ahead + Duration::from_millis(truth * self.rate / 1000)
        }

        fn view(&self, truth: u64) -> View<'_> {
            View {
                now: self.clock(truth),
                pod: self.name,
                uid: "1",
                terms: TERMS,
                record: self.seen.as_ref(),
                since: self.since,
                held: self.held,
                claim: true,
            }
        }

        /// One turn at `truth` milliseconds: `cut` is whether the API server cannot be reached, `lost` whether the
        /// answer to a write is lost.
        fn turn(&mut self, truth: u64, server: &mut Record, cut: bool, lost: bool) {
            let now = self.clock(truth);
            if !cut && self.seen.as_ref() != Some(server) {
                (self.seen, self.since) = (Some(server.clone()), now);
            }
            match step(&self.view(truth)) {
                Step::Fence => self.held = None,
                Step::Write if !cut && self.seen.as_ref() == Some(server) => {
                    let version = server.version.parse::<u64>().unwrap_or(0) + 1;
                    *server = Record { version: version.to_string(), ..record(self.name, "1") };
                    if !lost {
                        self.held = Some(Held::from(now, TERMS, true));
                        (self.seen, self.since) = (Some(server.clone()), now);
                    }
                }
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn two_nodes_are_never_primary_at_once(
            rates in (950_u64..1050, 950_u64..1050),
            ahead in (0_u64..10_000, 0_u64..10_000),
            weather in proptest::collection::vec((0_u8..4, any::<bool>(), any::<bool>()), 1..400),
        ) {
            let mut server = Record { version: "0".to_owned(), fenced: true, ..Record::default() };
            let mut nodes = [Node::new("a", rates.0, ahead.0), Node::new("b", rates.1, ahead.1)];
            for (turn, (cut, lost, order)) in weather.into_iter().enumerate() {
                let truth = turn as u64 * 500;
                for index in if order { [0, 1] } else { [1, 0] } {
                    nodes[index].turn(truth, &mut server, cut >> index & 1 == 1, lost);
                }
                // Between turns the fence's own thread ends the engine: at `until`, by the node's clock.
                let writes = |node: &Node| node.held.is_some_and(|held| {
                    held.until.is_none_or(|until| node.clock(truth) < until)
                });
                prop_assert!(!(writes(&nodes[0]) && writes(&nodes[1])), "both at {truth} ms");
            }
        }
    }

    proptest! {
        #[test]
        fn a_fence_falls_before_anybody_may_take(rate in 900_u64..1100, sent in 0_u64..1_000_000) {
            // A holder whose clock runs at `rate` per mille fences at this true time after it sent the renewal,
            let held = Held::from(Duration::from_millis(sent), TERMS, true);
            let until = held.until.unwrap() - held.renewed;
            let fence_ms = until.as_millis() as u64 * 1000 / rate;
            // and the earliest taker, a tenth fast, takes at this one.
            let take_ms = TERMS.lease.as_millis() as u64 * 1000 / 1100;
            prop_assert!(fence_ms < take_ms, "{fence_ms} {take_ms}");
        }
    }
}
