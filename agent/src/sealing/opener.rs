//! Follows the backup targets of the cluster and keeps their Secrets as their sealed credentials say.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use culvert_pki::hpke::OpeningKey;
use culvert_resources::meta::{CREDENTIAL_GENERATION, MANAGED_BY, TARGET, manager};
use culvert_resources::{BackupTarget, SealedCredentials};
use culvert_tunnel::Backoff;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::time::{Interval, interval};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::credentials::{Credentials, OURS, Unopened, generation_in, is_ours, open, secret_name};
use crate::causes::chain;

/// Periods of the opener; tests make them shorter.
#[derive(Debug, Clone)]
pub struct Periods {
    /// Between two looks at every target: mends what nobody told of, such as a deleted Secret.
    pub look: Duration,
    /// Until backup targets are looked for again where the kind is not installed.
    pub recheck: Duration,
    /// Until a target that was just seen, and could not be served, is looked at again: the operator gives the right to
    /// its Secret a moment after it.
    pub retry: Duration,
}

impl Default for Periods {
    fn default() -> Periods {
        Periods {
            look: Duration::from_secs(60),
            recheck: Duration::from_secs(10),
            retry: Duration::from_secs(1),
        }
    }
}

/// Namespace and name of a target.
type Name = (String, String);

/// Keeps the Secrets of all backup targets with sealed credentials.
pub struct Opener {
    /// Requests that may not hang.
    pub kube: Client,
    /// Watches, which may be silent for minutes.
    pub watching: Client,
    /// The agent's key.
    pub key: Arc<OpeningKey>,
    /// Periods.
    pub periods: Periods,
}

