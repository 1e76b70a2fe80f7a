//! Recent figures of data services and operators, in memory: agents tell them, people look at them.
//!
//! They are lost when the process ends and are told anew within seconds, so nothing is stored. The
//! time of a figure is ours, because a cluster's clock may be off by minutes.

mod window;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use culvert_tunnel::AgentKey;

use self::window::{Owner, Window};
use super::{App, Error, Untaken};
use crate::domain::figures::{Back, SeriesKey};
use crate::domain::{AgentId, Caller, ClusterId, ClusterRef, DataServiceRef, OrgId, Time};

pub use self::window::{Figures, Series, SourceProblem};

/// Between two tellings of one agent at least; what comes sooner is not taken.
const PERIOD_MIN: Duration = Duration::from_secs(5);
/// The most sources in one telling; an agent tells 20 at once.
pub const SOURCES_MAX: usize = 50;
/// Tellings of one agent in each [`PERIOD_MIN`]: a cluster of 1000 instances needs 50.
const TELLINGS_MAX: u32 = 60;
/// The most agents whose pace is remembered.
const AGENTS_MAX: usize = 10_000;

/// Whose figures they are, in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Of {
    /// Those of a data service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        service: String,
    },
    /// Those of the operator.
    Operator,
}

/// What one program told of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Whose figures they are.
    pub of: Of,
    /// The instance.
    pub instance: String,
    /// Why nothing was told.
    pub problem: Option<String>,
    /// What was told.
    pub samples: Vec<(SeriesKey, f64)>,
}

/// All windows, and how often agents tell.
#[derive(Debug, Default)]
pub(super) struct AllFigures {
    window: Mutex<Window>,
    paces: Mutex<HashMap<AgentKey, Pace>>,
}

/// How often an agent told since a moment.
#[derive(Debug, Clone, Copy)]
struct Pace {
    since: Time,
    tellings: u32,
}

impl AllFigures {
    /// Counts a telling; `false` when it comes too soon.
    fn may_tell(&self, agent: AgentKey, now: Time) -> bool {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let young = |pace: &Pace| now - pace.since < PERIOD_MIN && now >= pace.since;
        if paces.len() >= AGENTS_MAX && !paces.contains_key(&agent) {
            paces.retain(|_, pace| young(pace));
        }
        let pace = paces.entry(agent).or_insert(Pace { since: now, tellings: 0 });
        if !young(pace) {
            *pace = Pace { since: now, tellings: 0 };
        }
        pace.tellings = pace.tellings.saturating_add(1);
        pace.tellings <= TELLINGS_MAX
    }
}

impl App {
    /// Takes what the instances of an agent's cluster measured; gives how many samples had no place.
    ///
    /// # Errors
    /// [`Untaken`]; then nothing of it was kept.
    pub async fn sample(&self, agent: AgentKey, sources: Vec<Source>) -> Result<u32, Untaken> {
        if sources.len() > SOURCES_MAX {
            return Err(Untaken::TooMany(SOURCES_MAX));
        }
        if !self.inner.figures.may_tell(agent, self.now()) {
            return Err(Untaken::TooOften);
        }
        let (org, id) = (OrgId::from(agent.org), AgentId::from(agent.agent));
        let record = self.live_record(org, id).await.map_err(|_| Untaken::Nobody)?;
        let now = self.now();
        let mut window = self.inner.figures.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = 0_u32;
        for source in sources {
            let Source { of, instance, problem, samples } = source;
            let key = Owner { org, cluster: record.cluster, of };
            refused = refused.saturating_add(window.take(&key, &instance, problem, samples, now));
        }
        Ok(refused)
    }

    /// The recent figures of a data service.
    pub async fn data_service_figures(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
        back: Back,
    ) -> Result<Figures, Error> {
        let service = super::data_services::only(self.store().org(caller).data_services_named(which).await?)?;
        let (namespace, service_name) = (service.namespace.to_string(), service.name.to_string());
        self.figures_of(caller, service.cluster, Of::Service { namespace, service: service_name }, back).await
    }

    /// The recent figures of the operator in a cluster.
    pub async fn operator_figures(
        &self,
        caller: &Caller,
        which: &ClusterRef,
        back: Back,
    ) -> Result<Figures, Error> {
        let cluster = self.cluster(caller, which).await?;
        self.figures_of(caller, cluster.cluster.id, Of::Operator, back).await
    }

    async fn figures_of(
        &self,
        caller: &Caller,
        cluster: ClusterId,
        of: Of,
        back: Back,
    ) -> Result<Figures, Error> {
        let key = Owner { org: caller.org(), cluster, of };
        let stale = self.is_stale(caller, cluster).await?;
        let until = self.now();
        let since = until - back.get();
        let window = self.inner.figures.window.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(window.figures(&key, since, until, stale))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_agent_that_tells_too_often_is_not_heard_and_others_are() {
        let figures = AllFigures::default();
        let agent = |n| AgentKey { org: Uuid::from_u128(1), agent: Uuid::from_u128(n) };
        let heard = (0..200).filter(|_| figures.may_tell(agent(1), Time::UNIX_EPOCH)).count();
        assert_eq!(heard, TELLINGS_MAX as usize);
        assert!(figures.may_tell(agent(2), Time::UNIX_EPOCH));
        assert!(figures.may_tell(agent(1), Time::UNIX_EPOCH + PERIOD_MIN));
        // A clock that goes back does not silence anyone.
        assert!(figures.may_tell(agent(1), Time::UNIX_EPOCH));
    }
}
