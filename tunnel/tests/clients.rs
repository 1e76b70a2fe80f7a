//! Unmodified clients over the tunnel: kube's, hyper's upgrades, tonic's services.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod site;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use culvert_proto::enrolment::v1 as enrolment;
use culvert_proto::enrolment::v1::enrolment_client::EnrolmentClient;
use culvert_proto::enrolment::v1::enrolment_server::{Enrolment, EnrolmentServer};
use culvert_tunnel::{BoxError, Call, CallOptions, Failure, FailureCode, Hub, Kind, Link, Peer, Reply};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, AttachParams, ListParams, WatchEvent, WatchParams};
use site::{Does, Open, PATIENCE, Site, limits, pattern, peer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A tiny API server: a list, a watch, and an exec by an upgrade.
async fn api_server(
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let json = |text: &str| http::Response::new(Full::new(Bytes::from(text.to_owned())));
    Ok(if path.ends_with("/exec") {
        let key = request.headers()["sec-websocket-key"].as_bytes().to_vec();
        let protocols = request.headers()["sec-websocket-protocol"].to_str().unwrap().to_owned();
        assert!(protocols.contains("v4.channel.k8s.io"), "{protocols}");
        tokio::spawn(async move {
            let io = hyper::upgrade::on(request).await.unwrap();
            let mut io = TokioIo::new(io);
            // One unmasked binary frame: channel 1, "hello"; then the status on channel 3; then a close.
            for (channel, text) in [(1_u8, "hello"), (3, r#"{"metadata":{},"status":"Success"}"#)] {
                let mut frame = vec![0x82, text.len() as u8 + 1, channel];
                frame.extend_from_slice(text.as_bytes());
                io.write_all(&frame).await.unwrap();
            }
            io.write_all(&[0x88, 2, 3, 232]).await.unwrap();
            let mut rest = Vec::new();
            io.read_to_end(&mut rest).await.ok();
        });
        http::Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", accept(&key))
            .header("sec-websocket-protocol", "v4.channel.k8s.io")
            .body(Full::default())
            .unwrap()
    } else if query.contains("watch=true") {
        json(
            "{\"type\":\"ADDED\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"1\"}}}\n",
        )
    } else {
        json(
            r#"{"apiVersion":"v1","kind":"ConfigMapList","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#,
        )
    })
}

/// RFC 6455's answer to a key.
fn accept(key: &[u8]) -> String {
    use base64::Engine as _;
    use sha1::Digest as _;
    let digest = sha1::Sha1::digest([key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// An agent's forwarding in small: HTTP/1.1 to the API server, upgrades and all.
async fn forward(call: Call) -> Result<Reply, Failure> {
    let fail = |error: hyper::Error| Failure::new(FailureCode::Unreachable, error.to_string());
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), hyper::service::service_fn(api_server))
            .with_upgrades(),
    );
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(near)).await.map_err(fail)?;
    tokio::spawn(connection.with_upgrades());
    let mut response = send.send_request(call.request).await.map_err(fail)?;
    if call.kind == Kind::Upgrade && response.status() == 101 {
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(fail)?;
        return Ok(Reply::Stream { head: response.map(|_| ()), io: Box::new(TokioIo::new(upgraded)) });
    }
    Ok(Reply::Http(response.map(|body| body.map_err(BoxError::from).boxed_unsync())))
}

#[tokio::test]
async fn kubes_client_works_unmodified() {
    let site = Site::new(Does(forward)).await;
    let client = kube::Client::new(site.cluster(), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let list = timeout(PATIENCE, maps.list(&ListParams::default())).await.unwrap().unwrap();
    let names: Vec<_> = list.items.into_iter().filter_map(|map| map.metadata.name).collect();
    assert_eq!(names, ["a", "b"]);
    let watch = timeout(PATIENCE, maps.watch(&WatchParams::default(), "0")).await.unwrap().unwrap();
    let events: Vec<_> = timeout(PATIENCE, futures::StreamExt::collect(watch)).await.unwrap();
    assert!(
        matches!(&events[..], [Ok(WatchEvent::Added(map))] if map.metadata.name.as_deref() == Some("a")),
        "{events:?}"
    );
    let pods: Api<Pod> = Api::default_namespaced(client);
    let params = AttachParams::default().stderr(false);
    let mut exec = timeout(PATIENCE, pods.exec("p", ["true"], &params)).await.unwrap().unwrap();
    let mut out = String::new();
    timeout(PATIENCE, exec.stdout().unwrap().read_to_string(&mut out)).await.unwrap().unwrap();
    assert_eq!(out, "hello");
    let status = timeout(PATIENCE, exec.take_status().unwrap()).await.unwrap().unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));
    timeout(PATIENCE, exec.join()).await.unwrap().ok();
    site.until_open_calls(0).await;
}

