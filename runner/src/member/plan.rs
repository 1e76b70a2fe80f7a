//! What a member does next with its engine: a pure function of how things stand.
use crate::engine::{Data, Peer, Role};

/// How things stand.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The pod is asked to end.
    pub stopping: bool,
    /// This instance holds the Lease, and its hold has not run out.
    pub leading: bool,
    /// The Lease says that data was made once.
    pub initialised: bool,
    /// The Lease has the identity of the data here.
    pub recorded: bool,
    /// What lies on the volume.
    pub data: &'a Data,
    /// As what the engine's process runs; none when there is no process.
    pub running: Option<&'a Role>,
    /// Whether the engine answers.
    pub answers: bool,
    /// The member that holds the Lease, when it is another and has renewed it lately.
    pub primary: Option<&'a Peer>,
    /// Users and passwords are as they shall be.
    pub settled: bool,
    /// Another shall become primary, and it is ready.
    pub hand_over: bool,
    /// The engine does not come up here, and others may do better.
    pub give_up: bool,
    /// The data was compared with the primary's, and fits.
    pub joined: Option<&'a Peer>,
    /// It follows, but receives nothing for long.
    pub astray: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Make the first data.
    Initialise,
    /// Make the data a copy of the primary's.
    Join(Peer),
    /// Start the engine.
    Start(Role),
    /// Make the standby primary.
    Promote,
    /// Bring users and passwords.
    Settle,
    /// Follow another primary.
    Follow(Peer),
    /// End the engine in order.
    Stop,
    /// End the engine at once.
    Abort,
    /// Give the Lease back.
    Release,
    /// End this process.
    Exit,
}

/// Decides.
#[must_use]
pub fn next(facts: &Facts<'_>) -> Act {
    match facts.running {
        Some(role) if facts.stopping => stop(role, facts),
        Some(Role::Primary) => lead(facts),
        Some(Role::Replica(upstream)) => follow(facts, upstream.as_ref()),
        None if facts.stopping => {
            if facts.leading {
                Act::Release
            } else {
                Act::Exit
            }
        }
        None if facts.leading => begin_as_primary(facts),
        None => begin_as_replica(facts),
    }
}

fn stop(role: &Role, facts: &Facts<'_>) -> Act {
    // Its last words would be written under the eyes of another primary.
    if *role == Role::Primary && !facts.leading { Act::Abort } else { Act::Stop }
}

fn lead(facts: &Facts<'_>) -> Act {
    if !facts.leading {
        return Act::Abort;
    }
    if facts.hand_over {
        return Act::Stop;
    }
    if facts.answers && !facts.settled { Act::Settle } else { Act::Nothing }
}

fn follow(facts: &Facts<'_>, upstream: Option<&Peer>) -> Act {
    if facts.leading {
        return if facts.answers { Act::Promote } else { Act::Nothing };
    }
    match facts.primary {
        Some(_) if facts.astray => Act::Stop,
        Some(primary) if upstream != Some(primary) => Act::Follow(primary.clone()),
        _ if facts.answers && !facts.settled => Act::Settle,
        _ => Act::Nothing,
    }
}

fn begin_as_primary(facts: &Facts<'_>) -> Act {
    if facts.hand_over || facts.give_up {
        return Act::Release;
    }
    match facts.data {
        Data::Empty | Data::Unfinished if !facts.initialised => Act::Initialise,
        Data::Empty | Data::Unfinished => Act::Release,
        // The Lease has to know of the data before anybody writes into it.
        Data::Whole { .. } if !facts.recorded => Act::Nothing,
        Data::Whole { led: true, .. } => Act::Start(Role::Primary),
        Data::Whole { led: false, .. } => Act::Start(Role::Replica(None)),
    }
}

