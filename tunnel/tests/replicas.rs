//! Two replicas: a call that comes in at one, to an agent that is connected to the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops"
)]

mod site;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use culvert_tunnel::{
    AgentKey, Call, CallError, CallOptions, Failure, FailureCode, Hub, Io, Kind, LinkEnd, Moved, Owner,
    Peering, Refusal, RefusalCode, Reply, Upgraded,
};
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use site::{Alive, Does, PATIENCE, Site, fed, get, hello, key, limits, pattern, say, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Knows one other replica, which owns every agent.
struct One {
    other: Hub,
    stop: CancellationToken,
    dials: Arc<AtomicUsize>,
}

fn owner() -> Owner {
    Owner { replica: Uuid::from_u128(9), address: "in memory".into() }
}

impl Peering for One {
    fn owner(&self, _: AgentKey) -> Option<Owner> {
        Some(owner())
    }

    fn ask(&self, _: AgentKey) -> BoxFuture<'_, Option<Owner>> {
        Box::pin(async { Some(owner()) })
    }

    fn dial<'a>(&'a self, _: &'a Owner) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            if self.stop.is_cancelled() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(256 << 10);
            let (hub, stop) = (self.other.clone(), self.stop.clone());
            tokio::spawn(async move { hub.serve_replica(far, stop).await });
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}

/// Where callers come in, and a way to end the other replica's peer door.
struct Pair {
    entry: Hub,
    stop: CancellationToken,
    dials: Arc<AtomicUsize>,
}

fn beside(other: &Hub) -> Pair {
    let (stop, dials) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
    let entry = Hub::new("entry".into(), limits());
    entry.join(One { other: other.clone(), stop: stop.clone(), dials: dials.clone() });
    Pair { entry, stop, dials }
}

fn patience(wait: Duration) -> CallOptions {
    CallOptions { wait_for_agent: wait, ..CallOptions::default() }
}

async fn echo(call: Call) -> Result<Reply, Failure> {
    match call.kind {
        Kind::Http if call.request.uri().path() == "/denied" => {
            Err(Failure::new(FailureCode::Denied, "not here"))
        }
        Kind::Http => {
            let who = call.caller.user.clone();
            let body = call.request.into_body().collect().await;
            let body = body.map_err(|error| Failure::new(FailureCode::Internal, error.to_string()))?;
            let mut reply = http::Response::new(Full::new(body.to_bytes()));
            reply.headers_mut().insert("who", who.parse().unwrap());
            Ok(Reply::Http(reply.map(|body| body.map_err(|never| match never {}).boxed_unsync())))
        }
        Kind::Upgrade | Kind::Tcp(_) => {
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(far);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.write_all(b"bye").await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut head = http::Response::new(());
            if call.kind == Kind::Upgrade {
                *head.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                head.headers_mut().insert("upgrade", "echo".parse().unwrap());
            }
            Ok(Reply::Stream { head, io: Box::new(near) })
        }
    }
}

