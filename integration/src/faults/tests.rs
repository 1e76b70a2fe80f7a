//! Each fault, on a connection to a server that sends back what it gets.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// The longest that anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for bytes on loopback to have come.
const QUIET: Duration = Duration::from_millis(150);

async fn echo() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Ok(address)
}

async fn scene() -> anyhow::Result<(FaultProxy, TcpStream)> {
    let proxy = FaultProxy::start(echo().await?).await?;
    let stream = TcpStream::connect(proxy.address()).await?;
    let mut scene = (proxy, stream);
    asked(&mut scene.1).await?;
    Ok(scene)
}

/// Asks and hears the same.
async fn asked(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(b"ping").await?;
    let mut heard = [0; 4];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut heard)).await.context("no answer")??;
    ensure!(&heard == b"ping");
    Ok(())
}

/// Nothing comes for a while, and no end either.
async fn is_silent(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut heard = [0; 1];
    let read = tokio::time::timeout(QUIET, stream.read(&mut heard)).await;
    ensure!(read.is_err(), "heard {read:?}");
    Ok(())
}

/// It has ended, by a reset or not.
async fn has_ended(stream: &mut TcpStream) -> anyhow::Result<bool> {
    let mut heard = [0; 1];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut heard)).await.context("still open")?;
    ensure!(!matches!(read, Ok(1)), "it spoke");
    Ok(read.is_err())
}

#[tokio::test]
async fn bytes_pass_and_the_end_of_one_direction_is_one() -> anyhow::Result<()> {
    let (proxy, mut stream) = scene().await?;
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let (mut from, mut to) = stream.split();
    let (heard, ()) = tokio::try_join!(
        async {
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).await.map(|_| heard)
        },
        async {
            to.write_all(&sent).await?;
            to.shutdown().await
        }
    )?;
    ensure!(heard == sent, "{} of {} bytes", heard.len(), sent.len());
    drop(stream);
    crate::wait::until(LIMIT, || async {
        ensure!(proxy.open() == 0 && proxy.accepted() == 1, "{} open", proxy.open());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn latency_delays_and_a_black_hole_keeps_all_bytes() -> anyhow::Result<()> {
    let (proxy, mut stream) = scene().await?;
    proxy.set(Faults::slow(Duration::from_millis(100)));
    let began = Instant::now();
    asked(&mut stream).await?;
    ensure!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    proxy.set(Faults::black_hole());
    stream.write_all(b"lost?").await?;
    is_silent(&mut stream).await?;
    proxy.set(Faults::default());
    let mut heard = [0; 5];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut heard)).await??;
    ensure!(&heard == b"lost?");
    Ok(())
}

#[tokio::test]
async fn a_throttle_takes_its_time() -> anyhow::Result<()> {
    let (proxy, mut stream) = scene().await?;
    let slow = Flow { bytes_per_second: Some(40_000), ..Flow::default() };
    proxy.set(Faults { down: slow, ..Faults::default() });
    let began = Instant::now();
    stream.write_all(&[7; 20_000]).await?;
    let mut heard = vec![0; 20_000];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut heard)).await??;
    ensure!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_reset_is_one_and_a_stop_closes_and_resumes() -> anyhow::Result<()> {
    let (mut proxy, mut stream) = scene().await?;
    proxy.reset();
    ensure!(has_ended(&mut stream).await?, "it was closed and not reset");
    let mut stream = TcpStream::connect(proxy.address()).await?;
    asked(&mut stream).await?;
    proxy.stop().await;
    has_ended(&mut stream).await?;
    ensure!(TcpStream::connect(proxy.address()).await.is_err(), "a stopped proxy accepts");
    proxy.resume().await?;
    asked(&mut TcpStream::connect(proxy.address()).await?).await
}

#[tokio::test]
async fn a_half_open_connection_has_one_end_that_knows() -> anyhow::Result<()> {
    let (proxy, mut stream) = scene().await?;
    proxy.leave_agents_half_open();
    stream.write_all(b"ping").await?;
    is_silent(&mut stream).await?;
    let mut other = TcpStream::connect(proxy.address()).await?;
    asked(&mut other).await?;
    proxy.leave_controller_half_open();
    has_ended(&mut other).await?;
    is_silent(&mut stream).await?;
    ensure!(proxy.open() == 2, "{} open", proxy.open());
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_is_forgotten_and_a_busy_one_is_not() -> anyhow::Result<()> {
    let (proxy, mut stream) = scene().await?;
    let limit = Duration::from_millis(400);
    proxy.set(Faults { forgotten_after: Some(limit), ..Faults::default() });
    let began = Instant::now();
    while began.elapsed() < limit * 2 {
        asked(&mut stream).await.context("while busy")?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(limit * 2).await;
    stream.write_all(b"ping").await?;
    is_silent(&mut stream).await
}

#[tokio::test]
async fn a_balancer_takes_turns_and_a_dead_end_says_nothing() -> anyhow::Result<()> {
    let listeners = [TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?];
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    let proxy = FaultProxy::balancing(addresses).await?;
    let mut streams = Vec::new();
    for listener in listeners.iter().chain(&listeners) {
        streams.push(TcpStream::connect(proxy.address()).await?);
        streams.push(tokio::time::timeout(LIMIT, listener.accept()).await.context("not its turn")??.0);
    }
    proxy.lead_to(vec![echo().await?]);
    asked(&mut TcpStream::connect(proxy.address()).await?).await?;
    proxy.set(Faults { dead_end: true, ..Faults::default() });
    let mut lost = TcpStream::connect(proxy.address()).await?;
    lost.write_all(b"ping").await?;
    is_silent(&mut lost).await
}
