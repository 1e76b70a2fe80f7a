//! From a TCP connection to a TLS connection at a door, or the reason why not.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::Acceptor;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::limits::EdgeLimits;
use super::metrics::Early;
use super::name::{Arrival, Door, Names};

/// One TLS configuration per door; a new one replaces the old for new connections.
#[derive(Debug, Clone)]
pub(crate) struct DoorTls {
    pub(crate) api: Arc<ServerConfig>,
    pub(crate) agents: Arc<ServerConfig>,
    pub(crate) gateway: Arc<ServerConfig>,
    pub(crate) replicas: Arc<ServerConfig>,
}

impl DoorTls {
    fn of(&self, door: Door) -> Arc<ServerConfig> {
        match door {
            Door::Api => self.api.clone(),
            Door::Agents => self.agents.clone(),
            Door::Gateway => self.gateway.clone(),
            Door::Replicas => self.replicas.clone(),
        }
    }
}

/// A TLS connection at its door.
#[derive(Debug)]
pub(crate) struct Connection<IO> {
    pub(crate) arrival: Arrival,
    pub(crate) stream: TlsStream<IO>,
    /// The ALPN protocol is h2.
    pub(crate) http2: bool,
    /// What the client presented, leaf first; empty when nothing. The handshake has proved
    /// that it holds the leaf's key.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The session's `tls-exporter` channel binding, RFC 9266.
    pub(crate) exporter: [u8; 32],
}

/// Why a client that had named its door did not get in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnedAway {
    #[error("the TLS handshake was not finished in time")]
    Timeout,
    #[error("the door has no place left")]
    Full,
    #[error("TLS failed")]
    Tls(#[source] io::Error),
}

/// Close a connection whose peer vanished: unacknowledged data for this long.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// First keep-alive probe after this silence, further ones each third of it.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes that may wait unsent in the socket of an agent before the writer is told to hold back,
/// so that a small frame does not queue behind a bulk one. Two TLS records of each of four bulk
/// frames; below about 64 KiB loopback throughput suffers.
const UNSENT: u32 = 128 * 1024;

/// The first byte of a TLS record that holds a handshake message.
const TLS_HANDSHAKE: u8 = 0x16;

/// What plain HTTP is told. `GET / HTTP/1.1` to a TLS port is the commonest mistake of all.
const NOT_TLS: &str = "This port speaks TLS. Use https:// instead of http://.\n";

pub(crate) fn tune(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// Reads the ClientHello. An error tells how the connection ended before it named a door.
pub(crate) async fn hello(
    mut tcp: TcpStream,
    begun: Instant,
    limits: &EdgeLimits,
) -> Result<StartHandshake<TcpStream>, Early> {
    let reading = async {
        let mut first = [0u8; 1];
        match tcp.peek(&mut first).await {
            Ok(1) if first == [TLS_HANDSHAKE] => {}
            Ok(1) => {
                answer_plain(&mut tcp, first).await;
                return Err(Early::NotTls);
            }
            _ => return Err(Early::Hello),
        }
        greeting(tcp).await
    };
    timeout_at(begun + limits.hello, reading).await.unwrap_or(Err(Early::Timeout))
}

/// Reads the ClientHello of a stream that comes inside another connection.
pub(super) async fn inner_hello<IO>(
    io: IO,
    begun: Instant,
    limits: &EdgeLimits,
) -> Result<StartHandshake<IO>, Early>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    timeout_at(begun + limits.hello, greeting(io)).await.unwrap_or(Err(Early::Timeout))
}

async fn greeting<IO>(io: IO) -> Result<StartHandshake<IO>, Early>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // rustls itself bounds a ClientHello to 64 KiB.
    LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(|_| Early::Hello)
}

/// Who wants where.
pub(crate) fn arrival<IO>(start: &StartHandshake<IO>, source: SocketAddr, names: &Names) -> Arrival
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    names.arrival(start.client_hello().server_name(), source)
}

/// Finishes the handshake with the door's configuration.
pub(crate) async fn finish<IO>(
    start: StartHandshake<IO>,
    arrival: &Arrival,
    tls: &DoorTls,
    deadline: Instant,
) -> Result<Connection<IO>, TurnedAway>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = start.into_stream(tls.of(arrival.door));
    let stream =
        timeout_at(deadline, accepting).await.map_err(|_| TurnedAway::Timeout)?.map_err(TurnedAway::Tls)?;
    let (_, session) = stream.get_ref();
    let exporter = session
        .export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", Some(&[]))
        .map_err(|error| TurnedAway::Tls(io::Error::other(error)))?;
    let chain =
        session.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let http2 = session.alpn_protocol() == Some(b"h2");
    Ok(Connection { arrival: arrival.clone(), http2, chain, exporter, stream })
}

pub(super) fn limit_unsent(tcp: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "the kernel takes no limit of unsent bytes");
    }
}

/// Tells a client that speaks HTTP, and only such a one, what is wrong; then closes so that the
/// answer is not lost to a reset.
async fn answer_plain(tcp: &mut TcpStream, first: [u8; 1]) {
    if first.iter().all(u8::is_ascii_uppercase) {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{NOT_TLS}",
            NOT_TLS.len()
        );
        if tcp.write_all(answer.as_bytes()).await.is_ok() && tcp.shutdown().await.is_ok() {
            let mut rest = [0u8; 1024];
            let drained = async {
                for _ in 0..64 {
                    if !matches!(tcp.read(&mut rest).await, Ok(1..)) {
                        break;
                    }
                }
            };
            let _ = timeout(Duration::from_secs(1), drained).await;
        }
    }
}
