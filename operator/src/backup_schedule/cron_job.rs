//! The CronJob of a schedule, with the file that its Jobs read.
use std::collections::BTreeMap;

use culvert_resources::job::JobConfig;
use culvert_resources::{BackupSchedule, Concurrency, DeletionPolicy, meta};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobTemplateSpec};
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use sha2::{Digest as _, Sha256};

use crate::backup::making::{self, Occasion, Parts};
use crate::jobs::build::Task;
use crate::jobs::names;
use crate::reconcile::owner;

/// Seconds that a scheduled backup may take.
pub(crate) const DEADLINE_SECONDS: i64 = 21_600;
/// Attempts of a scheduled backup.
pub(crate) const ATTEMPTS: i64 = 3;
/// A run that could not be begun in time (the cluster was down) is begun late, up to so many seconds.
const LATE_SECONDS: i64 = 3_600;
/// Seconds for which a Job stays after its end; the history limits of the CronJob come first.
const STAY_SECONDS: i32 = 86_400;

/// The CronJob, and the Task whose ConfigMap its Jobs read.
pub(crate) fn build(schedule: &BackupSchedule, parts: Parts<'_>) -> (CronJob, Task) {
    let task = task(schedule, parts);
    let spec = &schedule.spec;
    let concurrency = match spec.concurrency {
        Concurrency::Forbid => "Forbid",
        Concurrency::Allow => "Allow",
    };
    let metadata = ObjectMeta {
        name: Some(task.name.clone()),
        namespace: schedule.namespace(),
        labels: Some(task.all_labels()),
        owner_references: owner(schedule).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let cron_job = CronJob {
        metadata,
        spec: CronJobSpec {
            schedule: spec.cron.clone(),
            time_zone: Some(spec.time_zone.clone()),
            concurrency_policy: Some(concurrency.to_owned()),
            suspend: Some(spec.suspended),
            starting_deadline_seconds: Some(LATE_SECONDS),
            successful_jobs_history_limit: Some(2),
            failed_jobs_history_limit: Some(2),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(task.all_labels()), ..ObjectMeta::default() }),
                spec: Some(task.job_spec(&task.name)),
            },
        },
        status: None,
    };
    (cron_job, task)
}

fn task(schedule: &BackupSchedule, parts: Parts<'_>) -> Task {
    let spec = &schedule.spec;
    let reach = making::reach(parts);
    let jitter = jitter(&schedule.uid().unwrap_or_default(), spec.jitter_seconds);
    let occasion = Occasion {
        backup: None,
        schedule: Some(schedule.name_any()),
        method: spec.method,
        jitter_seconds: jitter,
        deletion_policy: DeletionPolicy::Delete,
    };
    let config = making::config(parts, occasion, &reach);
    Task {
        name: names::cron_job(&schedule.name_any()),
        namespace: schedule.namespace().unwrap_or_default(),
        labels: BTreeMap::from([
            (meta::SCHEDULE.to_owned(), schedule.name_any()),
            (meta::SERVICE.to_owned(), spec.service.clone()),
            (meta::TARGET.to_owned(), spec.target.clone()),
        ]),
        owner: owner(schedule),
        config: JobConfig::Backup(config),
        program: making::program(parts.database),
        pull_secrets: parts.database.spec.image.pull_secrets.clone(),
        volumes: reach.volumes,
        mounts: reach.mounts,
        deadline_seconds: DEADLINE_SECONDS + jitter,
        attempts: ATTEMPTS,
        stay_seconds: STAY_SECONDS,
    }
}

/// Seconds by which a schedule's runs begin late: the same for each of its runs, and spread evenly over schedules.
fn jitter(uid: &str, most: i64) -> i64 {
    let digest = Sha256::digest(uid.as_bytes());
    let number = digest.iter().take(4).fold(0_i64, |number, byte| number * 256 + i64::from(*byte));
    if most > 0 { number % (most + 1) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::making::tests::found;
    use proptest::prelude::*;
    use serde_json::json;

    fn schedule() -> BackupSchedule {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupSchedule",
            "metadata": {"name": "nightly", "namespace": "shop", "uid": "u"},
            "spec": {"service": "orders", "target": "away", "cron": "30 3 * * *", "timeZone": "Europe/Vienna",
                "jitterSeconds": 600},
        }))
        .unwrap()
    }

    #[test]
    fn it_fires_without_us_and_makes_the_backup_itself() {
        let found = found();
        let (cron_job, task) = build(&schedule(), found.parts("orders", "away").unwrap());
        let spec = cron_job.spec;
        assert_eq!(
            (spec.schedule.as_str(), spec.time_zone.as_deref()),
            ("30 3 * * *", Some("Europe/Vienna"))
        );
        assert_eq!(spec.concurrency_policy.as_deref(), Some("Forbid"));
        let JobConfig::Backup(config) = &task.config else { panic!("a backup") };
        assert_eq!((config.backup.as_deref(), config.schedule.as_deref()), (None, Some("nightly")));
        assert_eq!(task.config_map(None).unwrap().metadata.name, cron_job.metadata.name);
    }

    #[test]
    fn a_suspended_one_does_not_fire() {
        let (found, mut schedule) = (found(), schedule());
        schedule.spec.suspended = true;
        let (cron_job, _) = build(&schedule, found.parts("orders", "away").unwrap());
        assert_eq!(cron_job.spec.suspend, Some(true));
    }

    proptest! {
        #[test]
        fn jitter_is_fixed_and_within_its_limit(uid in "\\PC{0,40}", most in 0_i64..=3600) {
            let first = jitter(&uid, most);
            prop_assert!((0..=most).contains(&first));
            prop_assert_eq!(first, jitter(&uid, most));
        }
    }
}
