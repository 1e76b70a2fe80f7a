//! What an agent may do unasked, and where it ends: pure rules, time is a parameter.
//!
//! Each `Open` is worth one `Answer` or one `Reject`, heartbeats have a period and
//! facts change seldom. An agent that was taken over knows no such bounds, and what
//! it sends costs this replica work that others then wait for. So whoever goes
//! beyond what a sound agent can reach is told why, and its connection ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Limits, Refusal, RefusalCode};

/// Time over which a sound agent may be ahead of its pace.
const AHEAD: Duration = Duration::from_secs(10);

/// A pace that may be run ahead of for a while: each turn costs `every`, and the
/// account is [`AHEAD`] long.
#[derive(Debug)]
struct Pace {
    every: Duration,
    paid_until: Option<Instant>,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), paid_until: None }
    }

    /// Takes a turn; whether there was one.
    fn turn(&mut self, now: Instant) -> bool {
        let until = self.paid_until.map_or(now, |until| until.max(now)) + self.every;
        self.paid_until = Some(until);
        until <= now + AHEAD
    }
}

/// The conduct of one agent on one connection.
#[derive(Debug)]
pub(super) struct Conduct {
    strays: u64,
    answers: u64,
    messages: Pace,
    facts: Pace,
}

impl Conduct {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            strays: limits.stray_answers,
            answers: 0,
            messages: Pace::new(limits.messages_per_second),
            facts: Pace::new(limits.facts_per_second),
        }
    }

    /// An `Answer` or a `Reject` came while this many calls had been offered. Late
    /// ones, for calls that were given up, are within the count by themselves.
    pub(super) fn answer(&mut self, offered: u64) -> Result<(), Refusal> {
        self.answers += 1;
        allow(self.answers <= offered.saturating_add(self.strays), "it answers calls that it was not given")
    }

    /// A message came on `Control` that no call explains.
    pub(super) fn message(&mut self, now: Instant) -> Result<(), Refusal> {
        allow(self.messages.turn(now), "it sends messages faster than any sound agent")
    }

    /// Facts came; each set of them is written down.
    pub(super) fn facts(&mut self, now: Instant) -> Result<(), Refusal> {
        allow(self.facts.turn(now), "it tells of its cluster more often than a cluster changes")
    }
}

fn allow(allowed: bool, why: &str) -> Result<(), Refusal> {
    if allowed { Ok(()) } else { Err(Refusal::new(RefusalCode::Protocol, why)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rule_9_one_answer_for_each_call_and_no_more() {
        let mut conduct = Conduct::new(&Limits { stray_answers: 2, ..Limits::default() });
        assert!((0..5).all(|_| conduct.answer(3).is_ok()));
        assert_eq!(conduct.answer(3).unwrap_err().code, RefusalCode::Protocol);
        assert!(conduct.answer(100).is_ok(), "what was offered since counts");
    }

    #[test]
    fn rule_1_facts_in_a_loop_are_refused_and_ordinary_ones_never() {
        let begin = Instant::now();
        let mut conduct = Conduct::new(&Limits::default());
        let mut now = begin;
        for _ in 0..1000 {
            assert!(conduct.facts(now).is_ok());
            now += Duration::from_secs(1);
        }
        let taken = (0..1000).take_while(|_| conduct.facts(now).is_ok()).count();
        assert_eq!(taken, 10, "ten seconds' worth at once");
    }

    proptest! {
        #[test]
        fn a_pace_is_kept_over_any_time(per_second in 1_u32..200, gaps in proptest::collection::vec(0_u64..3000, 1..300)) {
            let begin = Instant::now();
            let mut pace = Pace::new(per_second);
            let (mut now, mut taken) = (begin, 0_u64);
            for gap in gaps {
                now += Duration::from_millis(gap);
                if !pace.turn(now) {
                    break;
                }
                taken += 1;
                let most = ((now - begin) + AHEAD).as_secs_f64() * f64::from(per_second);
                prop_assert!(taken as f64 <= most + 1.0, "{taken} of at most {most}");
            }
        }
    }
}
