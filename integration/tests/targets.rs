//! The stores that other stories write backups to: each takes objects in parts, gives them
//! back, survives a power cut, and refuses whom it should refuse.

use std::sync::Arc;

use anyhow::ensure;
use culvert_integration::targets::{Azure, S3};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};

/// The least that S3 takes for a part which is not the last.
const PART: usize = 5 * 1024 * 1024;

fn trusting(ca: &str) -> anyhow::Result<ClientOptions> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(ClientOptions::new().with_root_certificate(Certificate::from_pem(ca.as_bytes())?))
}

fn impatient() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn client_of(store: &S3, secret: &str, bucket: &str) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let client = AmazonS3Builder::new()
        .with_endpoint(store.endpoint())
        .with_region("us-east-1")
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(false)
        .with_access_key_id(store.credentials().0)
        .with_secret_access_key(secret)
        .with_client_options(trusting(store.ca())?)
        .with_retry(impatient());
    Ok(Arc::new(client.build()?))
}

/// Writes two parts and reads them back.
async fn takes_parts(store: &dyn ObjectStore, name: &Path) -> anyhow::Result<()> {
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(name).await?, PART);
    upload.write(&vec![7; PART + 100]);
    upload.finish().await?;
    holds(store, name).await
}

async fn holds(store: &dyn ObjectStore, name: &Path) -> anyhow::Result<()> {
    let read = store.get(name).await?.bytes().await?;
    ensure!(read.len() == PART + 100 && read.iter().all(|byte| *byte == 7), "{} bytes", read.len());
    Ok(())
}

#[tokio::test]
async fn s3_survives_a_power_cut_and_refuses_an_old_key() -> anyhow::Result<()> {
    let mut store = S3::start("127.0.0.1").await?;
    store.make_bucket("one")?;
    store.make_bucket("two")?;
    let name = Path::from("deep/folder/object");
    let secret = store.credentials().1.to_owned();
    let one = client_of(&store, &secret, "one")?;
    takes_parts(&*one, &name).await?;
    ensure!(store.objects("one")? == [(name.to_string(), PART as u64 + 100)], "{:?}", store.objects("one")?);
    ensure!(store.objects("two")?.is_empty(), "{:?}", store.objects("two")?);

    store.kill().await?;
    ensure!(holds(&*one, &name).await.is_err(), "a server that was killed answers");
    store.resume().await?;
    holds(&*one, &name).await?;

    // What is damaged on the disk is damaged for the reader.
    let file = store.file("one", "deep/folder/object");
    let mut bytes = std::fs::read(&file)?;
    bytes[10] = 8;
    std::fs::write(&file, bytes)?;
    ensure!(holds(&*one, &name).await.is_err(), "the damage is not seen");

    store.rotate().await?;
    let refused = one.put(&name, "x".into()).await;
    ensure!(matches!(refused, Err(object_store::Error::PermissionDenied { .. })), "{refused:?}");
    let renewed = client_of(&store, store.credentials().1, "one")?;
    renewed.delete(&name).await?;
    ensure!(store.objects("one")?.is_empty(), "{:?}", store.objects("one")?);
    Ok(())
}

#[tokio::test]
async fn azure_takes_what_its_key_signs() -> anyhow::Result<()> {
    let mut store = Azure::start("127.0.0.1").await?;
    store.make_container("backups").await?;
    let client = |key: &str| {
        let client = MicrosoftAzureBuilder::new()
            .with_account(store.account())
            .with_access_key(key)
            .with_container_name("backups")
            .with_endpoint(store.account_endpoint())
            .with_client_options(trusting(store.ca())?)
            .with_retry(impatient());
        anyhow::Ok(client.build()?)
    };
    let name = Path::from("folder/object");
    let stranger = client(&format!("{}=", "A".repeat(43)))?;
    let known = client(&store.account_key())?;
    takes_parts(&known, &name).await?;
    ensure!(holds(&stranger, &name).await.is_err(), "a stranger reads");
    store.stop().await?;
    ensure!(holds(&known, &name).await.is_err(), "a server that was stopped answers");
    store.resume().await?;
    holds(&known, &name).await
}
