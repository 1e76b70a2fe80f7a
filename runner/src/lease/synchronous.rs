//! Keeps the Lease's list of standbys true: one step at a time, each safe to crash after.
//!
//! What must always hold: every commit that was acknowledged is on the disk of each standby that the Lease lists.
//! So a standby enters in the order *commits wait for it* → *it has all that was there before* → *the Lease lists
//! it*, and leaves in the order *the Lease lists it no more* → *commits do not wait for it*. While one replaces
//! another, commits wait for both. When the only standby that is listed is lost and there is no other, commits
//! wait: that is what was asked for.
use crate::engine::{Position, Standby};

/// What the step depends on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Whether replication shall be synchronous.
    pub wanted: bool,
    /// The Lease's list as the API server confirmed it; none when there is none.
    pub listed: Option<&'a [String]>,
    /// The standbys that commits wait for, as the engine has it.
    pub required: &'a [String],
    /// How far the log had come when `required` came into force.
    pub since: Option<Position>,
    /// The standbys as the primary sees them.
    pub standbys: &'a [Standby],
    /// The standby that shall become primary, if one shall.
    pub preferred: Option<&'a str>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Make commits wait for exactly these.
    Require(Vec<String>),
    /// Make the Lease list exactly these, or none at all.
    List(Option<Vec<String>>),
}

/// Decides.
#[must_use]
pub fn step(facts: &Facts<'_>) -> Step {
    let listed = facts.listed.unwrap_or_default();
    // Commits wait for all that are listed, whatever else is going on: after a restart, or an edit by hand.
    if listed.iter().any(|name| !facts.required.contains(name)) {
        return Step::Require(union(listed, facts.required));
    }
    if !facts.wanted {
        return leave(facts);
    }
    let Some(chosen) = choose(facts, listed) else {
        return keep(facts, listed);
    };
    if listed != [chosen.clone()] {
        // From when on commits wait is forgotten when the engine starts anew.
        if !facts.required.contains(&chosen) || facts.since.is_none() {
            return Step::Require(union(listed, std::slice::from_ref(&chosen)));
        }
        return if has_all(facts, &chosen) { Step::List(Some(vec![chosen])) } else { Step::Rest };
    }
    if facts.required.len() > 1 { Step::Require(vec![chosen]) } else { Step::Rest }
}

fn leave(facts: &Facts<'_>) -> Step {
    match (facts.listed, facts.required) {
        (Some(_), _) => Step::List(None),
        (None, []) => Step::Rest,
        (None, _) => Step::Require(Vec::new()),
    }
}

/// Nobody can be chosen: what is listed stays; somebody that commits wait for without being listed is let go.
fn keep(facts: &Facts<'_>, listed: &[String]) -> Step {
    match facts.listed {
        None => Step::List(Some(Vec::new())),
        Some(_) if facts.required != listed => Step::Require(listed.to_vec()),
        Some(_) => Step::Rest,
    }
}

/// The standby to list: the preferred, else the one that is listed, else the one that has most; only of those that
/// receive the log now.
fn choose(facts: &Facts<'_>, listed: &[String]) -> Option<String> {
    let streaming = facts.standbys.iter().filter(|standby| standby.streaming);
    let rank = |standby: &&Standby| {
        let preferred = facts.preferred == Some(standby.pod.as_str());
        let current = listed.contains(&standby.pod);
        let required = facts.required.contains(&standby.pod);
        (preferred, current, required, standby.flushed)
    };
    streaming.max_by_key(rank).map(|standby| standby.pod.clone())
}

fn has_all(facts: &Facts<'_>, chosen: &str) -> bool {
    let Some(since) = facts.since else { return false };
    facts.standbys.iter().any(|standby| standby.pod == chosen && standby.flushed >= since)
}

