//! A session at the agent as pure state: what is heard and what time it is go in,
//! what to do comes out. No stream, no task and no clock is in here, so the model
//! of both ends (`crate::model`) plays through it what no network can be made to do.

use std::time::Duration;

use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use tokio::time::Instant;

use super::{LinkEnd, Signal, Welcome};
use crate::wire::CallId;
use crate::{Limits, RejectReason};

/// Bounds of the heartbeat period that a controller may ask for.
const BEAT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(300));

/// What to do about a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Act {
    /// Nothing.
    None,
    /// Carry out a call.
    Start(CallId, Box<proto::Open>),
    /// Say at once that a call is not taken.
    Reject(proto::Reject),
    /// End a call, if it runs.
    Cancel(CallId),
    /// Tell the link's owner.
    Signal(Signal),
    /// Tell the owner of a heartbeat, which nobody need know of.
    Beat(Duration),
}

/// Why the session goes towards its end while calls still run.
#[derive(Debug)]
enum Leaving {
    Stopped,
    Drained,
    Superseded { from: String },
    HandedOver { from: String },
}

/// What is due, and when something next is.
#[derive(Debug, PartialEq)]
pub(crate) struct Due {
    pub(crate) beat: Option<proto::Heartbeat>,
    pub(crate) next: Instant,
}

/// The session.
#[derive(Debug)]
pub(crate) struct State {
    epoch: Option<u64>,
    max_calls: usize,
    period: Duration,
    /// `Welcome` must have come within this.
    handshake: Duration,
    began: Instant,
    last_echo: Instant,
    next_beat: Instant,
    sequence: u64,
    leaving: Option<(Leaving, Option<Instant>)>,
    /// The heartbeat whose echo proves that the controller heard `Draining` before:
    /// `Control` keeps its order, so no `Open` is on its way after it.
    asked: Option<u64>,
}

pub(crate) fn lost(why: &str) -> LinkEnd {
    LinkEnd::Lost(why.to_owned())
}

/// A call that is not taken, and why.
pub(crate) fn reject(call_id: bytes::Bytes, reason: RejectReason, message: &str) -> proto::Reject {
    proto::Reject { call_id, reason: reason.into(), message: message.to_owned() }
}

