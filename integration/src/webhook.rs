//! An admission webhook that says no.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::https::Https;
use crate::kube::Kubernetes;

/// Refuses every pod of one namespace, in the words that it was given; gone when dropped.
/// The registration goes with [`Webhook::remove`].
#[derive(Debug)]
pub struct Webhook {
    name: String,
    server: Https,
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
        let server = Https::serve(host, move |request| deny(request, words)).await?;
        let webhook = Self { name: format!("{namespace}.story.example"), server };
        let registered =
            registration(&webhook.name, namespace, webhook.server.address(), webhook.server.ca());
        kubernetes.apply(&registered.to_string()).await?;
        Ok(webhook)
    }

    /// Takes the registration away.
    pub async fn remove(self, kubernetes: &Kubernetes) -> anyhow::Result<()> {
        kubernetes.get(&["delete", "validatingwebhookconfiguration", &self.name]).await.map(drop)
    }
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

async fn deny(
    request: http::Request<Incoming>,
    words: &'static str,
) -> anyhow::Result<http::Response<Full<Bytes>>> {
    let asked: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    let uid = asked["request"]["uid"].as_str().context("a review without a uid")?;
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": false, "status": {"code": 403, "message": words}},
    });
    let response = http::Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(answer.to_string())))?)
}
