//! Ways into the engine: the socket in the pod as the runner's own user, and the network with TLS as applications come.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::settings::{databases, socket_path};
use super::users::{MONITOR, RUNNER};
use crate::engine::{EngineError, Peer, Situation};

/// How long logging in, or a command, may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The password of the runner's own user; hexadecimal.
const LOCAL_PASSWORD: &str = "local-password";

/// A login, in the database of our own; it ends when this is dropped.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Asks one thing. `what` says it in an error; the command may hold a secret, so it is never said.
    pub(super) async fn ask<T: FromRedisValue>(
        &mut self,
        what: &str,
        command: &Cmd,
    ) -> Result<T, EngineError> {
        let asked = command.query_async::<T>(&mut self.connection);
        within(what, asked).await?.map_err(|error| refused(what, &error))
    }
}

/// As the runner, through the socket.
pub(super) async fn local(now: &Situation) -> Result<Link, EngineError> {
    let password = local_password(now)?;
    let what = "connect to the engine's socket";
    let stream = within(what, UnixStream::connect(socket_path(&now.folders))).await?;
    let stream = stream.map_err(|error| EngineError::refused(what, error))?;
    log_in(stream, RUNNER, &password, databases(now)).await
}

/// As monitor, over the network of this pod.
pub(super) async fn monitor(now: &Situation) -> Result<Link, EngineError> {
    remote(now, ("127.0.0.1", now.config.port)).await
}

/// As monitor of another member.
pub(super) async fn monitor_of(now: &Situation, peer: &Peer) -> Result<Link, EngineError> {
    remote(now, (&peer.host, peer.port)).await
}

async fn remote(now: &Situation, at: (&str, u16)) -> Result<Link, EngineError> {
    // All members have the certificate of the service, whatever name they are reached by.
    let name = format!("{}.{}.svc", now.config.database, now.config.namespace);
    let stream = secured(at, &name, &now.folders.tls.join("ca.crt")).await?;
    log_in(stream, MONITOR, &now.credentials.monitor, databases(now)).await
}

/// A connection with TLS to a server that proves to be `name`, by an authority of the file `ca`.
pub(crate) async fn secured(
    at: (&str, u16),
    name: &str,
    ca: &Path,
) -> Result<TlsStream<TcpStream>, EngineError> {
    let what = format!("connect to {}:{}", at.0, at.1);
    let trust = trust(ca).map_err(|why| EngineError::refused(format!("read {}", ca.display()), why))?;
    let server = ServerName::try_from(name.to_owned()).map_err(|error| EngineError::refused(&what, error))?;
    let connect = async {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(trust)).connect(server, stream).await
    };
    within(&what, connect).await?.map_err(|error| EngineError::refused(&what, error))
}

fn trust(ca: &Path) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(versions.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

async fn log_in<S>(stream: S, user: &str, password: &SecretString, database: u32) -> Result<Link, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let what = format!("log in as {user}");
    let info = RedisConnectionInfo::default().set_username(user).set_password(password.expose_secret());
    let info = info.set_db(i64::from(database)).set_skip_set_lib_name();
    // By itself the library waits half a second, which a busy machine exceeds.
    let patient =
        AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
    let login = async {
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, patient).await?;
        Ok(Link { connection, driver: tokio::spawn(driver) })
    };
    within(&what, login).await?.map_err(|error: redis::RedisError| refused(&what, &error))
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> Result<T, EngineError> {
    let late = |_| EngineError::Late { what: what.to_owned(), limit: LIMIT };
    tokio::time::timeout(LIMIT, work).await.map_err(late)
}

/// What the server said, with its code (`OOM`, `NOREPLICAS`); without what was asked.
fn refused(what: &str, error: &redis::RedisError) -> EngineError {
    let said = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    };
    EngineError::refused(what, said)
}

/// The password of the runner's own user; made when there is none.
pub(super) fn local_password(now: &Situation) -> Result<SecretString, EngineError> {
    let path = now.folders.run.join(LOCAL_PASSWORD);
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.is_empty() => Ok(text.into()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::file("read the password of the socket", error))
        }
        _ => {
            let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
            getrandom::fill(bytes.as_mut())
                .map_err(|error| EngineError::refused("make a password", error))?;
            let text = data_encoding::HEXLOWER.encode(bytes.as_ref());
            crate::files::write(&path, text.as_bytes())
                .map_err(|error| EngineError::file("write the password of the socket", error))?;
            Ok(text.into())
        }
    }
}
