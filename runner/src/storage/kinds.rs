//! Opens each kind of target.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use culvert_resources::job::TargetConfig;
use culvert_resources::{AzureTarget, GcsTarget, S3Target};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};

use super::credentials::{Azure, Folder, Gcs, S3};
use super::fault::{Fault, FaultCode};
use super::http::{Connector, Skew};
use super::{Patience, Storage};

pub(super) fn open(config: &TargetConfig, patience: Patience) -> Result<Storage, Fault> {
    let name = format!("target {}", config.name);
    if let Some(mount) = &config.share {
        return share(&name, mount, config);
    }
    let connector = Connector::new(&name, config.ca_bundle.as_deref(), config.proxy.as_deref())?;
    let folder = Folder::new(&name, config.credentials.as_deref());
    let way = Way { name: &name, connector: &connector, folder: &folder, retry: patience.config() };
    let (objects, multipart) = match (&config.s3, &config.azure, &config.gcs) {
        (Some(s3), None, None) => way.s3(s3)?,
        (None, Some(azure), None) => way.azure(azure)?,
        (None, None, Some(gcs)) => way.gcs(gcs)?,
        _ => return Err(Fault::new(FaultCode::Configuration, &name, "exactly one kind has to be given")),
    };
    Ok(Storage {
        name: name.as_str().into(),
        objects,
        multipart,
        share: None,
        prefix: Path::from(config.prefix.as_str()),
        folder: folder.clone(),
        skew: connector.skew(),
    })
}

type Opened = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>);

/// What all kinds behind HTTP have in common.
struct Way<'a> {
    name: &'a str,
    connector: &'a Connector,
    folder: &'a Folder,
    retry: RetryConfig,
}

impl Way<'_> {
    fn s3(&self, target: &S3Target) -> Result<Opened, Fault> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&target.bucket)
            .with_region(&target.region)
            .with_allow_http(target.allow_http)
            .with_credentials(Arc::new(S3(self.folder.clone())))
            .with_retry(self.retry.clone())
            .with_http_connector(self.connector.clone());
        if let Some(endpoint) = self.endpoint(target.endpoint.as_deref(), target.allow_http)? {
            let in_path = target.path_style || has_address(endpoint);
            let endpoint = if in_path { endpoint.to_owned() } else { in_host(endpoint, &target.bucket) };
            builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(!in_path);
        } else {
            builder = builder.with_virtual_hosted_style_request(!target.path_style);
        }
        let store = Arc::new(builder.build().map_err(|error| self.wrong(&error))?);
        Ok((store.clone(), Some(store)))
    }

    fn azure(&self, target: &AzureTarget) -> Result<Opened, Fault> {
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(&target.account)
            .with_container_name(&target.container)
            .with_allow_http(target.allow_http)
            .with_credentials(Arc::new(Azure(self.folder.clone())))
            .with_retry(self.retry.clone())
            .with_http_connector(self.connector.clone());
        if let Some(endpoint) = self.endpoint(target.endpoint.as_deref(), target.allow_http)? {
            builder = builder.with_endpoint(account_endpoint(endpoint, &target.account));
        }
        // Blocks that were never committed end by themselves within a week and have no id to abort.
        Ok((Arc::new(builder.build().map_err(|error| self.wrong(&error))?), None))
    }

    fn gcs(&self, target: &GcsTarget) -> Result<Opened, Fault> {
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&target.bucket)
            .with_credentials(Arc::new(Gcs::new(self.folder.clone(), self.connector.clone())))
            .with_retry(self.retry.clone())
            .with_http_connector(self.connector.clone());
        if let Some(endpoint) = self.endpoint(target.endpoint.as_deref(), target.allow_http)? {
            builder = builder.with_base_url(endpoint);
        }
        let store = Arc::new(builder.build().map_err(|error| self.wrong(&error))?);
        Ok((store.clone(), Some(store)))
    }

    fn endpoint<'e>(&self, endpoint: Option<&'e str>, allow_http: bool) -> Result<Option<&'e str>, Fault> {
        let Some(endpoint) = endpoint.map(|endpoint| endpoint.trim_end_matches('/')) else { return Ok(None) };
        let wrong = |detail: &str| Err(Fault::new(FaultCode::Configuration, self.name, detail));
        match endpoint.split_once("://") {
            Some(("https", _)) => Ok(Some(endpoint)),
            Some(("http", _)) if allow_http => Ok(Some(endpoint)),
            Some(("http", _)) => wrong("an endpoint with plain http needs allowHttp"),
            _ => wrong("an endpoint is https://host:port"),
        }
    }

    fn wrong(&self, error: &object_store::Error) -> Fault {
        Fault::new(FaultCode::Configuration, self.name, error.to_string())
    }
}

fn share(name: &str, mount: &str, config: &TargetConfig) -> Result<Storage, Fault> {
    let store = LocalFileSystem::new_with_prefix(mount)
        .map_err(|_| Fault::new(FaultCode::BucketMissing, name, "the folder of the share is not mounted"))?
        .with_fsync(true);
    Ok(Storage {
        name: name.into(),
        objects: Arc::new(store),
        multipart: None,
        share: Some(PathBuf::from(mount)),
        prefix: Path::from(config.prefix.as_str()),
        folder: Folder::new(name, config.credentials.as_deref()),
        skew: Skew::default(),
    })
}

fn host(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or(six),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// An address can have no bucket in front.
fn has_address(endpoint: &str) -> bool {
    host(endpoint).parse::<IpAddr>().is_ok()
}

fn in_host(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((_, rest)) if rest.starts_with(&format!("{bucket}.")) => endpoint.to_owned(),
        Some((scheme, rest)) => format!("{scheme}://{bucket}.{rest}"),
        None => endpoint.to_owned(),
    }
}

/// Where the host does not name the account, the path does.
fn account_endpoint(endpoint: &str, account: &str) -> String {
    let path =
        endpoint.split_once("://").map_or("", |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let named = host(endpoint).starts_with(&format!("{account}."));
    if named || !path.is_empty() { endpoint.to_owned() } else { format!("{endpoint}/{account}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_stands_in_the_host_unless_that_is_an_address() {
        assert_eq!(in_host("https://s3.example.com:9000", "nightly"), "https://nightly.s3.example.com:9000");
        assert_eq!(in_host("https://nightly.s3.example.com", "nightly"), "https://nightly.s3.example.com");
        assert!(has_address("http://127.0.0.1:9000"));
        assert!(has_address("https://[::1]:9000"));
        assert!(!has_address("https://minio.storage.svc:9000"));
    }

    #[test]
    fn an_account_stands_in_the_path_unless_the_host_names_it() {
        assert_eq!(account_endpoint("http://127.0.0.1:10000", "dev"), "http://127.0.0.1:10000/dev");
        assert_eq!(account_endpoint("http://127.0.0.1:10000/dev", "dev"), "http://127.0.0.1:10000/dev");
        assert_eq!(account_endpoint("https://dev.blob.example.com", "dev"), "https://dev.blob.example.com");
    }

    #[test]
    fn plain_http_has_to_be_allowed() {
        let s3 = S3Target {
            bucket: "b".into(),
            endpoint: Some("http://store:9000".into()),
            ..S3Target::default()
        };
        let config = TargetConfig { name: "nightly".into(), s3: Some(s3), ..TargetConfig::default() };
        let fault = open(&config, Patience::CHECK).unwrap_err();
        assert_eq!(fault.code, FaultCode::Configuration);
        assert!(fault.to_string().contains("allowHttp"), "{fault}");
    }
}
