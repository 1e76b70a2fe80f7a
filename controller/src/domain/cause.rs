//! Why somebody was refused: one table of codes, explanations and remedies.
//!
//! The agent's log, the console and the API quote this table, so the same cause
//! reads the same wherever it is met. The codes are part of the contract with
//! agents: they travel in the `culvert-refusal` trailer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! causes {
    ($($variant:ident $code:literal : $what:literal , $fix:literal ;)*) => {
        /// A cause of refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Cause {
            $(#[doc = $what] $variant,)*
        }

        impl Cause {
            /// Every cause, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable word on the wire.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What happened, in one sentence.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }

            /// What to do about it, in one sentence.
            #[must_use]
            pub fn fix(self) -> &'static str {
                match self { $(Self::$variant => $fix,)* }
            }
        }
    };
}

causes! {
    WrongPin "wrong_pin":
        "The agent refused our certificate: it does not lead to the key named in its join token.",
        "Make a new join token on this controller and install with it; if the token is from here, something between the agent and us answers in our place.";
    Intercepted "tls_intercepted":
        "Something between the agent and us opens the TLS connection and presents its own certificate.",
        "Ask the network's owner to let this server name pass without TLS inspection.";
    TlsFailed "tls_failed":
        "The TLS handshake did not complete.",
        "Run `culvert-agent preflight` where the agent runs; it names the step that fails.";
    TlsTimeout "tls_timeout":
        "The TLS handshake was begun and not finished in time.",
        "Look for a proxy or firewall that holds back packets after the first; lower the MTU if the path has a tunnel.";
    NoTls13 "tls_version":
        "The other end does not speak TLS 1.3.",
        "Let the connection pass unopened: an old inspecting proxy is the usual cause.";
    CertificateExpired "certificate_expired":
        "The agent showed a certificate that has expired.",
        "Nothing to do if it returns by itself within a minute; otherwise check its clock.";
    CertificateUnknown "certificate_unknown":
        "The agent showed a certificate that this controller did not issue or no longer knows.",
        "Enrol it again with a new join token.";
    Unauthenticated "unauthenticated":
        "The connection had no client certificate.",
        "Enrol the agent with a join token.";
    TokenUnknown "token_unknown":
        "The join token is not one of ours, or its cluster was deleted.",
        "Make a new join token for the cluster and install with it.";
    TokenMalformed "token_malformed":
        "The join token is incomplete or mistyped.",
        "Copy the whole token again, from cvj1 to its end.";
    TokenUsed "token_used":
        "The join token was already used by another agent.",
        "Make a new join token; if you did not use this one, delete the agent that did.";
    TokenExpired "token_expired":
        "The join token has expired.",
        "Make a new join token; it lives one hour unless you ask for more.";
    TokenRevoked "token_revoked":
        "The join token was deleted before it was used.",
        "Make a new join token.";
    TokenWrongNetwork "token_wrong_network":
        "The join token may not be used from this address.",
        "Make a join token for the network the agent is seen from, or without one.";
    CsrInvalid "csr_invalid":
        "The certificate request cannot be accepted.",
        "Use an unmodified agent: its key must be P-256, P-384 or Ed25519, and sign the request itself.";
    VersionTooOld "version_too_old":
        "The agent's version is below the least that this controller accepts.",
        "Upgrade the agent's chart.";
    Locked "locked":
        "The cluster or its agent is locked.",
        "Ask an administrator to unlock it.";
    Revoked "revoked":
        "The agent's identity is no longer valid: its cluster was deleted, or a later agent took it over.",
        "Remove this agent, or enrol it again with a new join token.";
    CounterMismatch "counter_mismatch":
        "The agent's key was used from two places, so the agent was locked.",
        "Find the second copy of the agent's state, then enrol one agent again with a new join token.";
    ClockSkew "clock_skew":
        "The agent's clock is more than five minutes off.",
        "Set the clock of the node the agent runs on.";
    RateLimited "rate_limited":
        "Too many attempts from this address.",
        "Wait a minute, then try again.";
    DuplicateIdentity "duplicate_identity":
        "Another process with the same identity took the connection over.",
        "Normal once, when the agent is upgraded or moves to another node; if it comes again and again, find the second copy of the agent's state and remove it.";
    Standby "standby":
        "The agent waits in reserve while another with its identity is connected.",
        "Nothing to do, if you meant to run a second one in reserve.";
    Overloaded "overloaded":
        "The controller takes no new connections for the moment.",
        "Nothing to do: the agent comes back by itself.";
    Draining "draining":
        "The controller is stopping or being replaced.",
        "Nothing to do: the agent comes back by itself.";
    Protocol "protocol":
        "The other end does not speak the tunnel's protocol.",
        "Check that the agent is a released version, and that nothing between rewrites HTTP/2.";
    Internal "internal":
        "The controller failed.",
        "Look into the controller's log for the request id.";
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A word that names no cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cause of refusal")]
pub struct NotACause;

impl FromStr for Cause {
    type Err = NotACause;

    fn from_str(code: &str) -> Result<Self, NotACause> {
        Self::ALL.iter().copied().find(|cause| cause.code() == code).ok_or(NotACause)
    }
}

impl Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Cause {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_cause_has_its_own_code_and_says_what_to_do() {
        let codes: HashSet<_> = Cause::ALL.iter().map(|c| c.code()).collect();
        assert_eq!(codes.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            assert_eq!(cause.code().parse(), Ok(*cause));
            assert!(cause.summary().ends_with('.') && cause.fix().ends_with('.'), "{cause}");
        }
    }
}
