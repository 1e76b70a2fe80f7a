//! Everything that is read off the wire by either end, each as a function of bytes
//! that panics when a promise is broken. Two drivers call them: `fuzz_targets/`
//! with coverage, for as long as one likes, and `tunnel/tests/fuzz.rs` in every
//! test run, with the committed corpus and a few seconds of mutations of it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_tunnel::{
    Admission, Admitted, AgentKey, BoxError, Call, Failure, Handler, Hub, Limits, Link, Peer, Refusal, Reply,
    fuzz,
};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A name, and what to do with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. The name is that of its corpus.
pub const ALL: [Target; 9] = [
    ("decode", decode),
    ("open", open),
    ("head", head),
    ("refusal", refusal),
    ("connect", connect),
    ("token", token),
    ("csr", csr),
    ("hub", hub),
    ("link", link),
];

/// Longest that a connection may live on after its bytes have ended.
const END: Duration = Duration::from_secs(10);

/// Frames are read alike however they are cut, and little of them is held.
pub fn decode(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let down = choice & 1 == 1;
    let whole = fuzz::decode(bytes, bytes.len(), down);
    let cut = fuzz::decode(bytes, usize::from(choice >> 1) + 1, down);
    assert_eq!((&whole.payload, &whole.messages, whole.error), (&cut.payload, &cut.messages, cut.error));
    assert!(cut.held <= fuzz::LIMIT + 256, "{} bytes held", cut.held);
    for message in &whole.messages {
        let _ = fuzz::messages(message);
    }
    let _ = fuzz::messages(bytes);
}

/// A request for an agent.
pub fn open(bytes: &[u8]) {
    let _ = fuzz::open(bytes);
}

/// The head of an answer: what passes here passes again.
pub fn head(bytes: &[u8]) {
    if let Some((headers, again)) = fuzz::head(bytes) {
        let again = again.expect("headers that were taken are taken again");
        assert!(again.iter().all(|(name, value)| headers.get_all(name).iter().any(|other| other == value)));
    }
}

/// Why a controller refuses, and when to come back.
pub fn refusal(bytes: &[u8]) {
    if let Some((refusal, again)) = fuzz::refusal(bytes) {
        assert!(refusal.message.chars().count() <= 1100, "{} characters", refusal.message.len());
        assert_eq!(again.map(|again| again.code), Some(refusal.code));
        // However long it asks us to wait, the wait has an end.
        let wait = culvert_tunnel::Backoff::new().failed(std::time::Instant::now(), refusal.retry_after);
        assert!(wait <= Duration::from_secs(900));
    }
}

/// What a proxy says to CONNECT.
pub fn connect(bytes: &[u8]) {
    if let Some(Ok(())) = fuzz::connect_answer(bytes) {
        assert!(bytes.starts_with(b"HTTP/1.") && bytes.ends_with(b"\r\n\r\n"));
    }
}

/// Join tokens, as people paste them.
pub fn token(bytes: &[u8]) {
    use culvert_pki::token::JoinToken;
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = JoinToken::parse(text)
    {
        let again = JoinToken::parse(&token.expose()).expect("what was read can be written and read");
        assert_eq!((again.id(), again.secret(), again.pins()), (token.id(), token.secret(), token.pins()));
    }
}

/// Certificate requests, which anybody with a token may send.
pub fn csr(bytes: &[u8]) {
    let _ = culvert_pki::csr::public_key(bytes);
}

/// A connection that says these bytes, in pieces, hears everything, and ends.
struct Said {
    rest: Bytes,
    piece: usize,
}

impl AsyncRead for Said {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = self.piece.min(self.rest.len()).min(buf.remaining());
        let now = self.rest.split_to(piece);
        buf.put_slice(&now);
        // So that others get their turn between two pieces.
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs `work` with a connection that says `bytes`; it must end with them.
fn with_connection<F: Future<Output = ()>>(bytes: &[u8], work: impl FnOnce(Said) -> F) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let said = Said { rest: Bytes::copy_from_slice(bytes), piece: usize::from(*piece) * 16 + 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(END, work(said)).await.expect("it ends with its bytes") });
}

struct Anyone;

impl Admission for Anyone {
    async fn admit(&self, _: AgentKey, _: &proto::Hello, _: SocketAddr) -> Result<Admitted, Refusal> {
        Ok(Admitted::default())
    }
}

/// A controller that is spoken to by an agent of another kind.
pub fn hub(bytes: &[u8]) {
    with_connection(bytes, |io| async {
        let agent = AgentKey { org: uuid::Uuid::from_u128(1), agent: uuid::Uuid::from_u128(2) };
        let source = SocketAddr::from(([192, 0, 2, 1], 1000));
        let peer = Peer { agent: Some(agent), source, not_after: None };
        let hub = Hub::new("replica".into(), Limits::default());
        // Somebody asks meanwhile, so that there is a call to answer.
        let cluster = hub.cluster(agent);
        let asking = tokio::spawn(async move {
            let request = http::Request::get("/version").body(String::new()).expect("a request");
            let response = cluster.call(request, culvert_tunnel::CallOptions::default()).await;
            if let Ok(response) = response {
                let _ = response.into_body().collect().await;
            }
        });
        let none = tonic::service::Routes::default();
        hub.serve(io, peer, Anyone, none, CancellationToken::new()).await;
        asking.abort();
        assert!(hub.session(agent).is_none() && hub.counts().connections == 0);
    });
}

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    async fn handle(&self, call: Call) -> Result<Reply, Failure> {
        let body = call.request.into_body().map_err(BoxError::from).boxed_unsync();
        Ok(Reply::Http(http::Response::new(body)))
    }
}

/// An agent that is spoken to by a controller of another kind.
pub fn link(bytes: &[u8]) {
    with_connection(bytes, |io| async {
        let Ok(link) = Link::start(io, Limits::default()).await else { return };
        let (signals, mut hear) = mpsc::channel(64);
        let (_facts, seen) = watch::channel(None);
        let hello = proto::Hello { instance: Bytes::from_static(&[1; 16]), ..Default::default() };
        let hearing = tokio::spawn(async move { while hear.recv().await.is_some() {} });
        let _end = link.run(hello, Echo, seen, signals, CancellationToken::new()).await;
        link.close().await;
        hearing.abort();
    });
}
