//! Bytes inside binary messages of a WebSocket (RFC 6455): the way through boxes that end TLS and speak HTTP.
//!
//! Messages have no meaning: they are cut where it suits. What runs inside is TLS with the controller, so nothing that
//! a box between does to them is believed; it can only break the connection. Everything read is bounded before it is
//! taken: a message has at most [`MESSAGE_MAX`] bytes, in however many frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::{Sink as _, Stream as _};
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Where the controller's public port takes such a connection.
pub const PATH: &str = "/culvert.tunnel.v1/carrier";
/// The subprotocol that both ends name.
const PROTOCOL: HeaderValue = HeaderValue::from_static("culvert.tunnel.v1");
const SUBPROTOCOL: &str = "sec-websocket-protocol";
/// Most bytes of a message that is read.
const MESSAGE_MAX: usize = 1 << 20;
/// Most bytes of a message that is written.
const WRITE_MAX: usize = 64 << 10;
/// Bytes that wait when the other end takes none.
const BACKLOG_MAX: usize = 1 << 20;

/// A stream of bytes inside a WebSocket.
#[derive(Debug)]
pub struct WebSocketIo<S> {
    socket: WebSocketStream<S>,
    read: Bytes,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
        // What is written is to leave: whoever writes has gathered already.
        .write_buffer_size(0)
        .max_write_buffer_size(BACKLOG_MAX)
}

/// Whether a request wants such a connection; [`accept`] says whether it is well made.
pub fn wanted<B>(request: &Request<B>) -> bool {
    request.uri().path() == PATH
}

/// The answer to a request that [`wanted`] one: `101`, after which the bytes are a [`serve`]d stream, or what is wrong.
pub fn accept<B>(request: &Request<B>) -> Result<Response<()>, String> {
    let named = request.headers().get_all(SUBPROTOCOL).iter();
    let mut named = named.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if !named.any(|name| name.trim().as_bytes() == PROTOCOL.as_bytes()) {
        return Err(format!("{SUBPROTOCOL} must name {}", PROTOCOL.to_str().unwrap_or_default()));
    }
    let mut head = Request::builder().method(request.method()).version(request.version()).uri(PATH);
    if let Some(headers) = head.headers_mut() {
        headers.clone_from(request.headers());
    }
    let head = head.body(()).map_err(|error| error.to_string())?;
    let mut response = create_response(&head).map_err(|error| error.to_string())?;
    response.headers_mut().insert(SUBPROTOCOL, PROTOCOL);
    Ok(response)
}

/// The controller's end of a connection that was upgraded.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketIo<S> {
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
    WebSocketIo { socket, read: Bytes::new() }
}

/// Why no WebSocket was opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the answer was the status {0}")]
    Status(u16),
    #[error("{0}")]
    Protocol(String),
}

/// Opens one at `host`, over what leads there.
pub(crate) async fn open<S>(io: S, host: &str) -> Result<WebSocketIo<S>, OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = Request::get(format!("wss://{host}{PATH}"))
        .header("host", host)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", tungstenite::handshake::client::generate_key())
        .header(SUBPROTOCOL, PROTOCOL)
        .body(())
        .map_err(|error| OpenError::Protocol(error.to_string()))?;
    match client_async_with_config(request, io, Some(config())).await {
        Ok((socket, _)) => Ok(WebSocketIo { socket, read: Bytes::new() }),
        Err(Error::Http(response)) => Err(OpenError::Status(response.status().as_u16())),
        Err(error) => Err(OpenError::Protocol(error.to_string())),
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.read = bytes,
                // Answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message")));
                }
                None | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.read.len().min(buf.remaining());
        let taken = self.read.split_to(count);
        buf.put_slice(taken.chunk());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(broken)?;
        let taken = buf.get(..WRITE_MAX).unwrap_or(buf);
        let message = Message::Binary(Bytes::copy_from_slice(taken));
        Pin::new(&mut self.socket).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn request(change: impl FnOnce(&mut Request<()>)) -> Request<()> {
        let mut request = Request::get(PATH)
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header(SUBPROTOCOL, "other, culvert.tunnel.v1")
            .body(())
            .unwrap();
        change(&mut request);
        request
    }

    #[test]
    fn a_well_made_request_is_accepted() {
        let response = accept(&request(|_| {})).unwrap();
        assert_eq!(response.status(), 101);
        // The example of RFC 6455, section 1.3.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[SUBPROTOCOL], "culvert.tunnel.v1");
    }

    #[rstest]
    #[case("upgrade")]
    #[case("connection")]
    #[case("sec-websocket-version")]
    #[case("sec-websocket-key")]
    #[case(SUBPROTOCOL)]
    fn a_request_without_its_headers_is_refused(#[case] name: &str) {
        assert!(accept(&request(|request| drop(request.headers_mut().remove(name)))).is_err());
    }

    async fn pair() -> (WebSocketIo<DuplexStream>, WebSocketIo<DuplexStream>) {
        let (near, far) = duplex(4096);
        let client = WebSocketStream::from_raw_socket(near, Role::Client, Some(config())).await;
        (WebSocketIo { socket: client, read: Bytes::new() }, serve(far).await)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_end() {
        let (client, mut server) = pair().await;
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let want = sent.clone();
        let (mut read, mut write) = tokio::io::split(client);
        let back = tokio::spawn(async move {
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.map(|_| back)
        });
        let there = tokio::spawn(async move {
            write.write_all(&sent).await?;
            write.flush().await
        });
        let mut got = vec![0; want.len()];
        server.read_exact(&mut got).await.unwrap();
        there.await.unwrap().unwrap();
        assert!(got == want);
        server.write_all(&got).await.unwrap();
        server.shutdown().await.unwrap();
        assert!(back.await.unwrap().unwrap() == want);
    }

    /// What a server does with bytes that no client of ours sends.
    async fn read(raw: &[u8]) -> io::Result<usize> {
        let (mut near, far) = duplex(64 << 10);
        let mut server = serve(far).await;
        near.write_all(raw).await.unwrap();
        drop(near);
        let mut buf = [0; 64];
        server.read(&mut buf).await
    }

    #[rstest]
    #[case::a_frame_of_2_to_the_63_bytes(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4])]
    #[case::a_text(&[0x81, 0x81, 0, 0, 0, 0, b'x'])]
    #[case::no_mask(&[0x82, 0x01, b'x'])]
    #[case::a_reserved_bit(&[0xc2, 0x81, 0, 0, 0, 0, b'x'])]
    #[case::an_unknown_opcode(&[0x83, 0x81, 0, 0, 0, 0, b'x'])]
    #[case::a_ping_of_200_bytes(&[0x89, 0xfe, 0, 200, 0, 0, 0, 0])]
    #[tokio::test]
    async fn what_no_sound_client_sends_ends_it(#[case] raw: &[u8]) {
        assert!(read(raw).await.is_err());
    }

    #[tokio::test]
    async fn fragments_without_end_are_cut_off() {
        let (mut near, far) = duplex(64 << 10);
        let mut server = serve(far).await;
        let flood = tokio::spawn(async move {
            let mut frame = vec![0x02, 0xfe, 0x80, 0x00, 0, 0, 0, 0];
            frame.resize(8 + 0x8000, 7);
            for _ in 0..1000 {
                if near.write_all(&frame).await.is_err() {
                    return;
                }
                frame[0] = 0x00;
            }
            panic!("all was taken");
        });
        let error = server.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        drop(server);
        flood.await.unwrap();
    }
}
