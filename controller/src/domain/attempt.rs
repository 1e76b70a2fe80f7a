//! Attempts to enrol, as the controller saw them: how far each came, and what
//! stopped it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AttemptId, Cause, ClusterId, Time};

/// How many attempts are kept of a cluster.
pub const KEPT: u64 = 20;

/// The steps from nothing to a working cluster, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A connection that named the token came in.
    Reached,
    /// The TLS handshake completed, so the agent accepted our key.
    Tls,
    /// The join token was accepted.
    Token,
    /// A certificate was issued.
    Identity,
    /// The tunnel is up: heartbeats are echoed.
    Tunnel,
    /// The agent told what it found in the cluster.
    Capabilities,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 6] =
        [Self::Reached, Self::Tls, Self::Token, Self::Identity, Self::Tunnel, Self::Capabilities];

    /// The word on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Tls => "tls",
            Self::Token => "token",
            Self::Identity => "identity",
            Self::Tunnel => "tunnel",
            Self::Capabilities => "capabilities",
        }
    }

    /// The stage with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }
}

/// What has become of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It goes on.
    Running,
    /// It came to its end: the cluster is connected.
    Passed,
    /// We said no.
    Refused,
    /// It broke off: the network or the agent failed.
    Failed,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Running, Self::Passed, Self::Refused, Self::Failed];

    /// The word on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// The outcome with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The cluster it was for.
    pub cluster: ClusterId,
    /// When it began.
    pub at: Time,
    /// Where it came from.
    pub source: IpAddr,
    /// The stage it is in, or was stopped in.
    pub stage: Stage,
    /// When each stage was reached.
    pub reached: Vec<(Stage, Time)>,
    /// What has become of it.
    pub outcome: Outcome,
    /// What stopped it.
    pub cause: Option<Cause>,
    /// What exactly was seen.
    pub detail: String,
    /// Version the agent told, once it did.
    pub agent_version: Option<String>,
}

impl Attempt {
    /// A connection that just came in.
    #[must_use]
    pub fn begin(cluster: ClusterId, source: IpAddr, now: Time) -> Self {
        Self {
            id: AttemptId::generate(),
            cluster,
            at: now,
            source,
            stage: Stage::Reached,
            reached: vec![(Stage::Reached, now)],
            outcome: Outcome::Running,
            cause: None,
            detail: String::new(),
            agent_version: None,
        }
    }

    /// Notes that `stage` was reached; going back changes nothing.
    pub fn advance(&mut self, stage: Stage, now: Time) {
        if stage <= self.stage && self.outcome == Outcome::Running {
            return;
        }
        // A refused agent that tries again on the same connection goes on.
        self.outcome = if stage == Stage::Capabilities { Outcome::Passed } else { Outcome::Running };
        self.cause = None;
        self.detail.clear();
        for passed in Stage::ALL.into_iter().filter(|s| *s <= stage) {
            if !self.reached.iter().any(|(known, _)| *known == passed) {
                self.reached.push((passed, now));
            }
        }
        self.stage = stage;
    }

    /// Notes what stopped it in `stage`.
    pub fn stop(&mut self, stage: Stage, outcome: Outcome, cause: Cause, detail: String) {
        self.stage = stage;
        self.outcome = outcome;
        self.cause = Some(cause);
        self.detail = detail;
    }

    /// When `stage` was reached.
    #[must_use]
    pub fn reached_at(&self, stage: Stage) -> Option<Time> {
        self.reached.iter().find(|(known, _)| *known == stage).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_only_goes_forward() {
        let now = Time::UNIX_EPOCH;
        let mut attempt = Attempt::begin(ClusterId::generate(), [127, 0, 0, 1].into(), now);
        attempt.advance(Stage::Token, now);
        attempt.advance(Stage::Tls, now);
        assert_eq!(attempt.stage, Stage::Token);
        assert_eq!(attempt.reached.len(), 3);
        attempt.advance(Stage::Capabilities, now);
        assert_eq!(attempt.outcome, Outcome::Passed);
    }

    #[test]
    fn a_stopped_attempt_names_its_cause() {
        let now = Time::UNIX_EPOCH;
        let mut attempt = Attempt::begin(ClusterId::generate(), [127, 0, 0, 1].into(), now);
        attempt.stop(Stage::Tls, Outcome::Failed, Cause::WrongPin, "alert 48".to_owned());
        assert_eq!((attempt.stage, attempt.outcome), (Stage::Tls, Outcome::Failed));
        assert_eq!(attempt.reached_at(Stage::Tls), None);
    }

    #[test]
    fn words_are_read_back() {
        assert!(Stage::ALL.into_iter().all(|s| Stage::from_word(s.as_str()) == Some(s)));
        assert!(Outcome::ALL.into_iter().all(|o| Outcome::from_word(o.as_str()) == Some(o)));
    }
}