#[tokio::test]
async fn hypers_upgrade_carries_bytes_and_half_close() {
    let site = Site::new(Does(|call: Call| async move {
        assert_eq!(call.kind, Kind::Upgrade);
        let (io, mut far) = tokio::io::duplex(10_000);
        tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            far.write_all(&all).await.unwrap();
        });
        Ok(Reply::Stream { head: http::Response::builder().status(101).body(()).unwrap(), io: Box::new(io) })
    }))
    .await;
    let cluster = site.cluster().with_options(CallOptions::default());
    let request = http::Request::get("/")
        .header("connection", "upgrade")
        .header("upgrade", "x")
        .body(String::new())
        .unwrap();
    let mut response = timeout(PATIENCE, cluster.oneshot(request)).await.unwrap().unwrap();
    let mut io = TokioIo::new(timeout(PATIENCE, hyper::upgrade::on(&mut response)).await.unwrap().unwrap());
    let data = pattern(1 << 20);
    io.write_all(&data).await.unwrap();
    io.shutdown().await.unwrap();
    let mut back = Vec::new();
    timeout(PATIENCE, io.read_to_end(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, data);
    drop(io);
    site.until_open_calls(0).await;
}

/// Enrolment that keeps who asked.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Vec<Option<Peer>>>>);

#[tonic::async_trait]
impl Enrolment for Desk {
    async fn enrol(
        &self,
        request: tonic::Request<enrolment::EnrolRequest>,
    ) -> Result<tonic::Response<enrolment::EnrolResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.extensions().get::<Peer>().copied());
        let asked = request.into_inner();
        if asked.token_id == "bad" {
            let refusal =
                culvert_tunnel::Refusal::new(culvert_tunnel::RefusalCode::ClockSkew, "the clock is off");
            return Err(refusal.to_status());
        }
        let certificate = enrolment::Certificate { chain: vec![asked.csr], ..Default::default() };
        let response = enrolment::EnrolResponse {
            certificate: Some(certificate),
            cluster_id: "cls_1".into(),
            ..Default::default()
        };
        Ok(tonic::Response::new(response))
    }

    async fn renew(
        &self,
        _: tonic::Request<enrolment::RenewRequest>,
    ) -> Result<tonic::Response<enrolment::RenewResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not here"))
    }

    async fn rejoin(
        &self,
        _: tonic::Request<enrolment::RejoinRequest>,
    ) -> Result<tonic::Response<enrolment::RejoinResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not here"))
    }
}

#[tokio::test]
async fn other_services_share_the_connection() {
    let desk = Desk::default();
    let routes = tonic::service::Routes::new(EnrolmentServer::new(desk.clone()));
    let (near, far) = tokio::io::duplex(64 << 10);
    let hub = Hub::new("replica".into(), limits());
    let nobody = Peer { agent: None, ..peer() };
    let served =
        tokio::spawn(async move { hub.serve(near, nobody, Open(0), routes, CancellationToken::new()).await });
    let link = Link::start(far, limits()).await.unwrap();
    let mut client =
        EnrolmentClient::with_origin(link.channel(), "https://agents.culvert.internal".parse().unwrap());
    // Longer than a window, so that credit must flow both ways.
    let csr = pattern(3 << 20);
    let request = enrolment::EnrolRequest { csr: csr.clone(), ..Default::default() };
    let response = timeout(PATIENCE, client.enrol(request)).await.unwrap().unwrap().into_inner();
    assert_eq!(response.certificate.unwrap().chain, [csr]);
    assert_eq!(*desk.0.lock().unwrap(), [Some(nobody)]);
    let status = client
        .enrol(enrolment::EnrolRequest { token_id: "bad".into(), ..Default::default() })
        .await
        .unwrap_err();
    let refusal = culvert_tunnel::Refusal::from_status(&status).unwrap();
    assert_eq!(refusal.code, culvert_tunnel::RefusalCode::ClockSkew);
    let status = client.renew(enrolment::RenewRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    link.close().await;
    timeout(PATIENCE, served).await.unwrap().unwrap();
}
