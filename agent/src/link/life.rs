//! The loop that keeps one connection up, and two while one replaces the other.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use culvert_pki::tls::TlsFailure;
use culvert_proto::tunnel::v1::{Facts, Hello};
use culvert_tunnel::{Backoff, Channel, Handler, Limits, Link, LinkEnd, Signal, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, ConnectionId, Event};
use super::way::Way;
use crate::causes::{Cause, CauseLog, Remedy};
use crate::health::Phase;
use crate::identity::{self, Identity, Keeper, ObtainError, Obtained, renew_after};
use crate::report::Reporter;

/// Difference between the two clocks that is worth a warning, milliseconds.
const SKEW_WARNING_MS: i64 = 30_000;

/// How rustls writes the alert of a server that finds our certificate expired.
const EXPIRED_ALERT: &str = "CertificateExpired";

/// Time that the controller has to tell a connection that it was replaced.
const RETIRE_AFTER: Duration = Duration::from_secs(10);

/// Periods of the agent's life; tests make them shorter.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between attempts of an agent in reserve.
    pub standby_retry: Duration,
    /// Least time between attempts to renew.
    pub renew_retry: Duration,
    /// How long a refusal for good is shown before the process ends, so that
    /// a restarting pod does not hammer the controller.
    pub refusal_hold: Duration,
    /// Between readings of the policy file.
    pub policy: Duration,
    /// Between probes of the cluster.
    pub facts: Duration,
    /// Periods of what is told of data services.
    pub telemetry: crate::telemetry::Periods,
    /// Periods of the opening of sealed credentials.
    pub sealing: crate::sealing::Periods,
    /// Bounds of the tunnel.
    pub limits: Limits,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            standby_retry: Duration::from_secs(15),
            renew_retry: Duration::from_secs(30),
            refusal_hold: Duration::from_secs(30),
            policy: crate::policy::watch::PERIOD,
            facts: Duration::from_secs(5 * 60),
            telemetry: crate::telemetry::Periods::default(),
            sealing: crate::sealing::Periods::default(),
            limits: Limits::default(),
        }
    }
}

/// How the life of an enrolled agent ended.
#[derive(Debug)]
pub enum LifeEnd {
    /// It was told to stop.
    Stopped,
    /// The controller refused it for good.
    Refused(Cause),
}

/// An enrolled agent.
pub struct Life<H> {
    /// The way to the controller.
    pub way: Arc<Way>,
    /// The identity.
    pub keeper: Arc<Keeper>,
    /// What carries out calls.
    pub handler: H,
    /// What was found in the cluster.
    pub facts: watch::Receiver<Option<Facts>>,
    /// Told of each welcome, so that facts are probed.
    pub welcomed: watch::Sender<u64>,
    /// The connection that was welcomed last, for what else is said on it.
    pub channel: watch::Sender<Option<Channel>>,
    /// Where news goes.
    pub reporter: Reporter,
    /// Periods.
    pub timing: Timing,
    /// Random; tells this process from another holder of its identity.
    pub instance: [u8; 16],
    /// How long calls may take to end after the stop.
    pub grace: Duration,
}

/// How a task ended.
enum Done {
    Connection { id: ConnectionId, end: Result<LinkEnd, Cause> },
    Renewed(Result<Box<Obtained>, ObtainError>),
    Noted,
}

struct Connection {
    stop: CancellationToken,
    link: Option<(Arc<Link>, Box<Identity>)>,
    welcomed: bool,
}

struct Loop<'l, H> {
    life: &'l Life<H>,
    tasks: JoinSet<Done>,
    events: mpsc::Sender<Event>,
    connections: BTreeMap<ConnectionId, Connection>,
    last_id: ConnectionId,
    /// The connection that the controller welcomed last.
    current: Option<ConnectionId>,
    /// The connection that is not welcomed yet.
    attempt: Option<ConnectionId>,
    dial_at: Option<Instant>,
    renew_at: Option<Instant>,
    renewing: bool,
    renewals: CauseLog,
    standby: bool,
    lapsed: bool,
    backoff: Backoff,
    start: Instant,
}

