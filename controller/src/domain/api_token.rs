//! A machine's access to the API and the gateway.

use std::time::Duration;

use ipnet::IpNet;

use super::{ApiTokenId, Caller, Credential, CredentialKind, Fault, Name, OrgId, Role, Time};

/// The longest life of a token: one year.
pub const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The shortest life of a token.
pub const LIFE_MIN: Duration = Duration::from_secs(60);

/// A token's record; the secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: ApiTokenId,
    /// Its name, unique in the organisation.
    pub name: Name,
    /// What its holder may do.
    pub role: Role,
    /// Network it may be used from.
    pub network: Option<IpNet>,
    /// When it was made.
    pub created_at: Time,
    /// From when on it is refused.
    pub expires_at: Time,
}

impl ApiToken {
    /// The caller who holds this token.
    #[must_use]
    pub fn caller(&self, org: OrgId, org_name: Name) -> Caller {
        let credential = Credential {
            kind: CredentialKind::ApiToken,
            id: self.id.to_string(),
            name: Some(self.name.clone()),
            expires_at: Some(self.expires_at),
            network: self.network,
        };
        Caller::api_token(org, org_name, self.id, self.name.clone(), self.role, credential)
    }
}

/// The life of a new token.
pub fn life(seconds: u64) -> Result<Duration, Fault> {
    let wanted = Duration::from_secs(seconds);
    if (LIFE_MIN..=LIFE_MAX).contains(&wanted) {
        Ok(wanted)
    } else {
        Err(Fault::new("ttl_seconds", "out_of_range", "must be from 60 seconds to 366 days"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_own_name_in_the_cluster() {
        let token = ApiToken {
            id: ApiTokenId::generate(),
            name: "ci".parse().unwrap(),
            role: Role::Reader,
            network: None,
            created_at: Time::UNIX_EPOCH,
            expires_at: Time::UNIX_EPOCH,
        };
        let caller = token.caller(OrgId::generate(), "acme".parse().unwrap());
        assert_eq!(caller.kubernetes_user(), "culvert:token:ci");
        assert_eq!(caller.kubernetes_groups(), ["culvert:readers"]);
    }

    #[test]
    fn lives_are_bounded() {
        assert!(life(59).is_err() && life(60).is_ok() && life(u64::MAX).is_err());
    }
}