#[tokio::test]
async fn a_call_crosses_with_its_caller_and_one_connection_serves_all() {
    let site = Site::new(Does(echo)).await;
    let pair = beside(&site.hub);
    let caller = culvert_proto::tunnel::v1::Caller { user: "culvert:ada".into(), ..Default::default() };
    let cluster = pair.entry.cluster(key()).with_caller(caller);
    for size in [0, 100, 32 << 10, 3 << 20] {
        let body = pattern(size);
        let request = http::Request::post("/echo").body(Full::new(body.clone())).unwrap();
        let answer = cluster.call(request, CallOptions::default()).await.unwrap();
        assert_eq!(answer.headers()["who"], "culvert:ada");
        assert!(
            answer.into_body().collect().await.unwrap().to_bytes() == body,
            "{size} bytes came back otherwise"
        );
    }
    assert_eq!(pair.dials.load(Ordering::SeqCst), 1);
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn an_answer_streams_and_its_reader_gives_it_up_at_the_agent() {
    let alive = Alive::default();
    let (feed, reply) = fed();
    let reply = Arc::new(std::sync::Mutex::new(Some((reply, alive.guard()))));
    let site = Site::new(Does(move |_| {
        let taken = reply.lock().unwrap().take().unwrap();
        async move {
            let (reply, guard) = taken;
            let guarded = reply.map(|body| {
                let held = guard;
                body.map_frame(move |frame| {
                    let _ = &held;
                    frame
                })
                .boxed_unsync()
            });
            Ok(Reply::Http(guarded))
        }
    }))
    .await;
    let pair = beside(&site.hub);
    let request = http::Request::get("/watch").body(String::new()).unwrap();
    let answer = pair.entry.cluster(key()).call(request, CallOptions::default()).await.unwrap();
    let mut body = answer.into_body();
    for word in ["one", "two"] {
        feed.send(word.into()).await.unwrap();
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a frame in time");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), word);
    }
    drop(body);
    alive.until(0).await;
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn an_upgrade_and_a_tcp_call_pass_bytes_and_ends_both_ways() {
    let site = Site::new(Does(echo)).await;
    let pair = beside(&site.hub);
    let cluster = pair.entry.cluster(key());
    let request = http::Request::get("/exec").header("connection", "upgrade").header("upgrade", "echo");
    let mut answer =
        cluster.call(request.body(String::new()).unwrap(), CallOptions::default()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["upgrade"].as_bytes()), (101, &b"echo"[..]));
    let upgraded = Upgraded::take(&mut answer).unwrap();
    let tcp = cluster.connect("db", CallOptions::default()).await.unwrap();
    for mut io in [upgraded, tcp] {
        io.write_all(b"hello ").await.unwrap();
        io.shutdown().await.unwrap();
        let mut heard = String::new();
        tokio::time::timeout(PATIENCE, io.read_to_string(&mut heard)).await.expect("an end in time").unwrap();
        assert_eq!(heard, "hello bye");
    }
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn an_owners_troubles_arrive_as_themselves() {
    let site = Site::new(Does(echo)).await;
    let pair = beside(&site.hub);
    let cluster = pair.entry.cluster(key());
    let request = http::Request::get("/denied").body(String::new()).unwrap();
    let error = cluster.call(request, CallOptions::default()).await.unwrap_err();
    assert!(matches!(&error, CallError::Failure(f) if f.code == FailureCode::Denied), "{error:?}");
    // An agent that nobody has: waited for, and then told.
    let nobody = AgentKey { agent: Uuid::from_u128(77), ..key() };
    let request = http::Request::get("/").body(String::new()).unwrap();
    let error =
        pair.entry.cluster(nobody).call(request, patience(Duration::from_millis(600))).await.unwrap_err();
    assert!(matches!(error, CallError::NotConnected { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cut_at_the_owner_ends_the_call_that_came_in_elsewhere() {
    let alive = Alive::default();
    let held = alive.clone();
    let site = Site::new(Does(move |_| {
        let guard = held.guard();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            say("never")
        }
    }))
    .await;
    let pair = beside(&site.hub);
    let cluster = pair.entry.cluster(key());
    let call = tokio::spawn(async move { get(&cluster, "/hangs").await });
    alive.until(1).await;
    site.hub.cut(key(), Refusal::new(RefusalCode::Locked, "on request"));
    let error = tokio::time::timeout(PATIENCE, call).await.expect("an end in time").unwrap().unwrap_err();
    let error = error.downcast_ref::<CallError>().expect("a call error");
    assert!(matches!(error, CallError::Cut(why) if why.code == RefusalCode::Locked), "{error:?}");
}

#[tokio::test]
async fn a_call_given_up_where_it_came_in_ends_at_the_agent() {
    let alive = Alive::default();
    let held = alive.clone();
    let site = Site::new(Does(move |_| {
        let guard = held.guard();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            say("never")
        }
    }))
    .await;
    let pair = beside(&site.hub);
    for upload in [10, 1 << 20] {
        let cluster = pair.entry.cluster(key());
        let request = http::Request::post("/hangs").body(Full::new(pattern(upload))).unwrap();
        let call = tokio::spawn(async move { cluster.call(request, CallOptions::default()).await });
        alive.until(1).await;
        call.abort();
        alive.until(0).await;
    }
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn an_agent_that_comes_here_while_it_is_sought_is_found_here() {
    let empty = Hub::new("other".into(), limits());
    let pair = beside(&empty);
    let cluster = pair.entry.cluster(key());
    let call = tokio::spawn(async move {
        let request = http::Request::get("/").body(String::new()).unwrap();
        cluster.call(request, patience(PATIENCE)).await.map(|answer| answer.status())
    });
    until("a first try at the other replica", || (pair.dials.load(Ordering::SeqCst), 1)).await;
    let _site = Site::with(&pair.entry, limits(), hello(), Does(|_| async { say("here") })).await;
    let status = tokio::time::timeout(PATIENCE, call).await.expect("an answer in time").unwrap().unwrap();
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_session_that_moved_is_told_and_only_an_older_one() {
    let mut site = Site::new(Does(|_| async { say("here") })).await;
    let epoch = site.hub.session(key()).unwrap().epoch;
    let pair = beside(&site.hub);
    let moved = |epoch| Moved { agent: key(), epoch, instance: [8; 16], source: "198.51.100.1:7".into() };
    pair.entry.tell_moved(&owner(), &moved(epoch)).await.unwrap();
    assert_eq!(site.get("/").await.unwrap(), "here", "a stale epoch ended a session");
    pair.entry.tell_moved(&owner(), &moved(epoch + 1)).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, &mut site.agent).await.expect("an end in time").unwrap();
    let want = LinkEnd::Superseded { same_instance: false, from: "198.51.100.1:7".into() };
    assert_eq!(end, want);
}

#[tokio::test]
async fn a_replica_that_stops_finishes_what_came_from_the_others() {
    let (feed, reply) = fed();
    let reply = Arc::new(std::sync::Mutex::new(Some(reply)));
    let site = Site::new(Does(move |_| {
        let reply = reply.lock().unwrap().take();
        async move { reply.map_or_else(|| say("again"), |reply| Ok(Reply::Http(reply))) }
    }))
    .await;
    let pair = beside(&site.hub);
    let request = http::Request::get("/long").body(String::new()).unwrap();
    let answer = pair.entry.cluster(key()).call(request, CallOptions::default()).await.unwrap();
    pair.stop.cancel();
    feed.send(Bytes::from_static(b"to the")).await.unwrap();
    feed.send(Bytes::from_static(b" end")).await.unwrap();
    drop(feed);
    let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.expect("an end in time");
    assert_eq!(body.unwrap().to_bytes(), "to the end");
    // Its door is closed now, so a call waits and is told.
    let refused = || async {
        let request = http::Request::get("/").body(String::new()).unwrap();
        let called = pair.entry.cluster(key()).call(request, patience(Duration::from_millis(300))).await;
        matches!(called, Err(CallError::NotConnected { .. }))
    };
    let begin = tokio::time::Instant::now();
    while !refused().await {
        assert!(begin.elapsed() < PATIENCE, "the stopped replica goes on taking calls");
    }
}
