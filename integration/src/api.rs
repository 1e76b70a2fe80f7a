//! The REST API as a customer's program uses it: JSON over HTTPS, trust by pin.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use culvert_pki::pin::Pin;
use culvert_pki::verify::Roots;
use culvert_pki::{pem, tls};
use http::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::wait;

/// A client of one controller, signed in or not.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    bearer: Option<String>,
    /// What `GET /info` said.
    pub info: Value,
}

/// An answer: its status, and its body as JSON (null when empty).
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body; text that is not JSON comes as a string.
    pub body: Value,
}

impl Answer {
    /// The body, if the status is a success.
    pub fn ok(self) -> anyhow::Result<Value> {
        if self.status.is_success() { Ok(self.body) } else { bail!("{}: {}", self.status, self.body) }
    }

    /// Reads a body.
    pub(crate) fn read(status: StatusCode, body: &[u8]) -> Self {
        let body = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(_) if body.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(body).into_owned()),
        };
        Self { status, body }
    }

    /// The problem's `code`.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Api {
    /// Learns the controller's CA from its own word, and trusts nothing else from then on.
    pub async fn reach(address: SocketAddr) -> anyhow::Result<Self> {
        // An error means that another story has installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let first = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build()?;
        let info: Value = first
            .get(format!("https://{address}/api/v1/info"))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let root = info["ca"]["pem"].as_str().context("info names no CA")?;
        let root = CertificateDer::from_pem_slice(root.as_bytes())?;
        let domain = info["domain"].as_str().context("info names no domain")?.to_owned();
        let config = tls::pinned_client(
            &[Pin::of_certificate(&root)?],
            &[b"h2", b"http/1.1"],
            Arc::new(rustls::time_provider::DefaultTimeProvider),
        )?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .resolve(&domain, address)
            .no_proxy()
            .build()?;
        Ok(Self { http, base: format!("https://{domain}:{}/api/v1", address.port()), bearer: None, info })
    }

    /// The roots that `info` names.
    pub fn roots(&self) -> anyhow::Result<Roots> {
        let root = self.info["ca"]["pem"].as_str().context("info names no CA")?;
        Ok(Roots::new(pem::certificates_from_pem(root)?)?)
    }

    /// The same controller, as the holder of a session or API token.
    #[must_use]
    pub fn with_bearer(&self, token: &str) -> Self {
        Self { bearer: Some(token.to_owned()), ..self.clone() }
    }

    /// The token this client shows.
    pub fn bearer(&self) -> &str {
        self.bearer.as_deref().unwrap_or_default()
    }

    /// Signs in with a one-time code.
    pub async fn sign_in(&self, code: &str) -> anyhow::Result<Self> {
        let session = self.post("/sessions", &serde_json::json!({ "code": code })).await?.ok()?;
        Ok(self.with_bearer(session["token"].as_str().context("a session has a token")?))
    }

    /// `GET path`, below `/api/v1`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, None).await
    }

    /// A request as it comes, for stories about bad ones and about streams.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Makes a cluster record; gives its id.
    pub async fn cluster_create(&self, name: &str) -> anyhow::Result<String> {
        let cluster = self.post("/clusters", &serde_json::json!({ "name": name })).await?.ok()?;
        Ok(cluster["id"].as_str().context("a cluster has an id")?.to_owned())
    }

    /// Makes a join token for a cluster; gives its text.
    pub async fn join_token(&self, cluster: &str) -> anyhow::Result<String> {
        self.join_token_with(cluster, &serde_json::json!({})).await
    }

    /// Makes a join token with wishes; gives its text.
    pub async fn join_token_with(&self, cluster: &str, wishes: &Value) -> anyhow::Result<String> {
        let token = self.post(&format!("/clusters/{cluster}/join-tokens"), wishes).await?.ok()?;
        Ok(token["token"].as_str().context("a join token has a text")?.to_owned())
    }

    /// Makes an API token; gives its id and its text.
    pub async fn api_token(&self, name: &str, role: &str) -> anyhow::Result<(String, String)> {
        let wishes = serde_json::json!({ "name": name, "role": role, "ttl_seconds": 3600 });
        let token = self.post("/api-tokens", &wishes).await?.ok()?;
        let part =
            |part: &str| token[part].as_str().context("an API token has an id and a text").map(str::to_owned);
        Ok((part("id")?, part("token")?))
    }

    /// The present agent of a cluster.
    pub async fn agent_of(&self, cluster: &str) -> anyhow::Result<Value> {
        let cluster = self.get(&format!("/clusters/{cluster}")).await?.ok()?;
        anyhow::ensure!(cluster["agent"].is_object(), "no agent: {cluster}");
        Ok(cluster["agent"].clone())
    }

    /// A cluster's diagnosis.
    pub async fn diagnosis(&self, cluster: &str) -> anyhow::Result<Value> {
        self.get(&format!("/clusters/{cluster}/diagnosis")).await?.ok()
    }

    /// Waits until the newest attempt at a cluster has stopped with `code`, which
    /// must come with what was seen and what to do.
    pub async fn attempt_stopped(&self, cluster: &str, code: &str) -> anyhow::Result<Value> {
        wait::until(Duration::from_secs(20), || async {
            let diagnosis = self.diagnosis(cluster).await?;
            let attempt = diagnosis["attempts"][0].clone();
            anyhow::ensure!(attempt["code"] == code, "not stopped by {code}: {diagnosis:#}");
            let fix = attempt["fix"].as_str().unwrap_or_default();
            anyhow::ensure!(!fix.is_empty(), "no fix: {attempt}");
            Ok(attempt)
        })
        .await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await.with_context(|| path.to_owned())?;
        let status = answer.status();
        Ok(Answer::read(status, &answer.bytes().await?))
    }
}
