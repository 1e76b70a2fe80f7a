//! A server that answers HTTP/1.1 over TLS as a story says.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::targets::certify;

/// Listens with TLS by an authority of its own; gone when dropped.
#[derive(Debug)]
pub struct Https {
    address: SocketAddr,
    ca: String,
    task: tokio::task::JoinHandle<()>,
}

impl Https {
    /// Starts one at a free port of `host`, an address of this machine.
    pub async fn serve<F, A>(host: IpAddr, answer: F) -> anyhow::Result<Self>
    where
        F: Fn(http::Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = anyhow::Result<http::Response<Full<Bytes>>>> + Send + 'static,
    {
        let folder = tempfile::tempdir()?;
        let ca = certify(folder.path(), &host.to_string())?;
        let acceptor = acceptor(folder.path())?;
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, acceptor, answer).await {
                        tracing::debug!(error = format!("{error:#}"), "a connection ended");
                    }
                });
            }
        });
        Ok(Self { address, ca, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn acceptor(folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.crt"))?];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection<F, A>(stream: TcpStream, acceptor: TlsAcceptor, answer: F) -> anyhow::Result<()>
where
    F: Fn(http::Request<Incoming>) -> A,
    A: Future<Output = anyhow::Result<http::Response<Full<Bytes>>>>,
{
    let stream = TokioIo::new(acceptor.accept(stream).await?);
    hyper::server::conn::http1::Builder::new().serve_connection(stream, service_fn(answer)).await?;
    Ok(())
}
