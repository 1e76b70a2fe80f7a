//! Which session of an agent counts: pure rules, no I/O, no clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A last epoch above this is not believed, so that epochs never run out.
const MAX_CLAIM: u64 = u64::MAX >> 1;

/// How long a process may be about after it handed over to the next one of its place.
/// The old pod of a rolling update is told to stop within seconds; one that still knocks
/// after this is no old pod.
const OVERLAP: Duration = Duration::from_secs(5 * 60);

/// What a `Hello` claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) instance: [u8; 16],
    pub(super) last_epoch: u64,
    pub(super) standby: bool,
    /// The highest epoch that the store knows.
    pub(super) floor: u64,
    pub(super) now: Instant,
}

/// A session of some kind, as far as these rules care.
#[derive(Debug)]
pub(super) struct Current<S> {
    pub(super) epoch: u64,
    pub(super) instance: [u8; 16],
    pub(super) session: S,
}

/// A session began.
#[derive(Debug)]
pub(super) struct Begun<S> {
    pub(super) session: S,
    /// The one it took over from, and whether that is the same process.
    pub(super) displaced: Option<(S, bool)>,
}

/// Another session lives, and the `Hello` asked only for a free place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// It handed over so long ago that it should have ended. Said once.
    pub(super) outstayed: bool,
}

#[derive(Debug)]
struct Slot<S> {
    epoch: u64,
    current: Option<Current<S>>,
    ended: Option<SystemTime>,
    /// The process that handed over last, and when.
    handed_over: Option<([u8; 16], Instant)>,
}

impl<S> Slot<S> {
    fn new() -> Self {
        Self { epoch: 0, current: None, ended: None, handed_over: None }
    }

    fn outstayed(&mut self, claim: &Claim) -> bool {
        let long = |since: Instant| claim.now.saturating_duration_since(since) > OVERLAP;
        self.handed_over.take_if(|(instance, since)| *instance == claim.instance && long(*since)).is_some()
    }
}

/// The sessions of all agents.
#[derive(Debug)]
pub(super) struct Registry<K, S> {
    slots: HashMap<K, Slot<S>>,
}

impl<K: Eq + Hash + Copy, S: Clone> Registry<K, S> {
    pub(super) fn new() -> Self {
        Self { slots: HashMap::new() }
    }

    /// The newest one wins; its epoch is above all that anyone knows of.
    pub(super) fn begin(
        &mut self,
        key: K,
        claim: &Claim,
        lives: impl FnOnce(&S) -> bool,
        make: impl FnOnce(u64) -> S,
    ) -> Result<Begun<S>, Taken> {
        let slot = self.slots.entry(key).or_insert_with(Slot::new);
        if let Some(current) = &slot.current
            && claim.standby
            && current.instance != claim.instance
            && lives(&current.session)
        {
            return Err(Taken { outstayed: slot.outstayed(claim) });
        }
        let epoch = slot.epoch.max(claim.floor).max(claim.last_epoch.min(MAX_CLAIM)).saturating_add(1);
        let session = make(epoch);
        let new = Current { epoch, instance: claim.instance, session: session.clone() };
        slot.epoch = epoch;
        slot.ended = None;
        let displaced = slot.current.replace(new);
        let displaced = displaced.map(|old| (old.session, old.instance == claim.instance));
        Ok(Begun { session, displaced })
    }

