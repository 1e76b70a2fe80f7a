//! The life of an agent from its settings to its end: wiring, enrolment, and what a refusal means.
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_pki::hpke::OpeningKey;
use culvert_pki::token::JoinToken;
use culvert_proto::tunnel::v1::Facts;
use culvert_tunnel::{Backoff, Channel};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::causes::{Cause, Remedy, chain};
use crate::config::{EXIT_CONFIG, SecretName, Settings};
use crate::facts;
use crate::forward::{ApiServer, Forwarder, kube_config};
use crate::health::{self, Phase};
use crate::identity::{self, Keeper, ObtainError, StateError, Store, read_token};
use crate::link::{Life, LifeEnd, Timing, Way};
use crate::policy::{self, Policy};
use crate::report::Reporter;
use crate::{sealing, telemetry};

/// Exit code after a refusal for good, as the CLI uses it.
const EXIT_REFUSED: u8 = 4;

/// Silence after which a watch is given up.
const WATCH_SILENCE: Duration = Duration::from_secs(180);

/// Time for each of the agent's own requests to the API server.
const OWN_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the agent ends other than by being told to.
#[derive(Debug, Error)]
pub enum Exit {
    /// Settings, policy or token cannot be used. Nothing was dialled but,
    /// for a state in a Secret, the API server.
    #[error("{0}")]
    Config(String),
    /// The controller refused for good.
    #[error("{0}")]
    Refused(Cause),
    /// The state cannot be used.
    #[error("{0}")]
    State(#[from] StateError),
}

impl Exit {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Exit::Config(_) => EXIT_CONFIG,
            Exit::Refused(_) => EXIT_REFUSED,
            Exit::State(_) => 1,
        }
    }
}

