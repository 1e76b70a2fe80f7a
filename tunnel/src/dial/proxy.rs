//! HTTP CONNECT through a proxy, plain or reached by TLS.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use culvert_pki::tls::TlsFailure;

use super::{DialError, Phase, Timeouts, Transport};

/// Most bytes of a proxy's answer.
const MAX_ANSWER: usize = 16 << 10;

/// A user name and a password for the proxy.
#[derive(Debug, Clone)]
pub struct ProxyCredentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: SecretString,
}

/// A proxy that speaks HTTP CONNECT.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://host:port` or `https://host:port`; credentials in it are not looked at.
    pub uri: Uri,
    /// What to say to a proxy that asks who it is (basic authentication).
    pub credentials: Option<ProxyCredentials>,
    /// Whom to trust for an `https://` proxy.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Proxy {
    /// `host:port` of the proxy itself.
    pub(super) fn address(&self) -> Result<String, DialError> {
        let host = self.uri.host().ok_or_else(|| DialError::ProxyInvalid("it has no host".into()))?;
        let usual = match self.uri.scheme_str() {
            Some("http") | None => 80,
            Some("https") => 443,
            Some(other) => return Err(DialError::ProxyInvalid(format!("the scheme {other} is not known"))),
        };
        Ok(format!("{host}:{}", self.uri.port_u16().unwrap_or(usual)))
    }

    /// Asks the proxy at the other end of `tcp` for a connection to `target`.
    pub(super) async fn tunnel(
        &self,
        tcp: TcpStream,
        target: &str,
        timeouts: &Timeouts,
    ) -> Result<Transport, DialError> {
        let work = async {
            if self.uri.scheme_str() == Some("https") {
                let mut tls = Box::new(self.handshake(tcp).await?);
                self.connect(&mut tls, target).await?;
                Ok(Transport::Tls(tls))
            } else {
                let mut tcp = tcp;
                self.connect(&mut tcp, target).await?;
                Ok(Transport::Tcp(tcp))
            }
        };
        timeout(timeouts.proxy, work).await.map_err(|_| DialError::Timeout(Phase::Proxy))?
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(self.roots.iter().cloned());
        if taken == 0 {
            return Err(DialError::ProxyInvalid("an https proxy needs its CA's certificate".into()));
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|_| DialError::ProxyInvalid("its host is not a name TLS can check".into()))?;
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| {
            TlsFailure::find(&error)
                .map_or_else(|| DialError::ProxyBroken(error.to_string()), DialError::ProxyTls)
        })
    }

    async fn connect<IO>(&self, io: &mut IO, target: &str) -> Result<(), DialError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let broken = |error: std::io::Error| DialError::ProxyBroken(error.to_string());
        let request = self.request(target);
        io.write_all(request.as_bytes()).await.map_err(broken)?;
        io.flush().await.map_err(broken)?;
        let mut answer = Vec::new();
        loop {
            // One byte at a time would be exact and slow; more is safe because the
            // target speaks TLS and stays silent until it is spoken to.
            if io.read_buf(&mut answer).await.map_err(broken)? == 0 {
                return Err(DialError::ProxyBroken("it closed the connection".into()));
            }
            if let Some(judged) = connect_answer(&answer) {
                return judged;
            }
            if answer.len() > MAX_ANSWER {
                return Err(DialError::ProxyBroken("its answer is too long".into()));
            }
        }
    }

    fn request(&self, target: &str) -> Zeroizing<String> {
        let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
        if let Some(ProxyCredentials { user, password }) = &self.credentials {
            let pair = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
            let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&encoded);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request
    }
}

/// What the proxy's answer means, once its head is whole.
pub(crate) fn connect_answer(answer: &[u8]) -> Option<Result<(), DialError>> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(judge(answer, end + 4))
}

/// What the proxy's whole answer means; `end` is where its head ends.
fn judge(answer: &[u8], end: usize) -> Result<(), DialError> {
    match status(answer) {
        Some(200..=299) if answer.len() == end => Ok(()),
        Some(200..=299) => Err(DialError::ProxyBroken("bytes came before the connection was used".into())),
        // 407 is the standard's; some proxies, tinyproxy among them, say 401 to a wrong password.
        Some(401 | 407) => Err(DialError::ProxyAuth),
        Some(status) => Err(DialError::ProxyRefused { status }),
        None => Err(DialError::ProxyBroken("it does not speak HTTP/1".into())),
    }
}

/// The status in `HTTP/1.x NNN …`.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    match *rest {
        [b'0' | b'1', b' ', a, b, c, b' ' | b'\r', ..] if [a, b, c].iter().all(u8::is_ascii_digit) => {
            Some([a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let ask = |answer: &str| {
            let end = answer.find("\r\n\r\n").unwrap() + 4;
            judge(answer.as_bytes(), end)
        };
        assert!(ask("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").is_ok());
        assert!(ask("HTTP/1.0 200\r\n\r\n").is_ok());
        assert!(matches!(ask("HTTP/1.1 407 Who\r\n\r\n"), Err(DialError::ProxyAuth)));
        assert!(matches!(ask("HTTP/1.0 401 No\r\n\r\nbody"), Err(DialError::ProxyAuth)));
        assert!(matches!(ask("HTTP/1.1 403 No\r\n\r\nbody"), Err(DialError::ProxyRefused { status: 403 })));
        assert!(matches!(ask("HTTP/1.1 200 OK\r\n\r\nbody"), Err(DialError::ProxyBroken(_))));
        assert!(matches!(ask("SSH-2.0-x\r\n\r\n"), Err(DialError::ProxyBroken(_))));
    }

    #[test]
    fn a_password_shows_in_no_debug_text() {
        let credentials =
            ProxyCredentials { user: "site".into(), password: "hunter2hunter2".to_owned().into() };
        let proxy =
            Proxy { uri: Uri::from_static("http://p:3128"), credentials: Some(credentials), roots: vec![] };
        assert!(!format!("{proxy:?}").contains("hunter2"));
        assert!(proxy.request("c:443").contains("Basic c2l0ZTpodW50ZXIyaHVudGVyMg=="));
    }
}
