//! Why the controller was not reached.

use std::io;
use std::net::SocketAddr;

use culvert_pki::tls::TlsFailure;

/// A step of dialling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Finding the addresses of a name.
    Dns,
    /// Making a TCP connection.
    Connect,
    /// TLS with the proxy, or its answer to `CONNECT`.
    Proxy,
    /// TLS with a box on the way, and its answer to the request for a WebSocket.
    WebSocket,
    /// TLS with the controller.
    Tls,
}

/// Why the controller was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address, or is no `host:port`.
    #[error("the address of {address} cannot be found")]
    Dns {
        /// What was looked up.
        address: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// TCP failed.
    #[error("no connection to {remote}")]
    Connect {
        /// The last address tried.
        remote: SocketAddr,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The proxy is described wrongly.
    #[error("the proxy cannot be used: {0}")]
    ProxyInvalid(String),
    /// The proxy closed, or did not answer as a proxy does.
    #[error("the proxy did not answer as a proxy does: {0}")]
    ProxyBroken(String),
    /// The proxy answered `CONNECT` with another status than 200.
    #[error("the proxy refused to connect to the controller: status {status}")]
    ProxyRefused {
        /// Its HTTP status.
        status: u16,
    },
    /// The proxy asks for credentials, or refused the ones it got.
    #[error("the proxy wants credentials that it takes")]
    ProxyAuth,
    /// TLS with the proxy failed.
    #[error("TLS with the proxy failed")]
    ProxyTls(#[source] TlsFailure),
    /// No WebSocket was opened.
    #[error("no WebSocket to the controller: {0}")]
    WebSocket(String),
    /// TLS with the controller failed.
    #[error(transparent)]
    Tls(TlsFailure),
    /// The connection broke in the middle of the TLS handshake.
    #[error("the connection broke in the TLS handshake")]
    TlsBroken(#[source] io::Error),
    /// A phase took too long.
    #[error("{}", timed_out(*.0))]
    Timeout(Phase),
}

fn timed_out(phase: Phase) -> &'static str {
    match phase {
        Phase::Dns => "finding the controller's address took too long",
        Phase::Connect => "no answer to the attempt to connect",
        Phase::Proxy => "the proxy took too long to answer",
        Phase::WebSocket => "opening a WebSocket to the controller took too long",
        Phase::Tls => "the TLS handshake took too long",
    }
}

impl DialError {
    pub(super) fn tls(error: io::Error) -> Self {
        match TlsFailure::find(&error) {
            Some(failure) => Self::Tls(failure),
            None => Self::TlsBroken(error),
        }
    }

    /// A stable name for reports and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Dns { .. } | Self::Timeout(Phase::Dns) => "dns",
            Self::Connect { .. } | Self::Timeout(Phase::Connect) => "connect",
            Self::ProxyInvalid(_) => "proxy_invalid",
            Self::ProxyBroken(_) => "proxy_broken",
            Self::ProxyRefused { .. } => "proxy_refused",
            Self::ProxyAuth => "proxy_auth",
            Self::ProxyTls(_) => "proxy_tls",
            Self::Timeout(Phase::Proxy) => "proxy_timeout",
            Self::WebSocket(_) | Self::Timeout(Phase::WebSocket) => "websocket",
            Self::Tls(failure) => failure.code(),
            Self::TlsBroken(_) => "tls_broken",
            Self::Timeout(Phase::Tls) => "tls_timeout",
        }
    }
}
