//! Who am I.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::ask::Asking;
use super::wire;
use crate::domain::Caller;

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    /// The person, or the API token that stands for one.
    user: Somebody,
    org: Organisation,
    credential: Credential,
}

/// A person or a machine.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Somebody {
    /// `usr_…`, of a machine `tok_…`.
    id: String,
    name: String,
    /// `admin` or `reader`.
    role: &'static str,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Organisation {
    /// `org_…`
    id: String,
    name: Option<String>,
}

/// How the caller proved who they are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Credential {
    /// `session` or `api_token`.
    kind: &'static str,
    /// `ses_…` or `tok_…`
    id: String,
    /// Name of the API token.
    name: Option<String>,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

impl From<&Caller> for Somebody {
    fn from(caller: &Caller) -> Self {
        Self { id: caller.actor().id(), name: caller.actor().name(), role: caller.role().as_str() }
    }
}

/// Who the credential of this request belongs to.
#[utoipa::path(get, path = "/me", tag = "people", responses((status = 200, description = "The caller", body = Me)))]
pub(super) async fn me(Asking(caller): Asking) -> Json<Me> {
    let credential = caller.credential();
    Json(Me {
        user: Somebody::from(&caller),
        org: Organisation { id: caller.org().to_string(), name: caller.org_name().map(ToString::to_string) },
        credential: Credential {
            kind: credential.kind.as_str(),
            id: credential.id.clone(),
            name: credential.name.as_ref().map(ToString::to_string),
            expires_at: credential.expires_at.map(wire::at),
        },
    })
}
