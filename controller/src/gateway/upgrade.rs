//! Upgraded connections: bytes between the caller and the cluster, whatever protocol they are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use culvert_tunnel::Upgraded;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::timeout;

use super::record::{Moved, Record};

/// Bytes read at once each way: what a tunnel's frame holds.
const BUFFER: usize = 32 * 1024;
/// Time for the caller to take the answer's head and change protocol.
const PATIENCE: Duration = Duration::from_secs(10);

/// Moves bytes until both directions have ended, one fails, or the caller's right ends. The end
/// of one direction alone is passed on as that and no more.
pub(crate) async fn pump(caller: OnUpgrade, cluster: Upgraded, record: Record) {
    let caller = match timeout(PATIENCE, caller).await {
        Ok(Ok(caller)) => caller,
        Ok(Err(error)) => return tracing::debug!(%error, "the caller left before its upgrade was complete"),
        Err(_) => return tracing::debug!("the caller did not complete its upgrade in time"),
    };
    let ended = record.lease().map(|lease| lease.ended());
    let moving = async {
        let mut caller = TokioIo::new(caller);
        let mut cluster = Counted { io: cluster, moved: record.moved() };
        copy_bidirectional_with_sizes(&mut caller, &mut cluster, BUFFER, BUFFER).await
    };
    let result = match ended {
        Some(ended) => tokio::select! {
            result = moving => result,
            () = ended => Err(io::Error::other("the caller's right has ended")),
        },
        None => moving.await,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an upgraded connection broke off");
    }
}

/// Counts what passes at the cluster's side.
struct Counted {
    io: Upgraded,
    moved: Arc<Moved>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.moved.down(buf.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.moved.up(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
