//! The reference: plain relays with one mTLS hop between them, a TCP connection for each stream.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificates;

/// Bytes read at once each way: two TLS records.
const BUFFER: usize = 32 << 10;

/// Takes plain connections, and makes one by mTLS for each.
pub(crate) async fn near(folder: &Path, listen: SocketAddr, far: SocketAddr) -> anyhow::Result<()> {
    let tls = TlsConnector::from(certificates::client(folder, &[])?);
    let name = certificates::server_name()?;
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (user, _) = listener.accept().await?;
        user.set_nodelay(true)?;
        let (tls, name) = (tls.clone(), name.clone());
        tokio::spawn(async move {
            let far = tls.connect(name, dial(far).await?).await?;
            join(user, far).await
        });
    }
}

/// Takes connections by mTLS, and makes a plain one for each.
pub(crate) async fn far(folder: &Path, listen: SocketAddr, origin: SocketAddr) -> anyhow::Result<()> {
    let tls = TlsAcceptor::from(certificates::server(folder, &[])?);
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (near, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        let tls = tls.clone();
        tokio::spawn(async move {
            let near = tls.accept(near).await?;
            join(dial(origin).await?, near).await
        });
    }
}

pub(crate) async fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    let io = TcpStream::connect(address).await?;
    io.set_nodelay(true)?;
    Ok(io)
}

async fn join<A, B>(mut plain: A, mut tls: B) -> std::io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    copy_bidirectional_with_sizes(&mut plain, &mut tls, BUFFER, BUFFER).await.map(drop)
}
