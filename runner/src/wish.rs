//! What the operator wishes, read again and again from the mounted files: configuration, passwords, certificate.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_resources::instance::InstanceConfig;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::watch;

use crate::args::Folders;
use crate::credentials::{Credentials, CredentialsError};

/// Time between looks at the files. The kubelet takes longer to bring a change than this.
const LOOK: Duration = Duration::from_secs(1);

/// All that is mounted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What the instance shall be.
    pub config: Arc<InstanceConfig>,
    /// SHA-256 of its file, in hexadecimal.
    pub config_digest: String,
    /// Passwords.
    pub credentials: Arc<Credentials>,
    /// SHA-256 over the certificate's files, in hexadecimal.
    pub tls_digest: String,
    /// When the server's certificate ends.
    pub certificate_ends: Option<jiff::Timestamp>,
}

impl Wish {
    /// Tells one wish from another.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{} {} {}", self.config_digest, self.credentials.digest, self.tls_digest)
    }
}

/// Why the files could not be read.
#[derive(Debug, Error)]
pub enum WishError {
    /// A file.
    #[error("{0} cannot be read")]
    File(String, #[source] std::io::Error),
    /// The configuration is none.
    #[error("instance.json is not what this version of the runner understands")]
    Config(#[from] serde_json::Error),
    /// A password.
    #[error("a password cannot be used")]
    Credentials(#[from] CredentialsError),
}

/// Reads all of it.
///
/// # Errors
/// [`WishError`] names the file.
pub fn read(folders: &Folders) -> Result<Wish, WishError> {
    let text = contents(&folders.config.join("instance.json"))?;
    let mut sum = Sha256::new();
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        sum.update(contents(&folders.tls.join(name))?);
    }
    Ok(Wish {
        config: Arc::new(serde_json::from_slice(&text)?),
        config_digest: hex(&Sha256::digest(&text)),
        credentials: Arc::new(Credentials::read(&folders.credentials)?),
        tls_digest: hex(&sum.finalize()),
        certificate_ends: certificate_ends(&contents(&folders.tls.join("tls.crt"))?),
    })
}

fn contents(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, WishError> {
    let read = std::fs::read(path).map(zeroize::Zeroizing::new);
    read.map_err(|error| WishError::File(path.display().to_string(), error))
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Looks again and again; a change that can be read is sent, one that cannot leaves what was before. Ends when nobody
/// listens.
pub async fn watch(
    folders: Arc<Folders>,
    sender: watch::Sender<Arc<Wish>>,
    problem: watch::Sender<Option<String>>,
) {
    let mut digest = sender.borrow().digest();
    while !sender.is_closed() {
        tokio::time::sleep(LOOK).await;
        match read(&folders) {
            Ok(wish) => {
                problem.send_if_modified(|problem| problem.take().is_some());
                if wish.digest() != digest {
                    digest = wish.digest();
                    tracing::info!(config = wish.config_digest, "the configuration has changed");
                    sender.send_replace(Arc::new(wish));
                }
            }
            Err(error) => say(&problem, &error),
        }
    }
}

/// Logs a problem when it is new.
fn say(problem: &watch::Sender<Option<String>>, error: &WishError) {
    let source = std::error::Error::source(error);
    let text = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    problem.send_if_modified(|last| {
        let new = last.as_deref() != Some(&text);
        if new {
            tracing::warn!(problem = text, "the configuration cannot be read: the last one stays in force");
            *last = Some(text);
        }
        new
    });
}

/// When the first certificate of a PEM file ends.
fn certificate_ends(pem: &[u8]) -> Option<jiff::Timestamp> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let certificate = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    jiff::Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}
