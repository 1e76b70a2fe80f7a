//! Many schedules of one story: both ends over a network whose every delay and cut is
//! drawn from a seed, on one thread, so that a seed is nearly a schedule. What differs
//! is the compressed length of call ids, which are random and stay so.
//!
//! A delay is a number of turns of the scheduler and not a time: what can go wrong
//! between two ends is an order of events, and turns reach more orders in a second
//! than any clock, paused or not. `turmoil` would bring sockets, hosts and a clock of
//! its own for what is one pipe here, and hides inside h2 what we want to cut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    clippy::print_stderr,
    reason = "a failed test says which schedule it was"
)]

mod site;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use culvert_tunnel::{BodyError, Call, CallError, CallOptions, Hub, Limits, Reply};
use http_body_util::{BodyExt as _, Full};
use site::{Alive, Does, PATIENCE, Site, hello, key, limits, pattern};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::timeout;

/// Schedules that are played in every run; `CULVERT_SCHEDULES` sets another number.
const SEEDS: u64 = 200;

#[derive(Clone)]
struct Numbers(u64);

impl Numbers {
    fn of(seed: u64) -> Self {
        let mut numbers = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        numbers.below(2);
        numbers
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// One end of a pipe that passes on pieces, each after some turns of others.
struct Choppy {
    io: DuplexStream,
    numbers: Numbers,
    wait: usize,
}

impl Choppy {
    fn new(io: DuplexStream, seed: u64) -> Self {
        Self { io, numbers: Numbers::of(seed), wait: 0 }
    }

    /// Whether it is this end's turn, and how much passes then.
    fn turn(&mut self, cx: &Context<'_>) -> Option<usize> {
        if self.wait > 0 {
            self.wait -= 1;
            cx.waker().wake_by_ref();
            return None;
        }
        self.wait = [0, 0, 1, 2, 5, 20][self.numbers.below(6)];
        Some([1, 9, 100, 1000, 20_000, 200_000][self.numbers.below(6)])
    }
}

impl AsyncRead for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Some(most) = self.turn(cx) else { return Poll::Pending };
        let mut piece = vec![0; most.min(buf.remaining())];
        let mut piece = ReadBuf::new(&mut piece);
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
        buf.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let Some(most) = self.turn(cx) else { return Poll::Pending };
        let most = most.min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What came of the callers, in the order in which it came.
type Trace = Arc<Mutex<Vec<String>>>;

/// What may befall the connection in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nothing,
    ControllerDrains,
    AgentStops,
    /// Another connection of the same process takes over.
    Replaced,
    Dies,
}

const FATES: [Fate; 5] =
    [Fate::Nothing, Fate::ControllerDrains, Fate::AgentStops, Fate::Replaced, Fate::Dies];

/// Nothing here may depend on a clock.
fn timeless() -> Limits {
    Limits { reaper_tick: Duration::from_secs(3600), ..limits() }
}

async fn connect(hub: &Hub, seed: u64, alive: &Alive) -> Site {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (near, far) = (Choppy::new(near, seed), Choppy::new(far, seed + 1));
    let mark = alive.clone();
    let handler = Does(move |call: Call| {
        let guard = mark.guard();
        async move {
            let _guard = guard;
            let body = match call.request.into_body().collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => {
                    return Err(culvert_tunnel::Failure::new(
                        culvert_tunnel::FailureCode::Internal,
                        error.to_string(),
                    ));
                }
            };
            let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
            Ok(Reply::Http(http::Response::new(body)))
        }
    });
    let mut site = Site::over(hub, near, far, timeless(), hello(), handler).await;
    let first = timeout(PATIENCE, site.signals.recv()).await.expect("a Welcome in time");
    assert!(first.is_some());
    // Its owner takes what it is told.
    let mut signals = std::mem::replace(&mut site.signals, tokio::sync::mpsc::channel(1).1);
    tokio::spawn(async move { while signals.recv().await.is_some() {} });
    site
}

