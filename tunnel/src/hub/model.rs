//! Both ends of a session without a network: the controller's [`Session`] and the
//! agent's [`State`] joined by lists of messages, played through random orders that
//! no real network can be made to show. `Control` keeps its order each way; answers
//! and resets are streams of their own, and come whenever they like.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use proptest::prelude::*;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::queue::PushError;
use super::session::{Begin, CancelGuard, OpenGuard, Pending, Session, Told, down};
use super::{AgentKey, Ended};
use crate::link::state::{Act, State, reject};
use crate::meter::Meter;
use crate::wire::{CallId, Decoder, Event};
use crate::{Limits, RejectReason};

const EPOCH: u64 = 7;
/// Few, so that a full queue and a busy agent are met.
const ROOM: usize = 6;
const MAX_CALLS: u32 = 4;
const DRAIN: Duration = Duration::from_secs(5);

/// What happens next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Offer {
        patience_ms: u64,
    },
    GiveUp(usize),
    /// One message down, or up, arrives.
    Down,
    Up,
    /// The agent begins an answer to a call that it carries out.
    Answer(usize),
    /// An answer's stream arrives.
    Arrive(usize),
    /// A reset arrives at the agent.
    Reset(usize),
    /// An answered call comes to its end at both ends.
    Finish(usize),
    /// An answer nobody asked for, and an Open of another session.
    Stray(usize),
    Stale,
    ControllerDrains,
    AgentStops,
    /// It has nothing more to do, and what it sent arrives before the end does.
    AgentLeaves,
    Cut,
    Time {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..20_000).prop_map(|patience_ms| Step::Offer { patience_ms }),
        2 => any::<usize>().prop_map(Step::GiveUp),
        8 => Just(Step::Down),
        6 => Just(Step::Up),
        6 => any::<usize>().prop_map(Step::Answer),
        6 => any::<usize>().prop_map(Step::Arrive),
        3 => any::<usize>().prop_map(Step::Reset),
        4 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Stray),
        1 => Just(Step::Stale),
        1 => Just(Step::ControllerDrains),
        1 => Just(Step::AgentStops),
        3 => Just(Step::AgentLeaves),
        1 => Just(Step::Cut),
        2 => (1_u64..6000).prop_map(|ms| Step::Time { ms }),
    ]
}

/// How a call ended for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Rejected(RejectReason),
    GivenUp,
    Deadline,
    Lost,
}

struct Call {
    deadline: Instant,
    told: oneshot::Receiver<Told>,
    guard: Option<CancelGuard>,
    open: Option<Arc<OpenGuard>>,
    end: Option<End>,
}

struct World {
    session: Arc<Session>,
    agent: State,
    now: Instant,
    next: u128,
    calls: HashMap<CallId, Call>,
    order: Vec<CallId>,
    down: VecDeque<Down>,
    up: VecDeque<Up>,
    answers: Vec<CallId>,
    resets: Vec<CallId>,
    /// At the agent: what it carries out, and what it ever did.
    running: Vec<CallId>,
    started: HashSet<CallId>,
    heard_drain: bool,
    agent_gone: bool,
}

fn id(number: u128) -> CallId {
    CallId::from_bytes(&number.to_be_bytes()).unwrap()
}

fn pick<T: Copy>(from: &[T], number: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[number % from.len()])
}

impl World {
    fn new() -> Self {
        let limits = Limits { control_queue: ROOM, max_calls: MAX_CALLS, ..Limits::default() };
        let begin = Begin {
            agent: AgentKey { org: Uuid::nil(), agent: Uuid::nil() },
            hello: proto::Hello::default(),
            instance: [1; 16],
            source: "192.0.2.1:1".parse().unwrap(),
            meter: Meter::new(),
            now: SystemTime::UNIX_EPOCH,
        };
        let now = Instant::now();
        let mut world = Self {
            session: Arc::new(Session::new(begin, EPOCH, "replica", &limits)),
            agent: State::new(&limits, now),
            now,
            next: 0,
            calls: HashMap::new(),
            order: Vec::new(),
            down: VecDeque::new(),
            up: VecDeque::new(),
            answers: Vec::new(),
            resets: Vec::new(),
            running: Vec::new(),
            started: HashSet::new(),
            heard_drain: false,
            agent_gone: false,
        };
        world.hear_next();
        assert!(world.agent.is_welcome());
        world
    }

