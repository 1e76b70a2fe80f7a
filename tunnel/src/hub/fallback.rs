//! Requests on an agent's connection that are not the tunnel's own.

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tower::ServiceExt as _;

use super::Peer;
use crate::BoxError;
use crate::bridge::{RawBody, send_body};
use crate::wire::Chunk;

/// Serves one request to its end.
pub(super) async fn serve_one<S, B>(
    service: S,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Chunk>,
    peer: Peer,
) where
    S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut request = request.map(|stream| tonic::body::Body::new(RawBody::new(stream)));
    request.extensions_mut().insert(peer);
    let mut work = pin!(service.oneshot(request));
    let answer = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer.ok())),
        // Reset by the other end: nobody waits.
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let Some(answer) = answer.await else { return };
    let Some(answer) = answer else { return respond.send_reset(Reason::INTERNAL_ERROR) };
    let (parts, body) = answer.into_parts();
    let mut head = http::Response::from_parts(parts, ());
    // Extensions are of this process and have no meaning to h2.
    head.extensions_mut().clear();
    let empty = body.is_end_stream();
    match respond.send_response(head, empty) {
        Ok(stream) if !empty => send_body(body, stream).await,
        _ => {}
    }
}
