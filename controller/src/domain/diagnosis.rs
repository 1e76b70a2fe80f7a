//! The six lights of a cluster, computed from what the controller itself observed.
//!
//! Nothing is claimed that was not seen: a light is `on` with the time and place of
//! the observation, `failed` with its cause, and `off` while nothing was observed.

use std::net::IpAddr;

use super::attempt::{Attempt, Outcome, Stage};
use super::{Agent, Cause, Cluster, ClusterState, Facts, Refused, Time};

/// What is known when the question is asked.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The cluster's record.
    pub cluster: &'a Cluster,
    /// Its present agent, if one enrolled.
    pub agent: Option<&'a Agent>,
    /// Its session, if it has one.
    pub session: Option<Presence>,
    /// Latest attempts, newest first.
    pub attempts: &'a [Attempt],
}

/// A session, as far as the lights need it.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Since when.
    pub since: Time,
    /// From where.
    pub source: IpAddr,
    /// What the agent told of its cluster, once it did.
    pub facts: Option<Facts>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The cluster's state.
    pub state: ClusterState,
    /// One light per stage, in order.
    pub lights: Vec<Light>,
    /// What is going on, in one sentence.
    pub summary: String,
    /// What to do next, in one sentence; empty when there is nothing to do.
    pub next: String,
}

/// One light.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Light {
    /// The stage it stands for.
    pub stage: Stage,
    /// What it shows.
    pub state: LightState,
    /// When that was seen.
    pub at: Option<Time>,
    /// Where it came from.
    pub source: Option<IpAddr>,
    /// What exactly was seen.
    pub detail: String,
}

/// What a light shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LightState {
    /// Seen to work.
    On,
    /// Nothing seen yet.
    Off,
    /// Seen to fail.
    Failed,
}

impl LightState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Failed => "failed",
        }
    }
}

impl Light {
    fn on(stage: Stage, at: Time, source: Option<IpAddr>, detail: impl Into<String>) -> Self {
        Self { stage, state: LightState::On, at: Some(at), source, detail: detail.into() }
    }

    fn off(stage: Stage, detail: impl Into<String>) -> Self {
        Self { stage, state: LightState::Off, at: None, source: None, detail: detail.into() }
    }

    fn failed(stage: Stage, at: Time, source: IpAddr, cause: Cause, detail: &str) -> Self {
        let detail = match detail {
            "" => cause.summary().to_owned(),
            seen => format!("{} ({seen})", cause.summary()),
        };
        Self { stage, state: LightState::Failed, at: Some(at), source: Some(source), detail }
    }
}

/// What the observations come to.
#[must_use]
pub fn diagnose(seen: &Observed<'_>) -> Diagnosis {
    let state = ClusterState::of(seen.cluster, seen.agent.is_some(), seen.session.is_some());
    // An attempt that is newer than the agent's last good moment tells more than
    // the agent's record: somebody tries to enrol anew.
    let latest = seen.attempts.first().filter(|a| {
        seen.session.is_none()
            && seen.agent.is_none_or(|agent| a.at > agent.last_seen_at.unwrap_or(agent.enrolled_at))
    });
    let lights = match (&seen.session, seen.agent, latest) {
        (Some(session), agent, _) => lights_of_session(session, agent),
        (None, _, Some(attempt)) if seen.agent.is_none() || attempt.outcome != Outcome::Passed => {
            lights_of_attempt(attempt)
        }
        (None, Some(agent), _) => lights_of_absence(agent),
        (None, None, _) => {
            Stage::ALL.into_iter().map(|stage| Light::off(stage, "nothing seen yet")).collect()
        }
    };
    let (summary, next) = words(seen, state, latest);
    Diagnosis { state, lights, summary, next }
}

fn lights_of_session(session: &Presence, agent: Option<&Agent>) -> Vec<Light> {
    let enrolled = agent.map_or(session.since, |a| a.enrolled_at);
    let from = Some(session.source);
    let issued = agent.map_or_else(String::new, |a| format!("certificate number {}", a.generation));
    let mut lights = vec![
        Light::on(Stage::Reached, session.since, from, "the agent reaches us"),
        Light::on(Stage::Tls, session.since, from, "both ends proved their keys"),
        Light::on(Stage::Token, enrolled, None, "the join token was redeemed"),
        Light::on(Stage::Identity, enrolled, None, issued),
        Light::on(Stage::Tunnel, session.since, from, tunnel_words(session.facts.as_ref())),
    ];
    lights.push(match &session.facts {
        None => Light::off(Stage::Capabilities, "the agent has not reported yet"),
        Some(facts) if facts.problem.is_empty() => Light::on(
            Stage::Capabilities,
            session.since,
            from,
            format!("Kubernetes {}, {} nodes", facts.kubernetes_version, facts.nodes),
        ),
        Some(facts) => Light {
            stage: Stage::Capabilities,
            state: LightState::Failed,
            at: Some(session.since),
            source: from,
            detail: facts.problem.clone(),
        },
    });
    lights
}

