//! A hostile agent, and a hostile caller: each hurts itself alone. Beside every
//! attack the calls of another tenant on the same replica are answered within their
//! deadlines, and what the attacker's session ends with names the cause.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod site;

use std::time::Duration;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::answer_up::Kind as Answer;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use culvert_tunnel::{
    Body, BodyError, CallError, CallOptions, Ended, Hub, Limits, Refusal, RefusalCode, Reply, SessionEvent,
};
use http_body_util::BodyExt as _;
use site::hand::{Hand, framed, head, prefix, put, put_for, request, stranger, up};
use site::{Does, PATIENCE, Site, fed, hello, key, limits, pattern, say, until};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A replica with a sound tenant whose calls go on until the siege is over.
struct Siege {
    hub: Hub,
    site: Site,
    stop: CancellationToken,
    calls: JoinHandle<u32>,
}

impl Siege {
    async fn begin() -> Self {
        Self::with(limits()).await
    }

    async fn with(limits: Limits) -> Self {
        let hub = Hub::new("replica".into(), limits.clone());
        let handler = Does(|_| async { say("sound") });
        let site = Site::with(&hub, limits, hello(), handler).await;
        let stop = CancellationToken::new();
        let calls = tokio::spawn(neighbour(site.cluster(), stop.clone()));
        Self { hub, site, stop, calls }
    }

    fn events(&self) -> tokio::sync::broadcast::Receiver<SessionEvent> {
        self.hub.events()
    }

    /// A call to the hostile agent's cluster.
    fn call(&self) -> JoinHandle<Result<http::Response<Body>, CallError>> {
        let cluster = self.hub.cluster(stranger());
        let options = CallOptions { deadline: Some(Duration::from_secs(10)), ..CallOptions::default() };
        tokio::spawn(async move {
            cluster.call(http::Request::get("/").body(String::new()).unwrap(), options).await
        })
    }

    /// The neighbour was served all the time, on the one session it began with.
    async fn survived(self) {
        self.stop.cancel();
        let calls = timeout(PATIENCE, self.calls).await.expect("the neighbour is answered").unwrap();
        assert!(calls > 0, "not one call of the neighbour");
        assert_eq!(self.site.get("/").await.unwrap(), "sound");
        let session = self.hub.session(key()).expect("the neighbour's session lives");
        assert_eq!((session.epoch, session.reaped), (1, 0));
        self.site.until_open_calls(0).await;
    }
}