impl Opener {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let wait = tokio::select! {
                () = stop.cancelled() => return,
                wait = self.follow(&mut backoff) => wait,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Follows the targets until the watch breaks; then says how long to wait.
    async fn follow(&self, backoff: &mut Backoff) -> Duration {
        let api: Api<BackupTarget> = Api::all(self.watching.clone());
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        let mut known: BTreeMap<Name, BackupTarget> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        let mut look = interval(self.periods.look);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = events.try_next() => event,
                _ = look.tick() => {
                    self.look(&known).await;
                    continue;
                }
            };
            match event {
                Ok(Some(Event::Init)) => listed.clear(),
                Ok(Some(Event::InitApply(target))) => {
                    listed.insert(name(&target));
                    self.seen(&mut known, target, &mut look).await;
                }
                Ok(Some(Event::InitDone)) => {
                    backoff.connected(Instant::now());
                    let gone: Vec<_> = known.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                    for name in gone {
                        self.gone(known.remove(&name)).await;
                    }
                }
                Ok(Some(Event::Apply(target))) => self.seen(&mut known, target, &mut look).await,
                Ok(Some(Event::Delete(target))) => {
                    known.remove(&name(&target));
                    self.gone(Some(target)).await;
                }
                Ok(None) => return backoff.failed(Instant::now(), None),
                Err(error) if is_unavailable(&error) => return self.periods.recheck,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "watch of backup targets ended");
                    return backoff.failed(Instant::now(), None);
                }
            }
        }
    }

    async fn seen(
        &self,
        known: &mut BTreeMap<Name, BackupTarget>,
        target: BackupTarget,
        look: &mut Interval,
    ) {
        if !self.keep(&target).await {
            look.reset_after(self.periods.retry);
        }
        known.insert(name(&target), target);
    }

    async fn look(&self, known: &BTreeMap<Name, BackupTarget>) {
        for target in known.values() {
            self.keep(target).await;
        }
    }

    /// Makes the Secret of one target as it should be; whether that worked. What fails is tried again at the next look.
    async fn keep(&self, target: &BackupTarget) -> bool {
        // One that is being deleted may need its credentials to tidy up; they go when it is gone.
        let kept = match &target.spec.sealed {
            Some(sealed) => self.apply(target, sealed).await,
            None => self.unseal(target).await,
        };
        if let Err(error) = kept {
            let (namespace, name) = name(target);
            tracing::warn!(
                namespace,
                name,
                error = chain(&error),
                "credentials of a backup target are not applied yet"
            );
            return false;
        }
        true
    }

    /// The sealed credentials were taken out of a target: what came of them goes too.
    async fn unseal(&self, target: &BackupTarget) -> Result<(), kube::Error> {
        let status = target.status.clone().unwrap_or_default();
        if status.credential_generation.is_none() && status.credential_error.is_none() {
            return Ok(());
        }
        self.wipe(target).await?;
        self.tell(target, None, None).await
    }

    async fn apply(&self, target: &BackupTarget, sealed: &SealedCredentials) -> Result<(), kube::Error> {
        let secrets = self.secrets(target);
        let present = match secret_name(target) {
            Some(name) => secrets.get_opt(name).await?,
            None => None,
        };
        match open(&self.key, target, sealed, present.as_ref()) {
            Ok(credentials) => {
                self.write(&secrets, target, sealed, present.as_ref(), &credentials).await?;
                self.tell(target, Some(sealed.generation), None).await
            }
            Err(unopened) => {
                let told = target.status.as_ref().and_then(|status| status.credential_generation);
                let ours = present.filter(|secret| is_ours(secret, &target.name_any()));
                let kept = told.or(ours.as_ref().and_then(generation_in));
                self.tell(target, kept, Some(unopened)).await
            }
        }
    }

    async fn write(
        &self,
        secrets: &Api<Secret>,
        target: &BackupTarget,
        sealed: &SealedCredentials,
        present: Option<&Secret>,
        credentials: &Credentials,
    ) -> Result<(), kube::Error> {
        let Some(name) = secret_name(target) else { return Ok(()) };
        let owner = target.owner_ref(&());
        let encode =
            |(key, value): (&String, &Zeroizing<String>)| (key.clone(), BASE64_STANDARD.encode(value));
        let data: BTreeMap<String, String> = credentials.0.iter().map(encode).collect();
        // What was looked at is what is written over; somebody else's change in between is a conflict.
        let version = present.and_then(ResourceExt::resource_version);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "name": name,
                "resourceVersion": version,
                "labels": {MANAGED_BY: OURS, TARGET: target.name_any()},
                "annotations": {CREDENTIAL_GENERATION: sealed.generation.to_string()},
                "ownerReferences": owner.map(|owner| vec![owner]),
            },
            "data": data,
        });
        let params = PatchParams::apply(manager::AGENT).force();
        secrets.patch(name, &params, &Patch::Apply(&secret)).await?;
        let (namespace, generation) = (target.namespace().unwrap_or_default(), sealed.generation);
        if present.and_then(generation_in) != Some(generation) {
            tracing::info!(
                namespace,
                target = target.name_any(),
                secret = name,
                generation,
                "credentials applied"
            );
        }
        Ok(())
    }

    /// Says in the target's status what came of it; no write when it says so already.
    async fn tell(
        &self,
        target: &BackupTarget,
        generation: Option<i64>,
        unopened: Option<Unopened>,
    ) -> Result<(), kube::Error> {
        let status = target.status.clone().unwrap_or_default();
        let error = unopened.map(|unopened| unopened.to_string());
        if status.credential_generation == generation && status.credential_error == error {
            return Ok(());
        }
        if let Some(error) = &error {
            let (namespace, name) = name(target);
            tracing::warn!(namespace, name, error, "credentials of a backup target are not opened");
        }
        let mut said = serde_json::Map::new();
        if let Some(generation) = generation {
            said.insert("credentialGeneration".to_owned(), generation.into());
        }
        if let Some(error) = error {
            said.insert("credentialError".to_owned(), error.into());
        }
        let patch = json!({
            "apiVersion": BackupTarget::api_version(&()), "kind": BackupTarget::kind(&()),
            "status": said,
        });
        let api: Api<BackupTarget> =
            Api::namespaced(self.kube.clone(), &target.namespace().unwrap_or_default());
        let params = PatchParams::apply(manager::AGENT).force();
        match api.patch_status(&target.name_any(), &params, &Patch::Apply(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes the Secret of a target that is gone, if it was made for it.
    async fn gone(&self, target: Option<BackupTarget>) {
        let Some(target) = target else { return };
        if let Err(error) = self.wipe(&target).await {
            let (namespace, name) = name(&target);
            tracing::warn!(
                namespace,
                name,
                error = chain(&error),
                "credentials of a removed backup target are left to the cluster to remove"
            );
        }
    }

    async fn wipe(&self, target: &BackupTarget) -> Result<(), kube::Error> {
        let Some(name) = secret_name(target) else { return Ok(()) };
        let secrets = self.secrets(target);
        let Some(present) = secrets.get_opt(name).await? else { return Ok(()) };
        let owned =
            present.owner_references().iter().any(|owner| Some(&owner.uid) == target.meta().uid.as_ref());
        if !is_ours(&present, &target.name_any()) || !owned {
            return Ok(());
        }
        let only = Preconditions { uid: present.uid(), resource_version: present.resource_version() };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match secrets.delete(name, &params).await {
            Ok(_) => {
                let namespace = target.namespace().unwrap_or_default();
                tracing::info!(namespace, secret = name, "credentials of a removed backup target wiped");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn secrets(&self, target: &BackupTarget) -> Api<Secret> {
        Api::namespaced(self.kube.clone(), &target.namespace().unwrap_or_default())
    }
}

fn name(target: &BackupTarget) -> Name {
    (target.namespace().unwrap_or_default(), target.name_any())
}

/// The kind is not installed, or the agent may not see it: the telemetry says so once for all kinds.
fn is_unavailable(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => matches!(status.code, 403 | 404),
        _ => false,
    }
}
