//! The exchange of volumes in a restore in place, and its way back: from what was seen, one move at a time.
//!
//! The restored data lies on the volume of a stand-in, which has answered already. So that it can be undone, no volume is
//! written or deleted: both services are held, their claims deleted with the volumes retained, and the claim of the
//! service bound to the other volume. Each volume bears a [`Mark`] that says what it was, so a new process of the operator
//! goes on, or back, from what it sees. Only when the service has answered with the new data do the old volumes go.
//!
//! The Lease of the primary goes too: it tells of data that is no longer there. On the way back it is put as it was,
//! as it knows which instance had all that was acknowledged.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use serde::{Deserialize, Serialize};

/// Which data a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// What is replaced.
    Old,
    /// What is brought back.
    New,
}

/// What a volume was before the exchange, and what it is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mark {
    /// uid of the restore.
    pub(crate) restore: String,
    /// Which data it holds.
    pub(crate) part: Part,
    /// The claim of the service that it belongs to.
    pub(crate) claim: String,
    /// What happened to the volume when its claim was deleted.
    pub(crate) policy: String,
    /// Labels of the claim.
    pub(crate) labels: BTreeMap<String, String>,
    /// Spec of the claim.
    pub(crate) spec: PersistentVolumeClaimSpec,
    /// The Lease of the primary, as JSON, in the mark of the first old volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<serde_json::Value>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Name of the claim that it is reserved for.
    pub(crate) reserved: Option<String>,
    /// uid of the claim that it is or was bound to.
    pub(crate) bound_to: Option<String>,
    pub(crate) policy: String,
    pub(crate) mark: Option<Mark>,
}

/// A claim.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) volume: Option<String>,
    pub(crate) bound: bool,
    pub(crate) deleting: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) spec: PersistentVolumeClaimSpec,
}

/// A service that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) name: String,
    /// Whether this restore keeps its instances from running.
    pub(crate) held: bool,
    /// Whether it is said to answer.
    pub(crate) available: bool,
    /// Pods that exist.
    pub(crate) pods: usize,
}

/// The Lease of the service's primary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PrimaryLease {
    /// The object.
    pub(crate) json: serde_json::Value,
    /// Whether this restore has put it.
    pub(crate) put_back: bool,
}

