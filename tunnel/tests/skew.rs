//! Agents and controllers of different releases: what an older one says is understood,
//! and what a newer one says besides is passed over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod site;

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use culvert_tunnel::{Body, CallOptions, Hub, Link, LinkEnd, Reply, Signal};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use site::hand::{Hand, framed, prefix, put};
use site::{Does, PATIENCE, hello, key, limits};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What the first release said.
const FIRST: &str = include_str!("../../proto/tests/recorded/0.1.txt");

/// A field that no release has: number 1000, with bytes.
fn unknown() -> Bytes {
    let mut bytes = BytesMut::new();
    prost::encoding::string::encode(1000, &"from the future".to_owned(), &mut bytes);
    bytes.freeze()
}

/// A message as a later release may say it: with a field more.
fn later(message: &impl prost::Message) -> Bytes {
    longer(&message.encode_to_vec())
}

fn longer(message: &[u8]) -> Bytes {
    let more = unknown();
    let mut bytes = prefix((message.len() + more.len()) as u32);
    bytes.put_slice(message);
    bytes.put_slice(&more);
    bytes.freeze()
}

/// A message of which nothing is known.
fn news() -> Bytes {
    longer(&[])
}

/// A message of the first release, framed.
fn recorded(name: &str) -> Bytes {
    let line = FIRST.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).expect("recorded");
    let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    let message: Vec<u8> = (0..line.len()).step_by(2).map(byte).collect();
    let mut bytes = prefix(message.len() as u32);
    bytes.put_slice(&message);
    bytes.freeze()
}

/// A session of an agent that says these things, and the answer to one call.
async fn answered(hello: Bytes, besides: &[Bytes], answer: &[Bytes]) -> (http::StatusCode, Bytes) {
    let hub = Hub::new("replica".into(), limits());
    let mut hand = Hand::connect_saying(&hub, key(), hello).await.0;
    for message in besides {
        hand.say(message.clone()).await.unwrap();
    }
    let cluster = hub.cluster(key());
    let call = tokio::spawn(async move {
        let request = http::Request::get("/").body(String::new()).unwrap();
        let response = cluster.call(request, CallOptions::default()).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    });
    let open = hand.open().await;
    let (_response, mut stream) = hand.answer(&open.call_id).await.unwrap();
    for message in answer {
        put(&mut stream, message.clone()).await.unwrap();
    }
    timeout(PATIENCE, call).await.expect("the call ends").unwrap()
}

#[tokio::test]
async fn an_agent_of_the_first_release_is_understood() {
    let besides = ["up facts", "up heartbeat", "up reject"].map(recorded);
    let answer = ["answer up head", "answer up data", "answer up data", "answer up end"].map(recorded);
    let (status, body) = answered(recorded("up hello"), &besides, &answer).await;
    assert_eq!((status.as_u16(), &body[..]), (200, &b"datadata"[..]));
}

#[tokio::test]
async fn what_a_newer_agent_says_besides_is_passed_over() {
    use proto::answer_up::Kind;
    let said = |kind| later(&proto::AnswerUp { kind: Some(kind) });
    let up = proto::ControlUp { kind: Some(proto::control_up::Kind::Hello(hello())) };
    let answer = [
        said(Kind::Head(proto::Head { status: 201, ..proto::Head::default() })),
        news(),
        said(Kind::Data(Bytes::from_static(b"new"))),
        news(),
        said(Kind::End(proto::End::default())),
    ];
    let (status, body) = answered(later(&up), &[news(), news()], &answer).await;
    assert_eq!((status.as_u16(), &body[..]), (201, &b"new"[..]));
}

