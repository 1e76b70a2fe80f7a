//! The enrolment service: wire to app and back.

use std::net::SocketAddr;

use culvert_proto::enrolment::v1 as wire;
use culvert_proto::enrolment::v1::enrolment_server::Enrolment;
use culvert_tunnel::AgentKey;
use tonic::{Request, Response, Status};

use super::metrics::{AgentMetrics, Result as Outcome, Way};
use super::refusal::{report, status, status_of};
use crate::app::{AgentCertificate, App, AttemptKey, Redeem, Rejoin, TurnedAway};
use crate::domain::Cause;

/// The largest message taken, bytes: a certificate request is below one KiB.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024;

/// The service as one connection sees it.
pub(crate) struct Desk {
    pub(crate) app: App,
    pub(crate) metrics: AgentMetrics,
    pub(crate) source: SocketAddr,
    /// From the connection's verified certificate.
    pub(crate) agent: Option<AgentKey>,
    /// The TLS session's channel binding.
    pub(crate) exporter: [u8; 32],
    pub(crate) attempt: Option<AttemptKey>,
}

#[tonic::async_trait]
impl Enrolment for Desk {
    async fn enrol(
        &self,
        request: Request<wire::EnrolRequest>,
    ) -> Result<Response<wire::EnrolResponse>, Status> {
        let asked = request.into_inner();
        let redeemed = self.app.redeem(Redeem {
            token_id: &asked.token_id,
            secret: &asked.token_secret,
            csr: &asked.csr,
            version: &asked.agent_version,
            clock_ms: asked.clock_ms,
            source: self.source.ip(),
            attempt: self.attempt,
        });
        let enrolled = self.told(Way::Enrol, redeemed.await)?;
        tracing::info!(agent = %enrolled.agent, cluster = %enrolled.cluster.id, source = %self.source, version = asked.agent_version, "agent enrolled");
        Ok(Response::new(wire::EnrolResponse {
            certificate: Some(certificate(&enrolled.certificate)),
            cluster_id: enrolled.cluster.id.to_string(),
            cluster_name: enrolled.cluster.name.to_string(),
            generation: enrolled.generation,
        }))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        let Some(agent) = self.agent else {
            self.metrics.certificate(Way::Renew, Outcome::Refused);
            return Err(status(Cause::Unauthenticated, "", None));
        };
        let asked = request.into_inner();
        let renewed = self.app.renew(agent, &asked.csr, self.source.ip()).await;
        let renewed = self.told(Way::Renew, renewed)?;
        tracing::info!(%agent, source = %self.source, generation = renewed.generation, "agent's certificate renewed");
        Ok(Response::new(wire::RenewResponse {
            certificate: Some(certificate(&renewed.certificate)),
            generation: renewed.generation,
        }))
    }

    async fn rejoin(
        &self,
        request: Request<wire::RejoinRequest>,
    ) -> Result<Response<wire::RejoinResponse>, Status> {
        let asked = request.into_inner();
        let rejoined = self.app.rejoin(Rejoin {
            certificate: &asked.certificate,
            csr: &asked.csr,
            generation: asked.generation,
            version: &asked.agent_version,
            clock_ms: asked.clock_ms,
            signature: &asked.signature,
            channel_binding: &self.exporter,
            source: self.source.ip(),
        });
        let renewed = self.told(Way::Rejoin, rejoined.await)?;
        tracing::info!(source = %self.source, generation = renewed.generation, "agent came back after its certificate had expired");
        Ok(Response::new(wire::RejoinResponse {
            certificate: Some(certificate(&renewed.certificate)),
            generation: renewed.generation,
        }))
    }
}

impl Desk {
    /// Counts what came of a request, and turns a refusal into what the agent is told.
    fn told<T>(&self, way: Way, outcome: Result<T, TurnedAway>) -> Result<T, Status> {
        let turned = match outcome {
            Ok(granted) => {
                self.metrics.certificate(way, Outcome::Granted);
                return Ok(granted);
            }
            Err(turned) => turned,
        };
        let failed = turned.cause == Cause::Internal;
        self.metrics.certificate(way, if failed { Outcome::Failed } else { Outcome::Refused });
        report(way.as_str(), self.source, &turned);
        Err(status_of(&turned))
    }
}

fn certificate(issued: &AgentCertificate) -> wire::Certificate {
    let bytes = |all: &[Vec<u8>]| all.iter().cloned().map(Into::into).collect();
    wire::Certificate {
        chain: bytes(&issued.chain),
        roots: bytes(&issued.roots),
        not_before: issued.not_before.unix_timestamp(),
        not_after: issued.not_after.unix_timestamp(),
    }
}