impl<H: Handler> Life<H> {
    /// Stays connected until `stop`, or until the controller refuses for good.
    pub async fn run(&self, stop: CancellationToken) -> LifeEnd {
        let (sender, mut events) = mpsc::channel(64);
        let now = Instant::now();
        let mut state = Loop {
            life: self,
            tasks: JoinSet::new(),
            events: sender,
            connections: BTreeMap::new(),
            last_id: 0,
            current: None,
            attempt: None,
            dial_at: Some(now),
            renew_at: None,
            renewing: false,
            renewals: CauseLog::default(),
            standby: false,
            lapsed: false,
            backoff: Backoff::new(),
            start: now,
        };
        self.reporter.enter(Phase::Connecting);
        loop {
            let dial_at = state.dial_at.filter(|_| state.attempt.is_none());
            let renew_at = state.renew_at.filter(|_| !state.renewing && state.current.is_some());
            let refused = tokio::select! {
                // News of a connection must be heard before its end.
                biased;
                () = stop.cancelled() => return state.stop().await,
                Some(event) = events.recv() => { state.event(event); None }
                Some(done) = state.tasks.join_next() => state.done(done),
                () = at(dial_at) => { state.dial(); None }
                () = at(renew_at) => { state.renew(); None }
            };
            if let Some(cause) = refused {
                state.tasks.shutdown().await;
                return LifeEnd::Refused(cause);
            }
        }
    }
}

/// Waits until then; for ever when there is no time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

