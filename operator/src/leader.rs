//! One of several processes works: the holder of the Lease `culvert-operator`.
//!
//! Whether a Lease is abandoned is measured by this process alone, from the moment at which it saw the
//! Lease unchanged, so clocks that differ between nodes do no harm. The holder stops before anybody may take
//! over: it gives up after two thirds of the time.
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;

const NAME: &str = "culvert-operator";

/// The Lease was not renewed in time: another process may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("leadership was lost: {0}")]
pub(crate) struct Lost(String);

/// A candidate, and once it has the Lease the leader.
pub(crate) struct Leader {
    leases: Api<Lease>,
    identity: String,
    duration: Duration,
}

/// A Lease as it was seen, and since when it has been so.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Leader {
    pub(crate) fn new(client: Client, config: &Config) -> Self {
        Self {
            leases: Api::namespaced(client, &config.namespace),
            identity: config.identity.clone(),
            duration: Duration::from_secs(u64::from(config.lease_seconds)),
        }
    }

    /// Returns once this process holds the Lease.
    pub(crate) async fn acquire(&self) -> Result<(), std::convert::Infallible> {
        let mut seen = Seen { version: None, since: Instant::now() };
        loop {
            match self.attempt(&mut seen).await {
                Ok(true) => {
                    tracing::info!(identity = self.identity, "leading");
                    return Ok(());
                }
                Ok(false) => tracing::debug!("another process leads"),
                Err(error) => tracing::warn!(error = %error, "the lease cannot be taken"),
            }
            sleep(self.duration / 5).await;
        }
    }

    /// Renews the Lease, and returns when that failed for too long.
    pub(crate) async fn keep(&self) -> Lost {
        let limit = self.duration * 2 / 3;
        let mut renewed = Instant::now();
        loop {
            sleep(self.duration / 5).await;
            let left = limit.saturating_sub(renewed.elapsed());
            let cause = match timeout(left, self.renew()).await {
                Ok(Ok(true)) => {
                    renewed = Instant::now();
                    continue;
                }
                Ok(Ok(false)) => return Lost("another process holds the lease".to_owned()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the API server did not answer in time".to_owned(),
            };
            tracing::warn!(error = cause, "the lease was not renewed");
            if renewed.elapsed() >= limit {
                return Lost(cause);
            }
        }
    }

    /// Gives the Lease up, so that another process need not wait for its end.
    pub(crate) async fn resign(&self) {
        let given_up = async {
            let Some(mut lease) = self.leases.get_opt(NAME).await? else { return Ok(()) };
            if holder(&lease) != Some(self.identity.as_str()) {
                return Ok(());
            }
            if let Some(spec) = lease.spec.as_mut() {
                spec.holder_identity = None;
            }
            self.leases.replace(NAME, &PostParams::default(), &lease).await.map(drop)
        };
        match timeout(Duration::from_secs(3), given_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the lease was not given up"),
            Err(_) => tracing::warn!("the lease was not given up: no answer in time"),
        }
    }

    async fn attempt(&self, seen: &mut Seen) -> kube::Result<bool> {
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            let fresh = Lease { metadata: named(), spec: Some(self.spec(0)) };
            return settled(self.leases.create(&PostParams::default(), &fresh).await);
        };
        if seen.version != lease.metadata.resource_version {
            *seen = Seen { version: lease.metadata.resource_version.clone(), since: Instant::now() };
        }
        if !free(&lease, &self.identity, seen.since.elapsed(), self.duration) {
            return Ok(false);
        }
        let changes = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        self.write(lease, changes.saturating_add(1)).await
    }

    async fn renew(&self) -> kube::Result<bool> {
        let lease = self.leases.get(NAME).await?;
        if holder(&lease) != Some(self.identity.as_str()) {
            return Ok(false);
        }
        let changes = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        self.write(lease, changes).await
    }

    /// Writes against the version that was read: of two candidates one gets a conflict.
    async fn write(&self, mut lease: Lease, changes: i32) -> kube::Result<bool> {
        lease.spec = Some(self.spec(changes));
        settled(self.leases.replace(NAME, &PostParams::default(), &lease).await)
    }

    fn spec(&self, changes: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(changes),
            ..LeaseSpec::default()
        }
    }
}

fn named() -> ObjectMeta {
    ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }
}

/// A conflict means that somebody else was quicker.
fn settled(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Whether `identity` may take a Lease that has been unchanged for `unchanged`.
fn free(lease: &Lease, identity: &str, unchanged: Duration, ours: Duration) -> bool {
    let Some(holder) = holder(lease) else { return true };
    let told = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let theirs = told.and_then(|seconds| u64::try_from(seconds).ok()).map_or(ours, Duration::from_secs);
    holder == identity || unchanged > theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        Lease { metadata: named(), spec: Some(spec) }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_ours_or_abandoned() {
        let ours = Duration::from_secs(3);
        assert!(free(&Lease::default(), "a", Duration::ZERO, ours));
        assert!(free(&held(""), "a", Duration::ZERO, ours));
        assert!(free(&held("a"), "a", Duration::ZERO, ours), "a restarted leader goes on at once");
        assert!(!free(&held("b"), "a", Duration::from_secs(15), ours), "the holder's own duration counts");
        assert!(free(&held("b"), "a", Duration::from_secs(16), ours));
    }
}