    fn open_ids(&self) -> Vec<CallId> {
        self.order.iter().copied().filter(|id| self.calls[id].end.is_none()).collect()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Offer { patience_ms } => self.offer(Duration::from_millis(*patience_ms)),
            Step::GiveUp(at) => self.give_up(*at),
            Step::Down => self.hear_next(),
            Step::Up => self.told_next(),
            Step::Answer(at) => {
                if let Some(id) = pick(&self.running, *at)
                    && !self.answers.contains(&id)
                {
                    self.answers.push(id);
                }
            }
            Step::Arrive(at) => {
                if let Some(id) = pick(&self.answers, *at) {
                    self.answers.retain(|other| *other != id);
                    self.arrive(id);
                }
            }
            Step::Reset(at) => {
                if let Some(id) = pick(&self.resets, *at) {
                    self.resets.retain(|other| *other != id);
                    self.running.retain(|other| *other != id);
                }
            }
            Step::Finish(at) => self.finish(*at),
            Step::Stray(at) => assert!(self.session.claim(id(u128::MAX - *at as u128)).is_none()),
            Step::Stale => {
                let call_id = id(u128::MAX).to_bytes();
                self.down.push_back(Down::Open(proto::Open {
                    call_id,
                    epoch: EPOCH - 1,
                    ..Default::default()
                }));
            }
            Step::ControllerDrains => {
                if self.session.queue.is_open() {
                    let drain = proto::Drain { spread_ms: 0, deadline_ms: DRAIN.as_millis() as u32 };
                    self.session.queue.close_with(Some(down(Down::Drain(drain))));
                }
            }
            Step::AgentStops => {
                if !self.agent_gone && !self.agent.is_leaving() {
                    self.up.push_back(Up::Draining(proto::Draining {}));
                    self.agent.stop(DRAIN, self.now);
                }
            }
            Step::AgentLeaves => self.leave(),
            Step::Cut => self.over(Ended::Closed),
            Step::Time { ms } => self.pass(Duration::from_millis(*ms)),
        }
        self.check();
    }

    /// As `call::offer` does it.
    fn offer(&mut self, patience: Duration) {
        self.next += 1;
        let id = id(self.next);
        let (tell, told) = oneshot::channel();
        let guard = CancelGuard { session: self.session.clone(), id };
        self.session.await_answer(id, Pending { tell, whole: true });
        let open = proto::Open { call_id: id.to_bytes(), epoch: EPOCH, ..Default::default() };
        match self.session.queue.push_open(down(Down::Open(open))) {
            Err(PushError::Full | PushError::Closed) => {
                assert!(self.session.claim(id).is_some(), "what was never sent is taken back");
                drop(guard);
            }
            Ok(()) => {
                let open = Some(self.session.open_call());
                let (deadline, guard) = (self.now + patience, Some(guard));
                self.calls.insert(id, Call { deadline, told, guard, open, end: None });
                self.order.push(id);
            }
        }
    }

    fn end(&mut self, id: CallId, end: End) {
        let call = self.calls.get_mut(&id).unwrap();
        assert_eq!(call.end, None, "{id:?} ends twice, now by {end:?}");
        call.end = Some(end);
        drop(call.guard.take());
        if end != End::Answered {
            drop(call.open.take());
        }
    }

    fn give_up(&mut self, at: usize) {
        if let Some(id) = pick(&self.open_ids(), at) {
            self.end(id, End::GivenUp);
        }
    }

    /// The next message down arrives at the agent.
    fn hear_next(&mut self) {
        if let Some(bytes) = self.session.queue.take(usize::MAX) {
            let mut decoder = Decoder::new(None, 1 << 20);
            decoder.push(bytes);
            while let Ok(Some(Event::Message(message) | Event::Data(message))) = decoder.next() {
                self.down.extend(proto::ControlDown::decode(message).unwrap().kind);
            }
        }
        let Some(message) = self.down.pop_front() else { return };
        if self.agent_gone {
            return;
        }
        if let Down::Open(open) = &message {
            assert!(!self.heard_drain || open.epoch != EPOCH, "an Open after Drain");
        }
        self.heard_drain |= matches!(message, Down::Drain(_));
        match self.agent.hear(message, self.running.len(), self.now, 0) {
            Ok(Act::Start(id, open)) => {
                assert_eq!(open.epoch, EPOCH, "a stale epoch was believed");
                assert!(self.started.insert(id), "{id:?} is begun twice");
                assert!(self.running.len() < MAX_CALLS as usize);
                self.running.push(id);
            }
            Ok(Act::Reject(reject)) => self.up.push_back(Up::Reject(reject)),
            Ok(Act::Cancel(id)) => self.running.retain(|other| *other != id),
            Ok(Act::None | Act::Signal(_) | Act::Beat(_)) => {}
            Err(_) => self.over(Ended::Closed),
        }
    }

    /// The next message up arrives at the controller.
    fn told_next(&mut self) {
        match self.up.pop_front() {
            Some(Up::Reject(reject)) => self.rejected(&reject),
            Some(Up::Draining(_)) => self.session.queue.close_with(None),
            Some(Up::Heartbeat(beat)) => self.session.queue.push_if_room(down(Down::Heartbeat(beat))),
            Some(Up::Hello(_) | Up::Facts(_)) | None => {}
        }
    }

    fn rejected(&mut self, reject: &proto::Reject) {
        self.session.reject(reject);
        let Some(id) = CallId::from_bytes(&reject.call_id) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Ok(Err((reason, _))) = call.told.try_recv() {
            assert!(reason != RejectReason::Stale, "a call of this very session");
            self.end(id, End::Rejected(reason));
        }
    }

    fn arrive(&mut self, id: CallId) {
        match self.session.claim(id) {
            Some(_pending) => self.end(id, End::Answered),
            None => {
                let call = self.calls.get(&id).expect("no agent answers what was not asked");
                assert!(call.end.is_some(), "the answer to {id:?} was thrown away");
                self.resets.push(id);
            }
        }
    }

    /// The whole answer was read: the stream ends at both ends.
    fn finish(&mut self, at: usize) {
        let answered: Vec<CallId> = self
            .order
            .iter()
            .copied()
            .filter(|id| self.calls[id].open.is_some() && self.calls[id].end == Some(End::Answered))
            .collect();
        if let Some(id) = pick(&answered, at) {
            drop(self.calls.get_mut(&id).unwrap().open.take());
            self.running.retain(|other| *other != id);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let late: Vec<CallId> =
            self.open_ids().into_iter().filter(|id| self.calls[id].deadline <= self.now).collect();
        for id in late {
            self.end(id, End::Deadline);
        }
        if self.agent_gone {
            return;
        }
        match self.agent.tick(self.now) {
            Ok(due) => {
                assert!(due.next > self.now, "it would turn round and round");
                self.up.extend(due.beat.map(Up::Heartbeat));
            }
            Err(_) => self.over(Ended::Closed),
        }
    }

    fn leave(&mut self) {
        if self.agent_gone || !self.agent.may_end() || !self.running.is_empty() {
            return;
        }
        while !self.up.is_empty() {
            self.told_next();
        }
        assert_eq!(self.open_ids(), [], "calls were lost by an agent that left in peace");
        self.over(Ended::Closed);
    }

    /// The connection ends, as seen by both.
    fn over(&mut self, why: Ended) {
        self.session.abandon_all(why);
        self.agent_gone = true;
        self.running.clear();
        self.answers.clear();
        self.resets.clear();
        self.up.clear();
        for id in self.open_ids() {
            let told = self.calls.get_mut(&id).unwrap().told.try_recv();
            assert!(matches!(told, Err(oneshot::error::TryRecvError::Closed)), "{id:?} is not told");
            self.end(id, End::Lost);
        }
        for call in self.calls.values_mut() {
            drop(call.open.take());
        }
    }

    fn check(&self) {
        let held = self.calls.values().filter(|call| call.open.is_some()).count();
        assert_eq!(self.session.open_calls(), held as u64, "open calls");
        assert_eq!(self.session.waiting(), self.open_ids().len(), "calls without an answer");
    }

    /// Everything on its way arrives, deadlines pass, answers end: nothing is left.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.hear_next();
            self.told_next();
            self.take(&Step::Arrive(0));
            self.take(&Step::Reset(0));
            self.finish(0);
        }
        for id in self.open_ids() {
            assert!(self.agent_gone || self.running.contains(&id), "{id:?} was lost on the way");
            self.end(id, End::Deadline);
        }
        for _ in 0..100 {
            self.hear_next();
        }
        assert_eq!(self.running, [], "the agent still works for callers that have gone");
        assert_eq!((self.session.open_calls(), self.session.waiting()), (0, 0));
        assert!(self.calls.values().all(|call| call.end.is_some()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn rule_2_no_call_is_lost_or_answered_twice_in_any_order(steps in proptest::collection::vec(step(), 0..200)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle();
    }
}

#[test]
fn rule_9_an_open_of_another_epoch_is_rejected_as_stale() {
    let mut world = World::new();
    world.take(&Step::Stale);
    world.take(&Step::Down);
    let why = reject(id(u128::MAX).to_bytes(), RejectReason::Stale, "the epoch is another session's");
    assert_eq!(world.up.pop_front(), Some(Up::Reject(why)));
    assert!(world.started.is_empty());
}
