//! Names of everything, the same for the same work, so that a second try finds what the first one made.
use sha2::{Digest as _, Sha256};

/// Longest name of a Job: it becomes the value of a label.
const JOB: usize = 63;
/// Longest name of a CronJob: its Jobs get a dash and ten digits more.
const CRON_JOB: usize = 52;
/// Longest name of a Backup or Restore, by their schema.
const RECORD: usize = 52;
/// Longest name of a DataService, by its schema.
const SERVICE: usize = 40;

/// Name of a Job that does `what` for an object.
pub(crate) fn job(object: &str, what: &str) -> String {
    cut(&format!("{object}-{what}"), JOB)
}

/// Name of a Job that does `what` for an object, once for each `state` of it.
pub(crate) fn job_for(object: &str, what: &str, state: &str) -> String {
    job(object, &format!("{what}-{}", digest(state)))
}

/// Name of a schedule's CronJob.
pub(crate) fn cron_job(schedule: &str) -> String {
    cut(&format!("{schedule}-backup"), CRON_JOB)
}

/// Name of the Job that a CronJob makes for the due time of a Backup, which ends in the same unix minute.
pub(crate) fn job_of_run(schedule: &str, backup: &str) -> Option<String> {
    let minute = backup.strip_prefix(schedule)?.strip_prefix('-')?;
    let digits = !minute.is_empty() && minute.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| format!("{}-{minute}", cron_job(schedule)))
}

/// Name of the Backup that answers one request for a run of a schedule.
pub(crate) fn asked_backup(schedule: &str, asked: &str) -> String {
    cut(&format!("{schedule}-now-{}", digest(asked)), RECORD)
}

/// Name of the Backup that is made before a restore in place.
pub(crate) fn prior_backup(restore: &str) -> String {
    cut(&format!("{restore}-prior"), RECORD)
}

/// Name of the DataService that holds restored data until its volumes are exchanged.
pub(crate) fn stand_in(service: &str, restore_uid: &str) -> String {
    cut(&format!("{service}-r{}", digest(restore_uid)), SERVICE)
}

/// Folder of a service below a target's prefix.
pub(crate) fn folder(namespace: &str, service: &str, uid: &str) -> String {
    let short: String = uid.chars().take(8).collect();
    format!("services/{namespace}.{service}.{short}")
}

/// The folder of the log that belongs to the folder of a backup.
pub(crate) fn log_folder(backup_folder: &str) -> Option<String> {
    let (service, _) = backup_folder.trim_end_matches('/').rsplit_once("/backups/")?;
    Some(format!("{service}/wal"))
}

/// The first 8 hexadecimal digits of the SHA-256 of a text.
pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A name of at most `longest` characters: cut, with a digest of the whole, when it is longer.
fn cut(name: &str, longest: usize) -> String {
    if name.len() <= longest {
        return name.to_owned();
    }
    let head: String = name.chars().take(longest.saturating_sub(9)).collect();
    format!("{}-{}", head.trim_end_matches(['-', '.']), digest(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_stay_readable() {
        assert_eq!(job("orders-1", "backup"), "orders-1-backup");
        assert_eq!(cron_job("nightly"), "nightly-backup");
        assert_eq!(folder("shop", "orders", "0a1b2c3d-4e5f"), "services/shop.orders.0a1b2c3d");
    }

    #[test]
    fn a_run_is_found_by_its_minute() {
        assert_eq!(job_of_run("nightly", "nightly-29333190").as_deref(), Some("nightly-backup-29333190"));
        assert_eq!(job_of_run("nightly", "nightly-now-0a1b2c3d"), None);
        assert_eq!(job_of_run("nightly", "nightly-"), None);
        assert_eq!(job_of_run("nightly", "other-29333190"), None);
    }

    #[test]
    fn the_log_lies_beside_the_backups() {
        assert_eq!(log_folder("services/a.b.c/backups/one/").as_deref(), Some("services/a.b.c/wal"));
        assert_eq!(log_folder("elsewhere/one"), None);
    }

    proptest! {
        #[test]
        fn names_fit_and_differ(a in "[a-z]([-a-z0-9]{0,250}[a-z0-9])?", b in "[a-z]([-a-z0-9]{0,250}[a-z0-9])?") {
            for name in [job(&a, "backup"), job_for(&a, "probe", &b), cron_job(&a), asked_backup(&a, &b), stand_in(&a, &b)] {
                prop_assert!(name.len() <= JOB && !name.ends_with('-') && name.starts_with(|c: char| c.is_ascii_lowercase()));
            }
            prop_assert!(cron_job(&a).len() <= CRON_JOB && asked_backup(&a, &b).len() <= RECORD);
            prop_assert!(stand_in(&a, &b).len() <= SERVICE);
            prop_assert_eq!(a == b, job(&a, "backup") == job(&b, "backup"));
        }
    }
}