impl<H: Handler> Loop<'_, H> {
    fn dial(&mut self) {
        self.dial_at = None;
        self.last_id += 1;
        let id = self.last_id;
        let stop = CancellationToken::new();
        self.attempt = Some(id);
        self.connections.insert(id, Connection { stop: stop.clone(), link: None, welcomed: false });
        let task = Attempt {
            id,
            way: Arc::clone(&self.life.way),
            keeper: Arc::clone(&self.life.keeper),
            handler: self.life.handler.clone(),
            facts: self.life.facts.clone(),
            reporter: self.life.reporter.clone(),
            limits: self.life.timing.limits.clone(),
            hello: Hello {
                version: crate::VERSION.to_owned(),
                instance: bytes::Bytes::copy_from_slice(&self.life.instance),
                standby: self.standby,
                ..Hello::default()
            },
            lapsed: std::mem::take(&mut self.lapsed),
            events: self.events.clone(),
            stop,
        };
        self.tasks.spawn(async move { Done::Connection { id, end: task.run().await } });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Started { id, link, identity } => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.link = Some((link, identity));
                }
            }
            Event::Signal { id, signal: Signal::Welcome(welcome) } => self.welcome(id, &welcome),
            Event::Signal { signal: Signal::Renew, .. } => {
                tracing::info!("controller asks for a renewal");
                self.renew_at = Some(Instant::now());
            }
            Event::Signal { id, signal: Signal::Drain { spread, deadline } } => {
                tracing::info!(connection = id, deadline_s = deadline.as_secs(), "controller asks to move");
                if self.current == Some(id) && self.attempt.is_none() {
                    self.dial_at = Some(Instant::now() + spread.mul_f64(random_unit()));
                }
            }
            Event::Signal { id, signal: Signal::HandedOver } => self.hand_over(id),
            Event::Signal { id, signal: Signal::Beat { rtt } } => {
                tracing::trace!(connection = id, rtt_us = rtt.as_micros(), "heartbeat");
            }
        }
    }

    /// The next pod has taken over: what runs here may end, and nothing new begins that
    /// would take the tunnel, or the identity, back from it.
    fn hand_over(&mut self, id: ConnectionId) {
        tracing::info!(connection = id, "the next process of this agent took over");
        if self.current == Some(id) {
            self.standby = true;
            self.renew_at = None;
            self.dial_at = None;
        }
    }

    fn welcome(&mut self, id: ConnectionId, welcome: &Welcome) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.welcomed = true;
        let identity = connection.link.as_ref().map(|(_, identity)| identity.clone());
        let channel = connection.link.as_ref().map(|(link, _)| link.channel());
        if self.attempt == Some(id) {
            self.attempt = None;
        }
        self.current = Some(id);
        self.standby = false;
        self.dial_at = None;
        self.backoff.connected(Instant::now());
        let (epoch, replica) = (welcome.epoch, welcome.replica.as_str());
        tracing::info!(connection = id, epoch, replica, route = self.life.way.route(), "connected");
        if welcome.clock_skew_ms.abs() > SKEW_WARNING_MS {
            let skew_ms = welcome.clock_skew_ms;
            tracing::warn!(
                skew_ms,
                next = "set this machine's clock (NTP)",
                "clock differs from the controller's"
            );
        }
        self.life.reporter.connected(epoch);
        self.life.welcomed.send_replace(epoch);
        self.life.channel.send_replace(channel);
        if let Some(identity) = identity {
            self.plan_renewal(&identity);
        }
        self.note_epoch(epoch);
        self.retire_before(id);
    }

    /// The controller tells replaced connections itself, and then their calls
    /// may take as long as they need. One that is not told is stopped from here.
    fn retire_before(&mut self, id: ConnectionId) {
        for (_, older) in self.connections.range(..id) {
            let stop = older.stop.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RETIRE_AFTER) => stop.cancel(),
                }
                Done::Noted
            });
        }
    }

    fn plan_renewal(&mut self, identity: &Identity) {
        let at = renew_after(identity.obtained_at, identity.not_after, random_unit());
        let wait = at.duration_since(SystemTime::now()).unwrap_or_default();
        self.renew_at = Some(Instant::now() + wait);
    }

    fn note_epoch(&mut self, epoch: u64) {
        let keeper = Arc::clone(&self.life.keeper);
        self.tasks.spawn(async move {
            let noted = keeper
                .update(|state| {
                    if let Some(identity) = &mut state.identity {
                        identity.last_epoch = identity.last_epoch.max(epoch);
                    }
                    Ok(())
                })
                .await;
            if let Err(error) = noted {
                tracing::warn!(%error, "epoch could not be stored");
            }
            Done::Noted
        });
    }

    fn renew(&mut self) {
        self.renew_at = None;
        let current = self.current.and_then(|id| self.connections.get(&id));
        let Some((link, identity)) = current.and_then(|connection| connection.link.clone()) else { return };
        self.renewing = true;
        let (keeper, domain) = (Arc::clone(&self.life.keeper), self.life.way.domain().clone());
        self.tasks.spawn(async move {
            let renewed = identity::renew(&keeper, link.channel(), &identity, &domain).await;
            Done::Renewed(renewed.map(Box::new))
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) -> Option<Cause> {
        match done {
            Ok(Done::Noted) => None,
            Ok(Done::Renewed(Ok(obtained))) => {
                self.renewing = false;
                self.renewals.clear();
                let generation = obtained.identity.generation;
                tracing::info!(generation, "certificate renewed, moving to a connection with it");
                self.life.reporter.identity(&obtained.identity);
                self.dial_at = Some(Instant::now());
                None
            }
            Ok(Done::Renewed(Err(error))) => self.renewal_failed(&error),
            Ok(Done::Connection { id, end }) => self.ended(id, end),
            Err(error) => {
                // A task that panicked: no state is left to trust but the stored one.
                tracing::error!(%error, "a task of the agent failed");
                self.renewing = false;
                self.attempt = None;
                self.retry_in(self.life.timing.renew_retry)
            }
        }
    }

    fn renewal_failed(&mut self, error: &ObtainError) -> Option<Cause> {
        self.renewing = false;
        let cause = Cause::from(error);
        self.renewals.report(&cause, self.start.elapsed());
        let wait = match cause.remedy {
            Remedy::GiveUp => return Some(cause),
            Remedy::RetryAfter(wait) => wait.max(self.life.timing.renew_retry),
            Remedy::Retry => self.life.timing.renew_retry,
        };
        self.renew_at = Some(Instant::now() + wait.mul_f64(1.0 + random_unit() / 2.0));
        None
    }

    fn ended(&mut self, id: ConnectionId, end: Result<LinkEnd, Cause>) -> Option<Cause> {
        let connection = self.connections.remove(&id);
        let attempted = self.attempt == Some(id);
        if attempted {
            self.attempt = None;
        }
        let was_current = self.current == Some(id);
        if was_current {
            self.current = None;
            self.life.channel.send_replace(None);
        }
        if !attempted && !was_current {
            tracing::debug!(connection = id, ?end, "replaced connection ended");
            return None;
        }
        let welcomed = connection.is_some_and(|connection| connection.welcomed);
        match end {
            Ok(LinkEnd::Superseded { same_instance: false, from }) => {
                tracing::warn!(
                    from,
                    next = "if two agents share one state, stop one",
                    "another agent took over, going into reserve"
                );
                self.reserve()
            }
            Ok(LinkEnd::HandedOver { from }) => {
                tracing::info!(from, "all calls have ended after the takeover, going into reserve");
                self.reserve()
            }
            Ok(LinkEnd::Stopped | LinkEnd::Drained | LinkEnd::Superseded { .. }) => {
                self.retry_in(Duration::ZERO)
            }
            Ok(LinkEnd::Refused(refusal)) => {
                let cause = Cause::refusal(refusal.code.as_str(), &refusal.message, refusal.retry_after);
                if cause.code == "standby" {
                    self.life.reporter.failed(&cause);
                    return self.reserve();
                }
                self.failed(&cause)
            }
            Ok(LinkEnd::Lost(why)) if welcomed => {
                let next = "nothing: the agent connects again by itself";
                self.failed(&Cause::new(
                    "connection_lost",
                    "the connection to the controller was lost",
                    why,
                    next,
                ))
            }
            // In TLS 1.3 the server looks at a certificate after the client is done,
            // so its refusal arrives as the loss of the connection.
            Ok(LinkEnd::Lost(why)) if why.contains(EXPIRED_ALERT) => {
                self.lapsed = true;
                self.failed(&Cause::tls(&TlsFailure::OwnCertificateExpired))
            }
            Ok(LinkEnd::Lost(why)) => {
                let next = "check that nothing between agent and controller ends long-lived connections";
                self.failed(&Cause::new(
                    "connection_failed",
                    "the controller did not welcome this agent",
                    why,
                    next,
                ))
            }
            Err(cause) => self.failed(&cause),
        }
    }

    fn reserve(&mut self) -> Option<Cause> {
        self.standby = true;
        self.life.reporter.enter(Phase::Standby);
        let wait = self.life.timing.standby_retry.mul_f64(0.8 + 0.4 * random_unit());
        self.dial_at = Some(Instant::now() + wait);
        None
    }

    fn failed(&mut self, cause: &Cause) -> Option<Cause> {
        self.life.reporter.failed(cause);
        let now = Instant::now();
        let wait = match cause.remedy {
            Remedy::GiveUp => return Some(cause.clone()),
            Remedy::RetryAfter(wait) => self.backoff.failed(now, Some(wait)),
            Remedy::Retry => self.backoff.failed(now, None),
        };
        self.retry_in(wait)
    }

    fn retry_in(&mut self, wait: Duration) -> Option<Cause> {
        if self.current.is_none() {
            self.life.reporter.enter(if self.standby { Phase::Standby } else { Phase::Connecting });
        }
        let at = Instant::now() + wait;
        self.dial_at = Some(self.dial_at.map_or(at, |planned| planned.min(at)));
        None
    }

    async fn stop(&mut self) -> LifeEnd {
        self.life.reporter.enter(Phase::Draining);
        self.life.channel.send_replace(None);
        for connection in self.connections.values_mut() {
            connection.stop.cancel();
            connection.link = None;
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.life.grace, ended).await.is_err() {
            tracing::warn!(
                grace_s = self.life.grace.as_secs(),
                "calls still ran at the end of the grace time"
            );
            self.tasks.shutdown().await;
        }
        LifeEnd::Stopped
    }
}

/// A number from 0 to 1, to keep many agents apart. Without randomness it is
/// one half.
fn random_unit() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}
