//! The controller's REST API as the command sees it: requests, answers, errors.
//!
//! Every request carries its own limits: 10 s to connect, a time for the whole
//! answer, and a size. A POST carries an `Idempotency-Key`, so one repeat after a
//! lost connection cannot do the work twice. A redirect is never followed: the
//! token would go with it.

mod endpoint;
pub(crate) mod events;
pub(crate) mod model;
pub(crate) mod pages;
mod problem;
pub(crate) mod trust;

use std::time::Duration;

pub(crate) use endpoint::{Endpoint, parse_url};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Exit, Failure};
use crate::output::{Out, Tree};

/// Nothing the API answers is near this; a stream is read piece by piece.
const ANSWER_LIMIT: usize = 32 << 20;
/// Time for one whole answer unless the person says otherwise.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(30);
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A server may ask for patience; this much is granted without asking the person.
const PATIENCE: Duration = Duration::from_secs(5);

/// One controller, and the session there if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    token: Option<SecretString>,
    time: Duration,
    out: Out,
}

/// An answer that is a success.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The answer as a value with fields in the order they came.
    pub(crate) fn tree(&self) -> Result<Tree, Failure> {
        Tree::from_json(&self.body).map_err(|error| not_the_contract(&error))
    }

    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| not_the_contract(&error))
    }
}

fn not_the_contract(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Failed, "the controller answered something this command does not understand")
        .because(error)
        .next("culvert version, to compare the versions")
}

/// A request before it is sent. Its body may hold a secret, so it has no `Debug`.
pub(crate) struct Ask {
    method: Method,
    url: Url,
    body: Option<Vec<u8>>,
    key: Option<HeaderValue>,
}

impl Ask {
    /// Adds `name=value` to the query.
    #[must_use]
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// Gives it a JSON body.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, Failure> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Failure::new(Exit::Failed, "cannot write the request").because(error))?;
        self.body = Some(bytes);
        Ok(self)
    }

    /// Gives it a body that is JSON already.
    #[must_use]
    pub(crate) fn raw(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }
}

impl Client {
    /// A client of `endpoint`; `time` is for one whole answer.
    pub(crate) fn new(
        endpoint: Endpoint,
        tls: rustls::ClientConfig,
        token: Option<SecretString>,
        time: Option<Duration>,
        out: Out,
    ) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME)
            .user_agent(concat!("culvert/", env!("CARGO_PKG_VERSION")));
        if let Some((name, addresses)) = endpoint.override_addresses() {
            builder = builder.resolve_to_addrs(name, addresses);
        }
        let http = builder.build().map_err(|error| {
            Failure::new(Exit::Failed, "cannot set up HTTPS").because(problem::causes(&error))
        })?;
        Ok(Self { http, endpoint, token, time: time.unwrap_or(REQUEST_TIME), out })
    }

    /// A request to `/api/v1/<segments>`; each segment is escaped as a whole.
    pub(crate) fn ask(&self, method: Method, segments: &[&str]) -> Ask {
        let mut url = self.endpoint.url();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(["api", "v1"]).extend(segments);
        }
        Ask::of(method, url)
    }

    /// A request to a path as the person wrote it, with or without `/api/v1`.
    pub(crate) fn ask_path(&self, method: Method, path: &str) -> Result<Ask, Failure> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let whole = if path == "api" || path.starts_with("api/") {
            format!("/{path}")
        } else {
            format!("/api/v1/{path}")
        };
        let url =
            self.endpoint.url().join(&whole).ok().filter(|url| url.origin() == self.endpoint.url().origin());
        url.map(|url| Ask::of(method, url))
            .ok_or_else(|| Failure::new(Exit::Usage, format!("\"{path}\" is not a path of the API")))
    }

    pub(crate) async fn get(&self, segments: &[&str]) -> Result<Answer, Failure> {
        self.send(self.ask(Method::GET, segments)).await
    }

    /// Sends, repeats once what may be repeated, and gives a success or a failure.
    pub(crate) async fn send(&self, ask: Ask) -> Result<Answer, Failure> {
        let mut repeats = 1;
        loop {
            let (failure, pause) = match self.once(&ask).await {
                Ok(answer) if answer.status.is_success() => {
                    return Ok(answer);
                }
                Ok(answer) => (problem::from_answer(&answer), patience(&answer)),
                Err(failure) => (failure, None),
            };
            match pause.filter(|_| repeats > 0) {
                Some(pause) => {
                    self.out.detail(&format!("the controller is busy; again in {}s", pause.as_secs()));
                    tokio::time::sleep(pause).await;
                    repeats -= 1;
                }
                None => return Err(failure),
            }
        }
    }

    async fn once(&self, ask: &Ask) -> Result<Answer, Failure> {
        let mut request = self.http.request(ask.method.clone(), ask.url.clone()).timeout(self.time);
        request = request.headers(self.headers()?);
        if let Some(body) = &ask.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        if let Some(key) = &ask.key {
            request = request.header("idempotency-key", key.clone());
        }
        let broken = |error: reqwest::Error| problem::from_transport(&error, &self.endpoint);
        let mut response = request.send().await.map_err(broken)?;
        self.out.detail(&format!("{} {} → {}", ask.method, ask.url.path(), response.status()));
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(broken)? {
            if body.len() + piece.len() > ANSWER_LIMIT {
                return Err(Failure::new(Exit::Failed, "the answer is too large")
                    .because(format!("it has more than {} MiB", ANSWER_LIMIT >> 20)));
            }
            body.extend_from_slice(&piece);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(Answer { status: response.status(), headers, body })
    }

    /// Opens a stream of events; only its beginning has a time limit.
    async fn open(&self, ask: &Ask, last_id: Option<&str>) -> Result<reqwest::Response, Failure> {
        let mut headers = self.headers()?;
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("last-event-id", id);
        }
        self.begin(ask, headers).await
    }

    /// Opens a stream of text; only its beginning has a time limit.
    pub(crate) async fn stream(&self, ask: &Ask) -> Result<reqwest::Response, Failure> {
        let mut headers = self.headers()?;
        headers.insert(ACCEPT, HeaderValue::from_static("text/plain"));
        self.begin(ask, headers).await
    }

    async fn begin(&self, ask: &Ask, headers: HeaderMap) -> Result<reqwest::Response, Failure> {
        let request = self.http.request(ask.method.clone(), ask.url.clone()).headers(headers).send();
        let response = match tokio::time::timeout(REQUEST_TIME, request).await {
            Ok(response) => response.map_err(|error| problem::from_transport(&error, &self.endpoint))?,
            Err(_) => return Err(problem::silent(&self.endpoint)),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map(Vec::from).unwrap_or_default();
        Err(problem::from_answer(&Answer { status, headers, body }))
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/yaml;q=0.9"));
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Failure::not_signed_in("the stored token cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

impl Ask {
    fn of(method: Method, url: Url) -> Self {
        let key = (method == Method::POST)
            .then(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok())
            .flatten();
        Self { method, url, body: None, key }
    }
}

/// How long to wait before the one repeat, when the controller asked for it and
/// the wait is short enough to be spent without telling.
fn patience(answer: &Answer) -> Option<Duration> {
    let busy = matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let asked =
        answer.headers.get(RETRY_AFTER)?.to_str().ok()?.parse::<u64>().ok().map(Duration::from_secs)?;
    (busy && asked <= PATIENCE).then_some(asked)
}
