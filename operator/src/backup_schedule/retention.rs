//! Which backups of a schedule go: one rule, for the dry run and for the real one.
//!
//! What is deleted cannot be had again, so each line here errs towards keeping:
//! - only backups that are whole, and not found broken by a verification, count as kept;
//! - a backup that something uses now stays;
//! - with an age and an archive of the log, the newest backup beyond the age stays too, as recovery to a moment just
//!   within the age begins from it;
//! - what failed holds no data; it stays until a newer backup is whole and a day has passed, for whoever looks for
//!   the cause.

use culvert_resources::Retention;
use jiff::{SignedDuration, Timestamp};

/// Time for which a failed backup is kept, for whoever looks for the cause.
const FAILED_STAY: SignedDuration = SignedDuration::from_hours(24);
/// Failed backups that are kept at most, when none ever succeeds.
const FAILED_AT_MOST: usize = 20;

/// What has become of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Lies in the target, whole.
    Whole,
    /// Lies in the target; its verification found that it cannot be restored.
    Broken,
    /// Failed or cancelled: nothing of it counts.
    Failed,
    /// Has not ended.
    Open,
}

/// A backup, as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Name of the object.
    pub(crate) name: String,
    /// When it was made: its end, or its creation when it has none.
    pub(crate) at: Timestamp,
    /// What has become of it.
    pub(crate) outcome: Outcome,
    /// Whether recovery to a point in time begins from it.
    pub(crate) archived: bool,
    /// Whether a restore or a verification uses it now.
    pub(crate) in_use: bool,
}

/// Names of the backups that go, oldest first.
#[must_use]
pub(crate) fn beyond(retention: &Retention, candidates: &[Candidate], now: Timestamp) -> Vec<String> {
    let mut newest_first: Vec<&Candidate> = candidates.iter().collect();
    newest_first.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| b.name.cmp(&a.name)));
    let whole: Vec<&Candidate> = filtered(&newest_first, |one| one.outcome == Outcome::Whole);
    let mut going = Vec::new();
    going.extend(old_whole(retention, &whole, now));
    going.extend(old_broken(retention, &newest_first, &whole, now));
    going.extend(old_failed(&newest_first, &whole, now));
    going.retain(|one| !one.in_use);
    going.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.name.cmp(&b.name)));
    going.into_iter().map(|one| one.name.clone()).collect()
}

/// Whole backups beyond what is to be kept.
fn old_whole<'a>(retention: &Retention, whole: &[&'a Candidate], now: Timestamp) -> Vec<&'a Candidate> {
    let floor = usize::try_from(retention.keep_at_least.max(1)).unwrap_or(usize::MAX);
    let base = base_of_window(retention, whole, now);
    let going = whole.iter().enumerate().filter(|(rank, one)| {
        *rank >= floor && beyond_limits(retention, *rank, one.at, now) && Some(one.name.as_str()) != base
    });
    going.map(|(_, one)| *one).collect()
}

/// Backups that were found broken: they go by the same limits, ranked by how many whole ones are newer.
fn old_broken<'a>(
    retention: &Retention,
    newest_first: &[&'a Candidate],
    whole: &[&Candidate],
    now: Timestamp,
) -> Vec<&'a Candidate> {
    filtered(newest_first, |one| {
        let newer = whole.iter().filter(|whole| whole.at > one.at).count();
        one.outcome == Outcome::Broken && newer > 0 && beyond_limits(retention, newer, one.at, now)
    })
}

/// Failed backups that nobody needs for finding the cause.
fn old_failed<'a>(
    newest_first: &[&'a Candidate],
    whole: &[&Candidate],
    now: Timestamp,
) -> Vec<&'a Candidate> {
    let failed: Vec<&Candidate> = filtered(newest_first, |one| one.outcome == Outcome::Failed);
    let newest_whole = whole.first().map(|one| one.at);
    let going = failed.iter().enumerate().filter(|(rank, one)| {
        let overcome = newest_whole.is_some_and(|whole| whole > one.at);
        *rank >= FAILED_AT_MOST || (overcome && now.duration_since(one.at) > FAILED_STAY)
    });
    going.map(|(_, one)| *one).collect()
}

