//! Runs a controller: isolation, time limit, backoff, metrics.
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use kube::api::{PatchParams, PostParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::error::Error;
use super::events::Events;
use super::world::World;
use crate::metrics::{self, Outcome};

/// A reconcile that takes longer is cut off: the next one goes on where it stopped.
const LIMIT: Duration = Duration::from_secs(60);

/// Everything is looked at again after this time, should an event have been missed.
const RESYNC: Duration = Duration::from_secs(600);

/// When to look at an object again, unless something happens before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// When something happens.
    OnChange,
    /// After this time.
    After(Duration),
}

impl Next {
    /// After so many seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self::After(Duration::from_secs(seconds))
    }

    fn action(self) -> Action {
        match self {
            Self::OnChange => Action::requeue(RESYNC),
            Self::After(time) => Action::requeue(time.min(RESYNC)),
        }
    }
}

/// One controller at work. Clones share everything.
#[derive(Clone)]
pub(crate) struct Work {
    pub(super) world: World,
    pub(super) manager: &'static str,
    pub(super) events: Events,
    name: metrics::Controller,
    backoff: Arc<Backoff>,
}

impl Work {
    /// `manager` is the controller's field manager ([`culvert_resources::meta::manager`]).
    pub(crate) fn new(world: World, name: metrics::Controller, manager: &'static str) -> Self {
        let events = Events::new(&world, manager);
        Self { world, manager, events, name, backoff: Arc::default() }
    }

    /// For making an object: its fields are this controller's, and not of somebody unknown.
    pub(crate) fn posting(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() }
    }

    /// For changing fields of an object that is not applied whole.
    pub(crate) fn patching(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() }
    }

    /// What all controllers share.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// Runs `controller` with `reconcile` until `stop`; reconciles under way are finished.
    pub(crate) async fn run<K, F, R>(self, controller: Controller<K>, reconcile: F, stop: CancellationToken)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash,
        F: Fn(Arc<K>, Work) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Next, Error>> + Send + 'static,
    {
        let config = Config::default().concurrency(self.world.concurrency());
        let mut ended = controller
            .with_config(config)
            .graceful_shutdown_on(stop.cancelled_owned())
            .run(
                move |object: Arc<K>, work: Arc<Work>| {
                    // Not even called while the object has to wait.
                    let wait = work.backoff.left(&uid(object.as_ref()), Instant::now());
                    let reconciling =
                        wait.is_none().then(|| reconcile(object.clone(), work.as_ref().clone()));
                    async move {
                        match (wait, reconciling) {
                            (Some(wait), _) => Ok(Action::requeue(wait)),
                            (None, Some(reconciling)) => work.one(object.as_ref(), reconciling).await,
                            (None, None) => Ok(Next::OnChange.action()),
                        }
                    }
                },
                |object, _, work: Arc<Work>| {
                    Action::requeue(work.backoff.failed(&uid(object.as_ref()), Instant::now()))
                },
                Arc::new(self.clone()),
            )
            .boxed();
        while let Some(result) = ended.next().await {
            self.note(result.err());
        }
    }

    /// One reconcile, which may end in any way.
    async fn one<K>(
        &self,
        object: &K,
        reconciling: impl Future<Output = Result<Next, Error>> + Send,
    ) -> Result<Action, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let began = Instant::now();
        let guarded = AssertUnwindSafe(reconciling).catch_unwind();
        let (outcome, result) = match timeout(LIMIT, guarded).await {
            Ok(Ok(Ok(next))) => (Outcome::Ok, Ok(next.action())),
            Ok(Ok(Err(error))) => (Outcome::Error, Err(error)),
            Ok(Err(panic)) => (Outcome::Panic, Err(Error::Panic(panic_text(panic.as_ref())))),
            Err(_) => (Outcome::Timeout, Err(Error::Timeout(LIMIT))),
        };
        self.world.metrics().ended(self.name, outcome, began.elapsed().as_secs_f64());
        if result.is_ok() {
            self.backoff.succeeded(&uid(object));
        }
        result
    }

    /// One line for each failure, here and nowhere else.
    fn note(&self, error: Option<kube::runtime::controller::Error<Error, kube::runtime::watcher::Error>>) {
        use kube::runtime::controller::Error as Failure;
        match error {
            None | Some(Failure::ObjectNotFound(_)) => {}
            Some(Failure::ReconcilerFailed(error, object)) => {
                tracing::warn!(object = %object, error = %error, "not reconciled, it is tried again");
            }
            Some(other) => tracing::warn!(error = %other, "watching failed, it is begun anew"),
        }
        self.world.metrics().failing(self.name, self.backoff.sweep(Instant::now()));
    }
}

fn uid<K: Resource>(object: &K) -> String {
    object.uid().unwrap_or_else(|| object.name_any())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
