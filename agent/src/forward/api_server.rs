//! The way to the cluster's own API server: address, TLS, the agent's credentials, a pool of connections.
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::ConfigExt;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;
use zeroize::Zeroizing;

/// Time to dial and to finish the TLS handshake, each.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A rotating token is read again after this long; Kubernetes swaps the file
/// well before the old token ends.
const TOKEN_CACHE: Duration = Duration::from_secs(60);

/// Idle connections that are kept, and for how long.
const IDLE_CONNECTIONS: usize = 32;
const IDLE_TIME: Duration = Duration::from_secs(60);

/// Most that is buffered of one connection, heads included, in bytes.
const BUFFER: usize = 256 * 1024;

/// Why there is no way to the API server.
#[derive(Debug, Error)]
pub enum AccessError {
    /// Neither a pod's service account nor a kubeconfig.
    #[error("this is no pod with a service account ({0}); name a kubeconfig with --kubeconfig")]
    NotInCluster(#[source] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The settings for TLS cannot be used.
    #[error("TLS to the API server: {0}")]
    Tls(String),
    /// The address cannot be used.
    #[error("the API server's address {0} cannot be used")]
    Address(String),
    /// The service account's token cannot be read.
    #[error("the token file {path}: {source}")]
    Token {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// Reads how to reach the API server: a kubeconfig, or else the pod's service account.
///
/// # Errors
/// [`AccessError`] when neither can be used.
pub async fn kube_config(kubeconfig: Option<&Path>) -> Result<kube::Config, AccessError> {
    let Some(path) = kubeconfig else {
        return kube::Config::incluster().map_err(AccessError::NotInCluster);
    };
    let wrong = |reason: String| AccessError::Kubeconfig { path: path.display().to_string(), reason };
    let file = Kubeconfig::read_from(path).map_err(|error| wrong(error.to_string()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|error| wrong(error.to_string()))?;
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err(wrong(
            "credentials by a program are not supported; use a token or a client certificate".to_owned(),
        ));
    }
    if config.proxy_url.is_some() {
        return Err(wrong("proxy-url is not supported".to_owned()));
    }
    Ok(config)
}

/// The API server. Cheap to clone; all clones share one pool.
pub struct ApiServer<B> {
    client: Client<Dialer, B>,
    base: Arc<Base>,
}

impl<B> Clone for ApiServer<B> {
    fn clone(&self) -> Self {
        ApiServer { client: self.client.clone(), base: Arc::clone(&self.base) }
    }
}

struct Base {
    uri: Uri,
    prefix: String,
    credentials: Credentials,
}

/// Why a request has no answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    /// The path does not fit behind the API server's address.
    #[error("the path cannot be sent")]
    Path,
    /// Nothing was reached.
    #[error("{0}")]
    Unreachable(String),
    /// It was reached and then lost.
    #[error("{0}")]
    Broken(String),
}

impl<B> ApiServer<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Prepares the way; nothing is dialled.
    ///
    /// # Errors
    /// [`AccessError`] when address, TLS settings or credentials cannot be used.
    pub fn new(config: &kube::Config) -> Result<Self, AccessError> {
        let uri = config.cluster_url.clone();
        let address = || AccessError::Address(uri.to_string());
        let plain = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => false,
            Some(scheme) if *scheme == Scheme::HTTP => true,
            _ => return Err(address()),
        };
        let host = uri.host().ok_or_else(address)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
        let tls = if plain {
            None
        } else {
            // No ALPN: HTTP/1.1, as upgrades need it, on connections that are reused.
            let tls = config
                .rustls_client_config()
                .map_err(|error| AccessError::Tls(crate::causes::chain(&error)))?;
            let name = ServerName::try_from(name).map_err(|_| address())?;
            Some((TlsConnector::from(Arc::new(tls)), name))
        };
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(BUFFER)
            .build(Dialer { host, port, tls });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let credentials = Credentials::new(&config.auth_info)?;
        Ok(ApiServer { client, base: Arc::new(Base { uri, prefix, credentials }) })
    }

