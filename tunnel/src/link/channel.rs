//! Other gRPC services on the agent's connection, for tonic's generated clients.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use h2::client::SendRequest;
use http_body::Body as _;

use crate::BoxError;
use crate::bridge::{RawBody, send_body};
use crate::wire::Chunk;

/// A connection as tonic's generated clients want it. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    send: SendRequest<Chunk>,
}

impl Channel {
    pub(super) fn new(send: SendRequest<Chunk>) -> Self {
        Self { send }
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<tonic::body::Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.send.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        parts.extensions.clear();
        parts.version = http::Version::HTTP_2;
        let empty = body.is_end_stream();
        let sent = self.send.send_request(http::Request::from_parts(parts, ()), empty);
        Box::pin(async move {
            let (response, stream) = sent?;
            if !empty {
                // It ends with its body, or when the stream is reset.
                tokio::spawn(send_body(body, stream));
            }
            Ok(response.await?.map(|stream| tonic::body::Body::new(RawBody::new(stream))))
        })
    }
}
