//! The agent's end: dialling, and answering calls.
mod backoff;
mod types;
use crate::{BoxError, Limits};
pub use backoff::Backoff;
pub use types::*;
use culvert_proto::tunnel::v1 as proto;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
/// The link.
pub struct Link;
/// For tonic's generated clients.
#[derive(Clone)] pub struct Channel;
/// The link cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("the connection cannot be used: {0}")]
pub struct LinkError(pub(crate) String);
#[allow(unused_variables, missing_docs, clippy::todo)]
impl Link {
    pub async fn start<IO>(io: IO, limits: Limits) -> Result<Self, LinkError> where IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static { todo!() }
    pub fn channel(&self) -> Channel { todo!() }
    pub async fn run<H: Handler>(&self, hello: proto::Hello, handler: H, facts: watch::Receiver<Option<proto::Facts>>, signals: mpsc::Sender<Signal>, stop: CancellationToken) -> LinkEnd { todo!() }
    pub async fn close(self) { todo!() }
}
impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<tonic::body::Body>;
    type Error = BoxError;
    type Future = futures::future::BoxFuture<'static, Result<http::Response<tonic::body::Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> { std::task::Poll::Ready(Ok(())) }
    #[allow(clippy::todo)]
    fn call(&mut self, _request: http::Request<tonic::body::Body>) -> Self::Future { todo!() }
}
