//! An admission webhook that says no.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::kube::Kubernetes;
use crate::targets::certify;

/// Refuses every pod of one namespace, in the words that it was given; gone when dropped.
/// The registration goes with [`Webhook::remove`].
#[derive(Debug)]
pub struct Webhook {
    name: String,
    task: tokio::task::JoinHandle<()>,
}

impl Webhook {
    /// Starts one and registers it for a namespace. `host` is an address of this machine
    /// that the API server reaches.
    pub async fn deny_pods(
        kubernetes: &Kubernetes,
        host: IpAddr,
        namespace: &str,
        words: &'static str,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ca = certify(folder.path(), &host.to_string())?;
        let acceptor = acceptor(folder.path())?;
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, acceptor, words).await {
                        tracing::debug!(error = format!("{error:#}"), "a call of the webhook ended");
                    }
                });
            }
        });
        let webhook = Self { name: format!("{namespace}.story.example"), task };
        kubernetes.apply(&registration(&webhook.name, namespace, address, &ca).to_string()).await?;
        Ok(webhook)
    }

    /// Takes the registration away.
    pub async fn remove(self, kubernetes: &Kubernetes) -> anyhow::Result<()> {
        kubernetes.get(&["delete", "validatingwebhookconfiguration", &self.name]).await.map(drop)
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(folder: &std::path::Path) -> anyhow::Result<TlsAcceptor> {
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.crt"))?];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn registration(name: &str, namespace: &str, address: SocketAddr, ca: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": name,
            "clientConfig": {"url": format!("https://{address}/"), "caBundle": STANDARD.encode(ca)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }],
    })
}

async fn answer(stream: TcpStream, acceptor: TlsAcceptor, words: &'static str) -> anyhow::Result<()> {
    let stream = TokioIo::new(acceptor.accept(stream).await?);
    let service = service_fn(move |request| deny(request, words));
    hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await?;
    Ok(())
}

async fn deny(request: http::Request<Incoming>, words: &str) -> anyhow::Result<http::Response<Full<Bytes>>> {
    let asked: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    let uid = asked["request"]["uid"].as_str().context("a review without a uid")?;
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": false, "status": {"code": 403, "message": words}},
    });
    let response = http::Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(answer.to_string())))?)
}
