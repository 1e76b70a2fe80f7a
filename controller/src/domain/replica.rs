//! Replicas of the controller, as they see one another.
//!
//! No clock is compared with another's: each replica counts its own beats in its row, and
//! the others count how many looks in a row saw the same number. A look that failed counts
//! for nothing, so while the database is away everybody is believed to be where they were.

use std::collections::HashMap;
use std::net::SocketAddr;

use uuid::Uuid;

use super::{AgentId, OrgId, Time};

/// Looks without a beat after which a replica counts as gone. There is one each second.
pub const GONE: u32 = 10;
/// Looks without a beat after which its rows are deleted.
pub const FORGOTTEN: u32 = 600;

/// A replica's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its id: one per process.
    pub id: Uuid,
    /// `host:port` at which the others reach it.
    pub address: String,
    /// Counts up while it lives.
    pub beat: u64,
}

/// The session of an agent, at whichever replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSession {
    /// Whose agent it is.
    pub org: OrgId,
    /// The agent.
    pub agent: AgentId,
    /// Who holds it.
    pub replica: Uuid,
    /// Its epoch.
    pub epoch: u64,
    /// The agent's process.
    pub instance: [u8; 16],
    /// Where it comes from.
    pub source: SocketAddr,
    /// Since when.
    pub connected_at: Time,
}

/// What one replica tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaNews {
    /// Somebody lost a right.
    Rights,
    /// Something of an organisation changed.
    Changes(OrgId),
    /// The session of an agent began or ended.
    Session(OrgId, AgentId),
}

/// The other replicas, as one sees them.
#[derive(Debug, Default)]
pub struct Others(HashMap<Uuid, Seen>);

#[derive(Debug)]
struct Seen {
    replica: Replica,
    /// Looks in a row without a new beat.
    missed: u32,
}

/// What a look at the others showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Seen for the first time.
    pub new: Vec<Uuid>,
    /// Just counted as gone, or their rows have just gone.
    pub gone: Vec<Uuid>,
    /// Without a beat for so long that their rows are to be deleted.
    pub forgotten: Vec<Uuid>,
}

impl Others {
    /// Takes note of the rows as they are now.
    pub fn look(&mut self, rows: Vec<Replica>) -> Look {
        let mut look = Look::default();
        let here: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        look.gone.extend(self.0.keys().filter(|id| !here.contains(id)));
        self.0.retain(|id, _| here.contains(id));
        for row in rows {
            let id = row.id;
            let Some(seen) = self.0.get_mut(&id) else {
                look.new.push(id);
                self.0.insert(id, Seen { replica: row, missed: 0 });
                continue;
            };
            seen.missed = if seen.replica.beat == row.beat { seen.missed.saturating_add(1) } else { 0 };
            seen.replica = row;
            match seen.missed {
                GONE => look.gone.push(id),
                FORGOTTEN.. => look.forgotten.push(id),
                _ => {}
            }
        }
        look
    }

    /// Where a replica is reached, while it counts as alive.
    #[must_use]
    pub fn address(&self, id: Uuid) -> Option<&str> {
        self.0.get(&id).filter(|seen| seen.missed < GONE).map(|seen| seen.replica.address.as_str())
    }

    /// All whose rows are there.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u128, beat: u64) -> Replica {
        Replica { id: Uuid::from_u128(id), address: format!("r{id}:1"), beat }
    }

    #[test]
    fn a_replica_without_a_beat_is_gone_and_one_with_a_beat_is_back() {
        let (mut others, id) = (Others::default(), Uuid::from_u128(1));
        assert_eq!(others.look(vec![row(1, 7)]).new, [id]);
        for _ in 1..GONE {
            assert_eq!(others.look(vec![row(1, 7)]), Look::default());
            assert_eq!(others.address(id), Some("r1:1"));
        }
        assert_eq!(others.look(vec![row(1, 7)]).gone, [id]);
        assert_eq!(others.address(id), None);
        assert_eq!(others.look(vec![row(1, 8)]), Look::default());
        assert_eq!(others.address(id), Some("r1:1"));
    }

    #[test]
    fn a_replica_that_left_is_gone_at_once() {
        let mut others = Others::default();
        others.look(vec![row(1, 1), row(2, 1)]);
        assert_eq!(others.look(vec![row(2, 2)]).gone, [Uuid::from_u128(1)]);
        assert_eq!(others.address(Uuid::from_u128(1)), None);
        assert!(others.address(Uuid::from_u128(2)).is_some());
    }

    #[test]
    fn the_rows_of_one_that_never_comes_back_are_deleted() {
        let mut others = Others::default();
        let forgotten = (0..=FORGOTTEN).map(|_| others.look(vec![row(1, 1)]).forgotten.len()).sum::<usize>();
        assert_eq!(forgotten, 1);
    }
}