fn begin_as_replica(facts: &Facts<'_>) -> Act {
    let Some(primary) = facts.primary else {
        let follower = matches!(facts.data, Data::Whole { led: false, .. });
        return if follower { Act::Start(Role::Replica(None)) } else { Act::Nothing };
    };
    match facts.data {
        _ if !facts.initialised => Act::Nothing,
        Data::Whole { .. } if facts.joined == Some(primary) => {
            Act::Start(Role::Replica(Some(primary.clone())))
        }
        _ => Act::Join(primary.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Position;

    fn whole(led: bool) -> Data {
        Data::Whole { identity: "7".to_owned(), led, position: Position::default() }
    }

    fn peer() -> Peer {
        Peer { pod: "db-0".into(), host: "h".into(), port: 1, runner_port: 2 }
    }

    fn facts(data: &Data) -> Facts<'_> {
        Facts {
            stopping: false,
            leading: false,
            initialised: true,
            recorded: true,
            data,
            running: None,
            answers: true,
            primary: None,
            settled: true,
            hand_over: false,
            give_up: false,
            joined: None,
            astray: false,
        }
    }

    #[test]
    fn data_is_made_only_when_it_never_was() {
        for data in [Data::Empty, Data::Unfinished] {
            let first = Facts { leading: true, initialised: false, recorded: false, ..facts(&data) };
            assert_eq!(next(&first), Act::Initialise);
            assert_eq!(next(&Facts { initialised: true, ..first.clone() }), Act::Release);
            assert_eq!(next(&Facts { leading: false, ..first }), Act::Nothing);
        }
    }

    #[test]
    fn nothing_is_started_as_primary_before_the_lease_knows_of_the_data() {
        let data = whole(true);
        let leading = Facts { leading: true, ..facts(&data) };
        assert_eq!(next(&leading), Act::Start(Role::Primary));
        assert_eq!(next(&Facts { recorded: false, ..leading }), Act::Nothing);
    }

    #[test]
    fn data_that_has_followed_is_promoted_and_not_started_as_primary() {
        let data = whole(false);
        let leading = Facts { leading: true, ..facts(&data) };
        assert_eq!(next(&leading), Act::Start(Role::Replica(None)));
        let role = Role::Replica(None);
        assert_eq!(next(&Facts { running: Some(&role), ..leading }), Act::Promote);
    }

    #[test]
    fn a_primary_without_the_lease_ends_at_once_even_while_it_stops() {
        let data = whole(true);
        let lost = Facts { running: Some(&Role::Primary), ..facts(&data) };
        assert_eq!(next(&lost), Act::Abort);
        assert_eq!(next(&Facts { stopping: true, ..lost }), Act::Abort);
    }

    #[test]
    fn an_old_primary_is_compared_with_the_new_one_before_it_starts() {
        let (data, peer) = (whole(true), peer());
        let back = Facts { primary: Some(&peer), ..facts(&data) };
        assert_eq!(next(&back), Act::Join(peer.clone()));
        assert_eq!(
            next(&Facts { joined: Some(&peer), ..back }),
            Act::Start(Role::Replica(Some(peer.clone())))
        );
        assert_eq!(next(&facts(&data)), Act::Nothing);
    }

    #[test]
    fn the_lease_is_given_back_last() {
        let data = whole(true);
        let stopping = Facts { stopping: true, leading: true, running: Some(&Role::Primary), ..facts(&data) };
        assert_eq!(next(&stopping), Act::Stop);
        assert_eq!(next(&Facts { running: None, ..stopping.clone() }), Act::Release);
        assert_eq!(next(&Facts { running: None, leading: false, ..stopping }), Act::Exit);
        let hand_over = Facts { hand_over: true, leading: true, ..facts(&data) };
        assert_eq!(next(&Facts { running: Some(&Role::Primary), ..hand_over.clone() }), Act::Stop);
        assert_eq!(next(&hand_over), Act::Release);
    }

    #[test]
    fn a_standby_that_went_astray_is_stopped_and_joins_again() {
        let (data, peer) = (whole(false), peer());
        let role = Role::Replica(Some(peer.clone()));
        let astray = Facts { primary: Some(&peer), running: Some(&role), astray: true, ..facts(&data) };
        assert_eq!(next(&astray), Act::Stop);
        assert_eq!(next(&Facts { astray: false, ..astray.clone() }), Act::Nothing);
        let none = Role::Replica(None);
        assert_eq!(next(&Facts { astray: false, running: Some(&none), ..astray }), Act::Follow(peer.clone()));
    }
}
