//! Why the agent is not connected, in words that help: what happened, why, and what to do next.
//!
//! A cause is logged once. While it lasts, a line every few minutes counts the
//! attempts; when another takes its place, that one is logged; when the agent
//! connects, one line says so.
use std::error::Error;
use std::fmt;
use std::time::Duration;

use culvert_pki::tls::TlsFailure;

/// Time between lines about a cause that lasts.
pub const REMINDER: Duration = Duration::from_secs(5 * 60);

/// How a cause is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It may pass: try again after the usual wait.
    Retry,
    /// It may pass, but not soon: try again after this long at least.
    RetryAfter(Duration),
    /// Nothing the agent does can mend it: the process ends.
    GiveUp,
}

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Stable name; the controller uses the same for the causes it can see.
    pub code: &'static str,
    /// What happened. Must not change from one attempt to the next.
    pub what: String,
    /// Why, with details that may change.
    pub why: String,
    /// What to do.
    pub next: String,
    /// How it is dealt with.
    pub remedy: Remedy,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.next)
    }
}

impl Cause {
    /// A cause that may pass.
    pub fn new(
        code: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Cause {
        Cause { code, what: what.into(), why: why.into(), next: next.into(), remedy: Remedy::Retry }
    }

    /// The same cause, dealt with otherwise.
    #[must_use]
    pub fn with(self, remedy: Remedy) -> Cause {
        Cause { remedy, ..self }
    }

    /// A TLS handshake with the controller that failed.
    pub fn tls(failure: &TlsFailure) -> Cause {
        let why = failure.to_string();
        let (what, next) = match failure {
            TlsFailure::WrongPin { .. } => (
                "the controller is not the one this agent belongs to",
                "check --controller; if the address is right, make a new join token there and enrol again",
            ),
            TlsFailure::Intercepted { .. } => (
                "the connection to the controller is intercepted",
                "except the controller's address from TLS inspection; the agent trusts only the controller's own key",
            ),
            TlsFailure::NotYetValid { .. } | TlsFailure::Expired { .. } => (
                "the clock and the controller's certificate do not fit",
                "set this machine's clock (NTP); if it is right, the controller's certificate needs renewal",
            ),
            TlsFailure::WrongName { .. } => (
                "what answers is not the agents' door of the controller",
                "check --controller and --domain; a load balancer must pass TLS through, untouched",
            ),
            TlsFailure::NotTls => (
                "what answers does not speak TLS",
                "check the port of --controller, and whether the address is that of a plain HTTP proxy",
            ),
            TlsFailure::OwnCertificateExpired => (
                "the controller says that this agent's certificate has expired",
                "set this machine's clock (NTP); the agent asks for a new certificate by itself",
            ),
            TlsFailure::Refused { .. } => (
                "the controller refused the TLS handshake",
                "see the cluster's diagnosis at the controller: `culvert cluster diagnose`",
            ),
            TlsFailure::BadCertificate(_) | TlsFailure::Protocol(_) => (
                "the TLS handshake with the controller failed",
                "check that nothing between agent and controller changes the connection",
            ),
        };
        let code = match failure {
            TlsFailure::NotYetValid { .. } | TlsFailure::Expired { .. } => "clock_skew",
            other => other.code(),
        };
        Cause::new(code, what, why, next)
    }

    /// A refusal by the controller, by its code. `message` is the controller's.
    pub fn refusal(code: &str, message: &str, retry_after: Option<Duration>) -> Cause {
        let found = REFUSALS.iter().find(|refusal| refusal.code == code).unwrap_or(&UNKNOWN);
        let remedy = match (found.remedy, retry_after) {
            (Remedy::Retry, Some(wait)) => Remedy::RetryAfter(wait),
            (Remedy::RetryAfter(least), Some(wait)) => Remedy::RetryAfter(least.max(wait)),
            (remedy, _) => remedy,
        };
        let why =
            if message.is_empty() { format!("refused with the code {code}") } else { one_line(message) };
        Cause::new(found.code, found.what, why, found.next).with(remedy)
    }
}

struct Refusal {
    code: &'static str,
    what: &'static str,
    next: &'static str,
    remedy: Remedy,
}

const fn refusal(code: &'static str, what: &'static str, next: &'static str, remedy: Remedy) -> Refusal {
    Refusal { code, what, next, remedy }
}

const NEW_TOKEN: &str =
    "make a new one with `culvert cluster token create NAME` and install the agent with it";
const UNKNOWN: Refusal = refusal(
    "refused",
    "the controller refused this agent",
    "see the cluster's diagnosis at the controller: `culvert cluster diagnose`",
    Remedy::RetryAfter(Duration::from_secs(30)),
);

/// The codes of the enrolment service and of the tunnel.
const REFUSALS: &[Refusal] = &[
    refusal("token_unknown", "the controller does not know this join token", NEW_TOKEN, Remedy::GiveUp),
    refusal("token_used", "the join token was used already, with another key", NEW_TOKEN, Remedy::GiveUp),
    refusal("token_expired", "the join token has expired", NEW_TOKEN, Remedy::GiveUp),
    refusal("token_revoked", "the join token was deleted before it was used", NEW_TOKEN, Remedy::GiveUp),
    refusal("token_malformed", "the controller cannot read this join token", NEW_TOKEN, Remedy::GiveUp),
    refusal(
        "token_wrong_network",
        "the join token may not be used from this network",
        "make a token for the address range that this cluster leaves by",
        Remedy::GiveUp,
    ),
    refusal(
        "csr_invalid",
        "the controller refuses this agent's certificate request",
        "report this: agent and controller do not fit together",
        Remedy::GiveUp,
    ),
    refusal(
        "version_too_old",
        "this agent is too old for the controller",
        "upgrade the agent's chart",
        Remedy::RetryAfter(Duration::from_secs(300)),
    ),
    refusal(
        "locked",
        "the cluster is locked at the controller",
        "an administrator can lift the lock; the agent tries again by itself",
        Remedy::RetryAfter(Duration::from_secs(15)),
    ),
    refusal(
        "clock_skew",
        "this machine's clock is off",
        "set the clock (NTP); the agent tries again by itself",
        Remedy::Retry,
    ),
    refusal(
        "revoked",
        "this agent's identity was revoked",
        "if the cluster is to come back, make a join token with `culvert cluster token create NAME` and install with it",
        Remedy::GiveUp,
    ),
    refusal(
        "counter_mismatch",
        "another holder of this agent's key came back before it",
        "treat the key as stolen: delete the agent at the controller, and enrol again with a new token",
        Remedy::GiveUp,
    ),
    refusal(
        "certificate_unknown",
        "the controller does not know this agent's certificate",
        "check that --controller names the installation that this agent enrolled with, or enrol again",
        Remedy::GiveUp,
    ),
    refusal(
        "rate_limited",
        "the controller takes no more attempts for now",
        "nothing: the agent tries again by itself",
        Remedy::Retry,
    ),
    refusal(
        "duplicate_identity",
        "another agent holds this identity",
        "stop the other one, or give each its own state and token",
        Remedy::RetryAfter(Duration::from_secs(15)),
    ),
    refusal(
        "standby",
        "another agent of this identity is connected",
        "nothing: this one stays in reserve",
        Remedy::RetryAfter(Duration::from_secs(15)),
    ),
    refusal(
        "overloaded",
        "the controller is busy",
        "nothing: the agent tries again by itself",
        Remedy::Retry,
    ),
    refusal(
        "draining",
        "the controller is stopping",
        "nothing: the agent connects to the next",
        Remedy::Retry,
    ),
    refusal(
        "unauthenticated",
        "the controller does not accept this agent's certificate",
        "see the cluster's diagnosis at the controller: `culvert cluster diagnose`",
        Remedy::RetryAfter(Duration::from_secs(30)),
    ),
    refusal(
        "protocol",
        "agent and controller do not understand each other",
        "bring both to versions at most one minor version apart",
        Remedy::RetryAfter(Duration::from_secs(60)),
    ),
];

/// Text from the other end, made fit for one line of a log.
pub fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// An error with what is behind it, each part said once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = source.source();
    }
    one_line(&text)
}

