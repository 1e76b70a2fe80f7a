//! Calls through the tunnel: small and large, both ways, ended and aborted.
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
use culvert_tunnel::{
    BodyError, CallError, CallOptions, Failure, FailureCode, Hub, Kind, Limits, RejectReason, Reply, Upgraded,
};
use http_body_util::{BodyExt as _, Full, StreamBody};
use sha2::{Digest as _, Sha256};
use site::{Alive, Does, PATIENCE, Site, fed, hello, key, limits, pattern, say, until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

fn options() -> CallOptions {
    CallOptions { request_id: "req_1".into(), ..CallOptions::default() }
}

fn upload(
    body: mpsc::Receiver<Bytes>,
) -> StreamBody<impl futures::Stream<Item = Result<http_body::Frame<Bytes>, String>>> {
    let mut body = body;
    let frames = futures::stream::poll_fn(move |cx| body.poll_recv(cx));
    StreamBody::new(futures::StreamExt::map(frames, |data| Ok(http_body::Frame::data(data))))
}

#[tokio::test]
async fn a_small_call_carries_all_it_should() {
    let site = Site::new(Does(|call: culvert_tunnel::Call| async move {
        assert_eq!(call.kind, Kind::Http);
        assert_eq!(call.request_id, "req_1");
        assert_eq!(call.caller.user, "culvert:ada");
        let (parts, body) = call.request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut response =
            http::Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = http::StatusCode::CREATED;
        let seen = format!("{} {} {:?}", parts.method, parts.uri, parts.headers.get("x-a"));
        response.headers_mut().insert("x-seen", seen.parse().unwrap());
        response.headers_mut().insert("connection", "close".parse().unwrap());
        Ok(Reply::Http(response))
    }))
    .await;
    let caller = culvert_proto::tunnel::v1::Caller { user: "culvert:ada".into(), ..Default::default() };
    let request = http::Request::post("https://cluster/api/v1?x=%20")
        .header("x-a", "1")
        .body("hello".to_owned())
        .unwrap();
    let response = site.cluster().with_caller(caller).call(request, options()).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["x-seen"], "POST /api/v1?x=%20 Some(\"1\")");
    assert!(!response.headers().contains_key("connection"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn fifty_megabytes_each_way_arrive_intact() {
    let data = pattern(50 << 20);
    let hash = Sha256::digest(&data);
    let answer = data.clone();
    let site = Site::new(Does(move |call: culvert_tunnel::Call| {
        let answer = answer.clone();
        async move {
            let mut body = call.request.into_body();
            let mut seen = Sha256::new();
            while let Some(frame) = body.frame().await {
                seen.update(frame.expect("the upload goes on").into_data().unwrap());
            }
            let (feed, mut response) = fed();
            response.headers_mut().insert("x-hash", format!("{:x?}", seen.finalize()).parse().unwrap());
            tokio::spawn(async move {
                let mut rest = answer;
                let mut size = 1;
                while !rest.is_empty() {
                    let piece = rest.split_to(size.min(rest.len()));
                    size = size * 3 % 200_003 + 1;
                    if feed.send(piece).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Reply::Http(response))
        }
    }))
    .await;
    let (send, body) = mpsc::channel(1);
    let uploaded = data.clone();
    let uploading = tokio::spawn(async move {
        let mut rest = uploaded;
        let mut size = 7;
        while !rest.is_empty() {
            let piece = rest.split_to(size.min(rest.len()));
            size = size * 5 % 150_001 + 1;
            send.send(piece).await.unwrap();
        }
    });
    let request = http::Request::put("/").body(upload(body)).unwrap();
    let response = timeout(PATIENCE, site.cluster().call(request, options())).await.unwrap().unwrap();
    uploading.await.unwrap();
    assert_eq!(response.headers()["x-hash"], format!("{hash:x?}").as_str());
    let mut body = response.into_body();
    let mut seen = Sha256::new();
    while let Some(frame) = body.frame().await {
        seen.update(frame.unwrap().into_data().unwrap());
    }
    assert_eq!(seen.finalize(), hash);
    drop(body);
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let site = Site::new(Does(|call: culvert_tunnel::Call| async move {
        let trailers = call.request.into_body().collect().await.unwrap().trailers().cloned().unwrap();
        let body = Full::new(Bytes::from_static(b"x")).with_trailers(async move { Some(Ok(trailers)) });
        Ok(Reply::Http(http::Response::new(
            body.map_err(|never: std::convert::Infallible| match never {}).boxed_unsync(),
        )))
    }))
    .await;
    let trailers: http::HeaderMap = [("a".parse().unwrap(), "1".parse().unwrap())].into_iter().collect();
    let sent = trailers.clone();
    let body = Full::new(Bytes::from_static(b"up")).with_trailers(async move { Some(Ok(sent)) });
    let response =
        site.cluster().call(http::Request::post("/").body(body).unwrap(), options()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().trailers(), Some(&trailers));
}

#[tokio::test]
async fn a_failure_of_the_agent_is_told_as_one() {
    let site =
        Site::new(Does(|_| async { Err(Failure::new(FailureCode::Denied, "the policy forbids it")) })).await;
    let error = site
        .cluster()
        .call(http::Request::get("/").body(String::new()).unwrap(), options())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CallError::Failure(failure) if failure.code == FailureCode::Denied),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "the policy forbids it");
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_call_and_no_other() {
    let site = Site::new(Does(|call: culvert_tunnel::Call| async move {
        assert_ne!(call.request.uri().path(), "/panic", "as asked");
        say("fine")
    }))
    .await;
    let error = site.get("/panic").await.unwrap_err();
    assert!(error.to_string().contains("failed while it handled"), "{error}");
    assert_eq!(site.get("/").await.unwrap(), "fine");
}

#[tokio::test]
async fn rule_1_over_the_limit_the_agent_rejects_at_once() {
    let alive = Alive::default();
    let mark = alive.clone();
    let few = Limits { max_calls: 3, ..limits() };
    let handler = Does(move |_| {
        let guard = mark.guard();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            say("")
        }
    });
    // Only the agent's own limit is low.
    let hub = Hub::new("replica".into(), limits());
    let site = Site::with(&hub, few, hello(), handler).await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let cluster = site.cluster();
            tokio::spawn(async move {
                cluster.call(http::Request::get("/").body(String::new()).unwrap(), options()).await
            })
        })
        .collect();
    alive.until(3).await;
    let cluster = site.cluster();
    let fourth = cluster.call(http::Request::get("/").body(String::new()).unwrap(), options());
    let error = timeout(Duration::from_secs(2), fourth).await.expect("at once").unwrap_err();
    assert!(matches!(error, CallError::Busy), "{error:?}");
    assert_eq!(site.hub.session(key()).unwrap().rejected, 1);
    for call in calls {
        call.abort();
    }
    alive.until(0).await;
}

#[tokio::test]
async fn rule_2_dropping_the_caller_frees_the_agent_before_the_answer() {
    let alive = Alive::default();
    let mark = alive.clone();
    let site = Site::new(Does(move |_| {
        let guard = mark.guard();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            say("")
        }
    }))
    .await;
    for body in [Bytes::new(), pattern(100_000)] {
        let request = http::Request::post("/").body(Full::new(body)).unwrap();
        let cluster = site.cluster();
        let call = tokio::spawn(async move { cluster.call(request, options()).await });
        alive.until(1).await;
        call.abort();
        alive.until(0).await;
        site.until_open_calls(0).await;
    }
}