    /// Sends a request under the agent's credentials. No redirect is followed
    /// and nothing is timed but the dialling.
    pub(super) async fn send(&self, mut request: Request<B>) -> Result<Response<Incoming>, SendError> {
        *request.uri_mut() = self.base.target(request.uri())?;
        *request.version_mut() = http::Version::HTTP_11;
        if let Some(value) = self.base.credentials.header().await {
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        self.client.request(request).await.map_err(|error| {
            let text = crate::causes::chain(&error);
            if error.is_connect() { SendError::Unreachable(text) } else { SendError::Broken(text) }
        })
    }
}

impl Base {
    /// Only path and query come from the request, whatever else its target says.
    fn target(&self, wanted: &Uri) -> Result<Uri, SendError> {
        let path = wanted.path_and_query().map_or("/", PathAndQuery::as_str);
        if !path.starts_with('/') {
            return Err(SendError::Path);
        }
        let mut parts = self.uri.clone().into_parts();
        let path: PathAndQuery = format!("{}{path}", self.prefix).parse().map_err(|_| SendError::Path)?;
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|_| SendError::Path)
    }
}

/// What the agent itself shows to the API server beyond a client certificate.
enum Credentials {
    None,
    Fixed(HeaderValue),
    File { path: PathBuf, cached: tokio::sync::Mutex<(HeaderValue, Instant)> },
}

impl Credentials {
    fn new(auth: &AuthInfo) -> Result<Credentials, AccessError> {
        if let Some(token) = &auth.token {
            return bearer(token.expose_secret())
                .map(Credentials::Fixed)
                .ok_or_else(|| unreadable("in the kubeconfig"));
        }
        if let (Some(user), Some(password)) = (&auth.username, &auth.password) {
            return basic(user, password)
                .map(Credentials::Fixed)
                .ok_or_else(|| unreadable("in the kubeconfig"));
        }
        let Some(path) = &auth.token_file else { return Ok(Credentials::None) };
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|source| AccessError::Token { path: path.clone(), source })?;
        let value = bearer(&text).ok_or_else(|| unreadable(path))?;
        let cached = tokio::sync::Mutex::new((value, Instant::now()));
        Ok(Credentials::File { path: PathBuf::from(path), cached })
    }

    async fn header(&self) -> Option<HeaderValue> {
        match self {
            Credentials::None => None,
            Credentials::Fixed(value) => Some(value.clone()),
            Credentials::File { path, cached } => {
                let mut cached = cached.lock().await;
                if cached.1.elapsed() >= TOKEN_CACHE {
                    match tokio::fs::read_to_string(path).await.map(Zeroizing::new) {
                        Ok(text) => cached.0 = bearer(&text).unwrap_or_else(|| cached.0.clone()),
                        Err(error) => {
                            tracing::warn!(%error, path = %path.display(), "token file unreadable, using the last token")
                        }
                    }
                    cached.1 = Instant::now();
                }
                Some(cached.0.clone())
            }
        }
    }
}

fn unreadable(path: &str) -> AccessError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "holds no usable token");
    AccessError::Token { path: path.to_owned(), source }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let token = token.trim();
    let text = Zeroizing::new(format!("Bearer {token}"));
    sensitive(&text).filter(|_| !token.is_empty())
}

fn basic(user: &str, password: &SecretString) -> Option<HeaderValue> {
    let pair = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
    let text = Zeroizing::new(format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes())));
    sensitive(&text)
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Dials the one address of the API server, whatever the request's target says.
#[derive(Clone)]
struct Dialer {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await.map(TokioIo::new) })
    }
}

impl Dialer {
    async fn dial(&self) -> io::Result<Stream> {
        let tcp = dial_tcp(&self.host, self.port).await?;
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let handshake = connector.connect(name.clone(), tcp);
        match tokio::time::timeout(DIAL_TIMEOUT, handshake).await {
            Ok(done) => done.map(|tls| Stream::Tls(Box::new(tls))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out")),
        }
    }
}

/// Dials within [`DIAL_TIMEOUT`]; small writes are sent at once.
pub(super) async fn dial_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(done) => done?,
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "dialling timed out")),
    };
    tcp.set_nodelay(true)?;
    // A peer that vanished without a word is noticed within about two minutes.
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

/// A connection to the API server.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