/// What is to be logged about an attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The cause is new.
    First,
    /// It lasts.
    Again {
        /// Attempts that failed for it.
        attempts: u64,
        /// How long it has lasted.
        lasted: Duration,
    },
}

/// Remembers the cause that lasts, so that it is not logged at each attempt.
#[derive(Debug, Default)]
pub struct CauseLog {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    code: &'static str,
    what: String,
    attempts: u64,
    since: Duration,
    said: Duration,
}

impl CauseLog {
    /// Takes note of a failed attempt; `now` is any clock that does not run backwards.
    pub fn observe(&mut self, cause: &Cause, now: Duration) -> Option<Line> {
        match &mut self.current {
            Some(current) if current.code == cause.code && current.what == cause.what => {
                current.attempts = current.attempts.saturating_add(1);
                if now.saturating_sub(current.said) < REMINDER {
                    return None;
                }
                current.said = now;
                Some(Line::Again { attempts: current.attempts, lasted: now.saturating_sub(current.since) })
            }
            _ => {
                let (code, what) = (cause.code, cause.what.clone());
                self.current = Some(Current { code, what, attempts: 1, since: now, said: now });
                Some(Line::First)
            }
        }
    }

    /// Takes note that all is well; the attempts that had failed, if any had.
    pub fn clear(&mut self) -> Option<u64> {
        self.current.take().map(|current| current.attempts)
    }