#[tokio::test]
async fn rule_2_dropping_the_body_frees_the_agent_during_the_answer() {
    let alive = Alive::default();
    let mark = alive.clone();
    let site = Site::new(Does(move |_| {
        let guard = mark.guard();
        async move {
            let (feed, response) = fed();
            tokio::spawn(async move {
                let _guard = guard;
                feed.send(Bytes::from_static(b"first")).await.unwrap();
                // Nothing more ever comes: the abort alone must end this.
                feed.closed().await;
            });
            Ok(Reply::Http(response))
        }
    }))
    .await;
    let request = http::Request::get("/").body(String::new()).unwrap();
    let mut response = site.cluster().call(request, options()).await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    assert_eq!(alive.count(), 1);
    drop(response);
    alive.until(0).await;
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn rule_2_a_call_without_a_head_ends_at_its_deadline() {
    let alive = Alive::default();
    let mark = alive.clone();
    let site = Site::new(Does(move |_| {
        let guard = mark.guard();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            say("")
        }
    }))
    .await;
    let options = CallOptions { deadline: Some(Duration::from_millis(100)), ..options() };
    let cluster = site.cluster();
    let call = cluster.call(http::Request::get("/").body(String::new()).unwrap(), options);
    let error = timeout(PATIENCE, call).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Deadline), "{error:?}");
    alive.until(0).await;
}

