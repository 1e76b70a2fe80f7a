//! The begin of a call's stream to the replica that holds the agent.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use culvert_proto::peer::v1 as peer;
use culvert_proto::tunnel::v1 as proto;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::{HeaderValue, Method, Uri};
use prost::Message as _;

use super::Moved;
use super::lines::OnLine;
use crate::wire::{Chunk, message};
use crate::{AgentKey, CallError, Limits, Link};

/// A call that is under way to another replica.
pub(crate) struct Forwarded {
    pub(crate) response: ResponseFuture,
    pub(crate) send: SendStream<Chunk>,
    pub(crate) line: OnLine,
}

/// Sends the call; `None` when the line takes no more, so that nothing was sent.
pub(crate) async fn forward(
    line: &Arc<Link>,
    agent: AgentKey,
    open: &proto::Open,
    limits: &Limits,
) -> Result<Option<Forwarded>, CallError> {
    let (org, agent) = wire_key(agent);
    let first = message(&peer::Forward { org, agent, open: Some(open.clone()) });
    if first.len() > longest(limits) {
        return Err(CallError::Invalid("its head is too long"));
    }
    let request = request(Uri::from_static("https://culvert/culvert.peer.v1.Peer/Call"));
    let Some((response, mut send)) = begin(line, request).await else { return Ok(None) };
    // Fails only when the line has ended, and then the answer fails too.
    let _ = send.send_data(Chunk::raw(first), open.body_end);
    Ok(Some(Forwarded { response, send, line: OnLine::from(line.clone()) }))
}

/// Tells another replica that a session began here.
pub(crate) async fn tell(line: &Link, moved: &Moved) -> Result<(), String> {
    let (org, agent) = wire_key(moved.agent);
    let Moved { epoch, instance, source, .. } = moved;
    let instance = Bytes::copy_from_slice(instance);
    let told = peer::Moving { org, agent, epoch: *epoch, instance, source: source.clone() };
    let request = request(Uri::from_static("https://culvert/culvert.peer.v1.Peer/Moved"));
    let begun = begin(line, request).await;
    let (response, mut send) = begun.ok_or_else(|| "its connection has ended".to_owned())?;
    send.send_data(Chunk::raw(message(&told)), true).map_err(|error| error.to_string())?;
    response.await.map(drop).map_err(|error| error.to_string())
}

async fn begin(line: &Link, request: http::Request<()>) -> Option<(ResponseFuture, SendStream<Chunk>)> {
    let mut send = line.send.clone();
    poll_fn(|cx| send.poll_ready(cx)).await.ok()?;
    send.send_request(request, false).ok()
}

fn request(uri: Uri) -> http::Request<()> {
    let mut request = http::Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    request
}

fn wire_key(key: AgentKey) -> (Bytes, Bytes) {
    let bytes = |id: uuid::Uuid| Bytes::copy_from_slice(id.as_bytes());
    (bytes(key.org), bytes(key.agent))
}

/// The longest first message, bytes.
pub(super) fn longest(limits: &Limits) -> usize {
    // The agent's ids and their tags are far below this.
    limits.max_head + limits.open_body + 256
}

/// The agent in a message.
pub(super) fn key_of(org: &[u8], agent: &[u8]) -> Option<AgentKey> {
    let id = |bytes| uuid::Uuid::from_slice(bytes).ok();
    Some(AgentKey { org: id(org)?, agent: id(agent)? })
}

/// Reads what [`tell`] says.
pub(super) fn read_moved(message: Bytes) -> Option<Moved> {
    let told = peer::Moving::decode(message).ok()?;
    let instance = told.instance.as_ref().try_into().ok()?;
    let agent = key_of(&told.org, &told.agent)?;
    Some(Moved { agent, epoch: told.epoch, instance, source: told.source.chars().take(64).collect() })
}
