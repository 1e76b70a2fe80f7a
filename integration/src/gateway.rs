//! The gateway as a Kubernetes client uses it, one connection a request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use culvert_pki::key::KeyPair;
use culvert_pki::tls::{self, ClientIdentity};
use culvert_pki::{csr, pem};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::controller::DOMAIN;
use crate::door::Door;
use crate::stage::clock;

/// The longest a request through gateway, tunnel and agent may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of a request that is not simply there.
pub type Upload = UnsyncBoxBody<Bytes, std::io::Error>;

/// The API of one cluster, through the gateway, as somebody.
#[derive(Clone)]
pub struct Gateway {
    door: Door,
    cluster: String,
    bearer: Option<String>,
}

impl Gateway {
    /// As the holder of a session or API token.
    pub fn bearer(address: SocketAddr, api: &Api, cluster: &str, token: &str) -> anyhow::Result<Self> {
        let tls = tls::trusted_client(&api.roots()?, None, &[b"http/1.1"], clock())?;
        Self::through(address, tls, cluster, Some(token.to_owned()))
    }

    /// As a person with a certificate that lives `ttl_seconds`.
    pub async fn person(
        address: SocketAddr,
        api: &Api,
        cluster: &str,
        ttl_seconds: u64,
    ) -> anyhow::Result<Self> {
        let (chain, key) = person_certificate(api, ttl_seconds).await?;
        let chain = pem::certificates_from_pem(&chain)?;
        let key = KeyPair::from_pem(&key)?;
        let identity = ClientIdentity { chain: &chain, key: &key };
        let tls = tls::trusted_client(&api.roots()?, Some(identity), &[b"http/1.1"], clock())?;
        Self::through(address, tls, cluster, None)
    }

    /// As whoever the door's TLS says.
    pub fn at_door(door: Door, cluster: &str) -> Self {
        Self { door, cluster: cluster.to_owned(), bearer: None }
    }

    fn through(
        address: SocketAddr,
        tls: rustls::ClientConfig,
        cluster: &str,
        bearer: Option<String>,
    ) -> anyhow::Result<Self> {
        let door = Door::new(address, &format!("kube.{DOMAIN}"), tls)?;
        Ok(Self { door, cluster: cluster.to_owned(), bearer })
    }

    /// The same caller, at another cluster.
    #[must_use]
    pub fn at(&self, cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..self.clone() }
    }

    /// `GET path` of the cluster's API.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, &[], None).await
    }

    /// `POST path` of the cluster's API.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// A request to the cluster's API with further header fields.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        self.raw(method, &format!("/clusters/{}{path}", self.cluster), headers, body).await
    }

    /// A request whose path goes out exactly as written, cluster and all.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let exchange = async {
            let (answer, _connection) = self.begin(method, path, headers, body).await?;
            let status = answer.status();
            let text = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok(Answer::read(status, &text))
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        answer.with_context(|| format!("no answer to {path}"))?.with_context(|| path.to_owned())
    }

    /// Who the cluster's API server takes the caller for.
    pub async fn who(&self) -> anyhow::Result<Value> {
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let answer = self.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await?;
        Ok(answer.ok()?["status"]["userInfo"].clone())
    }

    /// A watch, once its first event has come.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Watch> {
        let path = format!("/clusters/{}{path}", self.cluster);
        let (response, connection) = self.begin(Method::GET, &path, &[], None).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            bail!("{status}: {:?}", response.into_body().collect().await?.to_bytes());
        }
        let mut watch =
            Watch { body: response.into_body(), buffer: BytesMut::new(), _connection: connection };
        watch.event().await.context("the first event")?;
        Ok(watch)
    }

    /// A `GET` whose answer has begun and is not read; it ends when this is dropped.
    pub async fn unread(&self, path: &str) -> anyhow::Result<Exchange> {
        let exchange = self.exchange(Method::GET, path, &[], no_body()).await?;
        anyhow::ensure!(exchange.answer.status().is_success(), "{}", exchange.answer.status());
        Ok(exchange)
    }

    /// A request to the cluster's API of which the answer's head has come.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Upload,
    ) -> anyhow::Result<Exchange> {
        let path = format!("/clusters/{}{path}", self.cluster);
        let request = self.request(method, &path, headers).body(body)?;
        let (answer, connection) = self.sent(request).await?;
        Ok(Exchange { answer, _connection: connection })
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<(Response<Incoming>, SendRequest<Upload>)> {
        let mut request = self.request(method, path, headers);
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                whole(Bytes::from(serde_json::to_vec(body)?))
            }
            None => no_body(),
        };
        self.sent(request.body(body)?).await
    }

    fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::HOST, self.door.name()).header(header::ACCEPT, "application/json");
        if let Some(token) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    async fn sent(
        &self,
        request: Request<Upload>,
    ) -> anyhow::Result<(Response<Incoming>, SendRequest<Upload>)> {
        let mut sender = self.door.http1().await?;
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        Ok((response.context("no head of an answer came")??, sender))
    }
}

