//! The owner's end: takes calls of other replicas to agents that are connected here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_proto::peer::v1 as peer;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::forward::{key_of, longest, read_moved};
use super::trouble::head_of;
use crate::hub::{builder, grpc_response};
use crate::link::answer::{Ground, Parsed, carry, parse};
use crate::stream::{Group, Inbound, Outbound, SharedDuplex, Side, Source};
use crate::wire::{CallId, Chunk, Decoder, Event};
use crate::{
    AgentKey, BoxError, Call, CallError, CallOptions, Cluster, Hub, Kind, Reply, Upgraded, WireError,
};

/// Calls that one replica may have here at once; each agent's own limit comes sooner.
const STREAMS: u32 = 1 << 20;
/// A first message that is not here after this long is none.
const FIRST: Duration = Duration::from_secs(10);
/// What is queued when a connection ends gets this long to leave.
const LINGER: Duration = Duration::from_secs(1);

/// Serves another replica's connection until it ends. When `stop` is cancelled the
/// calls under way get the limit for a drain to end.
pub(crate) async fn serve<IO>(hub: Hub, io: IO, stop: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let limits = hub.limits().clone();
    let mut builder = builder(&limits);
    builder.max_concurrent_streams(STREAMS);
    let Ok(Ok(mut conn)) = timeout(limits.handshake, builder.handshake(io)).await else { return };
    let (mut calls, group) = (JoinSet::new(), Arc::<Group>::default());
    let mut over: Option<Instant> = None;
    loop {
        if over.is_some() && calls.is_empty() {
            return part(conn).await;
        }
        let end = over.unwrap_or_else(Instant::now);
        tokio::select! {
            taken = conn.accept() => match taken {
                Some(Ok((request, respond))) => {
                    calls.spawn(take(hub.clone(), group.clone(), request, respond));
                }
                Some(Err(_)) | None => return,
            },
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            () = stop.cancelled(), if over.is_none() => over = Some(Instant::now() + limits.drain),
            () = sleep_until(end), if over.is_some() => return,
        }
    }
}

/// Lets what is queued leave.
async fn part<IO: AsyncRead + AsyncWrite + Unpin>(mut conn: Connection<IO, Chunk>) {
    conn.graceful_shutdown();
    let gone = async {
        while let Some(Ok((_, mut respond))) = conn.accept().await {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
    };
    // Whoever does not close is cut off.
    let _ = timeout(LINGER, gone).await;
}

async fn take(
    hub: Hub,
    group: Arc<Group>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Chunk>,
) {
    let (head, mut recv) = request.into_parts();
    let first = timeout(FIRST, first_message(&mut recv, longest(hub.limits()))).await;
    let Ok(Ok((message, rest))) = first else { return respond.send_reset(Reason::PROTOCOL_ERROR) };
    match head.uri.path() {
        "/culvert.peer.v1.Peer/Call" => match understand(message) {
            Some((agent, parsed)) => {
                let cluster = hub.cluster(agent).here();
                answer(&hub, &group, cluster, parsed, (recv, rest), respond).await;
            }
            None => respond.send_reset(Reason::PROTOCOL_ERROR),
        },
        "/culvert.peer.v1.Peer/Moved" => {
            if let Some(moved) = read_moved(message) {
                hub.moved(&moved);
            }
            // The other replica may be gone already.
            let _ = respond.send_response(grpc_response(), true);
        }
        _ => respond.send_reset(Reason::REFUSED_STREAM),
    }
}

fn understand(message: Bytes) -> Option<(AgentKey, Parsed)> {
    let forward = peer::Forward::decode(message).ok()?;
    let agent = key_of(&forward.org, &forward.agent)?;
    // The owner gives the call an id of its own.
    let id = CallId::from_bytes(&[0; 16])?;
    Some((agent, parse(id, forward.open?).ok()?))
}

/// The first message, and what came behind it.
async fn first_message(recv: &mut RecvStream, limit: usize) -> Result<(Bytes, Bytes), WireError> {
    let mut decoder = Decoder::new(None, limit);
    loop {
        if let Some(Event::Message(message) | Event::Data(message)) = decoder.next()? {
            return Ok((message, decoder.into_rest()));
        }
        let Some(Ok(bytes)) = recv.data().await else { return Err(WireError::Truncated) };
        // The credit of a stream that is gone does not matter.
        let _ = recv.flow_control().release_capacity(bytes.len());
        decoder.push(bytes);
    }
}

async fn answer(
    hub: &Hub,
    group: &Arc<Group>,
    cluster: Cluster,
    parsed: Parsed,
    (recv, rest): (RecvStream, Bytes),
    mut respond: SendResponse<Chunk>,
) {
    let limits = hub.limits();
    // At once, so that a reset of the caller's is heard while the agent works.
    let Ok(stream) = respond.send_response(grpc_response(), false) else { return };
    let outbound = Outbound::new(Some(stream), Side::Agent, limits.max_frame);
    let inbound = if parsed.whole {
        Inbound::new(Source::Closed, Side::Agent, 0)
    } else {
        Inbound::new(Source::Stream(recv), Side::Agent, limits.max_head).after(rest)
    };
    let duplex = SharedDuplex::new(inbound, outbound);
    let ground = Ground { limits, ledger: hub.ledger(), group };
    carry(ground, duplex, parsed, |call| async move { call_out(&cluster, call).await.map_err(head_of) })
        .await;
}

/// Makes the call at the agent that is connected here.
async fn call_out(cluster: &Cluster, call: Call) -> Result<Reply, CallError> {
    let Call { kind, request, caller, request_id, traceparent, deadline } = call;
    let cluster = cluster.with_caller(caller);
    let options = CallOptions { deadline, request_id, traceparent, wait_for_agent: Duration::ZERO };
    if let Kind::Tcp(target) = kind {
        let io = cluster.connect(&target, options).await?;
        return Ok(Reply::Stream { head: http::Response::new(()), io: Box::new(io) });
    }
    let mut response = cluster.call(request, options).await?;
    Ok(match Upgraded::take(&mut response) {
        Some(io) => Reply::Stream { head: response.map(|_| ()), io: Box::new(io) },
        None => Reply::Http(response.map(|body| body.map_err(BoxError::from).boxed_unsync())),
    })
}

#[cfg(test)]
mod tests {
    use culvert_proto::tunnel::v1 as proto;

    use super::*;

    #[test]
    fn what_names_no_agent_is_not_understood() {
        let open = proto::Open {
            kind: Some(proto::open::Kind::Tcp(proto::TcpTarget { target: "db".into() })),
            ..proto::Open::default()
        };
        let id = Bytes::from_static(&[1; 16]);
        let good = peer::Forward { org: id.clone(), agent: id.clone(), open: Some(open) };
        let understood = |forward: &peer::Forward| understand(forward.encode_to_vec().into()).is_some();
        assert!(understood(&good));
        assert!(!understood(&peer::Forward { org: Bytes::new(), ..good.clone() }));
        assert!(!understood(&peer::Forward { open: None, ..good.clone() }));
        assert!(!understood(&peer::Forward { open: Some(proto::Open::default()), ..good }));
    }
}