/// Whether a backup is beyond every limit that is given; without one nothing is.
fn beyond_limits(retention: &Retention, rank: usize, at: Timestamp, now: Timestamp) -> bool {
    let by_count = retention.keep_last.map(|keep| i64::try_from(rank).is_ok_and(|rank| rank >= keep));
    let by_age = oldest_kept(retention, now).map(|oldest| at < oldest);
    (by_count.is_some() || by_age.is_some()) && by_count.unwrap_or(true) && by_age.unwrap_or(true)
}

/// The moment before which a backup is too old; none without a limit.
fn oldest_kept(retention: &Retention, now: Timestamp) -> Option<Timestamp> {
    let age = SignedDuration::try_from_hours(retention.max_age_hours?)?;
    now.checked_sub(age).ok()
}

/// The backup from which recovery to the oldest moment within the age begins.
fn base_of_window<'a>(retention: &Retention, whole: &[&'a Candidate], now: Timestamp) -> Option<&'a str> {
    let oldest = oldest_kept(retention, now)?;
    whole.iter().find(|one| one.archived && one.at < oldest).map(|one| one.name.as_str())
}

fn filtered<'a>(all: &[&'a Candidate], wanted: impl Fn(&Candidate) -> bool) -> Vec<&'a Candidate> {
    all.iter().copied().filter(|one| wanted(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn one(name: &str, hours_ago: i64, outcome: Outcome) -> Candidate {
        let at = Timestamp::from_second(NOW - hours_ago * 3600).unwrap();
        Candidate { name: name.to_owned(), at, outcome, archived: false, in_use: false }
    }

    fn limits(keep_last: Option<i64>, max_age_hours: Option<i64>, keep_at_least: i64) -> Retention {
        Retention { keep_last, max_age_hours, keep_at_least, dry_run: false }
    }

    fn days(count: i64) -> Vec<Candidate> {
        (0..count).map(|day| one(&format!("day-{day}"), day * 24 + 1, Outcome::Whole)).collect()
    }

    #[test]
    fn without_a_limit_all_stay() {
        assert!(beyond(&limits(None, None, 1), &days(50), now()).is_empty());
    }

    #[test]
    fn beyond_the_count_goes_oldest_first() {
        assert_eq!(beyond(&limits(Some(2), None, 1), &days(4), now()), ["day-3", "day-2"]);
    }

    #[test]
    fn with_both_limits_it_must_be_beyond_both() {
        assert_eq!(beyond(&limits(Some(1), Some(60), 1), &days(4), now()), ["day-3"]);
        assert_eq!(beyond(&limits(Some(3), Some(1), 1), &days(4), now()), ["day-3"]);
    }

    #[test]
    fn when_all_are_too_old_the_floor_holds() {
        let old: Vec<_> = (0..5).map(|n| one(&format!("b-{n}"), 1000 + n, Outcome::Whole)).collect();
        assert_eq!(beyond(&limits(None, Some(24), 3), &old, now()), ["b-4", "b-3"]);
    }

    #[test]
    fn the_base_of_the_window_stays_when_the_log_is_archived() {
        let mut all = days(5);
        for each in &mut all {
            each.archived = true;
        }
        assert_eq!(beyond(&limits(None, Some(48), 1), &all, now()), ["day-4", "day-3"]);
    }

    #[test]
    fn a_broken_one_does_not_count_as_kept() {
        let all = [
            one("broken", 1, Outcome::Broken),
            one("good", 100, Outcome::Whole),
            one("old", 200, Outcome::Whole),
        ];
        assert_eq!(beyond(&limits(Some(1), None, 1), &all, now()), ["old"]);
        let all = [one("good", 1, Outcome::Whole), one("broken", 100, Outcome::Broken)];
        assert_eq!(beyond(&limits(Some(1), None, 1), &all, now()), ["broken"]);
    }

    #[test]
    fn a_failed_one_goes_a_day_after_it_was_overcome() {
        let all =
            [one("good", 1, Outcome::Whole), one("new", 2, Outcome::Failed), one("old", 30, Outcome::Failed)];
        assert_eq!(beyond(&limits(None, None, 1), &all, now()), ["old"]);
        assert!(beyond(&limits(None, None, 1), &[one("old", 30, Outcome::Failed)], now()).is_empty());
    }

    #[test]
    fn failures_do_not_pile_up() {
        let all: Vec<_> = (0..25).map(|n| one(&format!("f-{n}"), n, Outcome::Failed)).collect();
        assert_eq!(beyond(&limits(None, None, 1), &all, now()).len(), 25 - FAILED_AT_MOST);
    }

    #[test]
    fn what_is_in_use_or_open_stays() {
        let mut all = days(3);
        all[2].in_use = true;
        all.push(one("open", 900, Outcome::Open));
        assert_eq!(beyond(&limits(Some(1), None, 1), &all, now()), ["day-1"]);
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        let outcome = prop::sample::select(vec![
            Outcome::Whole,
            Outcome::Whole,
            Outcome::Broken,
            Outcome::Failed,
            Outcome::Open,
        ]);
        ("[a-z]{3,8}", 0_i64..2000, outcome, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(name, hours, outcome, archived, in_use)| Candidate {
                archived,
                in_use,
                ..one(&name, hours, outcome)
            },
        )
    }

    fn any_retention() -> impl Strategy<Value = Retention> {
        (prop::option::of(1_i64..10), prop::option::of(1_i64..2000), 1_i64..10)
            .prop_map(|(last, age, least)| limits(last, age, least))
    }

    fn distinct(mut all: Vec<Candidate>) -> Vec<Candidate> {
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        all
    }

    proptest! {
        #[test]
        fn the_newest_whole_ones_stay(all in prop::collection::vec(any_candidate(), 0..40), retention in any_retention()) {
            let all = distinct(all);
            let going = beyond(&retention, &all, now());
            let whole = all.iter().filter(|one| one.outcome == Outcome::Whole).count();
            let left = all.iter().filter(|one| one.outcome == Outcome::Whole && !going.contains(&one.name)).count();
            let floor = usize::try_from(retention.keep_at_least).unwrap();
            prop_assert!(left >= whole.min(floor), "{left} of {whole} are left, {floor} is the floor");
            let newest = all.iter().filter(|one| one.outcome == Outcome::Whole).max_by_key(|one| (one.at, one.name.clone()));
            prop_assert!(newest.is_none_or(|newest| !going.contains(&newest.name)));
        }

        #[test]
        fn what_is_used_or_open_or_within_a_limit_stays(
            all in prop::collection::vec(any_candidate(), 0..40),
            retention in any_retention(),
        ) {
            let all = distinct(all);
            let going = beyond(&retention, &all, now());
            for one in all.iter().filter(|one| going.contains(&one.name)) {
                prop_assert!(!one.in_use && one.outcome != Outcome::Open);
                if let (Outcome::Whole, Some(oldest)) = (one.outcome, oldest_kept(&retention, now())) {
                    prop_assert!(one.at < oldest);
                }
            }
        }

        #[test]
        fn every_moment_within_the_age_stays_reachable(
            all in prop::collection::vec(any_candidate(), 0..40),
            age in 1_i64..2000,
        ) {
            let all: Vec<_> = distinct(all).into_iter().map(|one| Candidate { archived: true, ..one }).collect();
            let retention = limits(None, Some(age), 1);
            let going = beyond(&retention, &all, now());
            let oldest = oldest_kept(&retention, now()).unwrap();
            let base = |left: &dyn Fn(&Candidate) -> bool| {
                all.iter().filter(|one| one.outcome == Outcome::Whole && one.at < oldest && left(one)).map(|one| one.at).max()
            };
            prop_assert_eq!(base(&|_| true), base(&|one| !going.contains(&one.name)));
        }

        #[test]
        fn a_second_look_finds_nothing_more(all in prop::collection::vec(any_candidate(), 0..40), retention in any_retention()) {
            let all = distinct(all);
            let going = beyond(&retention, &all, now());
            let left: Vec<_> = all.into_iter().filter(|one| !going.contains(&one.name)).collect();
            prop_assert!(beyond(&retention, &left, now()).is_empty());
        }
    }
}
