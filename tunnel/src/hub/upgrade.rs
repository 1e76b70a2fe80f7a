//! A real `hyper::upgrade::OnUpgrade` for an upgraded call.
//!
//! hyper gives these out only for connections of its own. So a hyper client asks
//! for an upgrade over a pipe in memory, whose other end says yes and copies.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional_with_sizes};

use crate::{CallError, Upgraded};

/// Bytes that the pipe holds each way.
const PIPE: usize = 64 << 10;
/// The one request of hyper is shorter.
const MAX_REQUEST: usize = 1024;

/// Puts an `OnUpgrade` that leads to `upgraded` into the response.
pub(super) async fn offer_upgrade<B>(
    response: &mut http::Response<B>,
    upgraded: Upgraded,
) -> Result<(), CallError> {
    let (near, far) = tokio::io::duplex(PIPE);
    // It ends with either side: the call or the pipe.
    tokio::spawn(agree_and_copy(far, upgraded));
    let on_upgrade = ask(near).await.map_err(|_| CallError::Aborted)?;
    response.extensions_mut().insert(on_upgrade);
    Ok(())
}

async fn ask(pipe: DuplexStream) -> Result<OnUpgrade, hyper::Error> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(pipe)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::new(Empty::<Bytes>::new());
    let headers = request.headers_mut();
    headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("upgrade"));
    headers.insert(http::header::UPGRADE, http::HeaderValue::from_static("culvert"));
    let response = send.send_request(request).await?;
    Ok(hyper::upgrade::on(response))
}

async fn agree_and_copy(mut pipe: DuplexStream, mut upgraded: Upgraded) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match pipe.read_buf(&mut request).await {
            Ok(read) if read > 0 && request.len() <= MAX_REQUEST => {}
            _ => return,
        }
    }
    let yes = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: culvert\r\n\r\n";
    if pipe.write_all(yes).await.is_ok() {
        // An error of either side has ended both by the time this returns.
        let _ = copy_bidirectional_with_sizes(&mut pipe, &mut upgraded, PIPE, PIPE).await;
    }
}
