//! One-time enrolment secrets: what is kept of them, and when one may be used.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{AgentId, Cause, ClusterId, Fault, JoinTokenId, Time};

/// Life of a token when nobody asks for another.
pub const LIFE_DEFAULT: Duration = Duration::from_secs(3600);
/// The longest life of a token.
pub const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The shortest life of a token: less could not be typed.
pub const LIFE_MIN: Duration = Duration::from_secs(60);

/// A token's record; the secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Its id in the API.
    pub id: JoinTokenId,
    /// The cluster it enrols for.
    pub cluster: ClusterId,
    /// The id inside the token.
    pub public_id: String,
    /// Network it may be used from.
    pub network: Option<IpNet>,
    /// When it was made.
    pub created_at: Time,
    /// From when on it is refused.
    pub expires_at: Time,
    /// When somebody deleted it.
    pub revoked_at: Option<Time>,
    /// Who used it.
    pub used: Option<Use>,
}

/// The use of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// When.
    pub at: Time,
    /// From where.
    pub from: IpAddr,
    /// SHA-256 of the public key that was certified.
    pub key: [u8; 32],
    /// The agent it became.
    pub agent: AgentId,
}

/// What has become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JoinTokenState {
    /// It can be used.
    Active,
    /// It was used.
    Used,
    /// Its time has passed.
    Expired,
    /// It was deleted.
    Revoked,
}

impl JoinTokenState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What redeeming a token comes to, before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redemption {
    /// Nobody has used it; the store decides who is first.
    Fresh,
    /// The same key asks again: it gets what it got.
    Again(AgentId),
}

impl JoinToken {
    /// What has become of it by `now`.
    #[must_use]
    pub fn state(&self, now: Time) -> JoinTokenState {
        if self.used.is_some() {
            JoinTokenState::Used
        } else if self.revoked_at.is_some() {
            JoinTokenState::Revoked
        } else if now >= self.expires_at {
            JoinTokenState::Expired
        } else {
            JoinTokenState::Active
        }
    }

    /// Whether the holder of `key`, seen from `source`, may redeem it at `now`.
    pub fn judge(&self, key: &[u8; 32], source: IpAddr, now: Time) -> Result<Redemption, Cause> {
        let source = source.to_canonical();
        if self.network.is_some_and(|network| !network.contains(&source)) {
            return Err(Cause::TokenWrongNetwork);
        }
        match (&self.used, self.state(now)) {
            (Some(used), _) if used.key == *key => Ok(Redemption::Again(used.agent)),
            (_, JoinTokenState::Used) => Err(Cause::TokenUsed),
            (_, JoinTokenState::Revoked) => Err(Cause::TokenRevoked),
            (_, JoinTokenState::Expired) => Err(Cause::TokenExpired),
            (_, JoinTokenState::Active) => Ok(Redemption::Fresh),
        }
    }
}

/// The life of a new token.
pub fn life(seconds: Option<u64>) -> Result<Duration, Fault> {
    let wanted = seconds.map_or(LIFE_DEFAULT, Duration::from_secs);
    if (LIFE_MIN..=LIFE_MAX).contains(&wanted) {
        Ok(wanted)
    } else {
        Err(Fault::new("ttl_seconds", "out_of_range", "must be from 60 to 86400"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    fn at(seconds: u64) -> Time {
        Time::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token() -> JoinToken {
        JoinToken {
            id: JoinTokenId::generate(),
            cluster: ClusterId::generate(),
            public_id: "aaaaaaaaaaaaa".to_owned(),
            network: None,
            created_at: at(0),
            expires_at: at(100),
            revoked_at: None,
            used: None,
        }
    }

    #[test]
    fn it_is_good_until_its_end() {
        assert_eq!(token().judge(&[1; 32], HERE, at(99)), Ok(Redemption::Fresh));
        assert_eq!(token().judge(&[1; 32], HERE, at(100)), Err(Cause::TokenExpired));
        let revoked = JoinToken { revoked_at: Some(at(5)), ..token() };
        assert_eq!(revoked.judge(&[1; 32], HERE, at(50)), Err(Cause::TokenRevoked));
    }

    #[test]
    fn only_the_same_key_gets_its_certificate_again() {
        let agent = AgentId::generate();
        let used = JoinToken { used: Some(Use { at: at(9), from: HERE, key: [1; 32], agent }), ..token() };
        assert_eq!(used.judge(&[1; 32], HERE, at(200)), Ok(Redemption::Again(agent)));
        assert_eq!(used.judge(&[2; 32], HERE, at(50)), Err(Cause::TokenUsed));
    }

    #[test]
    fn its_network_binds_a_retry_too() {
        let network = Some("10.1.0.0/16".parse().unwrap());
        let bound = JoinToken { network, ..token() };
        assert_eq!(bound.judge(&[1; 32], HERE, at(1)), Ok(Redemption::Fresh));
        // An IPv4 client of a dual-stack listener shows as ::ffff:10.1.2.3.
        let mapped = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(bound.judge(&[1; 32], mapped, at(1)), Ok(Redemption::Fresh));
        let elsewhere = "10.2.0.1".parse().unwrap();
        assert_eq!(bound.judge(&[1; 32], elsewhere, at(1)), Err(Cause::TokenWrongNetwork));
    }

    #[test]
    fn lives_are_bounded() {
        assert_eq!(life(None).unwrap(), LIFE_DEFAULT);
        assert!(life(Some(59)).is_err() && life(Some(86_401)).is_err() && life(Some(86_400)).is_ok());
    }
}
