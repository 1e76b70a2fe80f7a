//! A PostgreSQL server: how to log in, with its own programs and by ourselves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::backup::error::JobError;

const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Where a server is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Host, or the folder of its socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The certificate that its own leads to; without one TLS is not asked for.
    pub ca: Option<PathBuf>,
}

/// A server and a user of it.
pub struct Server {
    place: Place,
    user: String,
    password: SecretString,
    /// For the server's own programs, which take a password from a file only. Removed when this goes.
    passfile: tempfile::TempPath,
}

impl Server {
    /// Prepares to log in. `run` is a folder in memory, for the file with the password.
    pub fn new(place: Place, user: &str, password: SecretString, run: &Path) -> Result<Self, JobError> {
        let passfile = write_passfile(run, &password).map_err(|error| {
            JobError::Configuration(format!(
                "a password file cannot be written in {}: {error}",
                run.display()
            ))
        })?;
        Ok(Self { place, user: user.to_owned(), password, passfile })
    }

    /// What the server's programs are told with `-d`; holds no password.
    #[must_use]
    pub fn conninfo(&self, database: &str) -> String {
        let mut text = String::new();
        let port = self.place.port.to_string();
        let passfile = self.passfile.to_string_lossy();
        let ca = self.place.ca.as_ref().map(|ca| ca.to_string_lossy());
        let mut say = |key: &str, value: &str| {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            let separator = if text.is_empty() { "" } else { " " };
            // Writing into a String does not fail.
            let _ = write!(text, "{separator}{key}='{value}'");
        };
        say("host", &self.place.host);
        say("port", &port);
        say("user", &self.user);
        say("dbname", database);
        say("passfile", &passfile);
        say("connect_timeout", "15");
        say("application_name", "culvert-runner");
        say("keepalives_idle", "30");
        say("tcp_user_timeout", "120000");
        match ca.as_deref() {
            Some(ca) => {
                say("sslmode", "verify-full");
                say("sslrootcert", ca);
            }
            None => say("sslmode", "prefer"),
        }
        text
    }

    /// Logs in. The connection ends when the client goes.
    pub async fn connect(&self, database: &str) -> Result<Client, JobError> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.place.host)
            .port(self.place.port)
            .user(&self.user)
            .password(self.password.expose_secret())
            .dbname(database)
            .application_name("culvert-runner")
            .connect_timeout(CONNECT_WITHIN)
            .tcp_user_timeout(Duration::from_secs(120))
            .keepalives_idle(Duration::from_secs(30));
        let connecting = async {
            match &self.place.ca {
                Some(ca) => {
                    config.ssl_mode(tokio_postgres::config::SslMode::Require);
                    let (client, connection) =
                        config.connect(tls(ca)?).await.map_err(|error| self.refused(&error))?;
                    drop(tokio::spawn(connection));
                    Ok(client)
                }
                None => {
                    let (client, connection) =
                        config.connect(tokio_postgres::NoTls).await.map_err(|error| self.refused(&error))?;
                    drop(tokio::spawn(connection));
                    Ok(client)
                }
            }
        };
        let late = |_| JobError::engine("engine_unreachable", format!("{} does not answer", self.place.host));
        tokio::time::timeout(2 * CONNECT_WITHIN, connecting).await.map_err(late)?
    }

    fn refused(&self, error: &tokio_postgres::Error) -> JobError {
        let said = said(error);
        let message =
            format!("{}:{} refuses the login of {}: {said}", self.place.host, self.place.port, self.user);
        match error.as_db_error().map(|error| error.code().code()) {
            Some("28P01" | "28000") => JobError::engine_stuck(
                "engine_login",
                message,
                "wait until rotated credentials are in force, or restore the service's Secret",
            ),
            _ => JobError::engine("engine_unreachable", message),
        }
    }
}

/// What the server said, with what is below it.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    let mut text = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    let mut cause = std::error::Error::source(error);
    while let Some(this) = cause {
        let words = this.to_string();
        if !words.contains(&text) && !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        cause = this.source();
    }
    text
}

pub(super) fn query_failed(error: &tokio_postgres::Error) -> JobError {
    JobError::engine("engine_query", format!("the engine refuses a query: {}", said(error)))
}

fn tls(ca: &Path) -> Result<MakeRustlsConnect, JobError> {
    let wrong = |why: String| JobError::Configuration(format!("{} cannot be used: {why}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// `*:*:*:*:password`, with what the format gives a meaning to escaped.
fn write_passfile(run: &Path, password: &SecretString) -> std::io::Result<tempfile::TempPath> {
    let escaped = password.expose_secret().replace('\\', "\\\\").replace(':', "\\:");
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pgpass-");
    let file = builder.make_in(run, |path| {
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    })?;
    let (mut file, path) = file.into_parts();
    let line = zeroize::Zeroizing::new(format!("*:*:*:*:{escaped}\n"));
    file.write_all(line.as_bytes())?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_in_its_file_and_nowhere_else() {
        let run = tempfile::tempdir().unwrap();
        let place = Place { host: "shop.data".into(), port: 5432, ca: Some("/tls/it's.crt".into()) };
        let server = Server::new(place, "culvert_admin", "se:cr\\et".to_owned().into(), run.path()).unwrap();
        let conninfo = server.conninfo("my 'db'");
        assert!(
            conninfo.contains(r"dbname='my \'db\''") && conninfo.contains(r"sslrootcert='/tls/it\'s.crt'")
        );
        assert!(conninfo.contains("sslmode='verify-full'") && !conninfo.contains("se:cr"), "{conninfo}");
        assert_eq!(std::fs::read_to_string(&server.passfile).unwrap(), "*:*:*:*:se\\:cr\\\\et\n");
        let path = server.passfile.to_path_buf();
        drop(server);
        assert!(!path.exists());
    }
}