#[tokio::test]
async fn rule_3_an_aborted_answer_is_an_error_and_not_an_end() {
    let site = Site::new(Does(|_| async {
        let frames = futures::stream::iter([
            Ok(http_body::Frame::data(Bytes::from_static(b"half"))),
            Err(culvert_tunnel::BoxError::from("the target died")),
        ]);
        // The error comes apart from the data, so that the data leaves first.
        let frames = futures::StreamExt::then(frames, |frame| async {
            tokio::task::yield_now().await;
            frame
        });
        Ok(Reply::Http(http::Response::new(StreamBody::new(frames).boxed_unsync())))
    }))
    .await;
    let request = http::Request::get("/").body(String::new()).unwrap();
    match site.cluster().call(request, options()).await {
        Ok(response) => {
            let error = response.into_body().collect().await.unwrap_err();
            assert_eq!(error, BodyError::Aborted);
        }
        Err(error) => assert!(matches!(error, CallError::Aborted), "{error:?}"),
    }
}

#[tokio::test]
async fn rule_3_aborting_an_upload_aborts_it_at_the_agent() {
    let (told, mut hear) = mpsc::channel(1);
    let site = Site::new(Does(move |call: culvert_tunnel::Call| {
        let told = told.clone();
        async move {
            let seen = call.request.into_body().collect().await;
            told.send(seen.map(|body| body.to_bytes().len())).await.unwrap();
            say("")
        }
    }))
    .await;
    let (send, body) = mpsc::channel(1);
    let cluster = site.cluster();
    let call = tokio::spawn(async move {
        cluster.call(http::Request::put("/").body(upload(body)).unwrap(), options()).await
    });
    for _ in 0..10 {
        send.send(pattern(50_000)).await.unwrap();
    }
    call.abort();
    site.until_open_calls(0).await;
    // The handler's future is dropped, or its body fails; it never sees a whole body.
    let heard = timeout(Duration::from_millis(300), hear.recv()).await;
    assert!(!matches!(heard, Ok(Some(Ok(_)))), "{heard:?}");
}

#[tokio::test]
async fn rule_3_a_request_body_that_fails_is_never_taken_for_a_whole_one() {
    let alive = Alive::default();
    let mark = alive.clone();
    let site = Site::new(Does(move |call: culvert_tunnel::Call| {
        let guard = mark.guard();
        async move {
            let seen = call.request.into_body().collect().await;
            drop(guard);
            assert!(seen.is_err(), "a broken body was taken for a whole one");
            say("")
        }
    }))
    .await;
    let (more, gate) = tokio::sync::oneshot::channel::<()>();
    let frames = futures::stream::unfold((0, Some(gate)), |(at, gate)| async move {
        match at {
            0 => Some((Ok(http_body::Frame::data(pattern(100_000))), (1, gate))),
            _ => {
                gate?.await.ok();
                Some((Err("gone".to_owned()), (2, None)))
            }
        }
    });
    let cluster = site.cluster();
    let request = http::Request::put("/").body(StreamBody::new(Box::pin(frames))).unwrap();
    let call = tokio::spawn(async move { cluster.call(request, options()).await });
    alive.until(1).await;
    more.send(()).unwrap();
    let error = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, CallError::Aborted), "{error:?}");
    alive.until(0).await;
}

