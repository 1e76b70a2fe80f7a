//! Added latency of a small GET: the same request by mTLS straight to the API
//! server, and through gateway, tunnel and agent, in turns.
//!
//! Both sides use one kept-alive HTTP/1.1 connection and the same client code.
//! Rounds alternate, so that a machine that drifts drifts for both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where a request goes, and with which identity.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// `host:port` to dial.
    pub(crate) address: String,
    /// Name in the ClientHello and in the Host header.
    pub(crate) server_name: String,
    pub(crate) path: String,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

/// One kept-alive connection to a target.
pub(crate) struct Client {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
    path: String,
}

impl Client {
    pub(crate) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(&target.address).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(target.server_name.clone())?;
        let tls = TlsConnector::from(target.tls.clone()).connect(name, tcp).await.context("handshake")?;
        let (sender, connection) = handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: target.server_name.clone(), path: target.path.clone() })
    }

    /// Sends one GET and reads the whole answer; gives its length in bytes.
    pub(crate) async fn get(&mut self) -> anyhow::Result<usize> {
        let request = Request::get(&self.path)
            .header("host", &self.host)
            .header("accept", "application/json")
            .body(Empty::new())?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body.len())
    }
}

/// Times of one target, microseconds.
#[derive(Default)]
pub(crate) struct Times {
    times: Vec<u64>,
    answer: usize,
}

impl Times {
    pub(crate) fn push(&mut self, time: Duration, answer: usize) {
        self.times.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        self.answer = answer;
    }

    /// Length of the last answer's body, bytes.
    pub(crate) fn answer(&self) -> usize {
        self.answer
    }

    /// The time that `share` of all requests stayed under, microseconds.
    pub(crate) fn quantile(&mut self, share: f64) -> u64 {
        self.times.sort_unstable();
        let last = self.times.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.times.get(at).copied().unwrap_or(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }
}

/// Measures the targets in turns: `rounds` of `each` requests.
pub(crate) async fn compare(targets: &[Target], rounds: usize, each: usize) -> anyhow::Result<Vec<Times>> {
    let mut clients = Vec::new();
    for target in targets {
        let mut client = Client::connect(target).await.with_context(|| target.name.to_owned())?;
        for _ in 0..each.min(200) {
            client.get().await.with_context(|| target.name.to_owned())?;
        }
        clients.push((client, Times::default()));
    }
    for _ in 0..rounds {
        for (client, times) in &mut clients {
            for _ in 0..each {
                let began = Instant::now();
                let answer = client.get().await?;
                times.push(began.elapsed(), answer);
            }
        }
    }
    Ok(clients.into_iter().map(|(_, times)| times).collect())
}