/// Calls without end, each within its deadline.
async fn neighbour(cluster: culvert_tunnel::Cluster, stop: CancellationToken) -> u32 {
    let mut calls = 0;
    while !stop.is_cancelled() {
        let options = CallOptions { deadline: Some(Duration::from_secs(10)), ..CallOptions::default() };
        let request = http::Request::get("/").body(String::new()).unwrap();
        let response = cluster.call(request, options).await.expect("within its deadline");
        let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(body.to_bytes(), "sound");
        calls += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    calls
}

#[track_caller]
fn is_protocol(ended: &Ended, word: &str) {
    let Ended::Refused(Refusal { code: RefusalCode::Protocol, message, .. }) = ended else {
        panic!("ended by {ended:?}")
    };
    assert!(message.contains(word), "{message}");
}

#[tokio::test]
async fn answers_to_calls_it_was_not_given() {
    let siege = Siege::begin().await;
    let mut events = siege.events();
    let hand = Hand::connect(&siege.hub, stranger()).await;
    // Held, so that it is not this end that resets them.
    let mut held = Vec::new();
    for at in 0..20_000_u128 {
        let Ok((response, mut stream)) = hand.answer(&at.to_be_bytes()).await else { break };
        if stream.send_data(head(), false).is_err() {
            break;
        }
        held.push((response, stream));
    }
    is_protocol(&hand.ended().await, "calls that it was not given");
    assert!(siege.hub.counts().unknown_answers <= Limits::default().stray_answers);
    let told = std::iter::from_fn(|| events.try_recv().ok()).any(
        |event| matches!(event, SessionEvent::Refused { agent, refusal, .. } if agent == stranger() && refusal.code == RefusalCode::Protocol),
    );
    assert!(told, "who keeps the record hears why");
    siege.survived().await;
}

#[tokio::test]
async fn answers_before_there_is_a_session() {
    let siege = Siege::begin().await;
    let (send, served) = Hand::dial(&siege.hub, stranger()).await;
    let mut send = send.ready().await.unwrap();
    let _stream = send.send_request(request("Answer"), false).unwrap();
    is_protocol(&timeout(PATIENCE, served).await.unwrap().unwrap(), "before Control");
    siege.survived().await;
}

#[tokio::test]
async fn resets_in_a_loop() {
    let siege = Siege::begin().await;
    let hand = Hand::connect(&siege.hub, stranger()).await;
    for at in 0..50_000_u128 {
        let Ok((_, mut stream)) = hand.answer(&at.to_be_bytes()).await else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    let ended = hand.ended().await;
    // By our own count, or, when they come in one read, by that of h2.
    let by_us = matches!(&ended, Ended::Refused(refusal) if refusal.code == RefusalCode::Protocol);
    let by_h2 = matches!(&ended, Ended::Broken(why) if why.contains("excessive load"));
    assert!(by_us || by_h2, "{ended:?}");
    siege.survived().await;
}

#[tokio::test]
async fn a_head_of_ten_megabytes() {
    let siege = Siege::begin().await;
    let mut hand = Hand::connect(&siege.hub, stranger()).await;
    // As a message: one call of its own fails, and nothing of it is kept.
    let call = siege.call();
    let open = hand.open().await;
    let (_response, mut stream) = hand.answer(&open.call_id).await.unwrap();
    let mut long = prefix(10 << 20);
    long.resize(10 << 20, b'a');
    put_for(&mut stream, long.freeze(), PATIENCE).await;
    let error = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, CallError::Aborted | CallError::Protocol(_)), "{error:?}");
    // As HTTP/2 headers: the connection ends.
    let mut request = request("Answer");
    for at in 0..1000 {
        let name: http::HeaderName = format!("x-{at}").parse().unwrap();
        request.headers_mut().insert(name, "v".repeat(10_000).parse().unwrap());
    }
    let _answer = hand.send.send_request(request, false).unwrap();
    let ended = hand.ended().await;
    assert!(matches!(&ended, Ended::Broken(why) if why.contains("header compression")), "{ended:?}");
    siege.survived().await;
}

#[tokio::test]
async fn trailers_without_end() {
    let siege = Siege::begin().await;
    let mut hand = Hand::connect(&siege.hub, stranger()).await;
    let call = siege.call();
    let open = hand.open().await;
    let (_response, mut stream) = hand.answer(&open.call_id).await.unwrap();
    put(&mut stream, head()).await.unwrap();
    let response = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
    // As our own message, which says that it is of four gigabytes.
    let mut end = prefix(u32::MAX);
    end.extend_from_slice(&[0x1a; 1 << 16]);
    put_for(&mut stream, end.freeze(), PATIENCE).await;
    let error = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap_err();
    assert!(matches!(error, BodyError::Protocol(_)), "{error:?}");
    // As HTTP/2 trailers.
    let call = siege.call();
    let open = hand.open().await;
    let (_response, mut stream) = hand.answer(&open.call_id).await.unwrap();
    put(&mut stream, head()).await.unwrap();
    let response = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
    let trailers: http::HeaderMap = (0..1000)
        .map(|at| (format!("x-{at}").parse().unwrap(), "v".repeat(10_000).parse().unwrap()))
        .collect();
    stream.send_trailers(trailers).unwrap();
    timeout(PATIENCE, response.into_body().collect()).await.expect("it ends").unwrap_err();
    let ended = hand.ended().await;
    assert!(matches!(&ended, Ended::Broken(why) if why.contains("header compression")), "{ended:?}");
    siege.survived().await;
}

