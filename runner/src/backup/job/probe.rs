//! The Job that checks a target: it writes, reads, lists and deletes an object, and says what it found.

use culvert_resources::Probe;
use culvert_resources::job::ProbeJob;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::cluster::{Cluster, insist};
use crate::backup::error::JobError;
use crate::storage::{Entry, Fault, FaultCode, Patience, Storage};

/// Where a check writes.
const FOLDER: &str = ".culvert-check";
const LONGEST: u64 = 1024;

/// Checks, and writes what was found into the target's status. A target that fails its check is no failure of the Job.
pub(super) async fn run(job: &ProbeJob, cluster: &Cluster) -> Result<(), JobError> {
    let begun = Timestamp::now();
    let found = look(job).await;
    let now = Timestamp::now();
    let took_ms = i64::try_from(now.duration_since(begun).as_millis()).unwrap_or_default();
    let probe = describe(job, found, now, took_ms);
    let status = json!({ "probe": probe });
    insist(|| cluster.report_target(&job.namespace, &job.name, &status)).await
}

/// What a check found.
#[derive(Debug, Default)]
struct Found {
    versioning: Option<bool>,
    skew_ms: Option<i64>,
    fault: Option<(&'static str, Fault)>,
}

async fn look(job: &ProbeJob) -> Found {
    let storage = match Storage::open(&job.target, Patience::CHECK) {
        Ok(storage) => storage,
        Err(fault) => return Found { fault: Some(("connect", fault)), ..Found::default() },
    };
    let mut found = Found::default();
    if let Err((step, fault)) = steps(&storage, &mut found).await {
        found.fault = Some((fault.code.step().unwrap_or(step), fault));
    }
    found.skew_ms = storage.skew_ms();
    found
}

/// Each check has an object of its own: two at once do not delete each other's.
async fn steps(storage: &Storage, found: &mut Found) -> Result<(), (&'static str, Fault)> {
    let name = uuid::Uuid::now_v7().to_string();
    let path = format!("{FOLDER}/{name}");
    // A key that cannot be read would fail the first backup.
    storage.encryption_key().map_err(|fault| ("authenticate", fault))?;
    found.versioning = storage.put(&path, name.clone()).await.map_err(|fault| ("write", fault))?;
    let read = storage.get(&path, LONGEST).await.map_err(|fault| ("read", fault))?;
    if read != name {
        return Err(("read", unlike(storage, "what was written is not what is read")));
    }
    let listed: Vec<Entry> = storage.list(FOLDER).try_collect().await.map_err(|fault| ("list", fault))?;
    if !listed.iter().any(|entry| entry.path == path) {
        return Err(("list", unlike(storage, "what was written is not listed")));
    }
    storage.delete(&path).await.map_err(|fault| ("delete", fault))?;
    match storage.entry(&path).await.map_err(|fault| ("delete", fault))? {
        None => Ok(()),
        Some(_) => Err(("delete", unlike(storage, "what was deleted is still there"))),
    }
}

fn unlike(storage: &Storage, what: &str) -> Fault {
    Fault::new(FaultCode::Unexpected, storage.name(), what)
}

fn describe(job: &ProbeJob, found: Found, now: Timestamp, took_ms: i64) -> Probe {
    Probe {
        at: Time(now),
        generation: job.generation,
        credential_generation: job.credential_generation,
        asked: job.asked.clone(),
        ok: found.fault.is_none(),
        failed_step: found.fault.as_ref().map(|(step, _)| (*step).to_owned()),
        why: found.fault.as_ref().map(|(_, fault)| fault.why()),
        versioning: found.versioning,
        clock_skew_ms: found.skew_ms,
        took_ms,
    }
}

#[cfg(test)]
mod tests {
    use culvert_resources::job::TargetConfig;

    use super::*;

    fn job(share: &str) -> ProbeJob {
        ProbeJob {
            namespace: "data".into(),
            name: "nightly".into(),
            generation: 3,
            credential_generation: 7,
            asked: Some("now".into()),
            target: TargetConfig {
                name: "nightly".into(),
                share: Some(share.into()),
                ..TargetConfig::default()
            },
        }
    }

    #[tokio::test]
    async fn a_target_that_works_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path().to_str().unwrap());
        let probe = describe(&job, look(&job).await, Timestamp::UNIX_EPOCH, 5);
        assert_eq!((probe.ok, probe.why, probe.credential_generation), (true, None, 7));
        let left: Vec<_> = std::fs::read_dir(folder.path().join(FOLDER)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn a_share_that_is_not_mounted_says_so() {
        let job = job("/nowhere/at/all");
        let probe = describe(&job, look(&job).await, Timestamp::UNIX_EPOCH, 5);
        assert_eq!((probe.ok, probe.failed_step.as_deref()), (false, Some("connect")));
        assert_eq!(probe.why.unwrap().code, "bucket_missing");
    }
}
