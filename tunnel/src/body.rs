//! x
use bytes::Bytes;
use crate::BodyError;
/// The body of a call.
#[derive(Debug)] pub struct Body;
#[allow(missing_docs)]
impl Body { pub fn empty() -> Self { Self } pub fn full(_data: Bytes) -> Self { Self } }
impl Default for Body { fn default() -> Self { Self::empty() } }
impl http_body::Body for Body { type Data = Bytes; type Error = BodyError;
 fn poll_frame(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> { std::task::Poll::Ready(None) } }