/// The way is worth a word when it is not the straight one.
fn tunnel_words(facts: Option<&Facts>) -> String {
    match facts.map(|facts| facts.route.as_str()) {
        None | Some("" | "direct") => "heartbeats are answered".to_owned(),
        Some(route) => format!("heartbeats are answered; the way: {route}"),
    }
}

fn lights_of_attempt(attempt: &Attempt) -> Vec<Light> {
    let light = |stage: Stage| match (attempt.cause, attempt.reached_at(stage)) {
        (Some(cause), _) if stage == attempt.stage => {
            Light::failed(stage, attempt.at, attempt.source, cause, &attempt.detail)
        }
        (_, Some(at)) if stage <= attempt.stage => Light::on(stage, at, Some(attempt.source), ""),
        _ => Light::off(stage, if attempt.outcome == Outcome::Running { "waiting" } else { "not reached" }),
    };
    Stage::ALL.into_iter().map(light).collect()
}

fn lights_of_absence(agent: &Agent) -> Vec<Light> {
    let seen = agent.last_seen_at.unwrap_or(agent.enrolled_at);
    let from = agent.last_source;
    let turned_away = newer_refusal(agent);
    let mut lights = vec![
        Light::on(Stage::Reached, seen, from, "the agent reached us"),
        Light::on(Stage::Tls, seen, from, "both ends proved their keys"),
        Light::on(Stage::Token, agent.enrolled_at, None, "the join token was redeemed"),
        Light::on(
            Stage::Identity,
            agent.enrolled_at,
            None,
            format!("certificate number {}", agent.generation),
        ),
    ];
    lights.push(match turned_away {
        Some(r) => Light::failed(Stage::Tunnel, r.at, r.source, r.cause, &r.detail),
        None => Light::off(Stage::Tunnel, "no connection at the moment"),
    });
    lights.push(Light::off(Stage::Capabilities, "known again once the tunnel is up"));
    lights
}

/// The refusal that explains why the agent is away, when there is one.
fn newer_refusal(agent: &Agent) -> Option<&Refused> {
    let refusal = agent.last_refusal.as_ref()?;
    agent.last_seen_at.is_none_or(|seen| refusal.at >= seen).then_some(refusal)
}

fn words(seen: &Observed<'_>, state: ClusterState, latest: Option<&Attempt>) -> (String, String) {
    if let Some(lock) = &seen.cluster.lock {
        let next = "Unlock the cluster when the reason is gone.";
        return (format!("The cluster is locked: {}", lock.message), next.to_owned());
    }
    if let Some(reason) = seen.agent.and_then(|a| a.locked.as_ref()) {
        return (reason.message.clone(), Cause::CounterMismatch.fix().to_owned());
    }
    if let Some((cause, attempt)) = latest.and_then(|a| Some((a.cause?, a))) {
        return (
            format!("The last attempt stopped: {}", cause_text(cause, &attempt.detail)),
            cause.fix().to_owned(),
        );
    }
    match state {
        ClusterState::Connected => connected_words(seen.session.as_ref()),
        ClusterState::Disconnected => match seen.agent.and_then(newer_refusal) {
            Some(r) => (
                format!("The agent was turned away: {}", cause_text(r.cause, &r.detail)),
                r.cause.fix().to_owned(),
            ),
            None => (
                "The agent has no connection to us at the moment.".to_owned(),
                "Look at the agent's log in the cluster: kubectl -n culvert logs deploy/culvert-agent"
                    .to_owned(),
            ),
        },
        _ if latest.is_some() => ("An agent is enrolling.".to_owned(), "Wait a moment.".to_owned()),
        _ => (
            "Nothing has reached us for this cluster yet.".to_owned(),
            "Run the helm command of a join token; `culvert-agent preflight` tells what is in the way."
                .to_owned(),
        ),
    }
}

fn connected_words(session: Option<&Presence>) -> (String, String) {
    match session.and_then(|s| s.facts.as_ref()).filter(|f| !f.problem.is_empty()) {
        Some(facts) => (
            format!("The tunnel is up, but a probe of the cluster failed: {}", facts.problem),
            "Look at the agent's permissions and the API server's health in the cluster.".to_owned(),
        ),
        None => ("The cluster is connected.".to_owned(), String::new()),
    }
}

