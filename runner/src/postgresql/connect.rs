//! Ways into PostgreSQL: the socket of this pod, and the network with TLS.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{ADMIN, MONITOR};
use crate::engine::{EngineError, Peer, Situation};

/// How long a connection may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long a statement of the runner may take.
const STATEMENT: &str = "-c statement_timeout=30s -c lock_timeout=10s -c synchronous_commit=local";

/// A session; it ends in order when this is dropped.
pub(super) struct Session {
    /// For queries.
    pub(super) client: Client,
}

/// As administrator, through the socket of this pod. Waits for no standby.
///
/// # Errors
/// [`EngineError::Refused`].
pub(super) async fn local(now: &Situation, database: &str) -> Result<Session, EngineError> {
    let mut config = base(ADMIN, database, now.config.port);
    config.host_path(&now.folders.run);
    let (client, connection) =
        config.connect(NoTls).await.map_err(|error| refused("log in through the socket", &error))?;
    Ok(session(client, connection))
}

/// As monitor, over the network of this pod, as applications come in.
///
/// # Errors
/// [`EngineError::Refused`].
pub(super) async fn monitor(now: &Situation) -> Result<Session, EngineError> {
    let here = ("127.0.0.1", now.config.port);
    remote(now, here, MONITOR, &now.credentials.monitor, "postgres").await
}

/// As administrator of another member.
///
/// # Errors
/// [`EngineError::Refused`].
pub(super) async fn admin_of(now: &Situation, peer: &Peer) -> Result<Session, EngineError> {
    remote(now, (&peer.host, peer.port), ADMIN, &now.credentials.admin, "postgres").await
}

async fn remote(
    now: &Situation,
    (host, port): (&str, u16),
    user: &str,
    password: &SecretString,
    database: &str,
) -> Result<Session, EngineError> {
    let mut config = base(user, database, port);
    config.host(host).password(password.expose_secret()).ssl_mode(tokio_postgres::config::SslMode::Require);
    let tls = tls(&now.folders.tls.join("ca.crt"))?;
    let (client, connection) =
        config.connect(tls).await.map_err(|error| refused(&format!("log in as {user}"), &error))?;
    Ok(session(client, connection))
}

fn base(user: &str, database: &str, port: u16) -> Config {
    let mut config = Config::new();
    config.user(user).dbname(database).port(port).application_name("culvert-runner");
    config.connect_timeout(CONNECT).options(STATEMENT).tcp_user_timeout(Duration::from_secs(10));
    config
}

fn session<C>(client: Client, connection: C) -> Session
where
    C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    // Moves the bytes until the client is dropped, or the server is gone.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a session with the engine ended");
        }
    });
    Session { client }
}

/// The error with what the server said. Statements of the runner hold no password, so neither does this.
pub(super) fn refused(what: &str, error: &tokio_postgres::Error) -> EngineError {
    let why = error.as_db_error().map_or_else(
        || {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        },
        |error| error.message().to_owned(),
    );
    EngineError::refused(what, why)
}

/// Trusts what `ca` has signed, whatever name it bears: members are reached by many.
fn tls(ca: &Path) -> Result<MakeRustlsConnect, EngineError> {
    let read = |error: rustls::pki_types::pem::Error| EngineError::refused("read ca.crt", error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(read)? {
        roots.add(certificate.map_err(read)?).map_err(|error| EngineError::refused("read ca.crt", error))?;
    }
    let inner = WebPkiServerVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|error| EngineError::refused("trust ca.crt", error))?;
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName { inner }))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match found {
            // The chain, times and purpose have been checked before the name is.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