/// Everything that takes part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exchange {
    /// uid of the restore.
    pub(crate) restore: String,
    /// The service whose data is replaced.
    pub(crate) service: Side,
    /// The service that holds the new data.
    pub(crate) stand_in: Option<Side>,
    /// Claims of the service.
    pub(crate) claims: Vec<Claim>,
    /// Claims of the stand-in.
    pub(crate) stand_in_claims: Vec<Claim>,
    /// Volumes of all these claims, and those with a mark of this restore.
    pub(crate) volumes: Vec<Volume>,
    /// The Lease of the service's primary.
    pub(crate) lease: Option<PrimaryLease>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Move {
    /// Wait until what was begun has happened.
    Wait(&'static str),
    /// Keep the instances of a service from running.
    Hold(String),
    /// Let the instances of the service run.
    Release(String),
    /// Retain a volume, with a mark.
    Mark {
        /// Its name.
        volume: String,
        /// The mark.
        mark: Box<Mark>,
    },
    /// Delete a claim.
    DeleteClaim(String),
    /// Reserve a volume for a claim.
    Reserve {
        /// Its name.
        volume: String,
        /// The claim.
        claim: String,
    },
    /// Make a claim for a volume.
    MakeClaim {
        /// Volume.
        volume: String,
        /// What the claim looks like.
        mark: Box<Mark>,
    },
    /// Delete the Lease.
    DeleteLease,
    /// Put the Lease as it was.
    PutLease(serde_json::Value),
    /// Take the mark off a volume, and let happen to it what would have happened before.
    Settle {
        /// Its name.
        volume: String,
        /// What would have happened.
        policy: String,
    },
}

impl Exchange {
    /// The next move towards the new data; none when the service runs on it.
    pub(crate) fn forward(&self) -> Option<Move> {
        let new = self.marked(Part::New);
        if !new.is_empty() && self.arranged(&new) && !self.service.held {
            return None;
        }
        if let Some(first) = self.still().or_else(|| self.next_mark()) {
            return Some(first);
        }
        if new.is_empty() || self.marked(Part::Old).is_empty() {
            return Some(Move::Wait("volumes to be seen"));
        }
        self.arrange(&new, |lease| lease.as_ref().map(|_| Move::DeleteLease))
    }

    /// The next move back to the old data; none when the service runs on it.
    pub(crate) fn back(&self) -> Option<Move> {
        let old = self.marked(Part::Old);
        if old.is_empty() {
            return self.service.held.then(|| Move::Release(self.service.name.clone()));
        }
        let saved = old.iter().find_map(|(_, mark)| mark.lease.clone());
        self.arrange(&old, |lease| match (lease, saved) {
            (Some(lease), _) if lease.put_back => None,
            (Some(_), _) => Some(Move::DeleteLease),
            (None, Some(saved)) => Some(Move::PutLease(saved)),
            (None, None) => None,
        })
    }

    /// The next volume that may go its way, once the service runs on the data that it shall have.
    pub(crate) fn settle(&self) -> Option<Move> {
        let volume = self.volumes.iter().find(|volume| self.mark_of(volume).is_some())?;
        let policy = self.mark_of(volume)?.policy.clone();
        Some(Move::Settle { volume: volume.name.clone(), policy })
    }

    /// Binds the claims of the service to `wanted`, and no others, while nothing runs.
    fn arrange(
        &self,
        wanted: &[(&Volume, &Mark)],
        lease: impl FnOnce(&Option<PrimaryLease>) -> Option<Move>,
    ) -> Option<Move> {
        if self.arranged(wanted) && !self.service.held {
            return None;
        }
        if let Some(first) = self.still() {
            return Some(first);
        }
        if let Some(claim) = self.wrong_claim(wanted) {
            let gone = if claim.deleting {
                Move::Wait("a claim to go")
            } else {
                Move::DeleteClaim(claim.name.clone())
            };
            return Some(gone);
        }
        wanted
            .iter()
            .find_map(|(volume, mark)| self.bind(volume, mark))
            .or_else(|| lease(&self.lease))
            .or_else(|| Some(Move::Release(self.service.name.clone())))
    }

    /// Nothing may run while claims change.
    fn still(&self) -> Option<Move> {
        let sides = std::iter::once(&self.service).chain(&self.stand_in);
        for side in sides.clone() {
            if !side.held {
                return Some(Move::Hold(side.name.clone()));
            }
        }
        let quiet = sides.into_iter().all(|side| side.pods == 0) && !self.service.available;
        (!quiet).then_some(Move::Wait("the instances to stop"))
    }

    /// The first volume without a mark.
    fn next_mark(&self) -> Option<Move> {
        let first = self.claims.iter().map(|claim| claim.name.as_str()).min()?;
        let of_service = self.claims.iter().map(|claim| (claim, Part::Old, claim.name.as_str()));
        let of_stand_in = self.stand_in_claims.iter().map(|claim| (claim, Part::New, first));
        let labels =
            self.claims.iter().find(|claim| claim.name == first).map(|claim| claim.labels.clone())?;
        for (claim, part, name) in of_service.chain(of_stand_in) {
            let Some(volume) = self.volumes.iter().find(|volume| Some(&volume.name) == claim.volume.as_ref())
            else {
                continue;
            };
            if self.mark_of(volume).is_some() {
                continue;
            }
            let lease = self.lease.as_ref().filter(|_| part == Part::Old && name == first);
            let mark = Mark {
                restore: self.restore.clone(),
                part,
                claim: name.to_owned(),
                policy: volume.policy.clone(),
                labels: if part == Part::Old { claim.labels.clone() } else { labels.clone() },
                spec: claim.spec.clone(),
                lease: lease.map(|lease| lease.json.clone()),
            };
            return Some(Move::Mark { volume: volume.name.clone(), mark: Box::new(mark) });
        }
        None
    }

    fn arranged(&self, wanted: &[(&Volume, &Mark)]) -> bool {
        self.wrong_claim(wanted).is_none() && wanted.iter().all(|(volume, mark)| self.is_bound(volume, mark))
    }

    /// A claim that is in the way: it goes, is bound to a volume of the exchange that it shall not have, or bears the
    /// name of one that shall be. A claim that nothing is known of is left alone, as its volume would go with it.
    fn wrong_claim(&self, wanted: &[(&Volume, &Mark)]) -> Option<&Claim> {
        self.claims.iter().chain(&self.stand_in_claims).find(|claim| {
            let shall =
                wanted.iter().find(|(_, mark)| mark.claim == claim.name).map(|(volume, _)| &volume.name);
            let known = self.volumes.iter().find(|volume| Some(&volume.name) == claim.volume.as_ref());
            let concerned = shall.is_some() || known.is_some_and(|volume| self.mark_of(volume).is_some());
            claim.deleting || (concerned && claim.volume.as_ref() != shall)
        })
    }

    fn is_bound(&self, volume: &Volume, mark: &Mark) -> bool {
        let mut claims = self.claims.iter();
        claims.any(|claim| {
            claim.name == mark.claim && claim.bound && claim.volume.as_ref() == Some(&volume.name)
        })
    }

    fn bind(&self, volume: &Volume, mark: &Mark) -> Option<Move> {
        if self.is_bound(volume, mark) {
            return None;
        }
        if self.claims.iter().any(|claim| claim.name == mark.claim) {
            return Some(Move::Wait("a claim to be bound"));
        }
        if volume.bound_to.is_some() || volume.reserved.as_ref() != Some(&mark.claim) {
            return Some(Move::Reserve { volume: volume.name.clone(), claim: mark.claim.clone() });
        }
        Some(Move::MakeClaim { volume: volume.name.clone(), mark: Box::new(mark.clone()) })
    }

    fn marked(&self, part: Part) -> Vec<(&Volume, &Mark)> {
        let all = self.volumes.iter().filter_map(|volume| Some((volume, self.mark_of(volume)?)));
        all.filter(|(_, mark)| mark.part == part).collect()
    }

    fn mark_of<'a>(&self, volume: &'a Volume) -> Option<&'a Mark> {
        volume.mark.as_ref().filter(|mark| mark.restore == self.restore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(name: &str, volume: &str) -> Claim {
        let labels = [("of".to_owned(), name.to_owned())].into();
        let spec = PersistentVolumeClaimSpec { volume_name: Some(volume.to_owned()), ..Default::default() };
        Claim {
            name: name.to_owned(),
            volume: Some(volume.to_owned()),
            bound: true,
            deleting: false,
            labels,
            spec,
        }
    }

    fn volume(name: &str, claim: &str) -> Volume {
        let bound_to = Some(format!("uid of {claim}"));
        Volume {
            name: name.to_owned(),
            reserved: Some(claim.to_owned()),
            bound_to,
            policy: "Delete".to_owned(),
            mark: None,
        }
    }

    fn side(name: &str) -> Side {
        Side { name: name.to_owned(), held: false, available: true, pods: 1 }
    }

    fn begin() -> Exchange {
        Exchange {
            restore: "r".to_owned(),
            service: side("orders"),
            stand_in: Some(side("orders-r1")),
            claims: vec![claim("data-orders-0", "old-0"), claim("data-orders-1", "old-1")],
            stand_in_claims: vec![claim("data-orders-r1-0", "new-0")],
            volumes: vec![
                volume("old-0", "data-orders-0"),
                volume("old-1", "data-orders-1"),
                volume("new-0", "data-orders-r1-0"),
            ],
            lease: Some(PrimaryLease { json: json!({"of": "old"}), put_back: false }),
        }
    }

    /// What Kubernetes and the other controllers would make of a move.
    fn play(state: &mut Exchange, step: &Move) {
        match step {
            Move::Wait(what) => panic!("nothing to wait for: {what}"),
            Move::Hold(name) => {
                for side in std::iter::once(&mut state.service).chain(state.stand_in.as_mut()) {
                    if &side.name == name {
                        (side.held, side.pods, side.available) = (true, 0, false);
                    }
                }
            }
            Move::Release(_) => {
                state.service.held = false;
                state.service.pods = 1;
                let lease = PrimaryLease { json: json!({"of": "the one that runs"}), put_back: false };
                state.lease.get_or_insert(lease);
            }
            Move::Mark { volume, mark } => {
                let one = find(state, volume);
                one.mark = Some(mark.as_ref().clone());
                one.policy = "Retain".to_owned();
            }
            Move::DeleteClaim(name) => {
                for claim in state.claims.iter().chain(&state.stand_in_claims) {
                    let kept =
                        state.volumes.iter().find(|volume| Some(&volume.name) == claim.volume.as_ref());
                    assert!(
                        &claim.name != name || kept.unwrap().policy == "Retain",
                        "{name} would take its volume along"
                    );
                }
                state.claims.retain(|claim| &claim.name != name);
                state.stand_in_claims.retain(|claim| &claim.name != name);
            }
            Move::Reserve { volume, claim } => {
                let one = find(state, volume);
                (one.bound_to, one.reserved) = (None, Some(claim.clone()));
            }
            Move::MakeClaim { volume, mark } => {
                state.claims.push(claim(&mark.claim, volume));
                find(state, volume).bound_to = Some("new uid".to_owned());
            }
            Move::DeleteLease => state.lease = None,
            Move::PutLease(json) => state.lease = Some(PrimaryLease { json: json.clone(), put_back: true }),
            Move::Settle { volume, policy } => {
                let one = find(state, volume);
                (one.mark, one.policy) = (None, policy.clone());
            }
        }
    }

    fn find<'a>(state: &'a mut Exchange, name: &str) -> &'a mut Volume {
        state.volumes.iter_mut().find(|volume| volume.name == name).unwrap()
    }

    fn run(state: &mut Exchange, next: impl Fn(&Exchange) -> Option<Move>, most: usize) -> usize {
        for count in 0..most {
            let Some(step) = next(state) else { return count };
            play(state, &step);
        }
        assert!(most < 50, "it has no end: {state:?}");
        most
    }

    fn bound(state: &Exchange) -> Vec<(String, String)> {
        let mut all: Vec<_> =
            state.claims.iter().map(|claim| (claim.name.clone(), claim.volume.clone().unwrap())).collect();
        all.sort();
        all
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn the_service_runs_on_the_new_volume_and_the_old_ones_are_kept() {
        let mut state = begin();
        run(&mut state, Exchange::forward, 50);
        assert_eq!(bound(&state), pairs(&[("data-orders-0", "new-0")]));
        assert!(state.stand_in_claims.is_empty());
        assert!(!state.service.held && state.stand_in.as_ref().unwrap().held);
        assert_eq!(state.lease.as_ref().unwrap().json, json!({"of": "the one that runs"}));
        assert!(state.volumes.iter().all(|volume| volume.policy == "Retain"));
        run(&mut state, Exchange::settle, 50);
        assert!(state.volumes.iter().all(|volume| volume.policy == "Delete" && volume.mark.is_none()));
    }

    #[test]
    fn it_can_be_undone_after_every_move() {
        let whole = run(&mut begin(), Exchange::forward, 50);
        for moves in 0..=whole {
            let mut state = begin();
            run(&mut state, Exchange::forward, moves.min(49));
            run(&mut state, Exchange::back, 50);
            let expected = pairs(&[("data-orders-0", "old-0"), ("data-orders-1", "old-1")]);
            assert_eq!(bound(&state), expected, "after {moves} moves");
            assert!(!state.service.held, "after {moves} moves");
            let lease = state.lease.as_ref().unwrap();
            assert_eq!(lease.json, json!({"of": "old"}), "after {moves} moves");
        }
    }

    #[test]
    fn a_replica_that_was_cloned_from_the_new_data_makes_room_for_the_old_one() {
        let mut state = begin();
        run(&mut state, Exchange::forward, 50);
        state.claims.push(claim("data-orders-1", "fresh-1"));
        state.volumes.push(Volume { policy: "Retain".to_owned(), ..volume("fresh-1", "data-orders-1") });
        assert_eq!(state.forward(), None);
        run(&mut state, Exchange::back, 50);
        assert_eq!(bound(&state), pairs(&[("data-orders-0", "old-0"), ("data-orders-1", "old-1")]));
    }

    #[test]
    fn nothing_changes_while_an_instance_runs() {
        let mut state = begin();
        for _ in 0..2 {
            let step = state.forward().unwrap();
            assert!(matches!(step, Move::Hold(_)));
            play(&mut state, &step);
        }
        state.service.pods = 1;
        assert!(matches!(state.forward(), Some(Move::Wait(_))));
        (state.service.pods, state.service.available) = (0, true);
        assert!(matches!(state.forward(), Some(Move::Wait(_))));
    }

    #[test]
    fn a_claim_that_is_going_is_waited_for() {
        let mut state = begin();
        run(&mut state, Exchange::forward, 5);
        assert!(matches!(state.forward(), Some(Move::DeleteClaim(_))));
        state.claims[0].deleting = true;
        assert!(matches!(state.forward(), Some(Move::Wait(_))));
    }

    #[test]
    fn a_mark_of_another_restore_is_none() {
        let mut state = begin();
        run(&mut state, Exchange::forward, 5);
        state.restore = "another".to_owned();
        assert_eq!(state.settle(), None);
        assert!(matches!(state.back(), Some(Move::Release(_))));
    }
}