    /// This process handed over to the next one of its place.
    pub(super) fn hand_over(&mut self, key: K, instance: [u8; 16], now: Instant) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.handed_over = Some((instance, now));
        }
    }

    /// A session ended; a newer one is left alone. Says whether it was the current one.
    pub(super) fn end(&mut self, key: K, epoch: u64, now: SystemTime) -> bool {
        let Some(slot) = self.slots.get_mut(&key) else { return false };
        let was_current = slot.current.take_if(|current| current.epoch == epoch).is_some();
        if was_current {
            slot.ended = Some(now);
        }
        was_current
    }

    pub(super) fn current(&self, key: K) -> Option<&S> {
        self.slots.get(&key)?.current.as_ref().map(|current| &current.session)
    }

    /// When the last session ended; `None` while one lives or none is known.
    pub(super) fn ended(&self, key: K) -> Option<SystemTime> {
        self.slots.get(&key)?.ended
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &S> {
        self.slots.values().filter_map(|slot| slot.current.as_ref()).map(|current| &current.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Event {
        Hello { agent: u8, instance: u8, last_epoch: u64, standby: bool, floor: u64, lives: bool },
        End { agent: u8, which: usize },
    }

    fn event() -> impl Strategy<Value = Event> {
        let epoch = prop_oneof![0_u64..20, any::<u64>()];
        prop_oneof![
            (0_u8..2, 0_u8..3, epoch, any::<bool>(), 0_u64..50, any::<bool>()).prop_map(
                |(agent, instance, last_epoch, standby, floor, lives)| {
                    Event::Hello { agent, instance, last_epoch, standby, floor, lives }
                }
            ),
            (0_u8..2, any::<usize>()).prop_map(|(agent, which)| Event::End { agent, which }),
        ]
    }

    proptest! {
        #[test]
        fn rule_9_the_newest_epoch_wins_whatever_happens(events in proptest::collection::vec(event(), 0..60)) {
            let mut registry: Registry<u8, u64> = Registry::new();
            let mut begun: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            let mut live: [Option<(u64, u8)>; 2] = [None, None];
            for event in events {
                match event {
                    Event::Hello { agent, instance, last_epoch, standby, floor, lives } => {
                        let now = Instant::now();
                        let claim = Claim { instance: [instance; 16], last_epoch, standby, floor, now };
                        let at = usize::from(agent);
                        let result = registry.begin(agent, &claim, |_| lives, |epoch| epoch);
                        let refused = standby && lives && live[at].is_some_and(|(_, other)| other != instance);
                        prop_assert_eq!(result.is_err(), refused);
                        let Ok(now) = result else { continue };
                        prop_assert!(begun[at].iter().all(|before| *before < now.session), "epochs only grow");
                        prop_assert!(now.session > floor && now.session > last_epoch.min(MAX_CLAIM));
                        prop_assert_eq!(now.displaced, live[at].map(|(epoch, other)| (epoch, other == instance)));
                        begun[at].push(now.session);
                        live[at] = Some((now.session, instance));
                    }
                    Event::End { agent, which } => {
                        let at = usize::from(agent);
                        if begun[at].is_empty() { continue }
                        let epoch = begun[at][which % begun[at].len()];
                        let was = registry.end(agent, epoch, SystemTime::UNIX_EPOCH);
                        prop_assert_eq!(was, live[at].is_some_and(|(now, _)| now == epoch), "an old end leaves a new session alone");
                        if was { live[at] = None }
                    }
                }
                for agent in 0..2_u8 {
                    prop_assert_eq!(registry.current(agent).copied(), live[usize::from(agent)].map(|(epoch, _)| epoch));
                }
            }
        }
    }

    #[test]
    fn who_handed_over_and_knocks_long_after_has_outstayed_once() {
        let (mut registry, began) = (Registry::<u8, u64>::new(), Instant::now());
        let claim = |instance: u8, standby, seconds| Claim {
            instance: [instance; 16],
            last_epoch: 0,
            standby,
            floor: 0,
            now: began + Duration::from_secs(seconds),
        };
        let knock = |registry: &mut Registry<u8, u64>, instance, seconds| {
            registry.begin(1, &claim(instance, true, seconds), |_| true, |epoch| epoch).map(|_| ())
        };
        registry.begin(1, &claim(1, false, 0), |_| true, |epoch| epoch).unwrap();
        registry.begin(1, &claim(2, false, 0), |_| true, |epoch| epoch).unwrap();
        registry.hand_over(1, [1; 16], began);
        assert_eq!(knock(&mut registry, 1, 299), Err(Taken { outstayed: false }), "an old pod that ends");
        assert_eq!(knock(&mut registry, 3, 301), Err(Taken { outstayed: false }), "somebody else");
        assert_eq!(knock(&mut registry, 1, 301), Err(Taken { outstayed: true }));
        assert_eq!(knock(&mut registry, 1, 302), Err(Taken { outstayed: false }), "it is said once");
    }
}
