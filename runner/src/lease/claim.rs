//! Whether this instance may become primary, and if not, why: a pure function of what is known.
use std::time::Duration;

use super::record::Record;
use crate::engine::{Data, Position};

/// Bytes by which an asynchronous standby may be behind what the primary said last, and still be promoted: one
/// segment of PostgreSQL's log.
pub const ALLOWANCE: u64 = 16 * 1024 * 1024;

/// What another member told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSeen {
    /// Name of its pod.
    pub pod: String,
    /// Identity of its data.
    pub identity: Option<String>,
    /// How far its log goes, while its engine runs.
    pub position: Option<Position>,
}

/// What the decision depends on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Name of this pod.
    pub pod: &'a str,
    /// Its ordinal.
    pub ordinal: u32,
    /// Instances that are wanted.
    pub replicas: u32,
    /// Whether replication shall be synchronous.
    pub synchronous: bool,
    /// What lies on the volume.
    pub data: &'a Data,
    /// How far the log goes here while the engine runs as a standby; none when it does not answer.
    pub standby: Option<Position>,
    /// The record; none when there is no Lease.
    pub record: Option<&'a Record>,
    /// For how long the record, or its absence, has been as it is.
    pub unchanged: Duration,
    /// The time of the Lease.
    pub lease: Duration,
    /// The other members that could be reached.
    pub peers: &'a [PeerSeen],
}

/// Why an instance may become primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing was ever made, and it is the first.
    First,
    /// It was primary last: it has all that was acknowledged.
    Own,
    /// It is a standby that has enough.
    Standby,
}

/// Why an instance may not become primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The first instance makes the data.
    NotFirst,
    /// The database was initialised once, and there is no data here.
    NoData,
    /// The data here belongs to another database.
    Foreign,
    /// There shall be fewer instances.
    Surplus,
    /// Another is asked to become primary.
    Yields,
    /// It was primary before another was.
    Stale,
    /// The standby does not run.
    NotRunning,
    /// Commits did not wait for this standby.
    NotListed,
    /// It lacks too much of what the primary had.
    Behind,
    /// Another standby has more.
    Outranked,
    /// The last primary is there and may come back.
    LastPrimaryIsThere,
}

/// Decides.
///
/// # Errors
/// The [`Refusal`] that applies first.
pub fn claim(facts: &Facts<'_>) -> Result<Claim, Refusal> {
    let initialised = facts.record.and_then(|record| record.initialised.as_deref());
    match (initialised, facts.data) {
        (None, data) => unmade(facts, data),
        (Some(_), Data::Empty | Data::Unfinished) => Err(Refusal::NoData),
        (Some(made), Data::Whole { identity, .. }) if made != identity => Err(Refusal::Foreign),
        (Some(_), Data::Whole { led, .. }) => made(facts, *led),
    }
}

/// There is no Lease, or it does not know of any data.
fn unmade(facts: &Facts<'_>, data: &Data) -> Result<Claim, Refusal> {
    let lost = facts.unchanged >= facts.lease || facts.record.is_some();
    match data {
        // A Lease that somebody deleted: others that have data say so.
        Data::Empty | Data::Unfinished if facts.peers.iter().any(|peer| peer.identity.is_some()) => {
            Err(Refusal::NoData)
        }
        Data::Empty | Data::Unfinished if facts.ordinal == 0 => Ok(Claim::First),
        Data::Empty | Data::Unfinished => Err(Refusal::NotFirst),
        Data::Whole { led: true, .. } if facts.ordinal == 0 && facts.peers.is_empty() => Ok(Claim::Own),
        // The primary that still runs makes its Lease again within its time; so the others wait for that long.
        Data::Whole { led: true, .. } if lost => Ok(Claim::Own),
        Data::Whole { .. } => Err(Refusal::Yields),
    }
}

fn made(facts: &Facts<'_>, led: bool) -> Result<Claim, Refusal> {
    let record = facts.record.ok_or(Refusal::NoData)?;
    if yields(facts, record) {
        return Err(Refusal::Yields);
    }
    if record.led_by(facts.pod) {
        return Ok(Claim::Own);
    }
    if facts.ordinal >= facts.replicas {
        return Err(Refusal::Surplus);
    }
    if led {
        return Err(Refusal::Stale);
    }
    standby(facts, record)
}

