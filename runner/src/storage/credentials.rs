//! Credentials of a target, read from the mounted folder at the moment of use.
//!
//! The kubelet replaces the files when the Secret changes, so a rotation takes effect with the next request
//! and needs no restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use culvert_pki::stream::BackupKey;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use object_store::azure::{AzureAccessKey, AzureCredential, split_sas};
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};
use zeroize::Zeroizing;

use super::fault::{Fault, FaultCode};
use super::http::Connector;

/// The folder with a target's Secret.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    target: String,
    path: Option<PathBuf>,
}

impl Folder {
    pub(super) fn new(target: &str, path: Option<&str>) -> Self {
        Self { target: target.to_owned(), path: path.map(PathBuf::from) }
    }

    /// The key under which backups are encrypted, when the Secret has one.
    pub(super) fn encryption_key(&self) -> Result<Option<BackupKey>, Fault> {
        let Some(text) = self.optional("encryption-key")? else { return Ok(None) };
        let key =
            BackupKey::parse(&text).map_err(|error| self.missing(format!("encryption-key: {error}")))?;
        Ok(Some(key))
    }

    fn optional(&self, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        let Some(folder) = &self.path else { return Ok(None) };
        read(&folder.join(key)).map_err(|error| self.missing(format!("{key} cannot be read: {error}")))
    }

    fn text(&self, key: &str) -> Result<Option<String>, Fault> {
        let Some(bytes) = self.optional(key)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| self.missing(format!("{key} is not text")))?;
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    fn required(&self, key: &str) -> Result<String, Fault> {
        self.text(key)?.ok_or_else(|| self.missing(format!("{key} is missing")))
    }

    fn missing(&self, detail: String) -> Fault {
        Fault::new(FaultCode::CredentialsMissing, &self.target, detail)
    }
}

fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn refused(fault: Fault) -> object_store::Error {
    object_store::Error::Unauthenticated { path: String::new(), source: Box::new(fault) }
}

/// Keys of S3.
#[derive(Debug)]
pub(super) struct S3(pub(super) Folder);

#[async_trait]
impl CredentialProvider for S3 {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let read = || -> Result<AwsCredential, Fault> {
            Ok(AwsCredential {
                key_id: self.0.required("access-key-id")?,
                secret_key: self.0.required("secret-access-key")?,
                token: self.0.text("session-token")?,
            })
        };
        read().map(Arc::new).map_err(refused)
    }
}

/// An account's key, or a signature that allows what it says.
#[derive(Debug)]
pub(super) struct Azure(pub(super) Folder);

#[async_trait]
impl CredentialProvider for Azure {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        if let Some(key) = self.0.text("account-key").map_err(refused)? {
            let key = AzureAccessKey::try_new(&key)
                .map_err(|_| refused(self.0.missing("account-key is not base64".to_owned())))?;
            return Ok(Arc::new(AzureCredential::AccessKey(key)));
        }
        let token = self.0.required("sas-token").map_err(refused)?;
        Ok(Arc::new(AzureCredential::SASToken(split_sas(&token)?)))
    }
}

/// A service account, from which tokens are made. They are kept until the file changes or they end.
#[derive(Debug)]
pub(super) struct Gcs {
    folder: Folder,
    connector: Connector,
    current: Mutex<Option<(Zeroizing<String>, GcpCredentialProvider)>>,
}

impl Gcs {
    pub(super) fn new(folder: Folder, connector: Connector) -> Self {
        Self { folder, connector, current: Mutex::default() }
    }

    fn provider(&self) -> object_store::Result<GcpCredentialProvider> {
        let account = Zeroizing::new(self.folder.required("service-account.json").map_err(refused)?);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, provider)) = current.as_ref()
            && *known == account
        {
            return Ok(Arc::clone(provider));
        }
        let store = GoogleCloudStorageBuilder::new()
            .with_bucket_name("tokens")
            .with_service_account_key(account.as_str())
            .with_http_connector(self.connector.clone())
            .build()
            .map_err(|_| refused(self.folder.missing("service-account.json is not one".to_owned())))?;
        let provider = Arc::clone(store.credentials());
        *current = Some((account, Arc::clone(&provider)));
        Ok(provider)
    }
}

#[async_trait]
impl CredentialProvider for Gcs {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        self.provider()?.get_credential().await
    }
}
