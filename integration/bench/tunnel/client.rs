//! The load: an HTTP/1.1 client that costs little, over whatever a contender is reached by.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::origin::read_head;
use crate::{certificates, relay};

/// Bytes of one read or write of a bulk transfer.
const BLOCK: usize = 256 << 10;

/// How a contender's users reach the origin through it.
#[derive(Clone)]
pub(crate) enum Way {
    /// A plain port that leads there.
    Tcp(SocketAddr),
    /// A port that wants TLS and leads there.
    Tls(SocketAddr, Arc<rustls::ClientConfig>),
    /// A socket of an HTTP proxy that leads to what `CONNECT` says.
    Proxy(PathBuf, SocketAddr),
}

/// Bytes both ways.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection, kept alive.
pub(crate) struct Client {
    io: Box<dyn Io>,
    input: Vec<u8>,
}

impl Client {
    /// A new connection, by whatever it takes.
    pub(crate) async fn connect(way: &Way) -> anyhow::Result<Self> {
        let io: Box<dyn Io> = match way {
            Way::Tcp(address) => Box::new(relay::dial(*address).await?),
            Way::Tls(address, config) => {
                let tls = TlsConnector::from(config.clone());
                Box::new(tls.connect(certificates::server_name()?, relay::dial(*address).await?).await?)
            }
            Way::Proxy(socket, target) => {
                Box::new(through(UnixStream::connect(socket).await?, *target).await?)
            }
        };
        Ok(Self { io, input: Vec::with_capacity(4096) })
    }

    /// A small answer, read to its end.
    pub(crate) async fn get(&mut self) -> anyhow::Result<()> {
        self.io.write_all(b"GET /small HTTP/1.1\r\nhost: origin\r\n\r\n").await?;
        let length = self.head().await?;
        while (self.input.len() as u64) < length {
            ensure!(self.io.read_buf(&mut self.input).await? > 0, "an answer broke off");
        }
        self.input.clear();
        Ok(())
    }

    /// Takes this many bytes and drops them.
    pub(crate) async fn download(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.ask(bytes).await?;
        self.take(bytes).await
    }

    /// Asks for a large answer and reads no more than this of it.
    pub(crate) async fn stall(&mut self, bytes: u64, read: u64) -> anyhow::Result<()> {
        self.ask(bytes).await?;
        self.take(read).await
    }

    /// Gives this many bytes; done when the origin says that it has them all.
    pub(crate) async fn upload(&mut self, bytes: u64) -> anyhow::Result<()> {
        let head = format!("PUT /bulk/{bytes} HTTP/1.1\r\nhost: origin\r\n\r\n");
        self.io.write_all(head.as_bytes()).await?;
        let block = vec![b'x'; BLOCK];
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(BLOCK as u64);
            self.io.write_all(block.get(..piece as usize).unwrap_or_default()).await?;
            left -= piece;
        }
        self.io.flush().await?;
        ensure!(self.head().await? == 0, "an upload has no answer's body");
        Ok(())
    }

    async fn ask(&mut self, bytes: u64) -> anyhow::Result<()> {
        let head = format!("GET /bulk/{bytes} HTTP/1.1\r\nhost: origin\r\n\r\n");
        self.io.write_all(head.as_bytes()).await?;
        ensure!(self.head().await? == bytes, "another length was asked for");
        Ok(())
    }

    async fn take(&mut self, bytes: u64) -> anyhow::Result<()> {
        let mut left = bytes.saturating_sub(self.input.len() as u64);
        self.input.clear();
        let mut buffer = vec![0; BLOCK];
        while left > 0 {
            let most = left.min(BLOCK as u64) as usize;
            let read = self.io.read(buffer.get_mut(..most).unwrap_or_default()).await?;
            ensure!(read > 0, "a download broke off");
            left -= read as u64;
        }
        Ok(())
    }

    /// Reads a head and gives its content-length; what came behind it stays.
    async fn head(&mut self) -> anyhow::Result<u64> {
        self.io.flush().await?;
        let end = read_head(&mut self.io, &mut self.input).await?.context("closed")?;
        let head = String::from_utf8(self.input.drain(..end).collect())?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        length.context("no length")?.parse().context("length")
    }
}

async fn through(mut proxy: UnixStream, target: SocketAddr) -> anyhow::Result<UnixStream> {
    proxy.write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes()).await?;
    let mut input = Vec::new();
    let end = read_head(&mut proxy, &mut input).await?.context("the proxy closed")?;
    ensure!(end == input.len() && input.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&input));
    Ok(proxy)
}
