//! Which room is behind which door.

use std::future::Future;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::peers;
use crate::agents::{Agents, Caller};
use crate::app::App;
use crate::console;
use crate::edge::{self, Arrival, Carried, Connection, Door, HttpLimits, Inner, Rooms, TurnedAway};
use crate::gateway::{Answer, Gateway, Visit};
use crate::supervise::Supervisor;

/// The rooms.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) app: App,
    pub(super) api: axum::Router,
    pub(super) agents: Agents,
    pub(super) gateway: Gateway,
    pub(super) carried: Carried,
    pub(super) limits: HttpLimits,
    pub(super) supervisor: Supervisor,
}

impl Rooms for Doors {
    async fn welcome(&self, connection: Connection<TcpStream>) {
        let Connection { arrival, stream, http2, chain, exporter } = connection;
        match arrival.door {
            Door::Api => {
                let room = ApiDoor { rooms: self.clone(), source: arrival.source };
                edge::serve(stream, http2, room, &self.limits, &self.supervisor).await;
            }
            Door::Gateway => {
                let room = GatewayDoor(self.gateway.visit(arrival.source, &chain));
                edge::serve(stream, http2, room, &self.limits, &self.supervisor).await;
            }
            Door::Replicas => {
                if peers::is_replica(&self.app, &chain) {
                    self.gateway.hub.serve_replica(stream, self.supervisor.stopping().clone()).await;
                } else {
                    tracing::info!(source = %arrival.source, "somebody who is no replica knocked at the replicas' door");
                }
            }
            Door::Agents => {
                let caller = Caller { source: arrival.source, token_id: arrival.token_id, chain, exporter };
                self.agents.serve(stream, http2, caller).await;
            }
        }
    }

    async fn welcome_carried(&self, connection: Connection<Inner>) {
        let Connection { arrival, stream, http2, chain, exporter } = connection;
        let caller = Caller { source: arrival.source, token_id: arrival.token_id, chain, exporter };
        self.agents.serve(stream, http2, caller).await;
    }

    async fn turned_away(&self, arrival: Arrival, cause: TurnedAway) {
        if arrival.door == Door::Agents {
            let error = match cause {
                TurnedAway::Timeout => std::io::ErrorKind::TimedOut.into(),
                TurnedAway::Full => return self.agents.no_place(arrival.source, arrival.token_id).await,
                TurnedAway::Tls(error) => error,
            };
            self.agents.tls_failed(arrival.source, arrival.token_id, &error).await;
        }
    }
}

#[derive(Clone)]
struct ApiDoor {
    rooms: Doors,
    source: SocketAddr,
}

impl edge::Service for ApiDoor {
    type Body = axum::body::Body;

    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static {
        let carried = self.rooms.carried.answer(&mut request, self.source, self.rooms.clone());
        request.extensions_mut().insert(ConnectInfo(self.source));
        let router = self.rooms.api.clone();
        async move {
            if let Some(answer) = carried {
                return answer.map(axum::body::Body::new);
            }
            let path = request.uri().path();
            let answered = if console::is_for_pages(path) {
                console::answer(request.method(), path, request.headers())
            } else {
                router.oneshot(request).await
            };
            match answered {
                Ok(answer) => answer,
                Err(never) => match never {},
            }
        }
    }
}

#[derive(Clone)]
struct GatewayDoor(Visit);

impl edge::Service for GatewayDoor {
    type Body = Answer;

    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Answer>> + Send + 'static {
        self.0.clone().answer(request)
    }
}
