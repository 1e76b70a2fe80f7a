//! Our process in a customer's cluster, as it is recorded and as it is seen.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AgentId, Cause, ClusterId, Lock, Time};

/// An agent's record. What is known of its live connection is merged by the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id, which its certificate carries.
    pub id: AgentId,
    /// The cluster it speaks for.
    pub cluster: ClusterId,
    /// Version it last told.
    pub version: String,
    /// When it enrolled.
    pub enrolled_at: Time,
    /// From when on its identity is refused: a later agent took the cluster over.
    pub revoked_at: Option<Time>,
    /// Set when two holders of its key were noticed.
    pub locked: Option<Lock>,
    /// Counter of its newest certificate.
    pub generation: u64,
    /// Counter of the newest certificate it was seen to use.
    pub seen_generation: u64,
    /// End of its newest certificate.
    pub certificate_not_after: Time,
    /// When it was last here, as far as it was written down.
    pub last_seen_at: Option<Time>,
    /// Where it last came from.
    pub last_source: Option<IpAddr>,
    /// Highest epoch it was given.
    pub last_epoch: u64,
    /// What it last told of its cluster.
    pub facts: Option<Facts>,
    /// Why it was last turned away.
    pub last_refusal: Option<Refused>,
}

/// A time when somebody was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub cause: Cause,
    /// What exactly was seen.
    pub detail: String,
    /// Where they came from.
    pub source: IpAddr,
    /// When.
    pub at: Time,
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It answers heartbeats.
    Connected,
    /// It may come, and is not here.
    Disconnected,
    /// It is refused: another agent took over, or its key was found in two places.
    Revoked,
}

impl AgentState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Revoked => "revoked",
        }
    }
}

/// What an agent found in its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The API server's version.
    pub kubernetes_version: String,
    /// How many nodes.
    pub nodes: u32,
    /// Names of the storage classes.
    pub storage_classes: Vec<String>,
    /// The uid of the namespace kube-system.
    pub cluster_uid: String,
    /// Median time of a small request from agent to API server, microseconds.
    pub api_latency_us: u64,
    /// How the agent reaches us: `direct` or `proxy`.
    pub route: String,
    /// The agent's local policy in one sentence; empty when it allows all.
    pub policy: String,
    /// A probe that failed, and why; empty when none did.
    pub problem: String,
    /// Public key to which secrets for the cluster are sealed, in hexadecimal digits; empty when
    /// the agent opens none.
    #[serde(default)]
    pub sealing_key: String,
}

/// The most bytes any text an agent tells of itself may keep.
const FACT_MAX: usize = 500;

impl Facts {
    /// The same facts with every text and list cut to what may be stored: an agent
    /// is a stranger's program.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [
            &mut self.kubernetes_version,
            &mut self.cluster_uid,
            &mut self.route,
            &mut self.policy,
            &mut self.problem,
            &mut self.sealing_key,
        ] {
            *text = bounded_text(text, FACT_MAX);
        }
        self.storage_classes.truncate(100);
        for class in &mut self.storage_classes {
            *class = bounded_text(class, 253);
        }
        self
    }
}

/// The first `max` characters of `text`, without control characters.
#[must_use]
pub fn bounded_text(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}

/// A semantic version, as far as we compare it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    /// A release is above its own candidates.
    release: bool,
}

/// A text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a version such as 1.2.3")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        if text.len() > 100 {
            return Err(NotAVersion);
        }
        let without_build = text.split_once('+').map_or(text, |(version, _)| version);
        let (numbers, release) = match without_build.split_once('-') {
            Some((numbers, _)) => (numbers, false),
            None => (without_build, true),
        };
        let mut parts = numbers.split('.').map(number);
        let mut next = || parts.next().flatten().ok_or(NotAVersion);
        let version = Self { major: next()?, minor: next()?, patch: next()?, release };
        if parts.next().is_some() { Err(NotAVersion) } else { Ok(version) }
    }
}

/// Digits only: `parse` alone would also take a plus sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let candidate = if self.release { "" } else { "-pre" };
        write!(f, "{}.{}.{}{candidate}", self.major, self.minor, self.patch)
    }
}

