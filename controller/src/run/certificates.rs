//! The doors' certificates: made at the start, and made anew at half of their life.

use std::sync::Arc;
use std::time::Duration;

use culvert_pki::tls::{ClientAuth, TlsConfigError, server_config};
use rustls::ServerConfig;
use rustls::time_provider::DefaultTimeProvider;
use tokio::sync::watch;

use crate::app::{App, Error as AppError};
use crate::config::Config;
use crate::domain::Time;
use crate::edge::DoorTls;
use crate::supervise::Supervisor;

/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_secs(60);
/// The longest sleep: clocks jump, and a timer does not see it.
const LONGEST: Duration = Duration::from_secs(3600);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// None was issued.
    #[error(transparent)]
    Issue(#[from] AppError),
    /// TLS does not take it.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Makes the doors' certificates.
pub(super) struct DoorCertificates {
    app: App,
    api: Vec<String>,
    agents: Vec<String>,
    gateway: Vec<String>,
    replicas: Vec<String>,
}

impl DoorCertificates {
    pub(super) fn new(app: &App, config: &Config) -> Self {
        let domain = config.domain.as_str();
        let mut api = vec![domain.to_owned(), "localhost".into(), "127.0.0.1".into(), "::1".into()];
        api.push(config.public_address().host().to_owned());
        api.extend(config.public_names.iter().cloned());
        api.sort();
        api.dedup();
        let agents = config.domain.agents_server_name();
        DoorCertificates {
            app: app.clone(),
            api,
            agents: vec![format!("*.{agents}"), agents],
            gateway: vec![config.domain.gateway_server_name()],
            // Of one that is alone nobody asks by this name.
            replicas: vec![config.domain.replica_server_name(app.replica().unwrap_or_default())],
        }
    }

    /// Makes a set, and starts the task that makes the next ones.
    pub(super) fn start(
        self,
        supervisor: &Supervisor,
    ) -> Result<watch::Receiver<Arc<DoorTls>>, CertificatesError> {
        let (first, mut due) = self.make()?;
        let (sender, receiver) = watch::channel(Arc::new(first));
        let stop = supervisor.stopping().clone();
        supervisor.vital("server certificates", async move {
            loop {
                let wait = (due - self.app.now()).try_into().unwrap_or(Duration::ZERO).min(LONGEST);
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    return Ok::<(), CertificatesError>(());
                }
                if self.app.now() < due {
                    continue;
                }
                match self.make() {
                    Ok((next, next_due)) => {
                        sender.send_replace(Arc::new(next));
                        due = next_due;
                        tracing::info!(next = %due, "the doors have new certificates");
                    }
                    Err(error) => {
                        tracing::error!(%error, "the doors' certificates cannot be renewed");
                        due = self.app.now() + RETRY;
                    }
                }
            }
        });
        Ok(receiver)
    }

    /// A set, and when the next is due.
    fn make(&self) -> Result<(DoorTls, Time), CertificatesError> {
        let both = &[&b"h2"[..], b"http/1.1"];
        let optional = ClientAuth::Optional(self.app.roots());
        let (api, one) = self.door(&self.api, ClientAuth::None, both)?;
        let (agents, two) = self.door(&self.agents, optional, &[b"h2"])?;
        let (gateway, three) = self.door(&self.gateway, optional, both)?;
        let (replicas, four) = self.door(&self.replicas, optional, &[b"h2"])?;
        let now = self.app.now();
        let first_end = one.min(two).min(three).min(four);
        Ok((DoorTls { api, agents, gateway, replicas }, now + (first_end - now) / 2))
    }

    fn door(
        &self,
        names: &[String],
        client_auth: ClientAuth<'_>,
        alpn: &[&[u8]],
    ) -> Result<(Arc<ServerConfig>, Time), CertificatesError> {
        let identity = self.app.issue_server(names)?;
        let config =
            server_config(identity.chain, &identity.key, client_auth, alpn, Arc::new(DefaultTimeProvider))?;
        Ok((Arc::new(config), identity.not_after))
    }
}