    /// Observes and logs.
    pub fn report(&mut self, cause: &Cause, now: Duration) {
        let Cause { code, what, why, next, .. } = cause;
        match self.observe(cause, now) {
            None => tracing::debug!(code, what, why, "attempt failed again"),
            Some(Line::First) if cause.code == "standby" => tracing::info!(code, why, next, "{what}"),
            Some(Line::First) => tracing::error!(code, why, next, "{what}"),
            Some(Line::Again { attempts, lasted }) => {
                tracing::warn!(code, attempts, lasted_s = lasted.as_secs(), why, next, "still: {what}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(code: &'static str, why: &str) -> Cause {
        Cause::new(code, "it failed", why, "mend it")
    }

    #[test]
    fn a_cause_is_said_once_until_it_changes_or_lasts() {
        let mut log = CauseLog::default();
        let at = Duration::from_secs;
        assert_eq!(log.observe(&cause("dns", "a"), at(0)), Some(Line::First));
        assert_eq!(log.observe(&cause("dns", "b"), at(10)), None);
        assert_eq!(
            log.observe(&cause("dns", "b"), at(300)),
            Some(Line::Again { attempts: 3, lasted: at(300) })
        );
        assert_eq!(log.observe(&cause("dns", "b"), at(301)), None);
        assert_eq!(log.observe(&cause("tcp", "b"), at(302)), Some(Line::First));
        assert_eq!(log.clear(), Some(1));
        assert_eq!(log.clear(), None);
        assert_eq!(log.observe(&cause("tcp", "b"), at(303)), Some(Line::First));
    }

    #[test]
    fn every_refusal_of_the_contract_has_words_of_its_own() {
        let codes = [
            "token_unknown",
            "token_used",
            "token_expired",
            "token_revoked",
            "token_malformed",
            "token_wrong_network",
            "csr_invalid",
            "version_too_old",
            "locked",
            "clock_skew",
            "revoked",
            "counter_mismatch",
            "certificate_unknown",
            "rate_limited",
            "duplicate_identity",
            "standby",
            "overloaded",
            "draining",
            "unauthenticated",
            "protocol",
        ];
        for code in codes {
            assert_eq!(Cause::refusal(code, "x", None).code, code);
        }
        assert_eq!(Cause::refusal("brand_new", "", None).code, "refused");
    }

    #[test]
    fn the_controllers_wait_is_kept() {
        let wait = Duration::from_secs(40);
        assert_eq!(Cause::refusal("overloaded", "", Some(wait)).remedy, Remedy::RetryAfter(wait));
        assert_eq!(
            Cause::refusal("version_too_old", "", Some(wait)).remedy,
            Remedy::RetryAfter(Duration::from_secs(300))
        );
        assert_eq!(Cause::refusal("token_used", "", Some(wait)).remedy, Remedy::GiveUp);
    }

    #[test]
    fn text_of_the_other_end_stays_on_one_line() {
        assert_eq!(Cause::refusal("locked", "a\nb\x1b[0m", None).why, "ab[0m");
        assert_eq!(Cause::refusal("locked", &"x".repeat(9999), None).why.len(), 500);
    }
}
