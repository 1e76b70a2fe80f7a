//! Who is asking: the first argument of everything below the edge.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AgentId, ApiTokenId, Name, OrgId, RequestId, Role, Time, User, UserId};

/// Who is asking, for which organisation, by which credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    org: OrgId,
    org_name: Option<Name>,
    actor: Actor,
    role: Role,
    credential: Credential,
    request: Option<RequestId>,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A person.
    User {
        /// The person's id.
        id: UserId,
        /// The person's name.
        name: Name,
    },
    /// A machine with an API token.
    ApiToken {
        /// The token's id.
        id: ApiTokenId,
        /// The token's name.
        name: Name,
    },
    /// An agent, about itself.
    Agent {
        /// The agent's id.
        id: AgentId,
    },
    /// The controller's own deed, for this organisation.
    Controller,
}

/// How the caller proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// What sort of proof.
    pub kind: CredentialKind,
    /// Id of the session or token; serial number of the certificate.
    pub id: String,
    /// Name of the API token.
    pub name: Option<Name>,
    /// From when on it is refused; long streams end then.
    pub expires_at: Option<Time>,
    /// Network the credential may be used from.
    pub network: Option<IpNet>,
}

/// Sorts of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A person's session.
    Session,
    /// A machine's token.
    ApiToken,
    /// A client certificate.
    Certificate,
    /// The controller itself.
    Internal,
}

impl CredentialKind {
    /// The word on the wire and in the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ApiToken => "api_token",
            Self::Certificate => "certificate",
            Self::Internal => "internal",
        }
    }
}

impl Caller {
    /// A person who was authenticated.
    #[must_use]
    pub fn user(org: OrgId, org_name: Name, user: &User, credential: Credential) -> Self {
        let actor = Actor::User { id: user.id, name: user.name.clone() };
        Self { org, org_name: Some(org_name), actor, role: user.role, credential, request: None }
    }

    /// A machine whose token was accepted.
    #[must_use]
    pub fn api_token(
        org: OrgId,
        org_name: Name,
        id: ApiTokenId,
        name: Name,
        role: Role,
        credential: Credential,
    ) -> Self {
        let actor = Actor::ApiToken { id, name };
        Self { org, org_name: Some(org_name), actor, role, credential, request: None }
    }

    /// An agent whose certificate or join token was accepted.
    #[must_use]
    pub fn agent(org: OrgId, id: AgentId) -> Self {
        Self::internal(org, Actor::Agent { id })
    }

    /// The controller, acting for `org` by itself.
    #[must_use]
    pub fn controller(org: OrgId) -> Self {
        Self::internal(org, Actor::Controller)
    }

    fn internal(org: OrgId, actor: Actor) -> Self {
        let credential = Credential {
            kind: CredentialKind::Internal,
            id: String::new(),
            name: None,
            expires_at: None,
            network: None,
        };
        Self { org, org_name: None, actor, role: Role::Admin, credential, request: None }
    }

    /// The same caller, asking by this request.
    #[must_use]
    pub fn with_request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// The same caller, proved in another way.
    #[must_use]
    pub fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// The request by which the caller asks; the audit keeps it.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        self.request
    }

    /// The organisation the caller acts in.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org
    }

    /// The organisation's name, of callers from outside.
    #[must_use]
    pub fn org_name(&self) -> Option<&Name> {
        self.org_name.as_ref()
    }

    /// Who acts.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// What the caller may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// How the caller proved who they are.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The person, when a person asks.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        match &self.actor {
            Actor::User { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The name the cluster's API server sees.
    #[must_use]
    pub fn kubernetes_user(&self) -> String {
        match &self.actor {
            Actor::User { name, .. } => format!("culvert:{name}"),
            Actor::ApiToken { name, .. } => format!("culvert:token:{name}"),
            Actor::Agent { id } => format!("culvert:agent:{id}"),
            Actor::Controller => "culvert:controller".to_owned(),
        }
    }

    /// The groups the cluster's API server sees.
    #[must_use]
    pub fn kubernetes_groups(&self) -> Vec<String> {
        match &self.actor {
            Actor::User { .. } | Actor::ApiToken { .. } => vec![self.role.kubernetes_group().to_owned()],
            Actor::Controller => vec!["culvert:controllers".to_owned()],
            Actor::Agent { .. } => Vec::new(),
        }
    }
}

impl Actor {
    /// The kind's word in the audit.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::ApiToken { .. } => "api_token",
            Self::Agent { .. } => "agent",
            Self::Controller => "controller",
        }
    }

    /// The id in the audit.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::User { id, .. } => id.to_string(),
            Self::ApiToken { id, .. } => id.to_string(),
            Self::Agent { id } => id.to_string(),
            Self::Controller => "controller".to_owned(),
        }
    }

    /// The name shown to people.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::User { name, .. } | Self::ApiToken { name, .. } => name.to_string(),
            Self::Agent { id } => id.to_string(),
            Self::Controller => "controller".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_people_and_machines_are_in_the_groups_of_a_role() {
        let org = OrgId::generate();
        assert_eq!(Caller::controller(org).kubernetes_groups(), ["culvert:controllers"]);
        assert!(Caller::agent(org, AgentId::generate()).kubernetes_groups().is_empty());
    }
}
