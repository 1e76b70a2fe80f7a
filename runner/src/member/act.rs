//! Carries out what the plan says.
use std::sync::Arc;
use std::time::Duration;

use super::plan::Act;
use super::{DISTRUST, Doing, Member, Task, why};
use crate::engine::{Data, EngineError, Peer, Position, Role};
use crate::lease::keeper::Intent;
use crate::lease::rule::Terms;
use crate::lease::synchronous::{self, Step};
use crate::process::Process;
use crate::volume;

/// Times of the Lease for which an instance whose engine does not come up leaves it to others.
const REST: u32 = 4;
/// Time for which users may fail to be settled after a start without that being worth a word.
const QUIET: Duration = Duration::from_secs(30);

impl Member {
    pub(super) async fn act(&mut self, act: Act) {
        match act {
            Act::Stop => self.stop(),
            Act::Abort => self.abort(),
            Act::Release => self.give_back(),
            _ if self.task.is_some() || self.now() < self.pause_until => {}
            Act::Nothing | Act::Exit => self.maintain(),
            Act::Initialise => self.begin(Doing::Initialise),
            Act::Join(primary) => self.begin(Doing::Join(primary)),
            Act::Start(role) => self.start(role).await,
            Act::Promote => self.promote(),
            Act::Settle => self.begin(Doing::Settle(self.settling())),
            Act::Follow(primary) => {
                self.role = Some(Role::Replica(Some(primary.clone())));
                self.begin(Doing::Follow(primary));
            }
        }
    }

    fn stop(&mut self) {
        self.drop_task();
        if let Some(process) = self.process.as_ref().filter(|_| !self.told) {
            self.handing_over = self.leading() && !self.given.stop.is_cancelled();
            tracing::info!(hands_over = self.handing_over, "the engine is told to end in order");
            process.stop();
            self.told = true;
        }
    }

    fn abort(&mut self) {
        self.drop_task();
        if let Some(process) = &self.process {
            if !self.told {
                tracing::warn!("the Lease is lost: the engine is ended at once");
            }
            process.abort();
            self.told = true;
        }
    }

    fn give_back(&mut self) {
        self.drop_task();
        if self.release {
            return;
        }
        self.release = true;
        if self.failures >= DISTRUST {
            let lease = Terms::new(self.given.wish.borrow().config.lease_seconds).lease;
            self.rest_until = self.now() + lease * REST;
            self.failures = 0;
            tracing::warn!("the engine does not come up here: the Lease is left to others");
        }
    }

    fn drop_task(&mut self) {
        if let Some(task) = self.task.take() {
            tracing::info!(doing = task.doing.word(), "given up");
            task.handle.abort();
            // What it left is looked at anew.
            self.data = self.data.take().filter(|_| self.process.is_some());
        }
    }

    /// Starts the engine's process.
    async fn start(&mut self, role: Role) {
        if role == Role::Primary && !self.given.fence.open() {
            return;
        }
        self.required = if role == Role::Primary { self.listed_or_wished() } else { Arc::from([]) };
        self.enforced = (self.required.clone(), None);
        self.make_room();
        match self.started(&role).await {
            Ok(process) => self.runs(role, process),
            Err(error) => {
                tracing::warn!(%error, "the engine cannot be started");
                self.problem = Some(why::engine("starting the engine", &error));
                self.failed();
            }
        }
    }

    async fn started(&self, role: &Role) -> Result<Process, EngineError> {
        let now = self.situation();
        self.given.engine.configure(&now, role).await?;
        let launch = self.given.engine.launch(&now)?;
        Process::start(&launch).map_err(|error| EngineError::file("start the engine", error))
    }

    fn runs(&mut self, role: Role, process: Process) {
        if role == Role::Primary {
            self.given.fence.writer(Some((process.pid(), process.abort_signal())));
        }
        tracing::info!(?role, "the engine was started");
        self.process = Some(process);
        self.role = Some(role);
        self.since = self.now();
        self.streamed = self.now();
        self.in_force = self.given.wish.borrow().clone();
        self.configured = Some(self.configuring());
        self.subject.send_replace(Some(self.situation()));
    }

