//! Tells whether a connection asked for anything, and answers what is no gRPC.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use culvert_tunnel::BoxError;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tonic::body::Body;

/// What a connection was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    Nothing,
    /// Requests, but none of them gRPC.
    Http,
    Grpc,
}

/// Remembers it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used(Arc<AtomicU8>);

impl Used {
    pub(crate) fn note(&self, what: Use) {
        self.0.fetch_max(what as u8, Ordering::Relaxed);
    }

    pub(crate) fn so_far(&self) -> Use {
        match self.0.load(Ordering::Relaxed) {
            0 => Use::Nothing,
            1 => Use::Http,
            _ => Use::Grpc,
        }
    }
}

/// Passes gRPC on to `inner`; a browser that came here by mistake is told so.
#[derive(Clone)]
pub(crate) struct GrpcOnly<S> {
    inner: S,
    used: Used,
}

/// How long a request may take to come and to be answered: as long as an agent waits. Whoever
/// begins one and stops has proved nothing yet, and must not hold a connection for ever.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const TOO_SLOW: &str = "the request did not come, or was not answered, in time";

/// Said to whoever opens this door's name in a browser.
pub(crate) const GRPC_ONLY: &str =
    "This name is for Culvert's agents, which speak gRPC. The API and the console are at another name.\n";

impl<S> GrpcOnly<S> {
    pub(crate) fn new(inner: S, used: Used) -> Self {
        GrpcOnly { inner, used }
    }
}

impl<S> tower::Service<Request<Body>> for GrpcOnly<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if kind.starts_with(b"application/grpc") {
            self.used.note(Use::Grpc);
            let answer = tokio::time::timeout(ANSWER_MAX, self.inner.call(request));
            return Box::pin(async {
                match answer.await {
                    Ok(answer) => Ok(answer?),
                    Err(_) => Ok(tonic::Status::deadline_exceeded(TOO_SLOW).into_http()),
                }
            });
        }
        self.used.note(Use::Http);
        Box::pin(async { Ok(not_grpc()) })
    }
}

fn not_grpc() -> Response<Body> {
    let mut answer = Response::new(Body::new(http_body_util::Full::from(GRPC_ONLY)));
    *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
