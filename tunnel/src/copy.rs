//! Bytes both ways between a call and a byte stream beside it, in one task. At the
//! agent that is the target, at the controller the caller. Each direction ends
//! by itself; a direction that cannot be written is no reason to stop the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::BodyError;
use crate::stream::SharedDuplex;

/// Fewest bytes of one read.
const SMALL: usize = 4 << 10;
/// Most bytes of one read: one HTTP/2 frame with what surrounds it.
const LARGE: usize = (64 << 10) - 64;

/// Why copying stopped early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("the stream beside it broke: {0}")]
    Beside(io::Error),
    #[error(transparent)]
    Tunnel(BodyError),
}

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Beside(error) => error,
            Stopped::Tunnel(error) => error.into(),
        }
    }
}

struct Copy<IO> {
    io: IO,
    duplex: SharedDuplex,
    merge: usize,
    /// Read from beside, not sent yet.
    up: Bytes,
    buffer: BytesMut,
    read_size: usize,
    up_done: bool,
    /// Received, not written beside yet.
    down: Bytes,
    unflushed: bool,
    down_done: bool,
}

/// Copies until both directions have ended. `first` was received already.
pub(crate) async fn copy<IO>(io: IO, duplex: SharedDuplex, first: Bytes, merge: usize) -> Result<(), Stopped>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut copy = Copy {
        io,
        duplex,
        merge,
        up: Bytes::new(),
        buffer: BytesMut::new(),
        read_size: SMALL,
        up_done: false,
        down: first,
        unflushed: false,
        down_done: false,
    };
    poll_fn(|cx| copy.poll(cx)).await
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Copy<IO> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if !self.down_done
            && let Poll::Ready(done) = self.poll_down(cx)
        {
            done.map_err(Stopped::Tunnel)?;
            self.down_done = true;
        }
        if !self.up_done
            && let Poll::Ready(done) = self.poll_up(cx)
        {
            done?;
            self.up_done = true;
        }
        if self.up_done && self.down_done {
            return Poll::Ready(Ok(()));
        }
        match self.duplex.lock().poll_aborted(cx) {
            // A direction that ended well is closed to h2 too.
            Poll::Ready(error) if !self.up_done => Poll::Ready(Err(Stopped::Tunnel(error))),
            _ => Poll::Pending,
        }
    }

    /// From beside into the call.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            while !self.up.is_empty() {
                let mut duplex = self.duplex.lock();
                let room = ready!(duplex.poll_ready(cx, self.up.len())).map_err(Stopped::Tunnel)?;
                duplex.outbound.send(self.up.split_to(room)).map_err(Stopped::Tunnel)?;
            }
            if ready!(self.poll_read(cx)).map_err(Stopped::Beside)? == 0 {
                return Poll::Ready(self.duplex.lock().outbound.finish(Vec::new()).map_err(Stopped::Tunnel));
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() < self.read_size {
            self.buffer.reserve(self.read_size);
        }
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer);
        match &read {
            Poll::Ready(Ok(count)) => {
                self.read_size = next_size(self.read_size, *count);
                self.up = self.buffer.split_to(self.buffer.len().min(LARGE)).freeze();
            }
            // An idle stream holds nothing.
            Poll::Pending => self.buffer = BytesMut::new(),
            Poll::Ready(Err(_)) => {}
        }
        read
    }

    /// From the call to beside.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            while !self.down.is_empty() {
                match ready!(Pin::new(&mut self.io).poll_write(cx, &self.down)) {
                    Ok(count) if count > 0 => self.down.advance(count),
                    // It takes nothing more; what it still says may matter.
                    _ => return Poll::Ready(self.stop_down()),
                }
                self.unflushed = true;
            }
            let next = self.duplex.lock().poll_data(cx, self.merge);
            match next {
                Poll::Ready(Some(Ok(data))) => self.down = data,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => {
                    // One that is gone needs no end.
                    let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    if self.unflushed && ready!(Pin::new(&mut self.io).poll_flush(cx)).is_err() {
                        return Poll::Ready(self.stop_down());
                    }
                    self.unflushed = false;
                    return Poll::Pending;
                }
            }
        }
    }

    fn stop_down(&mut self) -> Result<(), BodyError> {
        self.down.clear();
        self.duplex.lock().inbound.close();
        Ok(())
    }
}

/// Bytes of the next read after one of this size took `count`: bulk gets long ones, and a
/// stream of short messages does not keep a long buffer alive behind each of them.
fn next_size(size: usize, count: usize) -> usize {
    match count {
        full if full >= size => (size * 4).min(LARGE),
        little if little < size / 4 => (size / 4).max(SMALL),
        _ => size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_bulk_and_shrink_with_short_messages() {
        let grown: Vec<usize> = [SMALL, 4 * SMALL]
            .iter()
            .scan(SMALL, |size, count| {
                *size = next_size(*size, *count);
                Some(*size)
            })
            .collect();
        assert_eq!(grown, [4 * SMALL, LARGE], "never beyond one frame");
        assert_eq!(next_size(LARGE, LARGE / 2), LARGE, "a pause in bulk changes nothing");
        assert_eq!(next_size(LARGE, 10), LARGE / 4);
        assert_eq!(next_size(SMALL, 10), SMALL);
    }
}
