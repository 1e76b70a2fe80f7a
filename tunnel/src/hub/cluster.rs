//! An agent's cluster as a service: `http` in, `http` out.

use std::task::{Context, Poll};

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::open::Kind;
use futures::future::BoxFuture;
use http::StatusCode;
use http_body_util::Empty;

use super::call::{Request, call};
use super::upgrade::offer_upgrade;
use super::{AgentKey, CallOptions, Hub};
use crate::wire::headers_to_wire;
use crate::{Body, BoxError, CallError, Upgraded};

/// Makes calls to one agent's cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    hub: Hub,
    agent: AgentKey,
    caller: proto::Caller,
    options: CallOptions,
    /// Only while the agent is connected to this replica.
    here: bool,
}

impl Cluster {
    pub(super) fn new(hub: Hub, agent: AgentKey) -> Self {
        Self { hub, agent, caller: proto::Caller::default(), options: CallOptions::default(), here: false }
    }

    /// The same, as far as this replica reaches by itself.
    pub(crate) fn here(self) -> Self {
        Self { here: true, ..self }
    }

    /// Whose cluster it is.
    #[must_use]
    pub fn agent(&self) -> AgentKey {
        self.agent
    }

    /// The same, calling in this name.
    #[must_use]
    pub fn with_caller(&self, caller: proto::Caller) -> Self {
        Self { caller, ..self.clone() }
    }

    /// The same, with these options for calls made as a [`tower::Service`].
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Self {
        Self { options, ..self.clone() }
    }

    /// Makes a call and gives its answer once the head is there. A request with
    /// an `Upgrade` header whose answer is 101 has its bytes in [`Upgraded::take`].
    /// Dropping the future or the answer's body gives the call up at both ends.
    pub async fn call<B>(
        &self,
        request: http::Request<B>,
        options: CallOptions,
    ) -> Result<http::Response<Body>, CallError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let upgrade = parts.headers.contains_key(http::header::UPGRADE);
        let http = http_request(&parts, upgrade);
        let kind = if upgrade { Kind::Upgrade(http) } else { Kind::Http(http) };
        let request = Request { kind, caller: self.caller.clone(), body, here: self.here };
        let mut answered = call(&self.hub, self.agent, request, &options).await?;
        let limits = &self.hub.0.limits;
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = answered.status;
        *response.headers_mut() = answered.headers.clone();
        if answered.status == StatusCode::SWITCHING_PROTOCOLS {
            if !upgrade {
                return Err(crate::WireError::OutOfOrder.into());
            }
            answered.into_upgraded(limits).put(&mut response);
        } else {
            answered.headers = response.headers().clone();
            *response.body_mut() = answered.into_body(limits).await;
        }
        Ok(response)
    }

    /// Connects to a TCP target that the agent's own policy names.
    pub async fn connect(&self, target: &str, options: CallOptions) -> Result<Upgraded, CallError> {
        let kind = Kind::Tcp(proto::TcpTarget { target: target.to_owned() });
        let (caller, here) = (self.caller.clone(), self.here);
        let request = Request { kind, caller, body: Empty::<Bytes>::new(), here };
        let answered = call(&self.hub, self.agent, request, &options).await?;
        if answered.status != StatusCode::OK {
            return Err(crate::WireError::OutOfOrder.into());
        }
        Ok(answered.into_upgraded(&self.hub.0.limits))
    }
}

fn http_request(parts: &http::request::Parts, upgrade: bool) -> proto::HttpRequest {
    proto::HttpRequest {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: headers_to_wire(&parts.headers, upgrade),
    }
}

/// As `call` with the options of [`Cluster::with_options`], but a 101 carries
/// hyper's `OnUpgrade`, as kube's client wants it, and no [`Upgraded`].
impl<B> tower::Service<http::Request<B>> for Cluster
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let cluster = self.clone();
        Box::pin(async move {
            let mut response = Cluster::call(&cluster, request, cluster.options.clone()).await?;
            if let Some(upgraded) = Upgraded::take(&mut response) {
                offer_upgrade(&mut response, upgraded).await?;
            }
            Ok(response)
        })
    }
}
