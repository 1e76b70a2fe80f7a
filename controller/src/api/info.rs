//! What anybody may know: how to reach and trust this installation.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Shared, wire};

/// This installation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Info {
    product: &'static str,
    version: &'static str,
    /// Trust domain, and DNS suffix of the doors.
    domain: String,
    /// host:port of the one port.
    public_address: String,
    api: ApiDoor,
    agents: Door,
    gateway: Door,
    ca: Authority,
    /// The controller's clock.
    #[schema(format = DateTime)]
    time: String,
}

/// The API's door.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiDoor {
    /// TLS server name.
    server_name: String,
}

/// A door of the one port.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Door {
    /// host:port to dial.
    address: String,
    /// TLS server name to ask for.
    server_name: String,
}

/// What servers' certificates lead to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Authority {
    /// The root certificate.
    pem: String,
    /// Fingerprint of its key: `sha256:` and base64url.
    pin: String,
}

/// How to reach and trust this installation.
#[utoipa::path(
    get,
    path = "/info",
    tag = "installation",
    security(()),
    responses((status = 200, description = "This installation", body = Info))
)]
pub(super) async fn info(State(shared): State<Shared>) -> Json<Info> {
    let info = shared.app.info();
    let address = info.public_address.to_string();
    Json(Info {
        product: "culvert",
        version: info.version,
        domain: info.domain,
        api: ApiDoor { server_name: info.api_server_name },
        agents: Door { address: address.clone(), server_name: info.agents_server_name },
        gateway: Door { address: address.clone(), server_name: info.gateway_server_name },
        public_address: address,
        ca: Authority { pem: info.ca_pem, pin: info.ca_pin },
        time: wire::at(info.time),
    })
}
