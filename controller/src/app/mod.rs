//! What the control plane does: one file per noun, each function authorises,
//! decides and records.
//!
//! The doors (`api`, `agents`, `gateway`) translate between their wire and these
//! functions and know nothing else; the tasks call them too. A function begins with
//! who is asking. It opens a transaction only when the decision is made, writes the
//! change and its line of the audit together, and after the commit tells the feed
//! and, when somebody lost a right, bumps `revocations`.
//!
//! Live state is not stored: whether an agent is here, its round trip and its last
//! heartbeat come from the tunnel's hub at the moment of asking, so a heartbeat
//! costs no write.
//!
//! Two caches keep a `kubectl` request from costing a query: who holds a credential
//! ([`callers`]) and which agent speaks for a cluster ([`gateway`]). Both forget
//! everything when `revocations` moves, and each entry after seconds. A right that is
//! taken away at another replica moves `revocations` here within seconds ([`replicas`]).
//!
//! Mistakes a newcomer could make:
//! - publishing to the feed before the commit: a watcher would fetch the old state.
//! - taking a right away without `revoked()`: live streams would go on.
//! - answering `Denied` where the caller may not know that the thing exists; that is
//!   `NotFound`.

mod admission;
mod agents;
mod api_tokens;
mod apply;
mod attempts;
mod backup_schedules;
mod backup_targets;
mod bootstrap;
mod cache;
mod callers;
mod clock;
mod clusters;
mod data_services;
mod diagnosis;
mod drive;
mod engines;
mod enrolment;
mod error;
mod feed;
mod figures;
mod gateway;
mod in_cluster;
mod info;
mod join_tokens;
mod kek_file;
mod keys;
mod live;
mod mirror;
mod once;
mod operations;
mod people;
mod placements;
mod presence;
mod projects;
mod renewal;
mod replicas;
mod secret;
mod sessions;
mod spec;
mod sweep;
mod templates;
mod throttle;
mod views;
mod work;

use std::sync::Arc;

use culvert_tunnel::Hub;
use tokio::sync::watch;

use crate::config::{Config, HostPort};
use crate::domain::{Caller, ReplicaNews, Role, Time, Version};
use crate::store::{Store, StoreError};

pub use admission::{Arrival, Welcome};
pub use api_tokens::{IssuedApiToken, NewApiToken};
pub use apply::{Applied, AppliedResult, Manifests};
pub use attempts::AttemptKey;
pub use backup_schedules::{BackupScheduleFilter, BackupScheduleView, NewBackupSchedule};
pub use backup_targets::{BackupTargetView, NewBackupTarget, PlacementView};
pub use bootstrap::{BootstrapError, FirstSignIn, Opened};
pub use clock::Clock;
pub use clusters::{ClusterFilter, NewCluster};
pub use data_services::{
    Begun, DataServiceChange, DataServiceFilter, DataServicePlan, DataServiceView, Deletion, Happened,
    Happenings, Log, LogQuery, NewDataService, TAIL_MAX,
};
pub use engines::DataPlaneView;
pub use enrolment::{AgentCertificate, Enrolled, Redeem, TurnedAway};
pub use error::Error;
pub use feed::{Change, Feed, News, Since};
pub use figures::{Figures, Of, SOURCES_MAX, Series, Source, SourceProblem};
pub use gateway::Target;
pub use info::Info;
pub use join_tokens::{IssuedJoinToken, NewJoinToken};
pub use keys::{SERVER_CERTIFICATE_LIFE, ServerIdentity};
pub use live::LiveSession;
pub use mirror::{Noted, Report, Resync, Taken, Untaken};
pub use once::Once;
pub use operations::{OperationFilter, OperationView};
pub use people::PersonCertificate;
pub use projects::{ProjectChange, ProjectView};
pub use renewal::{Rejoin, Renewed};
pub use secret::Secret;
pub use sessions::{IssuedCode, SignedIn};
pub use templates::TemplateContent;
pub use views::{AgentView, ClusterView};
pub use work::{NewBackup, NewRestore, RestoreFrom, WorkBegun, WorkFilter, WorkView};