/// How far an agent's clock may be off: certificates begin that much in the past.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// How far the clock that showed `clock_ms` is ahead of ours, in milliseconds;
/// negative when it is behind.
#[must_use]
pub fn clock_skew_ms(clock_ms: i64, now: Time) -> i64 {
    let ours = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
    clock_ms.saturating_sub(ours)
}

/// Whether an agent with a clock that far off is let in.
#[must_use]
pub fn clock_is_fine(skew_ms: i64) -> bool {
    u128::from(skew_ms.unsigned_abs()) <= CLOCK_SKEW_MAX.as_millis()
}

/// What the counter of a returning agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// The key is where we think it is.
    Fits,
    /// Somebody used a later certificate of this identity: the key is in two places.
    Behind,
    /// We never gave such a counter.
    Unknown,
}

impl Agent {
    /// Judges the counter a returning agent shows. A certificate that was issued
    /// and never seen in use does not count against it: the answer that carried it
    /// may have been lost.
    #[must_use]
    pub fn judge_counter(&self, shown: u64) -> Counter {
        if shown > self.generation {
            Counter::Unknown
        } else if shown < self.seen_generation {
            Counter::Behind
        } else {
            Counter::Fits
        }
    }

    /// What it is doing, given whether it has a session.
    #[must_use]
    pub fn state(&self, connected: bool) -> AgentState {
        if self.revoked_at.is_some() || self.locked.is_some() {
            AgentState::Revoked
        } else if connected {
            AgentState::Connected
        } else {
            AgentState::Disconnected
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version("0.10.0") > version("0.9.9"));
        assert!(version("1.0.0-rc.1") < version("1.0.0"));
        assert_eq!(version("1.0.0+build.7"), version("1.0.0"));
        for bad in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "+1.2.3", "1.2.+3", "1.2.99999999999"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_clock_may_be_five_minutes_off() {
        let now = Time::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let skew = |seconds: i64| clock_skew_ms((1_000_000 + seconds) * 1000, now);
        assert_eq!(skew(-7), -7000);
        assert!(clock_is_fine(skew(300)) && clock_is_fine(skew(-300)));
        assert!(!clock_is_fine(skew(301)) && !clock_is_fine(skew(-301)));
        assert!(!clock_is_fine(clock_skew_ms(i64::MIN, now)));
    }

    fn agent(generation: u64, seen: u64) -> Agent {
        Agent {
            id: AgentId::generate(),
            cluster: ClusterId::generate(),
            version: "0.1.0".to_owned(),
            enrolled_at: Time::UNIX_EPOCH,
            revoked_at: None,
            locked: None,
            generation,
            seen_generation: seen,
            certificate_not_after: Time::UNIX_EPOCH,
            last_seen_at: None,
            last_source: None,
            last_epoch: 0,
            facts: None,
            last_refusal: None,
        }
    }

    #[test]
    fn a_lost_answer_is_not_a_second_holder() {
        assert_eq!(agent(8, 7).judge_counter(7), Counter::Fits);
        assert_eq!(agent(8, 7).judge_counter(8), Counter::Fits);
        assert_eq!(agent(8, 8).judge_counter(7), Counter::Behind);
        assert_eq!(agent(8, 7).judge_counter(9), Counter::Unknown);
    }

    #[test]
    fn a_locked_agent_counts_as_revoked() {
        let mut agent = agent(1, 1);
        assert_eq!(agent.state(true), AgentState::Connected);
        agent.locked = Some(Lock { message: "two holders".to_owned(), at: Time::UNIX_EPOCH });
        assert_eq!(agent.state(true), AgentState::Revoked);
    }

    proptest! {
        #[test]
        fn facts_of_any_length_are_cut(text in "\\PC{0,2000}", classes in 0usize..300) {
            let facts = Facts {
                policy: text.clone(),
                storage_classes: vec![text; classes],
                ..Facts::default()
            }.bounded();
            prop_assert!(facts.policy.chars().count() <= FACT_MAX);
            prop_assert!(facts.storage_classes.len() <= 100);
        }
    }
}
