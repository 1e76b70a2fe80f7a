//! The Backup that a schedule's Job makes itself: named by the due time, so that every attempt has the same.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_resources::job::BackupJob;
use culvert_resources::{Backup, BackupSpec, Trigger, meta};
use jiff::Timestamp;

use crate::backup::error::JobError;

/// A run of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// Name of the Backup.
    pub(super) backup: String,
    /// Unix minute at which it was due.
    minute: i64,
}

/// The run that a Job stands for, by the name of the Job: it ends in the unix minute of the due time.
pub(super) fn run(schedule: &str, job_name: &str) -> Result<Run, JobError> {
    let minute = job_name.rsplit_once('-').and_then(|(_, minute)| minute.parse::<i64>().ok());
    let minute = minute.filter(|minute| *minute > 0).ok_or_else(|| {
        JobError::Configuration(format!(
            "the Job's name {job_name:?} does not end in the minute that it was due"
        ))
    })?;
    Ok(Run { backup: format!("{schedule}-{minute}"), minute })
}

impl Run {
    /// How long to wait still until so many seconds after the due time.
    pub(super) fn wait(&self, jitter_seconds: i64, now: Timestamp) -> Duration {
        let begin = self.minute.saturating_mul(60).saturating_add(jitter_seconds);
        u64::try_from(begin.saturating_sub(now.as_second())).map_or(Duration::ZERO, Duration::from_secs)
    }

    /// The Backup.
    pub(super) fn object(&self, schedule: &str, job: &BackupJob) -> Backup {
        let mut backup = Backup::new(
            &self.backup,
            BackupSpec {
                service: job.service.clone(),
                target: job.target.name.clone(),
                method: job.method,
                trigger: Trigger::Schedule,
                schedule: Some(schedule.to_owned()),
                expires_at: None,
                deletion_policy: job.deletion_policy,
                // The operator asks for it: only it sees which run was the n-th that succeeded.
                verify: false,
                deadline_seconds: 21_600,
                attempts: 3,
            },
        );
        backup.metadata.labels = Some(BTreeMap::from([
            (meta::SERVICE.to_owned(), job.service.clone()),
            (meta::SCHEDULE.to_owned(), schedule.to_owned()),
            (meta::TARGET.to_owned(), job.target.name.clone()),
            (meta::ENGINE.to_owned(), job.engine.clone()),
        ]));
        backup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_of_a_run_has_the_same_name() {
        let run = run("nightly", "nightly-backup-29333190").unwrap();
        assert_eq!(run.backup, "nightly-29333190");
        for wrong in ["nightly-backup", "nightly-backup-", "nightly-backup-x", "", "nightly--5x"] {
            assert!(super::run("nightly", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_schedule_waits_for_its_own_second_and_never_again() {
        let run = run("nightly", "nightly-backup-29333190").unwrap();
        let due = Timestamp::from_second(29_333_190 * 60).unwrap();
        let within = Duration::from_secs(300);
        assert_eq!(run.wait(300, due), within);
        assert_eq!(run.wait(300, due + within / 2), within / 2);
        assert_eq!(run.wait(300, due + within), Duration::ZERO);
        assert_eq!(run.wait(0, due), Duration::ZERO);
        assert_eq!(run.wait(0, due + within), Duration::ZERO);
    }
}
