//! From an address to a TLS session with the controller: DNS, TCP, proxy, TLS.
//!
//! Each phase has its own time-out and its own kind of error, because "cannot
//! connect" helps nobody: an agent's log must say whether the name, the port,
//! the proxy or the certificate is wrong.

mod error;
mod no_proxy;
mod outer;
mod proxy;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use culvert_pki::rejoin::channel_binding;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::websocket::WebSocketIo;

pub use error::{DialError, Phase};
pub use no_proxy::bypasses_proxy;
pub(crate) use proxy::connect_answer;
pub use proxy::{Proxy, ProxyCredentials};
pub use socket::tune;

/// How long each phase may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Finding the addresses of a name.
    pub dns: Duration,
    /// A TCP connection to one address.
    pub connect: Duration,
    /// The proxy's answer to `CONNECT`.
    pub proxy: Duration,
    /// Each TLS handshake.
    pub tls: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dns: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            proxy: Duration::from_secs(10),
            tls: Duration::from_secs(10),
        }
    }
}

/// What the TLS session with the controller runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The connection itself.
    Direct,
    /// A WebSocket, for boxes on the way that end TLS.
    WebSocket,
}

/// How to reach the controller. It holds no connection.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// `host:port` of the controller; an IPv6 address in brackets.
    pub address: String,
    /// The name in SNI and in the certificate.
    pub server_name: ServerName<'static>,
    /// TLS with the controller: whom to trust, who to be.
    pub tls: Arc<ClientConfig>,
    /// A proxy to go through.
    pub proxy: Option<Proxy>,
    /// What the TLS session runs in.
    pub via: Via,
    /// How long each phase may take.
    pub timeouts: Timeouts,
}

impl Dialer {
    /// A dialer without a proxy and with the default time-outs.
    pub fn new(address: impl Into<String>, server_name: ServerName<'static>, tls: Arc<ClientConfig>) -> Self {
        let address = address.into();
        Self { address, server_name, tls, proxy: None, via: Via::Direct, timeouts: Timeouts::default() }
    }

    /// Dials once. Addresses of a name are tried one after the other.
    pub async fn dial(&self) -> Result<Carrier, DialError> {
        let (transport, remote) = match &self.proxy {
            None => self.connect(&self.address).await.map(|(tcp, remote)| (Transport::Tcp(tcp), remote))?,
            Some(proxy) => {
                let (tcp, remote) = self.connect(&proxy.address()?).await?;
                (proxy.tunnel(tcp, &self.address, &self.timeouts).await?, remote)
            }
        };
        let transport = match self.via {
            Via::Direct => transport,
            Via::WebSocket => outer::websocket(transport, &self.address, &self.timeouts).await?,
        };
        let handshake = TlsConnector::from(self.tls.clone()).connect(self.server_name.clone(), transport);
        let tls = timeout(self.timeouts.tls, handshake)
            .await
            .map_err(|_| DialError::Timeout(Phase::Tls))?
            .map_err(DialError::tls)?;
        Ok(Carrier { tls, remote })
    }

    async fn connect(&self, address: &str) -> Result<(TcpStream, SocketAddr), DialError> {
        let addresses: Vec<SocketAddr> = timeout(self.timeouts.dns, tokio::net::lookup_host(address))
            .await
            .map_err(|_| DialError::Timeout(Phase::Dns))?
            .map_err(|source| DialError::Dns { address: address.to_owned(), source })?
            .collect();
        let mut last = DialError::Dns {
            address: address.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        };
        for remote in addresses {
            last = match timeout(self.timeouts.connect, TcpStream::connect(remote)).await {
                Ok(Ok(tcp)) => {
                    tune(&tcp).map_err(|source| DialError::Connect { remote, source })?;
                    return Ok((tcp, remote));
                }
                Ok(Err(source)) => DialError::Connect { remote, source },
                Err(_) => DialError::Timeout(Phase::Connect),
            };
        }
        Err(last)
    }
}

/// What TLS to the controller runs over.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Straight, or through a plain proxy.
    Tcp(TcpStream),
    /// Through a proxy that is itself reached by TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// Inside a WebSocket.
    WebSocket(Box<WebSocketIo<TlsStream<Transport>>>),
}

/// A TLS session with the controller.
#[derive(Debug)]
pub struct Carrier {
    tls: TlsStream<Transport>,
    remote: SocketAddr,
}

impl Carrier {
    /// The 32 bytes that name this TLS session to both ends (RFC 9266).
    pub fn exporter(&self) -> Result<[u8; 32], rustls::Error> {
        channel_binding(self.tls.get_ref().1)
    }

    /// The controller's certificates, leaf first.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.get_ref().1.peer_certificates().unwrap_or_default()
    }

    /// The address dialled: the controller's or the proxy's.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::WebSocket(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::WebSocket(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::WebSocket(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::WebSocket(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::WebSocket(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::WebSocket(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