fn cause_text(cause: Cause, detail: &str) -> String {
    if detail.is_empty() { cause.summary().to_owned() } else { format!("{} ({detail})", cause.summary()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentId, ClusterId, Labels, Lock};

    fn at(seconds: i64) -> Time {
        Time::UNIX_EPOCH + time::Duration::seconds(seconds)
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn cluster() -> Cluster {
        Cluster {
            id: ClusterId::generate(),
            name: "a".parse().unwrap(),
            labels: Labels::default(),
            created_at: at(0),
            lock: None,
        }
    }

    fn agent(cluster: &Cluster) -> Agent {
        Agent {
            id: AgentId::generate(),
            cluster: cluster.id,
            version: "0.1.0".to_owned(),
            enrolled_at: at(10),
            revoked_at: None,
            locked: None,
            generation: 1,
            seen_generation: 1,
            certificate_not_after: at(1000),
            last_seen_at: Some(at(20)),
            last_source: Some(HERE),
            last_epoch: 1,
            facts: None,
            last_refusal: None,
        }
    }

    fn shown(diagnosis: &Diagnosis) -> Vec<&'static str> {
        diagnosis.lights.iter().map(|l| l.state.as_str()).collect()
    }

    #[test]
    fn nothing_seen_is_all_off() {
        let cluster = cluster();
        let d = diagnose(&Observed { cluster: &cluster, agent: None, session: None, attempts: &[] });
        assert_eq!(d.state, ClusterState::Pending);
        assert_eq!(shown(&d), ["off"; 6]);
        assert!(!d.next.is_empty());
    }

    #[test]
    fn a_failed_handshake_lights_what_came_before_it() {
        let cluster = cluster();
        let mut attempt = Attempt::begin(cluster.id, HERE, at(5));
        attempt.stop(Stage::Tls, Outcome::Failed, Cause::WrongPin, "unknown_ca".to_owned());
        let d = diagnose(&Observed { cluster: &cluster, agent: None, session: None, attempts: &[attempt] });
        assert_eq!(shown(&d), ["on", "failed", "off", "off", "off", "off"]);
        assert_eq!(d.next, Cause::WrongPin.fix());
        assert!(d.lights[1].detail.contains("unknown_ca"));
    }

    #[test]
    fn a_connected_cluster_is_lit_and_a_failed_probe_shows() {
        let cluster = cluster();
        let agent = agent(&cluster);
        let facts = Facts { kubernetes_version: "v1.35.4".to_owned(), nodes: 3, ..Facts::default() };
        let seen = |facts| Observed {
            cluster: &cluster,
            agent: Some(&agent),
            session: Some(Presence { since: at(30), source: HERE, facts }),
            attempts: &[],
        };
        assert_eq!(shown(&diagnose(&seen(Some(facts.clone())))), ["on"; 6]);
        assert_eq!(diagnose(&seen(None)).lights[5].state, LightState::Off);
        let broken = diagnose(&seen(Some(Facts { problem: "forbidden".to_owned(), ..facts })));
        assert_eq!(broken.lights[5].state, LightState::Failed);
        assert!(broken.summary.contains("forbidden"));
        assert_eq!(shown(&broken)[..5], ["on"; 5]);
    }

    #[test]
    fn an_agent_that_was_turned_away_says_why() {
        let cluster = cluster();
        let mut agent = agent(&cluster);
        agent.last_refusal = Some(Refused {
            cause: Cause::VersionTooOld,
            detail: "0.0.1".to_owned(),
            source: HERE,
            at: at(40),
        });
        let d = diagnose(&Observed { cluster: &cluster, agent: Some(&agent), session: None, attempts: &[] });
        assert_eq!(d.state, ClusterState::Disconnected);
        assert_eq!(d.lights[4].state, LightState::Failed);
        assert_eq!(d.next, Cause::VersionTooOld.fix());
        agent.last_seen_at = Some(at(50));
        let later =
            diagnose(&Observed { cluster: &cluster, agent: Some(&agent), session: None, attempts: &[] });
        assert_eq!(later.lights[4].state, LightState::Off);
    }

    #[test]
    fn a_lock_is_said_first() {
        let cluster = Cluster { lock: Some(Lock { message: "audit".to_owned(), at: at(1) }), ..cluster() };
        let d = diagnose(&Observed { cluster: &cluster, agent: None, session: None, attempts: &[] });
        assert_eq!(d.state, ClusterState::Locked);
        assert!(d.summary.contains("audit"));
    }
}
