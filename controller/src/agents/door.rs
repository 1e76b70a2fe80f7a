//! One connection at the agents' door.

use std::net::SocketAddr;
use std::time::Duration;

use culvert_pki::name::Identity;
use culvert_pki::token::TokenId;
use culvert_pki::verify::{Peer as Certified, verify_peer};
use culvert_proto::enrolment::v1::enrolment_server::EnrolmentServer;
use culvert_proto::telemetry::v1::telemetry_server::TelemetryServer;
use culvert_tunnel::{AgentKey, Ended, Hub, Peer};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::admission::Gatekeeper;
use super::enrolment::{Desk, MESSAGE_MAX};
use super::metrics::AgentMetrics;
use super::silence::{GRPC_ONLY, GrpcOnly, Use, Used};
use super::telemetry::{REPORT_BYTES_MAX, TelemetryDesk};
use crate::app::{App, AttemptKey};
use crate::domain::Stage;
use crate::supervise::Supervisor;

/// The room; clones share it.
#[derive(Clone)]
pub(crate) struct Agents {
    pub(super) app: App,
    pub(super) hub: Hub,
    pub(super) metrics: AgentMetrics,
    supervisor: Supervisor,
    /// Cancelled when agents are to be told to move.
    drain: CancellationToken,
}

/// How long after the doors were closed agents are told to move. What the gateway had taken
/// by then must still be offered to them: bytes in a socket's buffer, and HTTP/2 requests
/// that crossed the GOAWAY.
pub(crate) const LEAD: Duration = Duration::from_secs(1);

/// Whoever is at the other end, as TLS tells.
pub(crate) struct Caller {
    pub(crate) source: SocketAddr,
    /// The token that the server name speaks of; a hint, no right.
    pub(crate) token_id: Option<TokenId>,
    /// Leaf first; empty when there was no client certificate.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The TLS session's channel binding.
    pub(crate) exporter: [u8; 32],
}

impl Agents {
    pub(crate) fn new(app: App, hub: Hub, metrics: AgentMetrics, supervisor: Supervisor) -> Self {
        Agents { app, hub, metrics, supervisor, drain: CancellationToken::new() }
    }

    /// Starts the tasks that carry the hub's news and tell agents of the end.
    pub(crate) fn start(&self) {
        let (stop, drain) = (self.supervisor.stopping().clone(), self.drain.clone());
        let hub = self.hub.clone();
        self.supervisor.work("drain of agents", async move {
            stop.cancelled().await;
            if hub.counts().connections > 0 {
                tokio::time::sleep(LEAD).await;
            }
            drain.cancel();
        });
        let (room, stop) = (self.clone(), self.supervisor.stopping().clone());
        self.supervisor.keep("news of agents", move || room.clone().carry_news(stop.clone()));
    }

    /// Serves a connection until it ends.
    pub(crate) async fn serve<IO>(&self, io: IO, http2: bool, caller: Caller)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let attempt = self.begin_attempt(&caller).await;
        if !http2 {
            say_grpc_only(io).await;
            return self.left(caller.source, attempt, Use::Http, &Ended::Closed).await;
        }
        let certified = self.identify(&caller);
        let (used, ended) = self.hand_over(io, &caller, certified, attempt).await;
        if caller.chain.is_empty() {
            self.left(caller.source, attempt, used, &ended).await;
        }
    }

    async fn begin_attempt(&self, caller: &Caller) -> Option<AttemptKey> {
        let attempt = self.app.attempt_reached(&caller.token_id?, caller.source.ip()).await?;
        self.app.advance_attempt(attempt, Stage::Tls, None).await;
        Some(attempt)
    }

    /// The agent whose certificate was shown, if one was and it is an agent's.
    fn identify(&self, caller: &Caller) -> Option<(AgentKey, Certified)> {
        if caller.chain.is_empty() {
            return None;
        }
        match verify_peer(&caller.chain, self.app.roots(), self.app.domain(), self.app.now()) {
            Ok(certified) => match certified.identity {
                Identity::Agent { org, agent } => Some((AgentKey { org, agent }, certified)),
                _ => {
                    tracing::info!(source = %caller.source, "a certificate that is no agent's was shown at the agents' door");
                    None
                }
            },
            Err(error) => {
                tracing::info!(source = %caller.source, %error, "a certificate was refused at the agents' door");
                None
            }
        }
    }

    async fn hand_over<IO>(
        &self,
        io: IO,
        caller: &Caller,
        certified: Option<(AgentKey, Certified)>,
        attempt: Option<AttemptKey>,
    ) -> (Use, Ended)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let agent = certified.as_ref().map(|(agent, _)| *agent);
        let desk = Desk {
            app: self.app.clone(),
            metrics: self.metrics.clone(),
            source: caller.source,
            agent,
            exporter: caller.exporter,
            attempt,
        };
        let used = Used::default();
        let enrolment = EnrolmentServer::new(desk).max_decoding_message_size(MESSAGE_MAX);
        let desk = TelemetryDesk { app: self.app.clone(), source: caller.source, agent };
        let telemetry = TelemetryServer::new(desk).max_decoding_message_size(REPORT_BYTES_MAX);
        let services = tonic::service::Routes::new(enrolment).add_service(telemetry);
        let fallback = GrpcOnly::new(services, used.clone());
        let serial =
            certified.as_ref().map(|(_, certified)| certified.serial.to_string()).unwrap_or_default();
        let not_after = certified.map(|(_, certified)| certified.not_after.into());
        let peer = Peer { agent, source: caller.source, not_after };
        let gatekeeper = Gatekeeper::new(self.app.clone(), self.hub.clone(), self.supervisor.clone(), serial);
        let stop = self.drain.clone();
        let ended = self.hub.serve(io, peer, gatekeeper, fallback, stop).await;
        (used.so_far(), ended)
    }
}

/// Answers HTTP/1.1, which no agent speaks.
async fn say_grpc_only<IO: AsyncWrite + Unpin>(mut io: IO) {
    let answer = format!(
        "HTTP/1.1 415 Unsupported Media Type\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{GRPC_ONLY}",
        GRPC_ONLY.len()
    );
    let said = async {
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "whoever spoke http at the agents' door left without an answer");
    }
}
