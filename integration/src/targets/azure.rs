//! A server of Azure Blob Storage.

use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::SystemTime;

use anyhow::ensure;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Place, program};

/// Azurite; gone when dropped. Its endpoint has the account in the path.
#[derive(Debug)]
pub struct Azure {
    place: Place,
    key: [u8; 32],
}

/// The one account that it knows.
const ACCOUNT: &str = "culvert";

/// Of the protocol; the one that Azurite and the clients agree on.
const VERSION: &str = "2021-12-02";

impl Azure {
    /// Starts one at a free port of `host`, an address of this machine.
    pub async fn start(host: &str) -> anyhow::Result<Self> {
        let (one, two) = (uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes());
        let mut key = [0; 32];
        let (first, second) = key.split_at_mut(16);
        first.copy_from_slice(&one);
        second.copy_from_slice(&two);
        let mut store = Self { place: Place::new(host)?, key };
        store.resume().await?;
        Ok(store)
    }

    /// Starts it again after [`Place::stop`], where and with what it was. After [`Place::kill`]
    /// it may have forgotten the last five seconds.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let (host, port) = (self.address().ip().to_string(), self.address().port().to_string());
        let mut server = Command::new(program("azurite-blob").await?);
        server.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", self.account_key()));
        server.args(["--blobHost", &host, "--blobPort", &port, "--disableTelemetry", "--silent"]);
        server.args(["--skipApiVersionCheck", "--location"]).arg(self.path("data"));
        server.arg("--cert").arg(self.path("server.crt")).arg("--key").arg(self.path("server.key"));
        self.place.serve("azurite", server).await
    }

    /// The account's name.
    pub fn account(&self) -> &str {
        ACCOUNT
    }

    /// The account's key in base64.
    pub fn account_key(&self) -> String {
        STANDARD.encode(self.key)
    }

    /// `https://ADDRESS:PORT/ACCOUNT`.
    pub fn account_endpoint(&self) -> String {
        format!("{}/{ACCOUNT}", self.endpoint())
    }

    /// Makes a container, by a request signed with the account's key.
    pub async fn make_container(&self, name: &str) -> anyhow::Result<()> {
        let date = http_date(SystemTime::now())?;
        let signed = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{VERSION}\n\
             /{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        );
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.key);
        let signature = STANDARD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
        // An error means that another story has installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(self.ca().as_bytes())?;
        let client = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build()?;
        let answer = client
            .put(format!("{}/{name}?restype=container", self.account_endpoint()))
            .header("x-ms-date", date)
            .header("x-ms-version", VERSION)
            .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"))
            .header("content-length", "0")
            .send()
            .await?;
        ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
        Ok(())
    }
}

/// As in the header `Date`.
fn http_date(now: SystemTime) -> anyhow::Result<String> {
    let format = time::format_description::well_known::Rfc2822;
    let text = time::OffsetDateTime::from(now).format(&format)?;
    Ok(text.replace("+0000", "GMT"))
}

impl Deref for Azure {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

impl DerefMut for Azure {
    fn deref_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}
