//! The traps that HTTP/2 libraries lay for a tunnel, each measured once and sprung
//! here. Where the fix is a limit, the same story is told again without it and must
//! go wrong, so that none of these can pass for another reason.
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
use culvert_tunnel::{Body, BoxError, Call, CallError, CallOptions, Ended, Hub, Limits, LinkEnd, Reply};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, StreamBody};
use site::hand::{Hand, head, put, put_for, stranger, up};
use site::{Alive, Does, PATIENCE, Site, fed, hello, key, limits, pattern, say};
use tokio::time::timeout;

type Doing = BoxFuture<'static, Result<Reply, culvert_tunnel::Failure>>;

fn get(path: &str) -> http::Request<String> {
    http::Request::get(path).body(String::new()).unwrap()
}

/// `/small` at once, `/watch` one event and then silence, `/bulk` without end.
fn handler() -> Does<impl Fn(Call) -> Doing + Clone> {
    Does(|call: Call| {
        async move {
            let path = call.request.uri().path().to_owned();
            if path == "/small" {
                return say("small");
            }
            let (feed, response) = fed();
            tokio::spawn(async move {
                feed.send(Bytes::from_static(b"event")).await.ok();
                let data = pattern(64 << 10);
                while path == "/bulk" && feed.send(data.clone()).await.is_ok() {}
                feed.closed().await;
            });
            Ok(Reply::Http(response))
        }
        .boxed()
    })
}

async fn begin(site: &Site, path: &str) -> Result<http::Response<Body>, CallError> {
    let options = CallOptions { deadline: Some(Duration::from_secs(10)), ..CallOptions::default() };
    timeout(PATIENCE, site.cluster().call(get(path), options)).await.expect("an end")
}

/// Unread answers to the brim of their windows, and then a small call.
async fn beside_stalled(streams: usize, limits: Limits) -> bool {
    let hub = Hub::new("replica".into(), limits.clone());
    let site = Site::with(&hub, limits, hello(), handler()).await;
    let mut stalled = Vec::new();
    for _ in 0..streams {
        let options = CallOptions { deadline: Some(Duration::from_millis(800)), ..CallOptions::default() };
        match site.cluster().call(get("/bulk"), options).await {
            Ok(response) => stalled.push(response),
            Err(CallError::Deadline) => return false,
            Err(error) => panic!("{error:?}"),
        }
    }
    begin(&site, "/small").await.is_ok() && stalled.len() == streams
}

/// Server defaults give one stream and the whole connection the same window.
#[tokio::test]
async fn two_hundred_stalled_streams_do_no_harm() {
    // 256 KiB each: fifty times what a connection window of 1 MiB holds.
    let fixed = Limits { stream_window: 256 << 10, connection_budget: 1 << 30, ..limits() };
    assert!(beside_stalled(210, fixed.clone()).await, "a small call beside stalled ones");
    let unfixed = Limits { connection_window: 1 << 20, ..fixed };
    assert!(!beside_stalled(210, unfixed).await, "the trap is not there: what does this test show?");
}

/// Sends 20-byte frames that nobody reads; whether the connection lived.
async fn unread_small_frames(frames: usize, limits: Limits) -> bool {
    let hub = Hub::new("replica".into(), limits);
    let mut hand = Hand::connect(&hub, stranger()).await;
    let cluster = hub.cluster(stranger());
    let call = tokio::spawn(async move { cluster.call(get("/logs"), CallOptions::default()).await });
    let open = hand.open().await;
    let (_response, mut stream) = hand.answer(&open.call_id).await.unwrap();
    put(&mut stream, head()).await.unwrap();
    let _paused = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
    let line = up(Answer::Data(Bytes::from_static(b"a line of a log\n")));
    for _ in 0..frames {
        if !put_for(&mut stream, line.clone(), PATIENCE).await {
            let ended = hand.ended().await;
            assert!(matches!(&ended, Ended::Broken(why) if why.contains("excessive load")), "{ended:?}");
            return false;
        }
        // Each in a read of its own, as a chatty pod's lines come.
        tokio::task::yield_now().await;
    }
    // Another call on the same connection.
    let cluster = hub.cluster(stranger());
    let call = tokio::spawn(async move { cluster.call(get("/small"), CallOptions::default()).await });
    let open = hand.open().await;
    let (_response, mut stream) = hand.answer(&open.call_id).await.unwrap();
    put(&mut stream, head()).await.unwrap();
    put(&mut stream, up(Answer::End(proto::End::default()))).await.unwrap();
    timeout(PATIENCE, call).await.unwrap().unwrap().is_ok()
}

/// h2 has a budget for small frames: a paused `logs -f` would use it up.
#[tokio::test]
async fn a_paused_log_of_a_chatty_pod_does_not_end_the_connection() {
    assert!(unread_small_frames(10_000, limits()).await);
    // What h2 gives a connection with its default window.
    let unfixed = Limits { frame_overhead: 512 << 10, reaper_tick: Duration::from_secs(3600), ..limits() };
    assert!(!unread_small_frames(10_000, unfixed).await, "the trap is not there");
}

