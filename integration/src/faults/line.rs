//! One direction of a connection: bytes come in, wait as the line's state says, and go out.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Faults, Flow};

/// Most bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that may be under way: more than any latency here needs.
const UNDER_WAY: usize = 256;

/// What both directions of a connection know of each other.
pub(super) struct Traffic {
    /// Chunks that came from the agent.
    spoken: AtomicUsize,
    /// When something last passed.
    last: Mutex<Instant>,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self { spoken: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }

    pub(super) fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passed(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    fn flow(self, faults: &Faults) -> &Flow {
        match self {
            Self::Up => &faults.up,
            Self::Down => &faults.down,
        }
    }
}

/// Carries one direction to its end, which is passed on as the end of one direction.
pub(super) async fn carry(
    direction: Direction,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    faults: watch::Receiver<Faults>,
    traffic: &Traffic,
) -> io::Result<()> {
    let (sender, chunks) = mpsc::channel(UNDER_WAY);
    let reading = take_in(direction, from, sender, traffic);
    let writing = give_out(direction, to, chunks, faults, traffic);
    tokio::try_join!(reading, writing).map(drop)
}

async fn take_in(
    direction: Direction,
    from: &mut OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Bytes)>,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if direction == Direction::Up {
            traffic.spoken.fetch_add(1, Ordering::SeqCst);
        }
        traffic.passed();
        let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        if chunks.send((Instant::now(), bytes)).await.is_err() {
            return Ok(());
        }
    }
}

async fn give_out(
    direction: Direction,
    to: &mut OwnedWriteHalf,
    mut chunks: mpsc::Receiver<(Instant, Bytes)>,
    mut faults: watch::Receiver<Faults>,
    traffic: &Traffic,
) -> io::Result<()> {
    while let Some((came, bytes)) = chunks.recv().await {
        // The proxy holds the other end for as long as there are connections.
        let flow = match faults.wait_for(|faults| !direction.flow(faults).stopped).await {
            Ok(faults) => direction.flow(&faults).clone(),
            Err(_) => return Ok(()),
        };
        if is_held(&flow, bytes.len(), traffic) {
            std::future::pending::<()>().await;
        }
        sleep_until(came + flow.latency).await;
        sleep(time_for(bytes.len(), flow.bytes_per_second)).await;
        to.write_all(&bytes).await?;
        traffic.passed();
    }
    to.shutdown().await
}

fn is_held(flow: &Flow, length: usize, traffic: &Traffic) -> bool {
    flow.held_from.is_some_and(|from| length > from) && traffic.spoken.load(Ordering::SeqCst) > 1
}

/// How long a line of this rate is busy with so many bytes.
fn time_for(length: usize, bytes_per_second: Option<u64>) -> Duration {
    match bytes_per_second {
        Some(rate) => Duration::from_secs_f64(length as f64 / rate.max(1) as f64),
        None => Duration::ZERO,
    }
}
