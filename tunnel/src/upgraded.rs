//! x
use tokio::io::*; use std::pin::Pin; use std::task::*;
/// Bytes both ways.
#[derive(Debug)] pub struct Upgraded;
impl Upgraded { /// takes it
 pub fn take<B>(_response: &mut http::Response<B>) -> Option<Self> { None } }
impl AsyncRead for Upgraded { fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<Result<()>> { Poll::Ready(Ok(())) } }
impl AsyncWrite for Upgraded { fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<Result<usize>> { Poll::Ready(Ok(0)) }
 fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> { Poll::Ready(Ok(())) } fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> { Poll::Ready(Ok(())) } }