fn config(error: &(dyn std::error::Error + 'static)) -> Exit {
    Exit::Config(chain(error))
}

/// Runs the agent until `stop`.
///
/// # Errors
/// [`Exit`] says why it ended otherwise.
pub async fn run(settings: Settings, timing: Timing, stop: CancellationToken) -> Result<(), Exit> {
    let first = match &settings.policy {
        Some(path) => policy::watch::load(path).await.map_err(|error| config(&error))?,
        None => Policy::default(),
    };
    let access = kube_config(settings.kubeconfig.as_deref()).await.map_err(|error| config(&error))?;
    let api = ApiServer::new(&access).map_err(|error| config(&error))?;
    let watching = watching_client(access.clone()).map_err(|error| config(&error))?;
    let kube = own_client(access).map_err(|error| config(&error))?;
    let way = Arc::new(Way::new(&settings).map_err(|cause| Exit::Config(cause.to_string()))?);
    let store = Store::open(&settings.state, || kube.clone())?;
    let (policy_sender, policy) = watch::channel(Arc::new(first));
    let reporter = Reporter::new(settings.status_file.clone());
    let forwarder = Forwarder::new(api, policy.clone());
    let (facts_sender, facts) = watch::channel(None);
    let (welcomed, welcomes) = watch::channel(0);
    let (channel, channels) = watch::channel(None);
    let (key_sender, key) = watch::channel(None);

    // The status is written to the last: after everything else has ended.
    let written = CancellationToken::new();
    let mut writer = JoinSet::new();
    let (status, until) = (reporter.clone(), written.clone());
    writer.spawn(async move { status.keep_written(health::PERIOD, until).await });

    let mut tasks = JoinSet::new();
    match settings.policy.clone() {
        Some(path) => {
            tasks.spawn(policy::watch::follow(path, policy_sender, timing.policy, stop.clone()));
        }
        // Without a file the policy never changes; its readers must not see it end.
        None => {
            let until = stop.clone();
            tasks.spawn(async move {
                until.cancelled().await;
                drop(policy_sender);
            });
        }
    }
    let (enforcer, until) = (forwarder.clone(), stop.clone());
    tasks.spawn(async move { enforcer.enforce(until).await });
    let prober =
        Prober { kube: kube.clone(), way: Arc::clone(&way), policy, key: key.clone(), period: timing.facts };
    tasks.spawn(prober.run(facts_sender, welcomes, stop.clone()));
    if settings.data_services {
        let periods = timing.telemetry.clone();
        let origin = format!("https://{}", settings.domain.agents_server_name());
        let origin = origin.parse().map_err(|_| Exit::Config(format!("{origin} is no address")))?;
        tasks.spawn(telemetry::run(
            watching.clone(),
            channels,
            origin,
            settings.figures.clone(),
            periods,
            stop.clone(),
        ));
        tasks.spawn(open_sealed(kube.clone(), watching, key, timing.sealing.clone(), stop.clone()));
    }

    let live = Live { facts, welcomed, channel, key: key_sender };
    let agent = Agent { settings, timing, kube, way, forwarder, live, reporter: reporter.clone() };
    let ended = agent.live(store, &stop).await;
    if let Err(exit) = &ended {
        agent.hold(exit, &stop).await;
    }
    // Tasks that were told to stop end at once; none may outlive this call.
    tasks.shutdown().await;
    written.cancel();
    while writer.join_next().await.is_some() {}
    ended
}

struct Agent {
    settings: Settings,
    timing: Timing,
    kube: Client,
    way: Arc<Way>,
    forwarder: Forwarder,
    live: Live,
    reporter: Reporter,
}

/// What the agent's tasks tell each other.
struct Live {
    facts: watch::Receiver<Option<Facts>>,
    welcomed: watch::Sender<u64>,
    channel: watch::Sender<Option<Channel>>,
    key: watch::Sender<Option<Arc<OpeningKey>>>,
}

impl Agent {
    async fn live(&self, store: Store, stop: &CancellationToken) -> Result<(), Exit> {
        let Some(keeper) = self.open(store, stop).await? else { return Ok(()) };
        let keeper = Arc::new(keeper);
        if keeper.state().await.identity.is_none() && !self.enrol(&keeper, &self.token()?, stop).await? {
            return Ok(());
        }
        self.make_sealing_key(&keeper).await;
        loop {
            if let Some(identity) = keeper.state().await.identity {
                self.reporter.identity(&identity);
                let (cluster, id) = (&identity.cluster_name, &identity.cluster_id);
                tracing::info!(cluster, id, generation = identity.generation, "identity in use");
            }
            let life = self.life(&keeper)?;
            let ended = tokio::select! {
                ended = life.run(stop.clone()) => ended,
                // Beside the life, not before it: it may take a while, and must hold nothing up.
                never = self.remove_token_secret(&keeper) => match never {},
            };
            match ended {
                LifeEnd::Stopped => return Ok(()),
                LifeEnd::Refused(cause) => {
                    let Some(token) = self.newer_token(&keeper).await else {
                        return Err(Exit::Refused(cause));
                    };
                    tracing::warn!(code = cause.code, token = %token.id(), "identity is refused, enrolling again with the new token");
                    if !self.enrol(&keeper, &token, stop).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads the state. An API server that does not answer is waited for;
    /// `None` when told to stop meanwhile.
    async fn open(&self, store: Store, stop: &CancellationToken) -> Result<Option<Keeper>, Exit> {
        let mut store = Some(store);
        let mut backoff = Backoff::new();
        while let Some(opening) = store.take() {
            match Keeper::open(opening).await {
                Ok(keeper) => return Ok(Some(keeper)),
                Err((again, error @ StateError::Kubernetes { .. })) => {
                    let next = "check the API server and the agent's rights on its Secret";
                    self.reporter.failed(&Cause::new(
                        "state",
                        "the stored state cannot be read",
                        error.to_string(),
                        next,
                    ));
                    if !pause(backoff.failed(std::time::Instant::now(), None), stop).await {
                        return Ok(None);
                    }
                    store = Some(again);
                }
                Err((_, error)) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn life(&self, keeper: &Arc<Keeper>) -> Result<Life<Forwarder>, Exit> {
        let mut instance = [0; 16];
        getrandom::fill(&mut instance).map_err(|error| Exit::Config(format!("no randomness: {error}")))?;
        Ok(Life {
            way: Arc::clone(&self.way),
            keeper: Arc::clone(keeper),
            handler: self.forwarder.clone(),
            facts: self.live.facts.clone(),
            welcomed: self.live.welcomed.clone(),
            channel: self.live.channel.clone(),
            reporter: self.reporter.clone(),
            timing: self.timing.clone(),
            instance,
            grace: self.settings.grace,
        })
    }

    /// The key for sealed credentials. Without it the agent does all else: the controller sees that
    /// there is none, and the next start tries again.
    async fn make_sealing_key(&self, keeper: &Keeper) {
        if !self.settings.data_services {
            return;
        }
        match sealing::ensure(keeper).await {
            Ok(key) => {
                self.live.key.send_replace(Some(key));
            }
            Err(error) => tracing::warn!(%error, "no key for sealed credentials"),
        }
    }

    /// The join token, which must be there and whole before anything is dialled.
    fn token(&self) -> Result<JoinToken, Exit> {
        let path = self.settings.token_file.as_deref().ok_or_else(|| {
            Exit::Config(
                "this agent is not enrolled and has no join token: name its file with --token-file"
                    .to_owned(),
            )
        })?;
        read_token(path).map_err(|error| config(&error))
    }

    /// A token that the refused identity did not come from.
    async fn newer_token(&self, keeper: &Keeper) -> Option<JoinToken> {
        let token = read_token(self.settings.token_file.as_deref()?).ok()?;
        let used = keeper.state().await.identity.map(|identity| identity.token_id);
        (used.as_deref() != Some(token.id().to_string().as_str())).then_some(token)
    }

    /// Redeems the token, however long it takes; `false` when told to stop meanwhile.
    async fn enrol(
        &self,
        keeper: &Keeper,
        token: &JoinToken,
        stop: &CancellationToken,
    ) -> Result<bool, Exit> {
        self.reporter.enter(Phase::Enrolling);
        tracing::info!(token = %token.id(), controller = %self.settings.controller, route = self.way.route(), "enrolling");
        let mut backoff = Backoff::new();
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return Ok(false),
                attempt = self.redeem(keeper, token) => attempt,
            };
            let cause = match attempt {
                Ok(()) => return Ok(true),
                Err(cause) => cause,
            };
            self.reporter.failed(&cause);
            let asked = match cause.remedy {
                Remedy::GiveUp => return Err(Exit::Refused(cause)),
                Remedy::RetryAfter(wait) => Some(wait),
                Remedy::Retry => None,
            };
            if !pause(backoff.failed(std::time::Instant::now(), asked), stop).await {
                return Ok(false);
            }
        }
    }

    async fn redeem(&self, keeper: &Keeper, token: &JoinToken) -> Result<(), Cause> {
        // Another pod may have redeemed the same token: then its identity is ours.
        let state = keeper.refreshed().await.map_err(|error| Cause::from(&ObtainError::from(error)))?;
        if state.identity.is_some_and(|identity| identity.token_id == token.id().to_string()) {
            return Ok(());
        }
        let link = self.way.connect_pinned(token, self.timing.limits.clone()).await?;
        let obtained = identity::enrol(keeper, link.channel(), token, self.way.domain()).await;
        link.close().await;
        let obtained = obtained.map_err(|error| Cause::from(&error))?;
        tracing::info!(cluster = obtained.identity.cluster_name, "enrolled");
        Ok(())
    }

    /// Deletes the Secret of the token that was redeemed; a new one is left
    /// alone. Ends only by being dropped.
    async fn remove_token_secret(&self, keeper: &Keeper) -> Infallible {
        let settings = &self.settings;
        let identity = keeper.state().await.identity;
        if let (Some(secret), Some(path), Some(identity)) =
            (&settings.token_secret, &settings.token_file, identity)
        {
            let redeemed = read_token(path).is_ok_and(|token| token.id().to_string() == identity.token_id);
            if redeemed {
                delete_secret(&self.kube, secret).await;
            }
        }
        std::future::pending().await
    }

    /// Shows a refusal for a while before the process ends: a pod is started
    /// again at once, and the controller must not be hammered.
    async fn hold(&self, exit: &Exit, stop: &CancellationToken) {
        if let Exit::Refused(_) = exit {
            self.reporter.enter(Phase::Refused);
            pause(self.timing.refusal_hold, stop).await;
        }
    }
}

/// The client of the agent's own small requests, none of which may hang.
fn own_client(mut access: kube::Config) -> Result<Client, kube::Error> {
    access.connect_timeout = Some(OWN_REQUEST_TIMEOUT);
    access.read_timeout = Some(OWN_REQUEST_TIMEOUT);
    // Otherwise the time a pooled connection was idle counts as well.
    access.reset_reader_on_write = true;
    Client::try_from(access)
}

/// The client of watches, which may be silent until the next bookmark: the API server sends one
/// about every minute. What is silent for longer is a connection that is half open.
fn watching_client(mut access: kube::Config) -> Result<Client, kube::Error> {
    access.connect_timeout = Some(OWN_REQUEST_TIMEOUT);
    access.read_timeout = Some(WATCH_SILENCE);
    access.reset_reader_on_write = true;
    Client::try_from(access)
}

/// Opens sealed credentials once there is a key.
async fn open_sealed(
    kube: Client,
    watching: Client,
    mut key: watch::Receiver<Option<Arc<OpeningKey>>>,
    periods: sealing::Periods,
    stop: CancellationToken,
) {
    let known = tokio::select! {
        () = stop.cancelled() => return,
        known = key.wait_for(Option::is_some) => known.ok().and_then(|key| key.clone()),
    };
    if let Some(key) = known {
        sealing::Opener { kube, watching, key, periods }.run(stop).await;
    }
}

/// Waits; `false` when told to stop meanwhile.
async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

async fn delete_secret(kube: &Client, secret: &SecretName) {
    let api = Api::<Secret>::namespaced(kube.clone(), &secret.namespace);
    match api.delete(&secret.name, &DeleteParams::default()).await {
        Ok(_) => tracing::info!(secret = %secret, "used join token deleted"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => {
            let next = "delete it by hand; it cannot be used again";
            tracing::warn!(secret = %secret, error = chain(&error), next, "used join token could not be deleted");
        }
    }
}

/// Probes the cluster after each welcome, after a change of the policy, and now and then.
struct Prober {
    kube: Client,
    way: Arc<Way>,
    policy: watch::Receiver<Arc<Policy>>,
    key: watch::Receiver<Option<Arc<OpeningKey>>>,
    period: Duration,
}

impl Prober {
    async fn run(
        mut self,
        facts: watch::Sender<Option<Facts>>,
        mut welcomes: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = welcomes.changed() => if changed.is_err() { return },
                changed = self.policy.changed() => if changed.is_err() { return },
                Ok(()) = self.key.changed() => {}
                () = tokio::time::sleep(self.period) => {}
            }
            let sentence = self.policy.borrow_and_update().sentence();
            let key = self.key.borrow_and_update().as_ref().map(|key| key.public());
            let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes())).unwrap_or_default();
            let found = facts::probe(&self.kube, self.way.route(), sentence, key).await;
            if !found.problem.is_empty() {
                tracing::debug!(problem = found.problem, "some facts of the cluster are not known");
            }
            facts.send_if_modified(|last| {
                let changed = last.as_ref() != Some(&found);
                *last = Some(found);
                changed
            });
        }
    }
}
