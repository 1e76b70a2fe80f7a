//! The Backup that a schedule's Job makes itself: named by the due time, so that every attempt has the same.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_resources::job::BackupJob;
use culvert_resources::{Backup, BackupSpec, Trigger, meta};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

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
    /// How long to wait still: schedules that are due at once begin one after the other, each always at its own time.
    pub(super) fn wait(&self, schedule: &str, jitter_seconds: i64, now: Timestamp) -> Duration {
        let begin = self.minute * 60 + spread(schedule, jitter_seconds);
        u64::try_from(begin - now.as_second()).map_or(Duration::ZERO, Duration::from_secs)
    }

    /// Whether this run is one of every n. Which, is decided by the due time alone, as no run knows of the others.
    fn is_verified(&self, schedule: &str, every: i64) -> bool {
        match u64::try_from(every) {
            Ok(0) | Err(_) => false,
            Ok(every) => number(&format!("{schedule}/{}", self.minute)).is_multiple_of(every),
        }
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
                verify: self.is_verified(schedule, job.verify_every),
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

/// A number below `within` that is always the same for a schedule.
fn spread(schedule: &str, within: i64) -> i64 {
    match u64::try_from(within) {
        Ok(0) | Err(_) => 0,
        Ok(within) => i64::try_from(number(schedule) % within).unwrap_or_default(),
    }
}

fn number(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
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
        let wait = run.wait("nightly", 300, due);
        assert!(wait < Duration::from_secs(300));
        assert_eq!(run.wait("nightly", 300, due), wait);
        assert_eq!(run.wait("nightly", 300, due + wait), Duration::ZERO);
        assert_eq!(run.wait("nightly", 0, due), Duration::ZERO);
        let others: std::collections::BTreeSet<_> =
            (0..50).map(|number| run.wait(&format!("s{number}"), 300, due)).collect();
        assert!(others.len() > 25, "{others:?}");
    }

    #[test]
    fn one_of_every_n_runs_is_verified() {
        let count = |every| {
            (1..=1000)
                .filter(|minute| run("s", &format!("s-{minute}")).unwrap().is_verified("s", every))
                .count()
        };
        assert_eq!((count(0), count(1)), (0, 1000));
        assert!((60..140).contains(&count(10)), "{}", count(10));
    }
}