/// What an agent of today does with a controller that says these things: the body that
/// it answered, with what it heard of the request, and how its session ended.
async fn served(down: &[Bytes], answer_down: &[Bytes]) -> (Bytes, LinkEnd) {
    let (near, far) = tokio::io::duplex(256 << 10);
    let agent = tokio::spawn(run(far));
    let mut connection = h2::server::handshake(near).await.unwrap();
    let (_control, mut respond) = connection.accept().await.unwrap().unwrap();
    let mut control = respond.send_response(grpc(), false).unwrap();
    for message in down {
        control.send_data(message.clone(), false).unwrap();
    }
    let (answer, mut respond) = timeout(PATIENCE, connection.accept()).await.unwrap().unwrap().unwrap();
    let mut stream = respond.send_response(grpc(), false).unwrap();
    for message in answer_down {
        stream.send_data(message.clone(), false).unwrap();
    }
    let ok = http::HeaderValue::from_static("0");
    stream.send_trailers([(http::HeaderName::from_static("grpc-status"), ok)].into_iter().collect()).unwrap();
    let driving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let body = read(answer.into_body()).await;
    control.send_data(recorded("down superseded"), false).unwrap();
    let end = timeout(PATIENCE, agent).await.expect("the session ends").unwrap();
    driving.abort();
    (body, end)
}

fn grpc() -> http::Response<()> {
    http::Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn down_end() -> proto::AnswerDown {
    proto::AnswerDown { kind: Some(proto::answer_down::Kind::End(proto::End::default())) }
}

/// An agent that answers with what it was asked.
async fn run(io: tokio::io::DuplexStream) -> LinkEnd {
    let link = Link::start(io, limits()).await.unwrap();
    let (_facts, facts) = watch::channel(None);
    let (signals, mut heard) = mpsc::channel::<Signal>(16);
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let handler = Does(|call: culvert_tunnel::Call| async move {
        let (parts, body): (_, Body) = call.request.into_parts();
        let sent = body.collect().await.unwrap().to_bytes();
        let said = format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&sent));
        let body = Full::new(Bytes::from(said)).map_err(|never: Infallible| match never {});
        Ok(Reply::Http(http::Response::new(body.boxed_unsync())))
    });
    link.run(hello(), handler, facts, signals, CancellationToken::new()).await
}

/// Reads an answer until its end message.
async fn read(mut stream: h2::RecvStream) -> Bytes {
    let (mut heard, mut body) = (BytesMut::new(), BytesMut::new());
    loop {
        while let Some(len) = heard.get(1..5).map(|len| u32::from_be_bytes(len.try_into().unwrap()) as usize)
            && heard.len() >= 5 + len
        {
            let message = heard.split_to(5 + len).freeze().slice(5..);
            match proto::AnswerUp::decode(message).unwrap().kind.unwrap() {
                proto::answer_up::Kind::Head(head) => assert_eq!(head.failure, None),
                proto::answer_up::Kind::Data(data) => body.put_slice(&data),
                proto::answer_up::Kind::End(_) => return body.freeze(),
            }
        }
        let data = timeout(PATIENCE, stream.data()).await.expect("an answer").expect("an end").unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        heard.put_slice(&data);
    }
}

#[tokio::test]
async fn a_controller_of_the_first_release_is_understood() {
    let down = ["down welcome", "down renew", "down cancel", "down open http"].map(recorded);
    let (body, end) = served(&down, &[recorded("answer down end")]).await;
    assert_eq!(body, "POST /api?x=1 {}");
    assert!(matches!(end, LinkEnd::Superseded { same_instance: true, .. }), "{end:?}");
}

#[tokio::test]
async fn what_a_newer_controller_says_besides_is_passed_over() {
    let said = |kind| later(&proto::ControlDown { kind: Some(kind) });
    let http = proto::HttpRequest { method: "PUT".into(), path: "/later".into(), ..Default::default() };
    let open = proto::Open {
        call_id: vec![5; 16].into(),
        epoch: 9,
        kind: Some(proto::open::Kind::Http(http)),
        ..Default::default()
    };
    let welcome = Down::Welcome(proto::Welcome { epoch: 9, ..Default::default() });
    let down = [said(welcome), news(), said(Down::Open(open)), news()];
    let data = proto::AnswerDown { kind: Some(proto::answer_down::Kind::Data(Bytes::from_static(b"more"))) };
    let answer_down = [news(), later(&data), news(), framed(&down_end())];
    let (body, _) = served(&down, &answer_down).await;
    assert_eq!(body, "PUT /later more");
}