#[tokio::test]
async fn a_million_tiny_frames_that_somebody_reads() {
    let siege = Siege::begin().await;
    let mut hand = Hand::connect(&siege.hub, stranger()).await;
    let call = siege.call();
    let open = hand.open().await;
    let (_response, mut stream) = hand.answer(&open.call_id).await.unwrap();
    put(&mut stream, head()).await.unwrap();
    let response = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
    let flood = tokio::spawn(async move {
        let frame = up(Answer::Data(Bytes::from_static(b"x")));
        for at in 0..1_000_000_u32 {
            put(&mut stream, frame.clone()).await?;
            if at % 1024 == 0 {
                tokio::task::yield_now().await;
            }
        }
        put(&mut stream, up(Answer::End(proto::End::default()))).await
    });
    let (mut bytes, mut pieces) = (0_usize, 0_usize);
    let mut body = response.into_body();
    while let Some(frame) = timeout(PATIENCE, body.frame()).await.expect("it goes on") {
        bytes += frame.unwrap().into_data().unwrap().len();
        pieces += 1;
    }
    assert_eq!(bytes, 1_000_000);
    assert!(pieces < 500_000, "{pieces} pieces: small frames are merged for whoever reads them");
    flood.await.unwrap().unwrap();
    siege.survived().await;
}

#[tokio::test]
async fn tiny_frames_that_nobody_reads() {
    let siege = Siege::begin().await;
    let mut hand = Hand::connect(&siege.hub, stranger()).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let call = siege.call();
        let open = hand.open().await;
        let (response, mut stream) = hand.answer(&open.call_id).await.unwrap();
        put(&mut stream, head()).await.unwrap();
        let answer = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
        // Until its window is full: some hundred thousand frames.
        let frame = up(Answer::Data(Bytes::from_static(b"x")));
        let mut sent = 0;
        while put_for(&mut stream, frame.clone(), Duration::from_millis(200)).await {
            sent += 1;
            if sent % 1024 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert!(sent > 100_000, "{sent} frames fit into a window");
        held.push((response, stream, answer));
    }
    // It may hold its own windows full, and so it does: no more.
    let session = siege.hub.session(stranger()).expect("nothing wrong was done");
    assert!(session.bytes_in < 32 << 20, "{session:?}");
    drop(held);
    siege.survived().await;
}

#[tokio::test]
async fn empty_frames_without_end() {
    let siege = Siege::begin().await;
    let mut hand = Hand::connect(&siege.hub, stranger()).await;
    for _ in 0..5000 {
        if hand.up.send_data(Bytes::new(), false).is_err() {
            break;
        }
    }
    let ended = hand.ended().await;
    assert!(matches!(&ended, Ended::Broken(_)), "{ended:?}");
    siege.survived().await;
}

#[tokio::test]
async fn a_million_messages_on_control() {
    let siege = Siege::begin().await;
    for kind in [Some(Up::Heartbeat(proto::Heartbeat::default())), None] {
        let mut hand = Hand::connect(&siege.hub, stranger()).await;
        let beats = framed(&proto::ControlUp { kind }).repeat(1000);
        for _ in 0..1000 {
            if hand.say(beats.clone().into()).await.is_err() {
                break;
            }
        }
        is_protocol(&hand.ended().await, "faster");
    }
    siege.survived().await;
}

#[tokio::test]
async fn facts_in_a_loop_do_not_drown_the_news_of_others() {
    let siege = Siege::begin().await;
    let mut events = siege.events();
    let mut hand = Hand::connect(&siege.hub, stranger()).await;
    for nodes in 0..20_000 {
        let facts = proto::Facts { nodes, ..Default::default() };
        if hand.say(framed(&proto::ControlUp { kind: Some(Up::Facts(facts)) })).await.is_err() {
            break;
        }
    }
    is_protocol(&hand.ended().await, "more often than a cluster changes");
    let mut heard = 0;
    loop {
        match events.try_recv() {
            Ok(_) => heard += 1,
            Err(tokio::sync::broadcast::error::TryRecvError::Empty) => break,
            Err(error) => panic!("news of others was lost: {error}"),
        }
    }
    assert!(heard < 100, "{heard} events");
    siege.survived().await;
}

