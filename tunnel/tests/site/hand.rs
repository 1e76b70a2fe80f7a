//! An agent made by hand, frame by frame, that does what no sound one does.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use culvert_tunnel::{AgentKey, Ended, Hub, Peer};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Open, PATIENCE, hello, none, peer};

/// Whose agent it is: another tenant than the site's.
pub fn stranger() -> AgentKey {
    AgentKey { org: Uuid::from_u128(66), agent: Uuid::from_u128(6) }
}

pub struct Hand {
    pub send: SendRequest<Bytes>,
    pub up: SendStream<Bytes>,
    down: RecvStream,
    heard: BytesMut,
    pub served: JoinHandle<Ended>,
}

/// One gRPC message.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = prefix(message.encoded_len() as u32);
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// The begin of a message that announces this length.
pub fn prefix(len: u32) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(len);
    bytes
}

pub fn up(kind: proto::answer_up::Kind) -> Bytes {
    framed(&proto::AnswerUp { kind: Some(kind) })
}

pub fn head() -> Bytes {
    up(proto::answer_up::Kind::Head(proto::Head { status: 200, ..Default::default() }))
}

pub fn request(path: &str) -> http::Request<()> {
    http::Request::post(format!("https://culvert/culvert.tunnel.v1.Tunnel/{path}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

impl Hand {
    /// A connection with nothing on it yet.
    pub async fn dial(hub: &Hub, agent: AgentKey) -> (SendRequest<Bytes>, JoinHandle<Ended>) {
        let (near, far) = tokio::io::duplex(256 << 10);
        let hub = hub.clone();
        let peer = Peer { agent: Some(agent), ..peer() };
        let served =
            tokio::spawn(
                async move { hub.serve(near, peer, Open(0), none(), CancellationToken::new()).await },
            );
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 30);
        let (send, connection) = builder.handshake(far).await.unwrap();
        tokio::spawn(connection);
        (send, served)
    }

    /// One with a session.
    pub async fn connect(hub: &Hub, agent: AgentKey) -> Self {
        Self::connect_as(hub, agent, hello()).await.0
    }

    /// The same with its own Hello, and the Welcome.
    pub async fn connect_as(hub: &Hub, agent: AgentKey, hello: proto::Hello) -> (Self, proto::Welcome) {
        Self::connect_saying(hub, agent, framed(&proto::ControlUp { kind: Some(Up::Hello(hello)) })).await
    }

    /// The same with its Hello as bytes.
    pub async fn connect_saying(hub: &Hub, agent: AgentKey, hello: Bytes) -> (Self, proto::Welcome) {
        let (send, served) = Self::dial(hub, agent).await;
        let mut send = send.ready().await.unwrap();
        let (response, mut up) = send.send_request(request("Control"), false).unwrap();
        up.send_data(hello, false).unwrap();
        let down = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
        let mut hand = Self { send, up, down, heard: BytesMut::new(), served };
        let Some(Down::Welcome(welcome)) = hand.hear().await else { panic!("no Welcome") };
        (hand, welcome)
    }

    /// The next message down; `None` when the stream has ended.
    pub async fn hear(&mut self) -> Option<Down> {
        loop {
            if let Some(len) = self.heard.get(1..5) {
                let whole = 5 + u32::from_be_bytes(len.try_into().unwrap()) as usize;
                if self.heard.len() >= whole {
                    let message = self.heard.split_to(whole).freeze().slice(5..);
                    return proto::ControlDown::decode(message).unwrap().kind;
                }
            }
            let data = timeout(PATIENCE, self.down.data()).await.expect("a message in time")?.ok()?;
            self.down.flow_control().release_capacity(data.len()).ok()?;
            self.heard.extend_from_slice(&data);
        }
    }

    /// The next call.
    pub async fn open(&mut self) -> proto::Open {
        loop {
            if let Down::Open(open) = self.hear().await.expect("the session lives") {
                return open;
            }
        }
    }

    /// Begins an answer to a call of this id.
    pub async fn answer(&self, id: &[u8]) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request = request("Answer");
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        request.headers_mut().insert("culvert-call", id.parse().unwrap());
        let mut send = self.send.clone().ready().await?;
        send.send_request(request, false)
    }

    /// Says something on Control, as far as the other end takes it.
    pub async fn say(&mut self, message: Bytes) -> Result<(), h2::Error> {
        put(&mut self.up, message).await
    }

    /// Why the controller ended it.
    pub async fn ended(self) -> Ended {
        let Self { served, .. } = self;
        timeout(PATIENCE, served).await.expect("it is ended").unwrap()
    }
}

/// Sends bytes as credit allows.
pub async fn put(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error),
                None => return Err(h2::Reason::STREAM_CLOSED.into()),
            }
        }
        let piece = data.split_to(stream.capacity().min(data.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}

/// The same, but no longer than `limit`: what nobody takes stays behind.
pub async fn put_for(stream: &mut SendStream<Bytes>, data: Bytes, limit: Duration) -> bool {
    matches!(timeout(limit, put(stream, data)).await, Ok(Ok(())))
}
