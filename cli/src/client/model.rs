//! What the API answers, as far as the command shows or decides by it.
//!
//! Fields that are not here are kept all the same: `json` and `yaml` show the
//! answer itself. A field that may be missing is an `Option` or has a default, so
//! that a controller of another version can still be talked to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /info`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Info {
    #[serde(default)]
    pub(crate) product: String,
    #[serde(default)]
    pub(crate) version: String,
    pub(crate) api: Door,
    pub(crate) ca: Authority,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Door {
    pub(crate) server_name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Authority {
    pub(crate) pem: String,
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    #[serde(default)]
    pub(crate) next: Option<String>,
}

/// `GET /me`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Me {
    pub(crate) user: User,
    pub(crate) org: Organisation,
    pub(crate) credential: Credential,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Organisation {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
}

impl Organisation {
    /// The name, or the id of one without a name.
    pub(crate) fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Credential {
    pub(crate) kind: String,
    pub(crate) name: Option<String>,
    pub(crate) expires_at: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created_at: Option<String>,
    pub(crate) lock: Option<ClusterLock>,
    pub(crate) agent: Option<Agent>,
    pub(crate) facts: Option<Facts>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ClusterLock {
    #[serde(default)]
    pub(crate) message: String,
    pub(crate) at: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Facts {
    pub(crate) kubernetes_version: Option<String>,
    pub(crate) nodes: Option<u64>,
    pub(crate) api_latency_us: Option<u64>,
    pub(crate) route: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Agent {
    pub(crate) id: String,
    pub(crate) cluster_id: Option<String>,
    pub(crate) state: String,
    pub(crate) version: Option<String>,
    pub(crate) certificate_not_after: Option<String>,
    pub(crate) enrolled_at: Option<String>,
    pub(crate) last_seen_at: Option<String>,
    pub(crate) connected_since: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) rtt_us: Option<u64>,
    pub(crate) clock_skew_ms: Option<i64>,
    pub(crate) last_refusal: Option<LastRefusal>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LastRefusal {
    pub(crate) code: String,
    pub(crate) detail: Option<String>,
    pub(crate) fix: Option<String>,
    pub(crate) at: Option<String>,
}

/// `POST /clusters/{id}/join-tokens`. Its `Debug` would show the token, so it has none.
#[derive(Deserialize)]
pub(crate) struct NewJoinToken {
    pub(crate) id: String,
    pub(crate) token: secrecy::SecretString,
    pub(crate) expires_at: String,
    #[serde(default)]
    pub(crate) helm: Helm,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Helm {
    pub(crate) repo_chart: Option<String>,
    pub(crate) values: serde_json::Value,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct JoinToken {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) created_at: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) used_at: Option<String>,
    pub(crate) used_from: Option<String>,
}

/// An API token without its secret.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ApiToken {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) role: String,
    pub(crate) created_at: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) cidr: Option<String>,
}

/// `GET /clusters/{id}/diagnosis`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Diagnosis {
    pub(crate) state: String,
    pub(crate) lights: Vec<Light>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) summary: Option<String>,
    pub(crate) next: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Light {
    pub(crate) stage: String,
    pub(crate) state: String,
    pub(crate) at: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) detail: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) at: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) stage: Option<String>,
    pub(crate) outcome: String,
    pub(crate) code: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) fix: Option<String>,
    pub(crate) agent_version: Option<String>,
}

/// `POST /certificates`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IssuedCertificate {
    pub(crate) certificate_pem: String,
    pub(crate) not_after: String,
}

/// `POST /sessions`.
#[derive(Deserialize)]
pub(crate) struct NewSession {
    pub(crate) token: secrecy::SecretString,
    pub(crate) expires_at: Option<String>,
}
