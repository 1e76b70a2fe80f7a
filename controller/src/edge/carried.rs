//! Agents that come inside a WebSocket, because a box on the way ends TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use culvert_tunnel::websocket::{self, WebSocketIo};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::accept::{Gate, Rooms};
use crate::supervise::Supervisor;

/// What carries the agent's TLS session.
pub(crate) type Inner = WebSocketIo<TokioIo<Upgraded>>;

/// Takes them.
#[derive(Clone)]
pub(crate) struct Carried {
    gate: Arc<Gate>,
    supervisor: Supervisor,
}

impl Carried {
    pub(super) fn new(gate: Arc<Gate>, supervisor: Supervisor) -> Self {
        Carried { gate, supervisor }
    }

    /// The answer to a request for such a connection, which then goes on in a task of its own; `None` for any other
    /// request.
    pub(crate) fn answer<R: Rooms>(
        &self,
        request: &mut Request<Incoming>,
        source: SocketAddr,
        rooms: R,
    ) -> Option<Response<Full<Bytes>>> {
        if !websocket::wanted(request) {
            return None;
        }
        let accepted = websocket::accept(request);
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        Some(match (accepted, upgrade) {
            (Ok(response), Some(upgrade)) => {
                let work = self.clone().go_on(upgrade, source, rooms);
                self.supervisor.work("carried connection", work);
                response.map(|()| Full::default())
            }
            (Err(why), _) => refusal(&why),
            (Ok(_), None) => refusal("this connection cannot be upgraded"),
        })
    }

    async fn go_on<R: Rooms>(self, upgrade: OnUpgrade, source: SocketAddr, rooms: R) {
        match upgrade.await {
            Ok(upgraded) => {
                let io = websocket::serve(TokioIo::new(upgraded)).await;
                self.gate.receive_carried(io, source, rooms).await;
            }
            Err(error) => tracing::debug!(%source, %error, "a WebSocket ended before it began"),
        }
    }
}

fn refusal(why: &str) -> Response<Full<Bytes>> {
    let text = format!("Here an agent of Culvert opens a WebSocket: {why}.\n");
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
