//! Bytes both ways: an upgraded call or a TCP call.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::copy::copy;
use crate::holder::Holder;
use crate::{BodyError, Limits};

/// The bytes of an upgraded or TCP call. `shutdown` ends the sending direction
/// and leaves the other open; dropping it before both ended gives the call up.
#[derive(Debug)]
pub struct Upgraded {
    holder: Holder,
    rest: Bytes,
    merge: usize,
    shut: bool,
}

/// Carries an [`Upgraded`] in a response's extensions, which want `Clone`.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<Upgraded>>>);

impl Upgraded {
    pub(crate) fn new(holder: Holder, limits: &Limits) -> Self {
        Self { holder, rest: Bytes::new(), merge: limits.merge, shut: false }
    }

    /// Takes it out of a response that [`crate::Cluster::call`] gave with status 101.
    pub fn take<B>(response: &mut http::Response<B>) -> Option<Self> {
        let Slot(slot) = response.extensions_mut().remove()?;
        slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn put<B>(self, response: &mut http::Response<B>) {
        response.extensions_mut().insert(Slot(Arc::new(Mutex::new(Some(self)))));
    }

    /// Passes bytes both ways between the call and `io`, each direction to its own
    /// end, without a copy of what the tunnel received; for one that nothing was sent
    /// through yet. Dropping the future gives the call up.
    pub async fn join<IO>(self, io: IO) -> io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        copy(io, self.holder.duplex.clone(), self.rest, self.merge).await.map_err(io::Error::from)
    }

    /// The next bytes as they came, without a copy; `None` at the end.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        self.holder.duplex.lock().poll_data(cx, self.merge)
    }

    /// Sends as many of `bytes` as credit allows now, without a copy, and takes
    /// them off its front.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), BodyError>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut duplex = self.holder.duplex.lock();
        let room = std::task::ready!(duplex.poll_ready(cx, bytes.len()))?;
        Poll::Ready(duplex.outbound.send(bytes.split_to(room)))
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match std::task::ready!(self.poll_bytes(cx)) {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..take).unwrap_or_default());
        self.rest.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut duplex = self.holder.duplex.lock();
        let room = std::task::ready!(duplex.poll_ready(cx, buf.len()))?;
        let piece = Bytes::copy_from_slice(buf.get(..room).unwrap_or_default());
        duplex.outbound.send(piece)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing waits here: the connection's task writes what it is given.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.shut, true) {
            self.holder.duplex.lock().outbound.finish(Vec::new())?;
        }
        Poll::Ready(Ok(()))
    }
}