/// One caller: sends a body and wants it back, or gives up at some turn.
async fn caller(hub: Hub, number: usize, mut numbers: Numbers, trace: Trace, fate: Fate) {
    for _ in 0..numbers.below(60) {
        tokio::task::yield_now().await;
    }
    let sent = pattern([0, 10, 5000, 40_000, 300_000][numbers.below(5)]);
    let patience = if numbers.below(4) == 0 { Some(numbers.below(80)) } else { None };
    let call = async {
        let request = http::Request::put("/").body(Full::new(sent.clone())).unwrap();
        let response = hub.cluster(key()).call(request, CallOptions::default()).await?;
        match response.into_body().collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(BodyError::Lost) => Err(CallError::Lost),
            Err(_) => Err(CallError::Aborted),
        }
    };
    let turns = async {
        match patience {
            Some(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            None => std::future::pending().await,
        }
    };
    let came: Option<Result<Bytes, CallError>> = tokio::select! {
        biased;
        came = timeout(PATIENCE, call) => Some(came.expect("an end within its deadline")),
        () = turns => None,
    };
    let word = match came {
        None => "gave up".to_owned(),
        Some(Ok(body)) => {
            assert!(body == sent, "caller {number} got {} of {} bytes", body.len(), sent.len());
            format!("{} bytes", sent.len())
        }
        Some(Err(error)) => {
            let died = matches!(error, CallError::Lost | CallError::Aborted);
            assert!(fate == Fate::Dies && died, "caller {number}: {error:?} under {fate:?}");
            "lost".to_owned()
        }
    };
    trace.lock().unwrap().push(format!("{number}: {word}"));
}

async fn play(seed: u64) -> Vec<String> {
    let mut numbers = Numbers::of(seed);
    let (alive, trace) = (Alive::default(), Trace::default());
    let hub = Hub::new("replica".into(), timeless());
    let old = connect(&hub, seed, &alive).await;
    let fate = FATES[numbers.below(FATES.len())];
    let callers: Vec<_> = (0..12)
        .map(|number| {
            let numbers = Numbers::of(seed * 1000 + number as u64);
            tokio::spawn(caller(hub.clone(), number, numbers, trace.clone(), fate))
        })
        .collect();
    for _ in 0..numbers.below(150) {
        tokio::task::yield_now().await;
    }
    match fate {
        Fate::Nothing | Fate::Replaced => {}
        Fate::ControllerDrains => old.stop_controller.cancel(),
        Fate::AgentStops => old.stop_agent.cancel(),
        Fate::Dies => old.served.abort(),
    }
    let _new = match fate {
        Fate::Nothing => None,
        _ => Some(connect(&hub, seed + 7, &alive).await),
    };
    for caller in callers {
        caller.await.unwrap();
    }
    alive.until(0).await;
    site::until("open calls", || (hub.session(key()).map_or(0, |session| session.open_calls), 0)).await;
    trace.lock().unwrap().clone()
}

fn run(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(play(seed))));
    played.unwrap_or_else(|panic| {
        eprintln!("this was schedule {seed}");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn in_every_schedule_each_caller_gets_its_bytes_or_the_cause() {
    let mut ends = std::collections::BTreeMap::<String, u32>::new();
    let seeds = std::env::var("CULVERT_SCHEDULES").map_or(SEEDS, |text| text.parse().unwrap());
    for seed in 1..=seeds {
        let trace = run(seed);
        assert_eq!(trace.len(), 12, "schedule {seed}: {trace:?}");
        for line in trace {
            *ends.entry(line.split(": ").nth(1).unwrap().to_owned()).or_default() += 1;
        }
    }
    // The schedules reach what they are for.
    assert!(ends["gave up"] > 50 && ends["lost"] > 20 && ends["300000 bytes"] > 200, "{ends:?}");
}
