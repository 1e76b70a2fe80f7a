//! What instances say of themselves: a wrong parameter, a full disk, a wrong clock, an archive that fails.
use std::collections::BTreeMap;

use culvert_resources::instance::InstanceStatus;
use culvert_resources::{WhoCanFix, Why};

use super::{line, seen_in, why};

/// The problem that an instance tells, or that it is not well. The primary's first: a replica mostly suffers from it.
pub(super) fn cause(told: &BTreeMap<String, InstanceStatus>) -> Option<Why> {
    first(told, |status| status.problem.clone().map(cleaned).or_else(|| unhealthy(status)))
}

/// The problem that an instance tells, though it may serve.
pub(crate) fn problem(told: &BTreeMap<String, InstanceStatus>) -> Option<Why> {
    first(told, |status| status.problem.clone().map(cleaned))
}

fn first(
    told: &BTreeMap<String, InstanceStatus>,
    of: impl Fn(&InstanceStatus) -> Option<Why>,
) -> Option<Why> {
    let mut told: Vec<(&String, &InstanceStatus)> = told.iter().collect();
    told.sort_by_key(|(pod, status)| (status.role != "primary", *pod));
    told.into_iter().find_map(|(pod, status)| {
        of(status).map(|why| match why.object {
            Some(_) => why,
            None => seen_in(why, "Pod", pod),
        })
    })
}

/// What a pod says goes into a status that people read: one line each, cut.
fn cleaned(told: Why) -> Why {
    Why {
        code: told.code.chars().filter(|c| c.is_ascii_lowercase() || *c == '_').take(64).collect(),
        message: line(&told.message),
        who: told.who,
        next: line(&told.next),
        object: told.object.as_deref().map(line),
    }
}

fn unhealthy(status: &InstanceStatus) -> Option<Why> {
    (!status.healthy).then(|| {
        why(
            "starting",
            WhoCanFix::Nobody,
            format!(
                "The instance is {}.",
                line(if status.doing.is_empty() { "starting" } else { &status.doing })
            ),
            "Wait: it goes on by itself.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(role: &str, code: &str) -> InstanceStatus {
        let problem = why(code, WhoCanFix::Developer, "Something.\nand more", "Mend it.");
        InstanceStatus { role: role.to_owned(), problem: Some(problem), ..InstanceStatus::default() }
    }

    #[test]
    fn the_primary_speaks_first_and_in_one_line() {
        let told = BTreeMap::from([
            ("orders-0".to_owned(), status("replica", "cannot_follow")),
            ("orders-1".to_owned(), status("primary", "disk_full")),
        ]);
        let why = cause(&told).unwrap();
        assert_eq!((why.code.as_str(), why.message.as_str()), ("disk_full", "Something."));
        assert_eq!(why.object.as_deref(), Some("Pod/orders-1"));
        assert_eq!(problem(&told), Some(why));
    }

    #[test]
    fn what_is_well_has_no_cause() {
        let well = InstanceStatus { role: "primary".to_owned(), healthy: true, ..InstanceStatus::default() };
        assert_eq!(cause(&BTreeMap::from([("orders-0".to_owned(), well)])), None);
        let starts = InstanceStatus { doing: "recovering".to_owned(), ..InstanceStatus::default() };
        let why = cause(&BTreeMap::from([("orders-0".to_owned(), starts)])).unwrap();
        assert_eq!(why.who, WhoCanFix::Nobody);
        assert_eq!(problem(&BTreeMap::from([("orders-0".to_owned(), InstanceStatus::default())])), None);
    }
}