impl State {
    /// A session whose `Hello` is said at `now`.
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            epoch: None,
            max_calls: limits.max_calls as usize,
            period: limits.heartbeat,
            handshake: limits.handshake * 2,
            began: now,
            last_echo: now,
            next_beat: now,
            sequence: 0,
            leaving: None,
            asked: None,
        }
    }

    /// Hears a message while `running` calls run. `unix_ms` is our wall clock.
    pub(crate) fn hear(
        &mut self,
        kind: Down,
        running: usize,
        now: Instant,
        unix_ms: i64,
    ) -> Result<Act, LinkEnd> {
        let Some(epoch) = self.epoch else {
            return match kind {
                Down::Welcome(welcome) => Ok(self.welcome(welcome, now, unix_ms)),
                _ => Err(lost("the controller did not say Welcome first")),
            };
        };
        Ok(match kind {
            Down::Welcome(_) => return Err(lost("the controller said Welcome twice")),
            Down::Open(open) => self.open(open, epoch, running),
            Down::Cancel(cancel) => CallId::from_bytes(&cancel.call_id).map_or(Act::None, Act::Cancel),
            Down::Heartbeat(beat) => self.echo(&beat, now),
            Down::Renew(_) => Act::Signal(Signal::Renew),
            Down::Drain(drain) => self.drain(&drain, now),
            Down::Superseded(by) if by.same_instance => {
                self.leave(Leaving::Superseded { from: by.source }, None, now);
                Act::None
            }
            Down::Superseded(by) if by.handed_over => {
                self.leave(Leaving::HandedOver { from: by.source }, None, now);
                Act::Signal(Signal::HandedOver)
            }
            Down::Superseded(by) => {
                return Err(LinkEnd::Superseded { same_instance: false, from: by.source });
            }
        })
    }

    fn welcome(&mut self, welcome: proto::Welcome, now: Instant, unix_ms: i64) -> Act {
        self.epoch = Some(welcome.epoch);
        if welcome.heartbeat_ms > 0 {
            self.period = Duration::from_millis(welcome.heartbeat_ms.into()).clamp(BEAT.0, BEAT.1);
        }
        if welcome.max_calls > 0 {
            self.max_calls = self.max_calls.min(welcome.max_calls as usize);
        }
        self.last_echo = now;
        self.next_beat = now;
        Act::Signal(Signal::Welcome(Welcome {
            epoch: welcome.epoch,
            replica: welcome.replica,
            clock_skew_ms: welcome.clock_ms.saturating_sub(unix_ms),
        }))
    }

    /// A call is taken, or it is said at once why not. Nothing is queued.
    fn open(&self, mut open: proto::Open, epoch: u64, running: usize) -> Act {
        let call_id = std::mem::take(&mut open.call_id);
        let verdict = match CallId::from_bytes(&call_id) {
            None => Err((RejectReason::Malformed, "the call id is not 16 bytes")),
            Some(_) if open.epoch != epoch => Err((RejectReason::Stale, "the epoch is another session's")),
            Some(_) if self.leaving.is_some() => {
                Err((RejectReason::Draining, "the agent takes no new calls"))
            }
            Some(_) if running >= self.max_calls => Err((RejectReason::Busy, "too many calls are open")),
            Some(id) => Ok(id),
        };
        match verdict {
            Ok(id) => Act::Start(id, Box::new(open)),
            Err((reason, message)) => Act::Reject(reject(call_id, reason, message)),
        }
    }

    fn echo(&mut self, beat: &proto::Heartbeat, now: Instant) -> Act {
        self.last_echo = now;
        self.asked = self.asked.filter(|asked| beat.sequence < *asked);
        let sent = self.began.checked_add(Duration::from_micros(beat.sent_us));
        match sent {
            Some(sent) if sent <= now => Act::Beat(now - sent),
            _ => Act::None,
        }
    }

    fn drain(&mut self, drain: &proto::Drain, now: Instant) -> Act {
        let first = self.leaving.is_none();
        let deadline = Duration::from_millis(drain.deadline_ms.into());
        self.leave(Leaving::Drained, Some(deadline), now);
        let spread = Duration::from_millis(drain.spread_ms.into());
        if first { Act::Signal(Signal::Drain { spread, deadline }) } else { Act::None }
    }

    /// We stop, and have said so: no call is taken any more, and those that run get
    /// this long.
    pub(crate) fn stop(&mut self, within: Duration, now: Instant) {
        self.asked = Some(self.sequence + 1);
        self.next_beat = now;
        self.leave(Leaving::Stopped, Some(within), now);
    }

    /// Goes towards the end; the first cause stays, the earliest deadline counts.
    fn leave(&mut self, why: Leaving, within: Option<Duration>, now: Instant) {
        let end = within.map(|within| now + within);
        self.leaving = Some(match self.leaving.take() {
            Some((first, before)) => (first, before.into_iter().chain(end).min()),
            None => (why, end),
        });
    }

    /// What is due at `now`, or that the session is over.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<Due, LinkEnd> {
        let end = self.leaving.as_ref().and_then(|(_, end)| *end);
        if end.is_some_and(|end| end <= now) {
            return Err(self.left());
        }
        let earliest = |next: Instant| end.map_or(next, |end| end.min(next));
        if self.epoch.is_none() {
            let welcome = self.began + self.handshake;
            return if welcome <= now {
                Err(lost("the controller did not say Welcome in time"))
            } else {
                Ok(Due { beat: None, next: earliest(welcome) })
            };
        }
        // As at the controller: two and a half periods.
        let silent = self.last_echo + self.period * 5 / 2;
        if silent <= now {
            return Err(lost("the controller answers no heartbeat"));
        }
        let beat = (self.next_beat <= now).then(|| self.beat(now));
        Ok(Due { beat, next: earliest(self.next_beat.min(silent)) })
    }

    fn beat(&mut self, now: Instant) -> proto::Heartbeat {
        self.sequence += 1;
        self.next_beat = now + self.period;
        let sent_us = now.saturating_duration_since(self.began).as_micros() as u64;
        proto::Heartbeat { sequence: self.sequence, sent_us }
    }

    /// Whether `Welcome` has come.
    pub(crate) fn is_welcome(&self) -> bool {
        self.epoch.is_some()
    }

    /// Whether no call is taken any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether nothing more can come, so that the session may end when no call runs.
    pub(crate) fn may_end(&self) -> bool {
        self.is_leaving() && self.asked.is_none()
    }

    /// The end of a session that has left.
    pub(crate) fn left(&mut self) -> LinkEnd {
        match self.leaving.take() {
            Some((Leaving::Drained, _)) => LinkEnd::Drained,
            Some((Leaving::Superseded { from }, _)) => LinkEnd::Superseded { same_instance: true, from },
            Some((Leaving::HandedOver { from }, _)) => LinkEnd::HandedOver { from },
            Some((Leaving::Stopped, _)) | None => LinkEnd::Stopped,
        }
    }

    /// A loss while leaving is the end that was being left for.
    pub(crate) fn instead(&mut self, end: LinkEnd) -> LinkEnd {
        match end {
            LinkEnd::Lost(_) if self.is_leaving() => self.left(),
            end => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcomed(now: Instant) -> State {
        let mut state = State::new(&Limits::default(), now);
        let welcome = proto::Welcome { epoch: 7, heartbeat_ms: 1000, max_calls: 2, ..Default::default() };
        let heard = state.hear(Down::Welcome(welcome), 0, now, 0).unwrap();
        assert!(matches!(heard, Act::Signal(Signal::Welcome(Welcome { epoch: 7, .. }))));
        state
    }

    fn open(epoch: u64) -> Down {
        Down::Open(proto::Open { call_id: vec![1; 16].into(), epoch, ..Default::default() })
    }

    fn rejected(act: Act) -> RejectReason {
        match act {
            Act::Reject(reject) => reject.reason(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rule_1_a_call_is_taken_or_rejected_at_once() {
        let now = Instant::now();
        let mut state = welcomed(now);
        assert!(matches!(state.hear(open(7), 1, now, 0), Ok(Act::Start(..))));
        assert_eq!(rejected(state.hear(open(7), 2, now, 0).unwrap()), RejectReason::Busy);
        assert_eq!(rejected(state.hear(open(6), 0, now, 0).unwrap()), RejectReason::Stale);
        state.stop(Duration::from_secs(9), now);
        assert_eq!(rejected(state.hear(open(7), 0, now, 0).unwrap()), RejectReason::Draining);
    }

    #[test]
    fn rule_7_the_agent_gives_up_after_two_and_a_half_silent_periods() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut state = welcomed(begin);
        assert!(state.tick(begin).unwrap().beat.is_some());
        assert_eq!(state.tick(at(999)).unwrap().beat, None);
        let beat = state.tick(at(1000)).unwrap().beat.unwrap();
        assert_eq!(
            state.hear(Down::Heartbeat(beat), 0, at(1001), 0),
            Ok(Act::Beat(Duration::from_millis(1)))
        );
        assert!(state.tick(at(3500)).is_ok());
        assert_eq!(state.tick(at(3501)), Err(lost("the controller answers no heartbeat")));
    }

    #[test]
    fn rule_6_who_stops_stays_until_no_open_can_be_on_its_way() {
        let now = Instant::now();
        let mut state = welcomed(now);
        let before = state.tick(now).unwrap().beat.unwrap();
        state.stop(Duration::from_secs(9), now);
        let after = state.tick(now).unwrap().beat.expect("it asks at once");
        state.hear(Down::Heartbeat(before), 0, now, 0).unwrap();
        assert!(!state.may_end(), "that one was sent before");
        state.hear(Down::Heartbeat(after), 0, now, 0).unwrap();
        assert!(state.may_end());
    }

    #[test]
    fn rule_6_a_drain_is_told_once_and_its_earliest_deadline_counts() {
        let begin = Instant::now();
        let mut state = welcomed(begin);
        let drain = |deadline_ms| Down::Drain(proto::Drain { spread_ms: 5, deadline_ms });
        assert!(matches!(state.hear(drain(500), 0, begin, 0), Ok(Act::Signal(Signal::Drain { .. }))));
        assert_eq!(state.hear(drain(9000), 0, begin, 0), Ok(Act::None), "a controller that repeats itself");
        assert!(state.tick(begin + Duration::from_millis(499)).is_ok());
        assert_eq!(state.tick(begin + Duration::from_millis(500)), Err(LinkEnd::Drained));
    }
}