fn union(one: &[String], two: &[String]) -> Vec<String> {
    let mut all = one.to_vec();
    all.extend(two.iter().filter(|name| !one.contains(name)).cloned());
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    fn standby(pod: &str, flushed: u64) -> Standby {
        Standby { pod: pod.to_owned(), streaming: true, flushed: at(flushed) }
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_standby_enters_only_with_all_that_was_there_before() {
        let late = [standby("b", 90)];
        let base = Facts {
            wanted: true,
            listed: None,
            required: &[],
            since: None,
            standbys: &late,
            preferred: None,
        };
        assert_eq!(step(&base), Step::Require(list(&["b"])));
        let required = list(&["b"]);
        let waits = Facts { required: &required, since: Some(at(100)), ..base };
        assert_eq!(step(&waits), Step::Rest);
        let there = [standby("b", 100)];
        assert_eq!(step(&Facts { standbys: &there, ..waits }), Step::List(Some(list(&["b"]))));
    }

    #[test]
    fn one_replaces_another_while_commits_wait_for_both() {
        let (listed, both, b) = (list(&["a"]), list(&["a", "b"]), list(&["b"]));
        let standbys = [standby("b", 100)];
        let lost = Facts {
            wanted: true,
            listed: Some(&listed),
            required: &listed,
            since: Some(at(10)),
            standbys: &standbys,
            preferred: None,
        };
        assert_eq!(step(&lost), Step::Require(both.clone()));
        let waits = Facts { required: &both, since: Some(at(100)), ..lost };
        assert_eq!(step(&waits), Step::List(Some(b.clone())));
        let listed_b = Facts { listed: Some(&b), ..waits };
        assert_eq!(step(&listed_b), Step::Require(b.clone()));
        assert_eq!(step(&Facts { required: &b, ..listed_b }), Step::Rest);
    }

    #[test]
    fn when_the_only_one_is_lost_commits_wait_for_it() {
        let listed = list(&["a"]);
        let facts = Facts {
            wanted: true,
            listed: Some(&listed),
            required: &listed,
            since: Some(at(10)),
            standbys: &[],
            preferred: None,
        };
        assert_eq!(step(&facts), Step::Rest);
        assert_eq!(step(&Facts { required: &[], ..facts }), Step::Require(listed.clone()));
    }

    #[test]
    fn a_lease_that_lists_nobody_lets_nobody_in_while_there_is_no_standby() {
        let facts =
            Facts { wanted: true, listed: None, required: &[], since: None, standbys: &[], preferred: None };
        assert_eq!(step(&facts), Step::List(Some(Vec::new())));
        assert_eq!(step(&Facts { listed: Some(&[]), ..facts }), Step::Rest);
    }

    #[test]
    fn a_list_that_somebody_took_away_is_made_again() {
        let (required, standbys) = (list(&["a"]), [standby("a", 100)]);
        let facts = Facts {
            wanted: true,
            listed: None,
            required: &required,
            since: None,
            standbys: &standbys,
            preferred: None,
        };
        assert_eq!(step(&facts), Step::Require(required.clone()));
        assert_eq!(step(&Facts { since: Some(at(90)), ..facts }), Step::List(Some(required.clone())));
    }

    #[test]
    fn the_list_goes_before_commits_stop_to_wait() {
        let listed = list(&["a"]);
        let facts = Facts {
            wanted: false,
            listed: Some(&listed),
            required: &listed,
            since: None,
            standbys: &[],
            preferred: None,
        };
        assert_eq!(step(&facts), Step::List(None));
        assert_eq!(step(&Facts { listed: None, ..facts }), Step::Require(Vec::new()));
    }

    /// A primary, three standbys and the Lease. `acked` is the log up to which commits were acknowledged.
    struct World {
        log: u64,
        acked: u64,
        flushed: [u64; 3],
        up: [bool; 3],
        listed: Option<Vec<String>>,
        required: Vec<String>,
        since: Option<Position>,
    }

    impl World {
        fn index(name: &str) -> usize {
            ["a", "b", "c"].iter().position(|known| *known == name).unwrap()
        }

        fn acknowledge(&mut self) {
            let waits = self.required.iter().map(|name| self.flushed[Self::index(name)]).min();
            self.acked = self.acked.max(waits.unwrap_or(self.log));
        }

        fn act(&mut self, wanted: bool, preferred: Option<&str>) {
            let standbys: Vec<Standby> = ["a", "b", "c"]
                .iter()
                .enumerate()
                .filter(|(index, _)| self.up[*index])
                .map(|(index, name)| standby(name, self.flushed[index]))
                .collect();
            let facts = Facts {
                wanted,
                listed: self.listed.as_deref(),
                required: &self.required,
                since: self.since,
                standbys: &standbys,
                preferred,
            };
            match step(&facts) {
                Step::Rest => {}
                Step::Require(names) => {
                    self.required = names;
                    self.since = Some(at(self.log));
                }
                Step::List(names) => self.listed = names,
            }
        }
    }

    proptest! {
        #[test]
        fn every_standby_that_is_listed_has_every_commit_that_was_acknowledged(
            moves in proptest::collection::vec((0_u8..8, 0_usize..3, any::<bool>()), 1..300),
        ) {
            let mut world = World {
                log: 1, acked: 0, flushed: [0; 3], up: [true; 3], listed: None, required: vec![], since: None,
            };
            for (kind, which, wanted) in moves {
                match kind {
                    0 | 1 => world.log += 1,
                    2 => world.up[which] = !world.up[which],
                    3 | 4 if world.up[which] => world.flushed[which] = world.log,
                    // The primary starts anew, and its engine has forgotten for whom it waits: it takes no
                    // writes before commits wait for those that are listed.
                    5 => {
                        world.required = world.listed.clone().unwrap_or_default();
                        world.since = None;
                    }
                    _ => world.act(wanted || kind == 6, None),
                }
                world.acknowledge();
                for name in world.listed.iter().flatten() {
                    prop_assert!(world.flushed[World::index(name)] >= world.acked, "{name}");
                }
            }
        }
    }
}
