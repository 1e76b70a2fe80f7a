//! What stands between a customer's cluster and the world: a proxy that asks for a
//! password, and a box that opens TLS.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::process::{self, Child};

/// What [`Interceptor`] calls its authority, and so the issuer that a client meets.
pub const INSPECTOR: &str = "Corp Inspect";

/// A real HTTP proxy (tinyproxy) that carries CONNECT to chosen ports, after basic
/// authentication. Gone when dropped.
#[derive(Debug)]
pub struct ConnectProxy {
    server: Child,
    _folder: tempfile::TempDir,
    address: SocketAddr,
    password: String,
}

impl ConnectProxy {
    /// Starts one at a free port of `host` that carries CONNECT to `ports` only.
    pub async fn start(host: IpAddr, ports: &[u16]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = process::free_address(&host.to_string())?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        let mut config = format!(
            "Listen {host}\nPort {}\nTimeout 600\nMaxClients 200\nLogLevel Connect\n\
             DisableViaHeader Yes\nBasicAuth {} {password}\n",
            address.port(),
            Self::USER,
        );
        for port in ports {
            config.push_str(&format!("ConnectPort {port}\n"));
        }
        let file = folder.path().join("tinyproxy.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&file);
        let server = Child::spawn("tinyproxy", command, &folder.path().join("log"))
            .context("no tinyproxy: run integration/kube/requires --stories")?;
        process::accepts(address, Duration::from_secs(10)).await?;
        Ok(Self { server, _folder: folder, address, password })
    }

    /// The user that it knows.
    pub const USER: &'static str = "site";

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://HOST:PORT`, without credentials.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The password of [`ConnectProxy::USER`].
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Its process, to end it or to read what it carried: it logs each CONNECT.
    pub fn server(&mut self) -> &mut Child {
        &mut self.server
    }
}

/// A TLS inspector: ends TLS with a certificate of its own for whatever name the client
/// asks for, and starts TLS anew to the real server. Stops when dropped.
#[derive(Debug)]
pub struct Interceptor {
    address: SocketAddr,
    ca: String,
    task: tokio::task::JoinHandle<()>,
}

impl Interceptor {
    /// Starts one at a free port of `host`, before the TLS server `upstream`.
    pub async fn start(host: IpAddr, upstream: SocketAddr) -> anyhow::Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let ca = authority.pem.clone();
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let authority = Arc::clone(&authority);
                tokio::spawn(async move {
                    // A client that does not trust us hangs up; that is the story, not a fault.
                    if let Err(error) = inspect(client, upstream, &authority).await {
                        tracing::debug!(error = format!("{error:#}"), "inspected connection ended");
                    }
                });
            }
        });
        Ok(Self { address, ca, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority in PEM, for clients that trust it.
    pub fn ca(&self) -> &str {
        &self.ca
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The authority that signs for every name.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, INSPECTOR);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?;
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Ok(Self { issuer: Issuer::new(params, key), pem, certificate })
    }

    fn server(&self, name: &str, alpn: Vec<Vec<u8>>) -> anyhow::Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = alpn;
        Ok(config)
    }
}

async fn inspect(client: TcpStream, upstream: SocketAddr, authority: &Authority) -> anyhow::Result<()> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), client).await?;
    let hello = start.client_hello();
    let name = hello.server_name().unwrap_or("localhost").to_owned();
    let alpn = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
    // The real server first, so that the client is offered what it speaks.
    let server = TlsConnector::from(Arc::new(trusting_anybody(alpn)?))
        .connect(ServerName::try_from(name.clone())?, TcpStream::connect(upstream).await?)
        .await?;
    let spoken = server.get_ref().1.alpn_protocol().map(<[u8]>::to_vec).into_iter().collect();
    let mut client = start.into_stream(Arc::new(authority.server(&name, spoken)?)).await?;
    let mut server = server;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

fn trusting_anybody(alpn: Vec<Vec<u8>>) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// An inspector that accepts every server, as careless ones do.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