#[tokio::test]
async fn a_stale_epoch_wins_nothing() {
    let siege = Siege::begin().await;
    // The highest number that there is does not stop the next session from being newer.
    let claim = |last_epoch, instance: u8| proto::Hello {
        last_epoch,
        instance: vec![instance; 16].into(),
        ..hello()
    };
    let (mut old, first) = Hand::connect_as(&siege.hub, stranger(), claim(u64::MAX, 1)).await;
    let call = siege.call();
    let open = old.open().await;
    let (new, second) = Hand::connect_as(&siege.hub, stranger(), claim(0, 2)).await;
    assert!(second.epoch > first.epoch, "{second:?} after {first:?}");
    // The call of the session that lost is nobody's any more, with the right id or not.
    let error = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, CallError::Lost), "{error:?}");
    let (late, _stream) = new.answer(&open.call_id).await.unwrap();
    timeout(PATIENCE, late).await.unwrap().expect_err("reset");
    assert_eq!(siege.hub.counts().unknown_answers, 1);
    assert_eq!(old.ended().await, Ended::Superseded { by_epoch: second.epoch });
    assert_eq!(siege.hub.session(stranger()).map(|session| session.epoch), Some(second.epoch));
    siege.survived().await;
}

#[tokio::test]
async fn an_agent_that_takes_nothing_and_answers_nothing() {
    let siege = Siege::with(Limits { control_queue: 64, ..limits() }).await;
    let hand = Hand::connect(&siege.hub, stranger()).await;
    // Callers of its own cluster are told at once, or at their deadlines.
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let cluster = siege.hub.cluster(stranger());
            let options = CallOptions { deadline: Some(Duration::from_secs(1)), ..CallOptions::default() };
            let request = http::Request::put("/").body(http_body_util::Full::new(pattern(40_000))).unwrap();
            tokio::spawn(async move { cluster.call(request, options).await.map(|_| ()) })
        })
        .collect();
    for call in calls {
        let error = timeout(PATIENCE, call).await.expect("an end").unwrap().unwrap_err();
        assert!(matches!(error, CallError::Busy | CallError::Deadline), "{error:?}");
    }
    until("open calls", || (siege.hub.session(stranger()).map(|session| session.open_calls), Some(0))).await;
    drop(hand);
    siege.survived().await;
}

#[tokio::test]
async fn a_caller_with_ten_thousand_watches() {
    let siege = Siege::begin().await;
    let watched = Site::over_as(
        &siege.hub,
        stranger(),
        Does(|_| async {
            let (feed, response) = fed();
            tokio::spawn(async move {
                feed.send(Bytes::from_static(b"event")).await.ok();
                feed.closed().await;
            });
            Ok(Reply::Http(response))
        }),
    )
    .await;
    let mut calls = Vec::new();
    for at in 0..10_000 {
        calls.push(siege.call());
        if at % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (mut watches, mut busy) = (Vec::new(), 0);
    for call in calls {
        match timeout(PATIENCE, call).await.expect("an answer or a no").unwrap() {
            Ok(watch) => watches.push(watch),
            Err(CallError::Busy) => busy += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(watches.len() + busy, 10_000);
    assert!(watches.len() <= 4096 && watches.len() >= 1024, "{} watches", watches.len());
    drop(watches);
    until("open calls", || (siege.hub.session(stranger()).map(|session| session.open_calls), Some(0))).await;
    drop(watched);
    siege.survived().await;
}

#[tokio::test]
async fn a_caller_that_gives_up_in_a_loop() {
    let siege = Siege::begin().await;
    let _site = Site::over_as(
        &siege.hub,
        stranger(),
        Does(|_| async {
            std::future::pending::<()>().await;
            say("")
        }),
    )
    .await;
    for round in 0..5000_u32 {
        let call = siege.call();
        // Before it began, while it is offered, and after the agent has it.
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        call.abort();
    }
    until("open calls", || (siege.hub.session(stranger()).map(|session| session.open_calls), Some(0))).await;
    assert_eq!(siege.hub.session(stranger()).map(|session| session.epoch), Some(1), "the session lives");
    siege.survived().await;
}
