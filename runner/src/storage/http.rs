//! The HTTP client for object stores: whom it trusts, through which proxy it goes, and what the store's
//! clock says.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::header::DATE;
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::fault::{Fault, FaultCode};

/// Stores refuse requests of a clock that is off by more: Amazon's and Azure's limit is 15 minutes. Beyond
/// five a refusal is put down to the clocks.
pub(super) const MAX_SKEW_MS: i64 = 300_000;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A part of 8 MiB has to be through within it: 70 KiB/s.
const SILENCE_AT_MOST: Duration = Duration::from_secs(120);

/// How far the store's clock is ahead of ours, as its last answer told.
#[derive(Debug, Clone, Default)]
pub(super) struct Skew(Arc<AtomicI64>);

/// Before the first answer.
const UNKNOWN: i64 = 0;

impl Skew {
    /// In milliseconds; none before the first answer. Stores tell full seconds, so it is 500 ms off or less.
    pub(super) fn millis(&self) -> Option<i64> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            skew => Some(skew),
        }
    }

    fn observe(&self, date: &str, now: Timestamp) {
        if let Some(skew) = skew(date, now) {
            self.0.store(if skew == UNKNOWN { 1 } else { skew }, Ordering::Relaxed);
        }
    }
}

/// The middle of the second that the store names, less our time.
fn skew(date: &str, now: Timestamp) -> Option<i64> {
    let store = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(store.as_millisecond() + 500 - now.as_millisecond())
}

/// Makes HTTP clients for `object_store`.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    client: reqwest::Client,
    skew: Skew,
}

impl Connector {
    /// `target` names the target in errors.
    pub(super) fn new(target: &str, ca_bundle: Option<&str>, proxy: Option<&str>) -> Result<Self, Fault> {
        let wrong = |detail: String| Fault::new(FaultCode::Configuration, target, detail);
        let tls = trust(ca_bundle).map_err(wrong)?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(SILENCE_AT_MOST)
            .tcp_keepalive(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy();
        if let Some(proxy) = proxy.filter(|proxy| !proxy.is_empty()) {
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| wrong(format!("proxy: {error}")))?;
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| wrong(error.to_string()))?;
        Ok(Self { client, skew: Skew::default() })
    }

    pub(super) fn skew(&self) -> Skew {
        self.skew.clone()
    }
}

fn trust(ca_bundle: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in CertificateDer::pem_slice_iter(ca_bundle.unwrap_or_default().as_bytes()) {
        let certificate = certificate.map_err(|error| format!("caBundle is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = HttpService::call(&self.client, request).await?;
        if let Some(date) = response.headers().get(DATE).and_then(|date| date.to_str().ok()) {
            self.skew.observe(date, Timestamp::now());
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_told_from_the_date_of_an_answer() {
        let now: Timestamp = "2026-11-25T03:00:00.500Z".parse().unwrap();
        assert_eq!(skew("Wed, 25 Nov 2026 03:00:00 GMT", now), Some(0));
        assert_eq!(skew("Wed, 25 Nov 2026 03:10:00 GMT", now), Some(600_000));
        assert_eq!(skew("Wed, 25 Nov 2026 02:50:00 GMT", now), Some(-600_000));
        assert_eq!(skew("tomorrow", now), None);
    }

    #[test]
    fn a_bad_bundle_or_proxy_is_named() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let fault = Connector::new("target nightly", Some(broken), None).unwrap_err();
        assert!(fault.to_string().contains("caBundle"), "{fault}");
        let fault = Connector::new("target nightly", None, Some("::not a proxy::")).unwrap_err();
        assert!(fault.to_string().contains("proxy"), "{fault}");
    }
}
