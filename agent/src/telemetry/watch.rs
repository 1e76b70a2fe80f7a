//! Watches each kind of data.culvert.dev, and waits quietly where it is not installed or not to be seen.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use culvert_resources::meta::{GROUP, VERSION};
use culvert_tunnel::Backoff;
use futures::TryStreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::object::{Key, encode};
use super::shelf::Shelf;
use crate::causes::{Cause, CauseLog, chain};

/// Kinds and their plural names.
pub(super) const KINDS: [(&str, &str); 7] = [
    ("DataPlane", "dataplanes"),
    ("DataService", "dataservices"),
    ("Database", "databases"),
    ("BackupTarget", "backuptargets"),
    ("BackupSchedule", "backupschedules"),
    ("Backup", "backups"),
    ("Restore", "restores"),
];

/// Objects that one page of a list holds.
const PAGE: u32 = 200;

/// Time until a kind that is not installed, or not to be seen, is asked for again.
pub(super) const RECHECK: Duration = Duration::from_secs(10);

/// Keeps the shelf as the cluster is, one kind of it.
pub(super) struct Watch {
    pub(super) kube: Client,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) shelf: Arc<Shelf>,
    pub(super) recheck: Duration,
    /// Shared by all kinds: usually they have one cause.
    pub(super) causes: Arc<Mutex<CauseLog>>,
    pub(super) start: Instant,
}

/// Why a watch ended.
enum End {
    /// The kind is not installed.
    Absent,
    /// The agent may not see it.
    Forbidden(String),
    /// Anything that may pass.
    Failed(String),
}

impl Watch {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let end = tokio::select! {
                () = stop.cancelled() => return,
                end = self.follow(&mut backoff) => end,
            };
            let wait = match end {
                End::Absent => {
                    // Without data services there are none, and nobody needs to know.
                    tracing::debug!(kind = self.kind, "kind is not installed");
                    self.shelf.settle(self.kind, &BTreeSet::new());
                    self.recheck
                }
                End::Forbidden(why) => {
                    self.shelf.bar(self.kind);
                    self.report(why);
                    self.recheck
                }
                End::Failed(why) => {
                    tracing::debug!(kind = self.kind, why, "watch ended");
                    backoff.failed(Instant::now(), None)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn report(&self, why: String) {
        let what = "objects of data services cannot be seen";
        let next = "let the agent list and watch them: dataServices.enabled of its chart";
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        causes.report(&Cause::new("forbidden", what, why, next), self.start.elapsed());
    }

    async fn follow(&self, backoff: &mut Backoff) -> End {
        let resource = ApiResource {
            group: GROUP.to_owned(),
            version: VERSION.to_owned(),
            api_version: format!("{GROUP}/{VERSION}"),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.kube.clone(), &resource);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default().page_size(PAGE)));
        let mut named = BTreeSet::new();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.take(event, &mut named, backoff),
                Ok(None) => return End::Failed("the API server closed it".to_owned()),
                // It would go on by itself; but what cannot be seen is asked for less often.
                Err(error) => return end_of(&error),
            }
        }
    }

    fn take(&self, event: Event<DynamicObject>, named: &mut BTreeSet<Key>, backoff: &mut Backoff) {
        match event {
            Event::Init => named.clear(),
            Event::InitApply(object) => {
                let key = Key::of(self.kind, &object);
                named.insert(key.clone());
                self.shelf.put(key.clone(), encode(&key, object));
            }
            Event::InitDone => {
                self.shelf.settle(self.kind, named);
                named.clear();
                backoff.connected(Instant::now());
            }
            Event::Apply(object) => {
                let key = Key::of(self.kind, &object);
                tracing::trace!(kind = self.kind, name = object.name_any(), "changed");
                self.shelf.put(key.clone(), encode(&key, object));
            }
            Event::Delete(object) => self.shelf.remove(&Key::of(self.kind, &object)),
        }
    }
}

fn end_of(error: &watcher::Error) -> End {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some((status.code, &status.message)),
        watcher::Error::WatchError(status) => Some((status.code, &status.message)),
        _ => None,
    };
    match status {
        Some((404, _)) => End::Absent,
        Some((403, why)) => End::Forbidden(crate::causes::one_line(why)),
        _ => End::Failed(chain(error)),
    }
}
