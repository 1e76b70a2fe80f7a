//! The controller's end: sessions of agents, and calls to them.
mod types;
use crate::{Body, CallError, Limits, Refusal, Upgraded, BoxError};
use culvert_proto::tunnel::v1 as proto;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
pub use types::*;
/// The hub.
#[derive(Clone)] pub struct Hub;
/// The cluster.
#[derive(Clone)] pub struct Cluster;
#[allow(unused_variables, missing_docs, clippy::todo)]
impl Hub {
    pub fn new(replica: String, limits: Limits) -> Self { todo!() }
    pub async fn serve<IO, A, S, B>(&self, io: IO, peer: Peer, admission: A, fallback: S, stop: CancellationToken) -> Ended
    where IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static, A: Admission,
        S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static { todo!() }
    pub fn cluster(&self, agent: AgentKey) -> Cluster { todo!() }
    pub fn session(&self, agent: AgentKey) -> Option<SessionInfo> { todo!() }
    pub fn sessions(&self) -> Vec<SessionInfo> { todo!() }
    pub fn counts(&self) -> HubCounts { todo!() }
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> { todo!() }
    pub fn cut(&self, agent: AgentKey, why: Refusal) { todo!() }
    pub fn renew(&self, agent: AgentKey) { todo!() }
}
#[allow(unused_variables, missing_docs, clippy::todo)]
impl Cluster {
    pub fn agent(&self) -> AgentKey { todo!() }
    pub fn with_caller(&self, caller: proto::Caller) -> Self { todo!() }
    pub fn with_options(&self, options: CallOptions) -> Self { todo!() }
    pub async fn call<B>(&self, request: http::Request<B>, options: CallOptions) -> Result<http::Response<Body>, CallError>
    where B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static { todo!() }
    pub async fn connect(&self, target: &str, options: CallOptions) -> Result<Upgraded, CallError> { todo!() }
}
impl<B> tower::Service<http::Request<B>> for Cluster
where B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static {
    type Response = http::Response<Body>;
    type Error = CallError;
    type Future = futures::future::BoxFuture<'static, Result<http::Response<Body>, CallError>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), CallError>> { std::task::Poll::Ready(Ok(())) }
    #[allow(clippy::todo)]
    fn call(&mut self, _request: http::Request<B>) -> Self::Future { todo!() }
}
