//! A person's way in: one-time codes and the sessions they open.

use std::time::Duration;

use super::{Caller, Credential, CredentialKind, OrgId, SessionId, Time, User, UserId};
use crate::domain::Name;

/// How long a code may wait to be typed.
pub const CODE_LIFE: Duration = Duration::from_secs(15 * 60);

/// How long a session lasts at most (design: 12 hours).
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// A one-time code, as it is stored: without the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInCode {
    /// Whose organisation.
    pub org: OrgId,
    /// Who it lets in.
    pub user: UserId,
    /// When it was made.
    pub created_at: Time,
    /// From when on it is refused.
    pub expires_at: Time,
}

/// A signed-in person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// Who signed in.
    pub user: UserId,
    /// When.
    pub created_at: Time,
    /// Until when.
    pub expires_at: Time,
}

impl Session {
    /// The caller who holds this session.
    #[must_use]
    pub fn caller(&self, org: OrgId, org_name: Name, user: &User) -> Caller {
        let credential = Credential {
            kind: CredentialKind::Session,
            id: self.id.to_string(),
            name: None,
            expires_at: Some(self.expires_at),
            network: None,
        };
        Caller::user(org, org_name, user, credential)
    }
}