/// The control plane. Clones are handles on the same one.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    keys: keys::Keys,
    public_address: HostPort,
    minimum_version: Version,
    certificate_life: std::time::Duration,
    chart: String,
    clock: Clock,
    live: live::Live,
    feed: Feed,
    revocations: watch::Sender<u64>,
    due: watch::Sender<u64>,
    callers: callers::CallerCache,
    targets: gateway::TargetCache,
    tellers: mirror::Tellers,
    figures: figures::AllFigures,
    placing: watch::Sender<u64>,
    replicas: Option<Arc<replicas::Replicas>>,
    sign_ins: throttle::Throttle,
    enrolments: throttle::Throttle,
    reaches: throttle::Throttle,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}

impl App {
    fn assemble(config: &Config, store: Store, keys: keys::Keys, hub: Option<Hub>, clock: Clock) -> Self {
        let replicas = config.peer_address.as_ref().map(|address| {
            let me = hub.as_ref().and_then(|hub| uuid::Uuid::parse_str(hub.replica()).ok());
            Arc::new(replicas::Replicas::new(me.unwrap_or_else(uuid::Uuid::now_v7), address))
        });
        let inner = Inner {
            store,
            keys,
            public_address: config.public_address(),
            minimum_version: config.agents.minimum_version.clone(),
            certificate_life: config.agents.certificate_life,
            chart: config.agents.chart.clone(),
            feed: Feed::new(clock.now(), replicas.clone()),
            clock,
            live: live::Live::new(hub, replicas.clone()),
            revocations: watch::Sender::new(0),
            due: watch::Sender::new(0),
            callers: callers::CallerCache::default(),
            targets: gateway::TargetCache::default(),
            tellers: mirror::Tellers::default(),
            figures: figures::AllFigures::default(),
            placing: watch::Sender::new(0),
            replicas,
            // A person mistypes a code a few times; a machine that guesses at 60
            // bits gets nowhere at this rate.
            sign_ins: throttle::Throttle::new(10, 10),
            // A site behind one address may install many clusters at once.
            enrolments: throttle::Throttle::new(200, 300),
            reaches: throttle::Throttle::new(200, 300),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.inner.clock.now()
    }

    /// What changed, for those who watch.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    /// Moves whenever somebody lost a right: whoever holds a live stream open asks
    /// again whether its caller still may ([`App::recheck`],
    /// [`App::authorise_gateway`]).
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.inner.revocations.subscribe()
    }

    /// Whether the store answers: what readiness means.
    pub async fn ready(&self) -> Result<(), Error> {
        Ok(self.inner.store.ping().await?)
    }

    /// Closes the store; the last thing a process does with it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.store.close().await
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn live(&self) -> &live::Live {
        &self.inner.live
    }

    /// Somebody lost a right.
    fn revoked(&self) {
        self.ring_revocations();
        self.tell_replicas(ReplicaNews::Rights);
    }

    /// Somebody lost a right, here or elsewhere.
    fn ring_revocations(&self) {
        // The caches first: whoever hears the bell asks again at once.
        self.inner.callers.forget();
        self.inner.targets.forget();
        self.inner.revocations.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Something a cache holds has changed, and nobody lost a right.
    fn changed(&self) {
        self.inner.targets.forget();
    }
}

/// What needs the role admin is refused to others.
fn require_admin(caller: &Caller) -> Result<(), Error> {
    match caller.role() {
        Role::Admin => Ok(()),
        Role::Reader => Err(Error::Denied {
            code: "role_missing",
            reason: "this needs the role admin, and you have the role reader".to_owned(),
            next: "ask an administrator of your organisation to do it or to change your role".to_owned(),
        }),
    }
}