/// h2 takes a hundred empty frames in a connection's life, and not one more.
#[tokio::test]
async fn empty_chunks_are_never_sent() {
    let site = Site::new(Does(|call: Call| async move {
        // Up: what the caller sent, without its empty chunks. Down: as many again.
        let up = call.request.into_body().collect().await.unwrap().to_bytes();
        let chunks = (0..300).map(move |at| if at % 30 == 0 { up.clone() } else { Bytes::new() });
        let frames = futures::StreamExt::then(futures::stream::iter(chunks), |data| async {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(http_body::Frame::data(data))
        });
        Ok(Reply::Http(http::Response::new(StreamBody::new(frames).boxed_unsync())))
    }))
    .await;
    for _ in 0..3 {
        let chunks = (0..300).map(|at| if at % 30 == 0 { pattern(1000) } else { Bytes::new() });
        let frames = futures::StreamExt::then(futures::stream::iter(chunks), |data| async {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(http_body::Frame::data(data))
        });
        let request = http::Request::post("/").body(StreamBody::new(Box::pin(frames))).unwrap();
        let response =
            timeout(PATIENCE, site.cluster().call(request, CallOptions::default())).await.unwrap().unwrap();
        let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        assert_eq!(body.len(), 10 * 10 * 1000);
    }
    assert_eq!(site.hub.session(key()).unwrap().epoch, 1, "one connection carried it all");
    assert!(!site.served.is_finished());
}

/// After a GOAWAY `ready()` still says yes and a new stream is refused, so an Open
/// that is on its way would be lost. At every moment of a drain, none is.
#[tokio::test]
async fn an_open_in_flight_survives_a_drain() {
    for moment in 0..60_usize {
        let hub = Hub::new("replica".into(), limits());
        let old = Site::with(&hub, limits(), hello(), Does(|_| async { say("done") })).await;
        // One after the other, so that at each moment some are on their way.
        let calls: Vec<_> = (0..30)
            .map(|at| {
                let cluster = hub.cluster(key());
                tokio::spawn(async move {
                    for _ in 0..at {
                        tokio::task::yield_now().await;
                    }
                    site::get(&cluster, "/").await.map_err(|error| error.to_string())
                })
            })
            .collect();
        for _ in 0..moment / 2 {
            tokio::task::yield_now().await;
        }
        // One end drains or the other; the next connection comes as it should.
        if moment % 2 == 0 {
            old.stop_controller.cancel()
        } else {
            old.stop_agent.cancel()
        }
        tokio::task::yield_now().await;
        let new = Site::with(&hub, limits(), hello(), Does(|_| async { say("done") })).await;
        for call in calls {
            let answer = timeout(PATIENCE, call).await.expect("an answer").unwrap();
            assert_eq!(answer.unwrap(), "done", "drained at moment {moment}");
        }
        let end = timeout(PATIENCE, old.agent).await.expect("the drained one ends").unwrap();
        let first = if moment % 2 == 0 { LinkEnd::Drained } else { LinkEnd::Stopped };
        assert!(end == first || matches!(end, LinkEnd::Superseded { .. }), "{end:?} at moment {moment}");
        assert_eq!(new.get("/").await.unwrap(), "done");
    }
}

/// Behind two hundred watches the next call hangs without a word where the limit is
/// HTTP/2's own. Here it is said in Welcome, and the call is refused at once.
#[tokio::test]
async fn the_201st_call_is_answered() {
    let site = Site::new(handler()).await;
    let mut watches = Vec::new();
    for _ in 0..201 {
        watches.push(begin(&site, "/watch").await.unwrap());
    }
    assert!(begin(&site, "/small").await.is_ok());
    // Where two hundred is the limit, it says so.
    let few = Limits { max_calls: 200, ..limits() };
    let hub = Hub::new("replica".into(), few);
    let site = Site::with(&hub, limits(), hello(), handler()).await;
    let mut watches = Vec::new();
    for _ in 0..200 {
        watches.push(begin(&site, "/watch").await.unwrap());
    }
    let error = begin(&site, "/small").await.expect_err("the limit is 200");
    assert!(matches!(error, CallError::Busy), "{error:?}");
    watches.pop();
    site.until_open_calls(199).await;
    assert!(begin(&site, "/small").await.is_ok(), "there is room again");
}

/// Calls that end by a reset: in bursts larger than h2 takes by default in one
/// read, and more in all than it takes in a connection's life.
#[tokio::test]
async fn resets_in_everyday_amounts_do_not_end_the_connection() {
    let alive = Alive::default();
    let mark = alive.clone();
    let site = Site::new(Does(move |call: Call| {
        let guard = mark.guard();
        async move {
            let _guard = guard;
            if call.request.uri().path() == "/small" {
                return say("small");
            }
            match call.request.uri().path() {
                "/wait" => std::future::pending::<()>().await,
                // The target dies before its first byte.
                "/dead" => {
                    let dead = futures::stream::iter([Err(BoxError::from("the target died"))]);
                    return Ok(Reply::Http(http::Response::new(StreamBody::new(dead).boxed_unsync())));
                }
                _ => {}
            }
            let (feed, response) = fed();
            tokio::spawn(async move {
                let data = pattern(20_000);
                while feed.send(data.clone()).await.is_ok() {}
            });
            Ok(Reply::Http(response))
        }
    }))
    .await;
    // Given up while the answer comes and before it, and by the agent.
    let kinds = [("/bulk", 150), ("/wait", 60), ("/dead", 60)];
    for (path, burst) in std::iter::repeat_n(kinds, 14).flatten() {
        let calls: Vec<_> = (0..burst)
            .map(|_| {
                let cluster = site.cluster();
                tokio::spawn(async move { cluster.call(get(path), CallOptions::default()).await })
            })
            .collect();
        if path == "/wait" {
            alive.until(burst).await;
            for call in &calls {
                call.abort();
            }
        } else {
            drop(futures::future::join_all(calls).await);
        }
        alive.until(0).await;
    }
    assert!(begin(&site, "/small").await.is_ok());
    let session = site.hub.session(key()).unwrap();
    assert_eq!((session.epoch, session.calls), (1, 14 * 270 + 1), "one connection carried them all");
    site.until_open_calls(0).await;
}