    /// Gives the reserve up when the engine has failed before and the volume is full.
    fn make_room(&self) {
        let full = self.volume.is_some_and(|volume| volume.free < volume.low());
        if self.failures == 0 || !full {
            return;
        }
        match volume::give_up_reserve(&self.given.folders.volume) {
            Ok(true) => tracing::warn!("the reserve was given up, so that the engine can start"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the reserve cannot be given up"),
        }
    }

    fn promote(&mut self) {
        let Some(process) = &self.process else { return };
        // From here on it may take writes.
        self.given.fence.writer(Some((process.pid(), process.abort_signal())));
        self.begin(Doing::Promote);
    }

    /// Starts a task.
    fn begin(&mut self, doing: Doing) {
        tracing::debug!(doing = doing.word(), "begun");
        let (engine, now, role) = (self.given.engine.clone(), self.situation(), self.role.clone());
        let (what, wait) = (doing.clone(), self.answers());
        let handle = tokio::spawn(async move {
            match what {
                Doing::Initialise => engine.initialise(&now).await?,
                Doing::Join(primary) => engine.join(&now, &primary).await?,
                Doing::Promote => engine.promote(&now).await?,
                Doing::Settle(_) if role == Some(Role::Primary) => engine.settle(&now).await?,
                Doing::Settle(_) => engine.rotate(&now).await?,
                Doing::Require(_) => return engine.require(&now).await.map(Some),
                Doing::Follow(_) | Doing::Reconfigure(_) => {
                    let changed = engine.configure(&now, &role.unwrap_or(Role::Replica(None))).await?;
                    if changed && wait {
                        engine.reload(&now).await?;
                    }
                }
            }
            Ok(None)
        });
        self.task = Some(Task { doing, handle });
    }

    /// Sees whether the task has ended.
    pub(super) async fn see_task(&mut self) {
        let Some(task) = self.task.take_if(|task| task.handle.is_finished()) else { return };
        match task.handle.await {
            Ok(Ok(position)) => self.done(task.doing, position),
            Ok(Err(error)) => self.not_done(&task.doing, &error),
            // It was aborted, which only this room does, or it panicked, which is in the log.
            Err(error) => tracing::warn!(%error, "a task ended without a result"),
        }
    }

    fn done(&mut self, doing: Doing, position: Option<Position>) {
        self.problem = None;
        self.attempts = 0;
        match doing {
            Doing::Initialise => self.data = None,
            Doing::Join(primary) => {
                self.data = None;
                self.failures = if self.failures >= DISTRUST { 0 } else { self.failures };
                self.joined = Some(primary);
            }
            Doing::Promote => self.promoted(),
            Doing::Settle(what) => self.settled = Some(what),
            Doing::Follow(primary) => tracing::info!(primary = primary.pod, "following another primary"),
            Doing::Require(names) => {
                tracing::info!(standbys = ?names, "commits wait for these standbys");
                self.enforced = (names, position);
            }
            Doing::Reconfigure(what) => self.configured = Some(what),
        }
    }

    fn promoted(&mut self) {
        tracing::info!("this instance is primary now");
        self.role = Some(Role::Primary);
        self.settled = None;
        self.configured = None;
        self.failures = 0;
        if let Some(Data::Whole { led, .. }) = &mut self.data {
            *led = true;
        }
    }

    fn not_done(&mut self, doing: &Doing, error: &EngineError) {
        let starting = matches!(doing, Doing::Settle(_)) && self.now() < self.since + QUIET;
        if starting {
            tracing::debug!(%error, "users cannot be settled yet");
            self.pause_until = self.now() + Duration::from_millis(500);
            return;
        }
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, source, "{} failed", doing.word());
        self.problem = Some(why::engine(doing.word(), error));
        if self.process.is_none() {
            self.data = None;
        }
        // What only a person can mend is looked at now and then; the rest more and more seldom.
        self.attempts = self.attempts.saturating_add(1);
        self.pause(if matches!(error, EngineError::Stuck(_)) { u32::MAX } else { self.attempts });
    }

