//! An agent of the tunnel's own making, in front of a target that only pretends.

use std::sync::Arc;

use bytes::Bytes;
use culvert_pki::csr;
use culvert_pki::key::KeyPair;
use culvert_pki::pin::Pin;
use culvert_pki::tls::{ClientIdentity, pinned_client, trusted_client};
use culvert_pki::token::JoinToken;
use culvert_pki::verify::Roots;
use culvert_proto::enrolment::v1::enrolment_client::EnrolmentClient;
use culvert_proto::enrolment::v1::{EnrolRequest, EnrolResponse};
use culvert_proto::tunnel::v1::{Facts, Hello};
use culvert_tunnel::{
    Call, DialError, Dialer, Failure, FailureCode, Handler, Kind, Limits, Link, LinkEnd, Reply, ReplyBody,
    Signal,
};
use futures::StreamExt as _;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::time_provider::DefaultTimeProvider;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{AGENTS, PATIENCE, World};

pub struct Identity {
    pub key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
    roots: Roots,
}

pub struct Agent {
    pub stop: CancellationToken,
    pub running: JoinHandle<LinkEnd>,
}

pub fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
        .unwrap()
}

/// A link without a client certificate, under the name of `token`, that trusts `pins`.
pub async fn link(world: &World, token: &JoinToken, pins: &[Pin]) -> Result<Link, DialError> {
    let tls = Arc::new(pinned_client(pins, &[b"h2"], Arc::new(DefaultTimeProvider)).unwrap());
    let name = ServerName::try_from(format!("{}.{AGENTS}", token.id())).unwrap();
    let carrier = Dialer::new(world.address.to_string(), name, tls).dial().await?;
    Ok(Link::start(carrier, Limits::default()).await.unwrap())
}

/// Redeems `token` with `key`.
pub async fn redeem(world: &World, token: &str, key: &KeyPair) -> Result<EnrolResponse, tonic::Status> {
    redeem_with(world, token, key, |_| {}).await
}

pub async fn redeem_with(
    world: &World,
    token: &str,
    key: &KeyPair,
    change: impl FnOnce(&mut EnrolRequest),
) -> Result<EnrolResponse, tonic::Status> {
    let token = JoinToken::parse(token).unwrap();
    let link = link(world, &token, &token.pins()).await.unwrap();
    let mut client =
        EnrolmentClient::with_origin(link.channel(), "https://agents.culvert.internal".parse().unwrap());
    let mut request = EnrolRequest {
        token_id: token.id().to_string(),
        token_secret: Bytes::copy_from_slice(token.secret()),
        csr: csr::make(key).unwrap().into(),
        agent_version: "0.1.0".into(),
        clock_ms: now_ms(),
    };
    change(&mut request);
    let answer = timeout(PATIENCE, client.enrol(request)).await.expect("no answer in time");
    answer.map(tonic::Response::into_inner)
}

pub async fn enrol(world: &World, token: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = redeem(world, token, &key).await.unwrap().certificate.unwrap();
    let der = |bytes: &Bytes| CertificateDer::from(bytes.to_vec());
    let chain = certificate.chain.iter().map(der).collect();
    Identity { key, chain, roots: Roots::new(certificate.roots.iter().map(der)).unwrap() }
}

/// Connects and waits until the session has begun.
pub async fn connect(world: &World, identity: &Identity) -> Agent {
    let shown = ClientIdentity { chain: &identity.chain, key: &identity.key };
    let tls = trusted_client(&identity.roots, Some(shown), &[b"h2"], Arc::new(DefaultTimeProvider)).unwrap();
    let name = ServerName::try_from(AGENTS).unwrap();
    let carrier = Dialer::new(world.address.to_string(), name, Arc::new(tls)).dial().await.unwrap();
    let link = Link::start(carrier, Limits::default()).await.unwrap();
    let hello = Hello {
        version: "0.1.0".into(),
        instance: Bytes::from_static(&[7; 16]),
        clock_ms: now_ms(),
        ..Hello::default()
    };
    let facts = Facts { kubernetes_version: "v1.35.4".into(), nodes: 1, ..Facts::default() };
    let (_keep, facts) = watch::channel(Some(facts));
    let (signals, mut told) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(async move { link.run(hello, Target, facts, signals, stopped).await });
    let welcomed = async {
        loop {
            match told.recv().await {
                Some(Signal::Welcome(_)) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    };
    if !timeout(PATIENCE, welcomed).await.expect("no welcome in time") {
        panic!("the link ended instead: {:?}", running.await);
    }
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    Agent { stop, running }
}

impl Agent {
    pub async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.expect("the link did not end").unwrap();
    }
}

/// Answers by path.
#[derive(Clone)]
struct Target;

impl Handler for Target {
    async fn handle(&self, call: Call) -> Result<Reply, Failure> {
        let path = call.request.uri().path_and_query().unwrap().as_str().to_owned();
        if call.kind == Kind::Upgrade {
            return Ok(upgrade(&path));
        }
        if path.starts_with("/apis/denied") {
            return Err(Failure::new(FailureCode::Denied, "writes are off"));
        }
        if path.contains("watch=") {
            return Ok(Reply::Http(Response::new(endless())));
        }
        Ok(Reply::Http(echo(call, &path).await))
    }
}

/// Tells what arrived.
async fn echo(call: Call, path: &str) -> Response<ReplyBody> {
    let (parts, body) = call.request.into_parts();
    let received = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let told = json!({
        "method": parts.method.as_str(), "path": path, "headers": headers, "received": received,
        "user": call.caller.user, "groups": call.caller.groups, "request_id": call.request_id,
    });
    Response::builder()
        .header("content-type", "application/json")
        .header("set-cookie", "a=b")
        .header("audit-id", "1")
        .body(full(told.to_string()))
        .unwrap()
}

fn full(text: String) -> ReplyBody {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

/// One event, then silence.
fn endless() -> ReplyBody {
    let first =
        futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"{\"type\":\"ADDED\"}\n"))) });
    ReplyBody::new(StreamBody::new(first.chain(futures::stream::pending())))
}

/// Gives back what comes, and `bye` after its end; or a refusal.
fn upgrade(path: &str) -> Reply {
    if path.contains("command=none") {
        let refused = Response::builder().status(403).body(full("no such luck".into())).unwrap();
        return Reply::Http(refused);
    }
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            match far.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => far.write_all(&buffer[..count]).await.unwrap(),
            }
        }
        let _ = far.write_all(b"bye").await;
        let _ = far.shutdown().await;
    });
    let head = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    Reply::Stream { head: head.body(()).unwrap(), io: Box::new(near) }
}
