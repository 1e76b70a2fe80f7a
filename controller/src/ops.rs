//! The operator's own listener: `/healthz`, `/readyz` and `/metrics`, in the clear, on loopback.
//!
//! It is a listener of its own so that the port that faces the world has no path that tells of
//! the inside. `/healthz` says that the process answers at all; an orchestrator restarts it
//! when it does not. `/readyz` says whether it should be sent work, and why not.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::supervise::Supervisor;

/// Says why the process should not be sent work, or nothing.
pub(crate) type Readiness =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Answers the operator.
#[derive(Clone)]
pub(crate) struct Ops {
    registry: Arc<Registry>,
    readiness: Readiness,
}

/// Connections at once; a scraper and a probe need two.
const CONNECTIONS: usize = 32;
/// A connection lives no longer than this, slow or not.
const LIFE: Duration = Duration::from_secs(60);
/// A store that does not answer in this time is not ready.
const PATIENCE: Duration = Duration::from_secs(2);

impl Ops {
    pub(crate) fn new(registry: Registry, readiness: Readiness) -> Self {
        Ops { registry: Arc::new(registry), readiness }
    }

    /// Serves until the process stops.
    pub(crate) async fn run(self, listener: TcpListener, supervisor: Supervisor) -> Result<(), Infallible> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let stop = supervisor.stopping().clone();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
            let tcp = match stop.run_until_cancelled(listener.accept()).await {
                None => return Ok(()),
                Some(Ok((tcp, _))) => tcp,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the operator's listener cannot accept at the moment");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (ops, stop) = (self.clone(), stop.clone());
            supervisor.work("ops connection", async move {
                let service = service_fn(move |request| {
                    let ops = ops.clone();
                    async move { Ok::<_, Infallible>(ops.answer(request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .max_buf_size(16 * 1024)
                    .serve_connection(TokioIo::new(tcp), service);
                if let Some(Ok(Err(error))) = stop.run_until_cancelled(timeout(LIFE, connection)).await {
                    tracing::debug!(%error, "operator's connection ended early");
                }
                drop(place);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            answer.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready().await,
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "there is /healthz, /readyz and /metrics\n"),
        }
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        match timeout(PATIENCE, (self.readiness)()).await {
            Ok(Ok(())) => text(StatusCode::OK, "ready\n"),
            Ok(Err(reason)) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {reason}\n")),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: no answer in time\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut page = String::new();
        if encode(&mut page, &self.registry).is_err() {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n");
        }
        let mut answer = text(StatusCode::OK, &page);
        let kind =
            http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