/// A request without a body.
#[must_use]
pub fn no_body() -> Upload {
    whole(Bytes::new())
}

/// A body that is all there.
#[must_use]
pub fn whole(bytes: Bytes) -> Upload {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// An answer that has begun, and its connection, which ends when this is dropped.
pub struct Exchange {
    /// The answer.
    pub answer: Response<Incoming>,
    _connection: SendRequest<Upload>,
}

impl Exchange {
    /// Reads `length` bytes of the answer's body or somewhat more, or all when there are fewer.
    pub async fn take(&mut self, length: usize) -> anyhow::Result<Bytes> {
        let mut taken = BytesMut::new();
        while taken.len() < length {
            match self.piece().await.with_context(|| format!("after {} bytes", taken.len()))? {
                Some(piece) => taken.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(taken.freeze())
    }

    /// The same, and says only how many they were.
    pub async fn read(&mut self, length: usize) -> anyhow::Result<usize> {
        let mut read = 0;
        while read < length {
            match self.piece().await.with_context(|| format!("after {read} bytes"))? {
                Some(piece) => read += piece.len(),
                None => break,
            }
        }
        Ok(read)
    }

    /// Reads the rest, which must end as a whole body does; how many bytes that were.
    pub async fn rest(&mut self) -> anyhow::Result<usize> {
        self.read(usize::MAX).await
    }

    async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        let frame = tokio::time::timeout(PATIENCE, self.answer.body_mut().frame()).await;
        match frame.context("nothing comes any more")? {
            Some(frame) => Ok(Some(frame?.into_data().unwrap_or_default())),
            None => Ok(None),
        }
    }
}

/// A watch that is open.
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
    _connection: SendRequest<Upload>,
}

impl Watch {
    /// The next event.
    pub async fn event(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return Ok(serde_json::from_slice(&line)?);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.context("no event came")?;
            let frame = frame.context("the watch ended")?.context("the watch was cut")?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// How long it takes until it is cut, which must be within `limit`.
    pub async fn cut(mut self, limit: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let ended = async { while let Some(Ok(_)) = self.body.frame().await {} };
        tokio::time::timeout(limit, ended)
            .await
            .with_context(|| format!("the watch lives on after {limit:?}"))?;
        Ok(began.elapsed())
    }
}

/// A person's certificate chain and key, both PEM.
pub async fn person_certificate(person: &Api, ttl_seconds: u64) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let request = pem::request_to_pem(&csr::make(&key)?);
    let answer = person
        .post("/certificates", &json!({ "csr_pem": request, "ttl_seconds": ttl_seconds }))
        .await?
        .ok()?;
    let certificate = answer["certificate_pem"].as_str().context("no certificate")?.to_owned();
    Ok((certificate, key.to_pem().to_string()))
}