/// A switchover leaves the one that is asked for a time of the Lease to itself.
fn yields(facts: &Facts<'_>, record: &Record) -> bool {
    let asked = record.switchover_to.as_deref().is_some_and(|to| to != facts.pod);
    asked && record.holder.is_none() && facts.unchanged < facts.lease
}

fn standby(facts: &Facts<'_>, record: &Record) -> Result<Claim, Refusal> {
    let mine = facts.standby.ok_or(Refusal::NotRunning)?;
    if facts.synchronous || record.synchronous.is_some() {
        let listed = record.synchronous.iter().flatten().any(|name| name == facts.pod);
        return if listed { Ok(Claim::Standby) } else { Err(Refusal::NotListed) };
    }
    let least = record.position.unwrap_or_default();
    if mine.epoch < least.epoch || mine.offset.saturating_add(ALLOWANCE) < least.offset {
        return Err(Refusal::Behind);
    }
    let rivals = facts.peers.iter().filter(|peer| peer.identity.is_some());
    let outranked = |peer: &PeerSeen| {
        peer.position.is_some_and(|theirs| theirs > mine || (theirs == mine && peer.pod.as_str() < facts.pod))
    };
    // A rival that has more but does not take the Lease must not block it for ever.
    if facts.unchanged < facts.lease * 3 && rivals.clone().any(outranked) {
        return Err(Refusal::Outranked);
    }
    // It lost nothing, and this one may have.
    if facts.unchanged < facts.lease * 3
        && mine < least
        && rivals.clone().any(|peer| record.led_by(&peer.pod))
    {
        return Err(Refusal::LastPrimaryIsThere);
    }
    Ok(Claim::Standby)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn whole(led: bool) -> Data {
        Data::Whole { identity: "77".to_owned(), led, position: Position::default() }
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    fn record() -> Record {
        Record {
            holder: Some("db-0".to_owned()),
            initialised: Some("77".to_owned()),
            position: Some(at(1 << 30)),
            fenced: true,
            ..Record::default()
        }
    }

    fn facts<'a>(pod: &'a str, data: &'a Data, record: Option<&'a Record>) -> Facts<'a> {
        let ordinal = pod.rsplit('-').next().unwrap().parse().unwrap();
        Facts {
            pod,
            ordinal,
            replicas: 3,
            synchronous: false,
            data,
            standby: Some(at(1 << 30)),
            record,
            unchanged: LEASE,
            lease: LEASE,
            peers: &[],
        }
    }

    fn peer(pod: &str, offset: u64) -> PeerSeen {
        PeerSeen { pod: pod.to_owned(), identity: Some("77".to_owned()), position: Some(at(offset)) }
    }

    #[test]
    fn only_the_first_makes_data_and_only_once() {
        assert_eq!(claim(&facts("db-0", &Data::Empty, None)), Ok(Claim::First));
        assert_eq!(claim(&facts("db-0", &Data::Unfinished, None)), Ok(Claim::First));
        assert_eq!(claim(&facts("db-1", &Data::Empty, None)), Err(Refusal::NotFirst));
        let made = record();
        assert_eq!(claim(&facts("db-0", &Data::Empty, Some(&made))), Err(Refusal::NoData));
    }

    #[test]
    fn a_deleted_lease_is_no_leave_to_make_data_again() {
        let peers = [peer("db-1", 5)];
        let alone = Facts { peers: &peers, ..facts("db-0", &Data::Empty, None) };
        assert_eq!(claim(&alone), Err(Refusal::NoData));
        let led = whole(true);
        let soon = Facts { unchanged: Duration::ZERO, peers: &peers, ..facts("db-0", &led, None) };
        assert_eq!(claim(&soon), Err(Refusal::Yields));
        assert_eq!(claim(&Facts { unchanged: LEASE, ..soon }), Ok(Claim::Own));
        let following = whole(false);
        assert_eq!(claim(&facts("db-1", &following, None)), Err(Refusal::Yields));
    }

    #[test]
    fn data_of_another_database_is_never_served() {
        let foreign = Data::Whole { identity: "78".to_owned(), led: true, position: at(0) };
        let made = record();
        assert_eq!(claim(&facts("db-0", &foreign, Some(&made))), Err(Refusal::Foreign));
    }

    #[test]
    fn the_last_primary_may_always_come_back_and_an_earlier_one_never() {
        let (led, made) = (whole(true), record());
        assert_eq!(claim(&facts("db-0", &led, Some(&made))), Ok(Claim::Own));
        assert_eq!(claim(&facts("db-1", &led, Some(&made))), Err(Refusal::Stale));
        let released = Record { holder: None, last_holder: Some("db-0".to_owned()), ..record() };
        assert_eq!(claim(&facts("db-0", &led, Some(&released))), Ok(Claim::Own));
    }

    #[test]
    fn a_switchover_leaves_the_one_that_is_asked_its_time() {
        let (following, led) = (whole(false), whole(true));
        let asked = Record {
            holder: None,
            last_holder: Some("db-0".to_owned()),
            switchover_to: Some("db-1".to_owned()),
            ..record()
        };
        let soon = |pod, data| Facts { unchanged: Duration::from_secs(1), ..facts(pod, data, Some(&asked)) };
        assert_eq!(claim(&soon("db-1", &following)), Ok(Claim::Standby));
        assert_eq!(claim(&soon("db-2", &following)), Err(Refusal::Yields));
        assert_eq!(claim(&soon("db-0", &led)), Err(Refusal::Yields));
        assert_eq!(claim(&facts("db-0", &led, Some(&asked))), Ok(Claim::Own));
    }

    #[test]
    fn the_most_advanced_that_is_not_far_behind_goes_first() {
        let (data, made) = (whole(false), record());
        let ahead = [peer("db-2", (1 << 30) + 1)];
        let second = Facts { peers: &ahead, ..facts("db-1", &data, Some(&made)) };
        assert_eq!(claim(&second), Err(Refusal::Outranked));
        assert_eq!(claim(&Facts { unchanged: LEASE * 3, ..second }), Ok(Claim::Standby));
        let equal = [peer("db-2", 1 << 30)];
        assert_eq!(claim(&Facts { peers: &equal, ..facts("db-1", &data, Some(&made)) }), Ok(Claim::Standby));
        let far = Facts { standby: Some(at((1 << 30) - ALLOWANCE - 1)), ..facts("db-1", &data, Some(&made)) };
        assert_eq!(claim(&far), Err(Refusal::Behind));
        assert_eq!(claim(&Facts { standby: None, ..far }), Err(Refusal::NotRunning));
        let last = [PeerSeen { position: None, ..peer("db-0", 0) }];
        let behind =
            Facts { standby: Some(at((1 << 30) - 5)), peers: &last, ..facts("db-1", &data, Some(&made)) };
        assert_eq!(claim(&behind), Err(Refusal::LastPrimaryIsThere));
    }

    #[test]
    fn an_instance_that_shall_go_is_not_promoted() {
        let (data, made) = (whole(false), record());
        let two = Facts { replicas: 1, ..facts("db-1", &data, Some(&made)) };
        assert_eq!(claim(&two), Err(Refusal::Surplus));
    }

    proptest! {
        #[test]
        fn with_synchronous_replication_only_a_listed_standby_is_promoted(
            configured: bool,
            listed in proptest::option::of(proptest::collection::vec("db-[0-4]", 0..3)),
            pod in "db-[1-4]",
            offset: u64,
            minutes in 0_u64..600,
            others in proptest::collection::vec(("db-[0-4]", any::<u64>()), 0..4),
        ) {
            let data = whole(false);
            let record = Record { synchronous: listed.clone(), ..record() };
            let peers: Vec<PeerSeen> = others.iter().map(|(pod, offset)| peer(pod, *offset)).collect();
            let facts = Facts {
                synchronous: configured,
                replicas: 5,
                standby: Some(at(offset)),
                unchanged: Duration::from_secs(minutes * 60),
                peers: &peers,
                ..facts(&pod, &data, Some(&record))
            };
            if (configured || listed.is_some()) && claim(&facts).is_ok() {
                prop_assert!(listed.is_some_and(|names| names.contains(&pod)));
            }
        }
    }
}
