//! Many calls, slow readers, small frames, budgets: what must not harm others.
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
use culvert_tunnel::{BodyError, Call, CallOptions, Hub, Limits, Reply};
use http_body_util::BodyExt as _;
use site::{Does, PATIENCE, Site, fed, hello, key, limits, pattern, say, until};
use tokio::time::timeout;

fn request(path: &str) -> http::Request<String> {
    http::Request::get(path).body(String::new()).unwrap()
}

/// `/small`: an answer at once. `/watch`: one event, and then silence. `/bulk`:
/// bytes without end. `/chatty`: 50,000 chunks of 20 bytes, each by itself.
fn handler()
-> Does<impl Fn(Call) -> futures::future::BoxFuture<'static, Result<Reply, culvert_tunnel::Failure>> + Clone>
{
    Does(|call: Call| {
        futures::FutureExt::boxed(async move {
            let path = call.request.uri().path().to_owned();
            if path == "/small" {
                return say("small");
            }
            let (feed, response) = fed();
            tokio::spawn(async move {
                match path.as_str() {
                    "/watch" => {
                        feed.send(Bytes::from_static(b"event")).await.ok();
                        feed.closed().await;
                    }
                    "/bulk" => {
                        let data = pattern(64 << 10);
                        while feed.send(data.clone()).await.is_ok() {}
                    }
                    _ => {
                        for at in 0..50_000_u32 {
                            if feed.send(format!("{at:019}\n").into()).await.is_err() {
                                return;
                            }
                            // Apart from the one before, as a chatty pod's lines are.
                            tokio::task::yield_now().await;
                        }
                    }
                }
            });
            Ok(Reply::Http(response))
        })
    })
}

async fn begin(site: &Site, path: &str) -> http::Response<culvert_tunnel::Body> {
    timeout(PATIENCE, site.cluster().call(request(path), CallOptions::default())).await.unwrap().unwrap()
}

async fn fast_calls(site: &Site, count: usize) {
    for _ in 0..count {
        assert_eq!(
            timeout(Duration::from_secs(5), site.get("/small")).await.expect("not stalled").unwrap(),
            "small"
        );
    }
}