    /// What is done while nothing else is to be done: the configuration, and the standbys that commits wait for.
    fn maintain(&mut self) {
        if self.process.is_none() || self.told || !self.answers() {
            return;
        }
        self.failures = if self.now() > self.since + QUIET { 0 } else { self.failures };
        let wanted = self.configuring();
        if self.configured.as_ref() != Some(&wanted) {
            self.in_force = self.given.wish.borrow().clone();
            self.subject.send_replace(Some(self.situation()));
            self.begin(Doing::Reconfigure(wanted));
        } else if self.role == Some(Role::Primary) && self.settled.is_some() && self.list.is_none() {
            self.keep_synchronous();
        }
    }

    fn keep_synchronous(&mut self) {
        let standing = self.given.standing.borrow().clone();
        let Some(record) = standing.record.filter(|_| standing.leading) else { return };
        let listed = record.synchronous.as_deref().map(|list| self.without_this(list));
        let step = synchronous::step(&synchronous::Facts {
            wanted: self.given.wish.borrow().config.synchronous,
            listed: listed.as_deref(),
            required: &self.enforced.0,
            since: self.enforced.1,
            standbys: &self.standbys,
            preferred: record.switchover_to.as_deref(),
        });
        match step {
            Step::Rest => {}
            Step::Require(names) => {
                self.required = names.into();
                self.begin(Doing::Require(self.required.clone()));
            }
            Step::List(list) => self.list = Some(list),
        }
    }

    /// The standbys that the Lease lists, or that it may list any moment. A primary that was a listed standby itself
    /// does not wait for itself.
    fn listed_or_wished(&self) -> Arc<[String]> {
        let standing = self.given.standing.borrow();
        let listed = standing.record.iter().flat_map(|record| record.synchronous.iter().flatten());
        let wished = self.list.iter().flatten().flatten();
        let mut names: Vec<String> = listed.chain(wished).cloned().collect();
        names.sort();
        names.dedup();
        self.without_this(&names).into()
    }

    fn without_this(&self, names: &[String]) -> Vec<String> {
        names.iter().filter(|name| **name != self.given.pod).cloned().collect()
    }

    /// What the configuration depends on.
    pub(super) fn configuring(&self) -> String {
        let primary = self.role == Some(Role::Primary);
        format!("{} {} {primary}", self.given.wish.borrow().digest(), self.read_only)
    }

    /// Tells the keeper what is wanted of the Lease.
    pub(super) fn tell_intent(&self) {
        let wish = self.given.wish.borrow().config.clone();
        let standing = self.given.standing.borrow();
        let record = standing.record.as_ref();
        let identity = match &self.data {
            Some(Data::Whole { identity, .. }) => Some(identity.clone()),
            _ => None,
        };
        let unmade = record.is_none_or(|record| record.initialised.is_none());
        let for_this = record.is_some_and(|record| record.switchover_to.as_deref() == Some(&self.given.pod));
        let free = !self.given.stop.is_cancelled() && !self.handing_over && self.now() >= self.rest_until;
        let wanted = Intent {
            claim: self.claim.is_ok() && free,
            lease_seconds: wish.lease_seconds,
            fenced: wish.replicas > 1,
            initialised: identity.filter(|_| unmade),
            synchronous: self.list.clone(),
            position: self.position().filter(|_| self.role == Some(Role::Primary)),
            switched: for_this && self.role == Some(Role::Primary),
            release: self.release,
        };
        drop(standing);
        self.given.intent.send_if_modified(|intent| {
            // The position alone is not worth a write.
            let worth = Intent { position: intent.position, ..wanted.clone() } != *intent;
            *intent = wanted;
            worth
        });
    }

    /// Where the primary is, for a person.
    pub(super) fn upstream(&self) -> Option<&Peer> {
        match &self.role {
            Some(Role::Replica(upstream)) => upstream.as_ref(),
            _ => None,
        }
    }
}
