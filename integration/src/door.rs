//! One TLS connection to a door of the controller, made by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest that TCP and TLS may take on loopback.
const PATIENCE: Duration = Duration::from_secs(20);

/// A door: an address, the name that leads to it, and how to trust it.
#[derive(Clone)]
pub struct Door {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    source: IpAddr,
}

impl Door {
    /// The door called `name` of the controller at `address`.
    pub fn new(address: SocketAddr, name: &str, tls: ClientConfig) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            name: ServerName::try_from(name.to_owned())?,
            tls: Arc::new(tls),
            source: Ipv4Addr::UNSPECIFIED.into(),
        })
    }

    /// The same door, come to from another address of this machine.
    #[must_use]
    pub fn from(self, source: IpAddr) -> Self {
        Self { source, ..self }
    }

    /// A TLS connection, with nothing said on it yet.
    pub async fn open(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let opening = async {
            let tcp = connect_from(self.source, self.address).await?;
            TlsConnector::from(self.tls.clone()).connect(self.name.clone(), tcp).await
        };
        tokio::time::timeout(PATIENCE, opening).await.context("the door did not answer")?.context("TLS")
    }

    /// The same as an HTTP/1.1 client. Paths go out as they are written, dots and all.
    pub async fn http1<B>(&self) -> anyhow::Result<SendRequest<B>>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
        B: Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(self.open().await?)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// The name that leads to it.
    pub fn name(&self) -> String {
        self.name.to_str().into_owned()
    }
}

/// A TCP connection that comes from `source`, any address of this machine.
pub async fn connect_from(source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let tcp = socket.connect(to).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
