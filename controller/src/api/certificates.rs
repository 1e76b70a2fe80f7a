//! Certificates of people, for the gateway.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::ask::{Asking, Body};
use super::status::Problem;
use super::wire;

/// A request for a certificate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateCertificate {
    /// PKCS#10 as PEM. Only its public key is taken.
    csr_pem: String,
    /// Life in seconds, 60 to 3600; 3600 when not given.
    ttl_seconds: Option<u64>,
}

/// A person's certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Certificate {
    /// Leaf and intermediate.
    certificate_pem: String,
    #[schema(format = DateTime)]
    not_after: String,
}

/// Get a certificate for the gateway. For people only; machines use their API token.
#[utoipa::path(
    post,
    path = "/certificates",
    tag = "people",
    request_body = CreateCertificate,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The certificate", body = Certificate))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateCertificate>,
) -> Result<(StatusCode, Json<Certificate>), Problem> {
    let CreateCertificate { csr_pem, ttl_seconds } = asked.value;
    let made = shared.app.issue_certificate(&caller, &csr_pem, ttl_seconds, asked.once.as_ref()).await?;
    let not_after = wire::at(made.not_after);
    Ok((StatusCode::CREATED, Json(Certificate { certificate_pem: made.certificate_pem, not_after })))
}
