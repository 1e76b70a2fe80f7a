//! What every contender leads to: the least HTTP/1.1 server that answers, sends and takes bytes.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes in the body of a small answer.
pub(crate) const SMALL: usize = 1024;
/// Bytes of one write of a large one.
const BLOCK: usize = 256 << 10;

/// Serves until the process is ended.
pub(crate) async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (io, _) = listener.accept().await?;
        io.set_nodelay(true)?;
        // A client that leaves in the middle is how workloads end.
        tokio::spawn(async move { drop(serve(io).await) });
    }
}

async fn serve(mut io: TcpStream) -> anyhow::Result<()> {
    let small = [head(SMALL).as_bytes(), &[b'x'; SMALL]].concat();
    let block = vec![b'x'; BLOCK];
    let mut input = Vec::with_capacity(4096);
    loop {
        let Some(end) = read_head(&mut io, &mut input).await? else { return Ok(()) };
        let text = String::from_utf8(input.drain(..end).collect())?;
        let mut words = text.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let bytes = path.strip_prefix("/bulk/").and_then(|bytes| bytes.parse::<u64>().ok());
        match (method, bytes) {
            ("GET", None) => io.write_all(&small).await?,
            ("GET", Some(bytes)) => send(&mut io, &block, bytes).await?,
            (_, Some(bytes)) => {
                take(&mut io, &mut input, bytes).await?;
                io.write_all(head(0).as_bytes()).await?;
            }
            _ => anyhow::bail!("{text}"),
        }
    }
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")
}

async fn send(io: &mut TcpStream, block: &[u8], bytes: u64) -> anyhow::Result<()> {
    io.write_all(head(usize::try_from(bytes)?).as_bytes()).await?;
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(block.len() as u64);
        io.write_all(block.get(..piece as usize).unwrap_or_default()).await?;
        left -= piece;
    }
    Ok(())
}

async fn take(io: &mut TcpStream, input: &mut Vec<u8>, bytes: u64) -> anyhow::Result<()> {
    let mut left = bytes.saturating_sub(input.len() as u64);
    input.clear();
    let mut buffer = vec![0; BLOCK];
    while left > 0 {
        let read = io.read(&mut buffer).await?;
        ensure!(read > 0, "the upload broke off");
        left = left.saturating_sub(read as u64);
    }
    Ok(())
}

/// Reads a head to its end, and says where that is; none when the client has closed.
pub(crate) async fn read_head<R>(io: &mut R, input: &mut Vec<u8>) -> anyhow::Result<Option<usize>>
where
    R: tokio::io::AsyncRead + Unpin,
{
    loop {
        if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        ensure!(input.len() < 64 << 10, "a head without an end");
        if io.read_buf(input).await.context("read")? == 0 {
            return Ok(None);
        }
    }
}