#[tokio::test]
async fn rule_4_a_stalled_reader_does_not_stall_others() {
    let site = Site::new(handler()).await;
    let stalled = begin(&site, "/bulk").await;
    // Until its whole window is full, beyond what any smaller connection window would take.
    let mut more = Vec::new();
    for _ in 0..20 {
        more.push(begin(&site, "/bulk").await);
    }
    fast_calls(&site, 200).await;
    let mut reading = begin(&site, "/bulk").await;
    let mut seen = 0;
    while seen < 8 << 20 {
        seen += timeout(PATIENCE, reading.body_mut().frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
    drop((stalled, more, reading));
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn rule_5_an_unread_stream_of_small_frames_does_not_end_the_connection() {
    let site = Site::new(handler()).await;
    let mut chatty = Vec::new();
    for _ in 0..4 {
        chatty.push(begin(&site, "/chatty").await);
    }
    // Each holds its whole window: about a million bytes in forty thousand frames.
    let mut last = 0;
    until("bytes received settle", || {
        let now = site.hub.session(key()).unwrap().bytes_in;
        let still = now == last && now > 3 << 20;
        last = now;
        (still, true)
    })
    .await;
    fast_calls(&site, 50).await;
    for paused in chatty {
        let all = timeout(PATIENCE, paused.into_body().collect()).await.unwrap().unwrap().to_bytes();
        assert_eq!(all.len(), 50_000 * 20);
        assert!(all.ends_with(b"0000000000000049999\n"));
    }
    assert!(!site.served.is_finished());
}

#[tokio::test]
async fn rule_5_a_reader_merges_small_frames() {
    let site = Site::new(handler()).await;
    let mut paused = begin(&site, "/chatty").await;
    let mut last = 0;
    until("bytes received settle", || {
        let now = site.hub.session(key()).unwrap().bytes_in;
        let still = now == last && now > 500_000;
        last = now;
        (still, true)
    })
    .await;
    let (mut frames, mut bytes) = (0, 0);
    while let Some(frame) = timeout(PATIENCE, paused.body_mut().frame()).await.unwrap() {
        frames += 1;
        bytes += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(bytes, 50_000 * 20);
    assert!(frames < 25_000, "{frames} frames for 50,000 chunks");
}

#[tokio::test]
async fn three_hundred_watches_leave_room_for_another_call() {
    let site = Site::new(handler()).await;
    let mut watches = Vec::new();
    for _ in 0..300 {
        let mut watch = begin(&site, "/watch").await;
        assert_eq!(
            timeout(PATIENCE, watch.body_mut().frame()).await.unwrap().unwrap().unwrap().into_data().unwrap(),
            "event"
        );
        watches.push(watch);
    }
    fast_calls(&site, 20).await;
    assert_eq!(site.hub.session(key()).unwrap().open_calls, 300);
    drop(watches);
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn rule_4_the_reaper_ends_the_calls_without_progress_and_no_other() {
    let tight = Limits { connection_budget: 3 << 20, ..limits() };
    let hub = Hub::new("replica".into(), tight.clone());
    let site = Site::with(&hub, limits(), hello(), handler()).await;
    let stalled = [
        begin(&site, "/bulk").await,
        begin(&site, "/bulk").await,
        begin(&site, "/bulk").await,
        begin(&site, "/bulk").await,
        begin(&site, "/bulk").await,
    ];
    let mut healthy = begin(&site, "/bulk").await;
    let begun = tokio::time::Instant::now();
    while hub.session(key()).unwrap().reaped == 0 {
        timeout(PATIENCE, healthy.body_mut().frame())
            .await
            .unwrap()
            .unwrap()
            .expect("who reads is not ended");
        assert!(begun.elapsed() < PATIENCE, "nothing was reaped: {:?}", hub.session(key()));
    }
    let reaped = hub.session(key()).unwrap().reaped;
    assert!((2..5).contains(&reaped), "enough, and not all: {reaped}");
    let mut ended = 0;
    for stream in stalled {
        let mut body = stream.into_body();
        // What is left waits; a call that was ended says so.
        let error = timeout(Duration::from_millis(300), async {
            let mut bytes = 0;
            while bytes < 2 << 20 {
                match body.frame().await {
                    Some(Ok(frame)) => bytes += frame.into_data().unwrap().len(),
                    Some(Err(error)) => return Some(error),
                    None => return None,
                }
            }
            None
        });
        if let Ok(Some(error)) = error.await {
            assert_eq!(error, BodyError::Reaped);
            ended += 1;
        }
    }
    assert_eq!(ended, reaped);
    timeout(PATIENCE, healthy.body_mut().frame()).await.unwrap().unwrap().expect("who reads is not ended");
}

#[tokio::test]
async fn rule_4_the_agents_reaper_ends_an_upload_that_nobody_reads() {
    let tight = Limits { connection_budget: 1 << 20, ..limits() };
    let hub = Hub::new("replica".into(), limits());
    let site = Site::with(
        &hub,
        tight,
        hello(),
        Does(|call: Call| async move {
            if call.request.uri().path() == "/small" {
                return say("small");
            }
            // It holds the body and never reads it.
            let _held = call.request.into_body();
            std::future::pending::<()>().await;
            say("")
        }),
    )
    .await;
    let upload = |_: usize| {
        let cluster = site.cluster();
        let body = http_body_util::Full::new(pattern(4 << 20));
        tokio::spawn(async move {
            cluster.call(http::Request::put("/").body(body).unwrap(), CallOptions::default()).await
        })
    };
    let uploads: Vec<_> = (0..3).map(upload).collect();
    let ended = futures::future::select_all(uploads);
    let (first, _, _) = timeout(PATIENCE, ended).await.expect("one is ended");
    first.unwrap().expect_err("it was ended");
    fast_calls(&site, 5).await;
}

#[tokio::test]
async fn many_small_calls_at_once() {
    let site = Site::new(handler()).await;
    let calls = (0..1000).map(|_| {
        let cluster = site.cluster();
        tokio::spawn(async move { site::get(&cluster, "/small").await.map_err(|error| error.to_string()) })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), "small");
    }
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn nine_hundred_stalled_calls_and_a_bulk_one_beside_them() {
    let site = Site::new(handler()).await;
    let mut watches = Vec::new();
    for _ in 0..900 {
        watches.push(begin(&site, "/watch").await);
    }
    let mut bulk = begin(&site, "/bulk").await;
    let mut seen = 0;
    while seen < 4 << 20 {
        seen += timeout(PATIENCE, bulk.body_mut().frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
    fast_calls(&site, 20).await;
}