#[tokio::test]
async fn rule_10_an_early_response_passes_while_the_upload_goes_on() {
    let site = Site::new(Does(|call: culvert_tunnel::Call| async move {
        let (feed, response) = fed();
        tokio::spawn(async move {
            let mut body = call.request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                feed.send(frame.into_data().unwrap()).await.unwrap();
            }
        });
        Ok(Reply::Http(response))
    }))
    .await;
    let (send, body) = mpsc::channel(1);
    let request = http::Request::post("/").body(upload(body)).unwrap();
    let mut response =
        timeout(PATIENCE, site.cluster().call(request, options())).await.expect("head before body").unwrap();
    for at in 0..20_u8 {
        send.send(vec![at; 1000].into()).await.unwrap();
        let frame = timeout(PATIENCE, response.body_mut().frame()).await.expect("an echo").unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), vec![at; 1000]);
    }
    drop(send);
    assert!(timeout(PATIENCE, response.body_mut().frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn rule_10_a_refusal_while_uploading_reaches_the_caller_and_stops_the_upload() {
    let site = Site::new(Does(|_| async {
        let mut response = http::Response::new(
            Full::new(Bytes::from_static(b"no")).map_err(|never| match never {}).boxed_unsync(),
        );
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        Ok(Reply::Http(response))
    }))
    .await;
    let (send, body) = mpsc::channel(1);
    let cluster = site.cluster();
    let call = tokio::spawn(async move {
        cluster.call(http::Request::put("/").body(upload(body)).unwrap(), options()).await
    });
    // It uploads until nobody takes it any more.
    timeout(PATIENCE, async { while send.send(pattern(100_000)).await.is_ok() {} })
        .await
        .expect("the upload is stopped");
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
}

#[tokio::test]
async fn rule_10_a_silent_watch_outlives_every_deadline() {
    let (feeds, mut fed_later) = mpsc::channel(1);
    let site = Site::new(Does(move |_| {
        let feeds = feeds.clone();
        async move {
            let (feed, response) = fed();
            feed.send(Bytes::from_static(b"first")).await.unwrap();
            feeds.send(feed).await.unwrap();
            Ok(Reply::Http(response))
        }
    }))
    .await;
    // The deadline is that of the head; after it a watch may be silent for hours.
    let options = CallOptions { deadline: Some(Duration::from_millis(400)), ..options() };
    let request = http::Request::get("/watch").body(String::new()).unwrap();
    let mut watch = timeout(PATIENCE, site.cluster().call(request, options)).await.unwrap().unwrap();
    assert_eq!(watch.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    let silent = timeout(Duration::from_millis(1200), watch.body_mut().frame()).await;
    silent.expect_err("nothing was sent, and nothing ended it");
    let feed = fed_later.recv().await.unwrap();
    feed.send(Bytes::from_static(b"later")).await.unwrap();
    let later = timeout(PATIENCE, watch.body_mut().frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(later.into_data().unwrap(), "later");
}

/// Upgrades to an echo that begins with a greeting, and says `bye` after the end.
fn echo()
-> Does<impl Fn(culvert_tunnel::Call) -> futures::future::BoxFuture<'static, Result<Reply, Failure>> + Clone>
{
    Does(|call: culvert_tunnel::Call| {
        futures::FutureExt::boxed(async move {
            if call.kind == Kind::Http {
                return say("plain");
            }
            if call.request.uri().path() == "/refuse" {
                let mut response = http::Response::new(
                    Full::new(Bytes::from_static(b"why")).map_err(|never| match never {}).boxed_unsync(),
                );
                *response.status_mut() = http::StatusCode::FORBIDDEN;
                return Ok(Reply::Http(response));
            }
            let mut head = http::Response::new(());
            if call.kind == Kind::Upgrade {
                assert_eq!(call.request.headers()["upgrade"], "SPDY/3.1");
                *head.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                head.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
            }
            let (target, far) = tokio::io::duplex(10_000);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(far);
                write.write_all(b"hi").await.unwrap();
                tokio::io::copy(&mut read, &mut write).await.ok();
                write.write_all(b"bye").await.ok();
                write.shutdown().await.ok();
            });
            Ok(Reply::Stream { head, io: Box::new(target) })
        })
    })
}

async fn chat(mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let mut greeting = [0; 2];
    timeout(PATIENCE, stream.read_exact(&mut greeting)).await.expect("the target speaks first").unwrap();
    assert_eq!(&greeting, b"hi");
    let data = pattern(3 << 20);
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut seen = Vec::new();
    timeout(PATIENCE, read.read_to_end(&mut seen)).await.expect("the end comes").unwrap();
    writing.await.unwrap();
    assert_eq!(seen.len(), data.len() + 3, "what came after the half-close counts too");
    assert!(seen.starts_with(&data) && seen.ends_with(b"bye"));
}

#[tokio::test]
async fn rule_3_half_close_is_the_end_of_one_direction() {
    let site = Site::new(echo()).await;
    chat(timeout(PATIENCE, site.cluster().connect("db", options())).await.unwrap().unwrap()).await;
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn rule_3_a_joined_stream_passes_half_close_and_the_rest_both_ways() {
    let site = Site::new(echo()).await;
    let stream = timeout(PATIENCE, site.cluster().connect("db", options())).await.unwrap().unwrap();
    let (caller, beside) = tokio::io::duplex(4096);
    let joined = tokio::spawn(stream.join(beside));
    chat(caller).await;
    timeout(PATIENCE, joined).await.expect("both directions end").unwrap().unwrap();
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn rule_10_upgrades_pass_as_bytes() {
    let site = Site::new(echo()).await;
    let request = http::Request::post("/exec").header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    let mut response = site.cluster().call(request.body(String::new()).unwrap(), options()).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    chat(Upgraded::take(&mut response).unwrap()).await;
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn rule_10_a_refused_upgrade_shows_its_real_status() {
    let site = Site::new(echo()).await;
    let request =
        http::Request::post("/refuse").header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    let mut response = site.cluster().call(request.body(String::new()).unwrap(), options()).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(Upgraded::take(&mut response).is_none());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "why");
}

#[tokio::test]
async fn an_upgraded_call_that_is_dropped_ends_at_the_target() {
    let (told, mut hear) = mpsc::channel(1);
    let site = Site::new(Does(move |_| {
        let told = told.clone();
        async move {
            let (target, mut far) = tokio::io::duplex(1000);
            tokio::spawn(async move {
                let mut all = Vec::new();
                told.send(far.read_to_end(&mut all).await.map(|_| ())).await.unwrap();
            });
            Ok(Reply::Stream { head: http::Response::new(()), io: Box::new(target) })
        }
    }))
    .await;
    let stream = site.cluster().connect("db", options()).await.unwrap();
    drop(stream);
    timeout(PATIENCE, hear.recv()).await.expect("the target hears of it").unwrap().unwrap();
}

#[tokio::test]
async fn an_oversized_head_is_refused_and_the_connection_lives() {
    let site = Site::new(Does(|call: culvert_tunnel::Call| async move {
        let Ok(Reply::Http(mut response)) = say("ok") else { unreachable!() };
        if call.request.uri().path() == "/long" {
            for at in 0..30 {
                response.headers_mut().insert(
                    http::HeaderName::from_bytes(format!("x-{at}").as_bytes()).unwrap(),
                    "v".repeat(10_000).parse().unwrap(),
                );
            }
        }
        Ok(Reply::Http(response))
    }))
    .await;
    let error = site.get("/long").await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    assert_eq!(site.get("/").await.unwrap(), "ok");
}

#[tokio::test]
async fn an_oversized_request_head_is_refused_and_the_connection_lives() {
    let site = Site::new(Does(|_| async { say("ok") })).await;
    let request = http::Request::get("/").header("x", "v".repeat(400_000)).body(String::new()).unwrap();
    let error = site.cluster().call(request, options()).await.unwrap_err();
    assert!(matches!(error, CallError::Invalid(_)), "{error:?}");
    assert_eq!(site.get("/").await.unwrap(), "ok");
}

#[tokio::test]
async fn an_agent_that_dies_fails_its_calls_at_once() {
    let alive = Alive::default();
    let mark = alive.clone();
    let site = Site::new(Does(move |call: culvert_tunnel::Call| {
        let guard = mark.guard();
        async move {
            if call.request.uri().path() == "/begun" {
                let (feed, response) = fed();
                tokio::spawn(async move {
                    let _guard = guard;
                    feed.send(Bytes::from_static(b"first")).await.ok();
                    feed.closed().await;
                });
                return Ok(Reply::Http(response));
            }
            std::future::pending::<()>().await;
            drop(guard);
            say("")
        }
    }))
    .await;
    let begun = site
        .cluster()
        .call(http::Request::get("/begun").body(String::new()).unwrap(), options())
        .await
        .unwrap();
    let cluster = site.cluster();
    let waiting = tokio::spawn(async move {
        cluster.call(http::Request::get("/").body(String::new()).unwrap(), options()).await
    });
    alive.until(2).await;
    site.agent.abort();
    let error = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, CallError::Lost | CallError::Aborted), "{error:?}");
    let error = timeout(PATIENCE, begun.into_body().collect()).await.unwrap().unwrap_err();
    assert!(matches!(error, BodyError::Lost | BodyError::Aborted), "{error:?}");
    timeout(PATIENCE, site.served).await.expect("the connection ends").unwrap();
    assert!(site.hub.session(key()).is_none());
}

#[tokio::test]
async fn two_hundred_aborted_transfers_leave_nothing() {
    let alive = Alive::default();
    let mark = alive.clone();
    let site = Site::new(Does(move |call: culvert_tunnel::Call| {
        let guard = mark.guard();
        async move {
            let (feed, response) = fed();
            tokio::spawn(async move {
                let _guard = guard;
                let mut upload = call.request.into_body();
                while feed.send(pattern(60_000)).await.is_ok() && matches!(upload.frame().await, Some(Ok(_)))
                {
                }
            });
            Ok(Reply::Http(response))
        }
    }))
    .await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for round in 0..200 {
        let (send, body) = mpsc::channel(1);
        let feeding = tokio::spawn(async move { while send.send(pattern(70_000)).await.is_ok() {} });
        let request = http::Request::post("/").body(upload(body)).unwrap();
        let mut response = timeout(PATIENCE, site.cluster().call(request, options())).await.unwrap().unwrap();
        for _ in 0..round % 5 {
            timeout(PATIENCE, response.body_mut().frame()).await.unwrap().unwrap().unwrap();
        }
        drop(response);
        timeout(PATIENCE, feeding).await.expect("the upload stops").unwrap();
    }
    alive.until(0).await;
    site.until_open_calls(0).await;
    until("tasks", || (tasks(), before)).await;
    // One connection through all of it.
    assert_eq!(site.hub.session(key()).unwrap().calls, 200);
    assert!(!site.agent.is_finished());
}

#[tokio::test]
async fn a_call_to_an_agent_that_is_away_waits_and_then_says_so() {
    let hub = Hub::new("replica".into(), limits());
    let cluster = hub.cluster(key());
    let quick = CallOptions { wait_for_agent: Duration::from_millis(50), ..options() };
    let error = cluster.call(http::Request::get("/").body(String::new()).unwrap(), quick).await.unwrap_err();
    assert!(matches!(error, CallError::NotConnected { since: None }), "{error:?}");
    let waiting = tokio::spawn(async move {
        cluster.call(http::Request::get("/").body(String::new()).unwrap(), options()).await
    });
    tokio::task::yield_now().await;
    let site = Site::with(&hub, limits(), hello(), Does(|_| async { say("here") })).await;
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap().status(), 200);
    site.agent.abort();
    timeout(PATIENCE, site.served).await.unwrap().unwrap();
    let quick = CallOptions { wait_for_agent: Duration::ZERO, ..options() };
    let error = hub
        .cluster(key())
        .call(http::Request::get("/").body(String::new()).unwrap(), quick)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::NotConnected { since: Some(_) }), "{error:?}");
}

#[tokio::test]
async fn a_request_that_cannot_be_understood_is_rejected() {
    let site = Site::new(Does(|_| async { say("") })).await;
    let error = site
        .cluster()
        .call(http::Request::options("*").body(String::new()).unwrap(), options())
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Rejected { reason: RejectReason::Malformed, .. }), "{error:?}");
}
