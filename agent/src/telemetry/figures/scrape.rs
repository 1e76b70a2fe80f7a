//! Asks one program for its page of metrics.
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// A page is given up after so long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of a page.
const PAGE_MAX: usize = 1024 * 1024;

/// Why there is no page.
#[derive(Debug, Error)]
pub(super) enum ScrapeError {
    #[error("the instance cannot be reached at {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("the instance does not answer within {} seconds", TIMEOUT.as_secs())]
    Silent,
    #[error("the instance broke off")]
    Broken(#[from] hyper::Error),
    #[error("the instance answered {0}")]
    Status(u16),
    #[error("the page is larger than {} KiB, or broke off", PAGE_MAX / 1024)]
    Page,
    #[error("the address is not one")]
    Address(#[from] http::Error),
}

/// The page at this address.
pub(super) async fn read(address: &Uri) -> Result<String, ScrapeError> {
    tokio::time::timeout(TIMEOUT, page(address)).await.map_err(|_| ScrapeError::Silent)?
}

async fn page(address: &Uri) -> Result<String, ScrapeError> {
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = address.port_u16().unwrap_or(80);
    let refused = |error| ScrapeError::Connect(format!("{host}:{port}"), error);
    let stream = TcpStream::connect((host, port)).await.map_err(refused)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = address.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = address.authority().map_or("", http::uri::Authority::as_str);
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let asked = async {
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(ScrapeError::Status(answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), PAGE_MAX).collect().await;
        Ok(String::from_utf8_lossy(&body.map_err(|_| ScrapeError::Page)?.to_bytes()).into_owned())
    };
    // The connection works only while it is polled, and ends with this call.
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        page = &mut asked => page,
        ended = connection => {
            ended?;
            asked.await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The outcome of asking a server that answers every request with these bytes and closes.
    async fn answered(bytes: Vec<u8>) -> Result<String, ScrapeError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/metrics", listener.local_addr().unwrap()).parse().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
            // The reader may have enough before the end.
            let _ = stream.write_all(&bytes).await;
        };
        tokio::join!(read(&address), server).0
    }

    #[tokio::test]
    async fn a_page_is_read_whole() {
        let page = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nx 1\n".to_vec()).await;
        assert_eq!(page.unwrap(), "x 1\n");
        let page = answered(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nx 2\n".to_vec()).await;
        assert_eq!(page.unwrap(), "x 2\n");
    }

    #[tokio::test]
    async fn what_is_no_page_is_an_error() {
        let sick = answered(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        assert!(matches!(sick, Err(ScrapeError::Status(503))), "{sick:?}");
        let short = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nx".to_vec()).await;
        assert!(short.is_err(), "{short:?}");
        assert!(answered(Vec::new()).await.is_err());
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(PAGE_MAX * 2, b'#');
        let endless = answered(endless).await;
        assert!(matches!(endless, Err(ScrapeError::Page)), "{:?}", endless.map(|page| page.len()));
    }

    #[tokio::test]
    async fn an_instance_that_is_not_there_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = read(&format!("http://{address}/").parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
