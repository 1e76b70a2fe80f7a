//! Organisations, their people, and what a role allows.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Name, OrgId, Time, UserId};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organisation {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: Name,
    /// When it was made.
    pub created_at: Time,
}

/// A person of an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The person's id.
    pub id: UserId,
    /// The name shown, and used in Kubernetes as `culvert:<name>`.
    pub name: Name,
    /// What the person may do.
    pub role: Role,
    /// When the record was made.
    pub created_at: Time,
}

/// What somebody may do in an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May look at everything, and use the gateway as a reader.
    Reader,
    /// May do everything.
    Admin,
}

impl Role {
    /// The word on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }

    /// The Kubernetes group of those who have the role.
    #[must_use]
    pub fn kubernetes_group(self) -> &'static str {
        match self {
            Self::Reader => "culvert:readers",
            Self::Admin => "culvert:admins",
        }
    }
}

/// A word that names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is admin or reader")]
pub struct NoSuchRole;

impl FromStr for Role {
    type Err = NoSuchRole;

    fn from_str(text: &str) -> Result<Self, NoSuchRole> {
        match text {
            "reader" => Ok(Self::Reader),
            "admin" => Ok(Self::Admin),
            _ => Err(NoSuchRole),
        }
    }
}
