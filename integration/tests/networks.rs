//! Networks that mean no good: something on the way ends TLS, or lets nothing but HTTP through. The agent gets
//! through, proves itself end to end all the same, and everybody can see by which way it came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::Agent;
use culvert_integration::front::Front;
use culvert_integration::gateway::Gateway;
use culvert_integration::proxy::{ConnectProxy, INSPECTOR, Interceptor};
use culvert_integration::stage::{Enrolled, Stage, clock, ground};
use culvert_integration::wait::until;
use culvert_pki::tls::{outer_client, pinned_client};
use culvert_tunnel::{DialError, Dialer, Via, websocket};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// How long an agent may take to be seen, or to come back.
const SOON: Duration = Duration::from_secs(40);
/// How long the controller may keep what says nothing: the limit of a hello is 5 s.
const CUT: Duration = Duration::from_secs(20);

/// The way that the controller tells, once it tells one.
async fn way(stage: &Stage, cluster: &str) -> anyhow::Result<String> {
    until(SOON, || async {
        let told = stage.admin.get(&format!("/clusters/{cluster}")).await?.ok()?;
        let route = told["facts"]["route"].as_str().with_context(|| format!("{told}"))?;
        Ok(route.to_owned())
    })
    .await
}

/// Calls pass, a small one and a large one.
async fn calls_pass(stage: &Stage, enrolled: &Enrolled) -> anyhow::Result<()> {
    let gateway: Gateway = stage.gateway_as_admin(&enrolled.cluster)?;
    let version = gateway.get("/version").await?.ok()?;
    ensure!(version["gitVersion"].is_string(), "{version}");
    let description = gateway.get("/openapi/v2").await?.ok()?;
    ensure!(description["definitions"].is_object(), "a description without definitions");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_passes_a_web_server_that_ends_tls() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let mut front = Front::start(HERE, stage.controller.address()).await?;
    let (cluster, agent) = stage.newcomer("behind-a-front", ground).await?;
    let enrolled = stage.enrol_as(cluster, agent.dialling(front.address().to_string())).await?;
    calls_pass(&stage, &enrolled).await?;
    let way = way(&stage, &enrolled.cluster).await?;
    // This nginx speaks TLS 1.2 to its clients, as old boxes do, and the agent to its controller 1.3 alone.
    ensure!(way.starts_with("direct, inside a WebSocket: ") && way.contains("ProtocolVersion"), "{way}");
    let diagnosis = stage.admin.diagnosis(&enrolled.cluster).await?;
    ensure!(diagnosis.to_string().contains("inside a WebSocket"), "{diagnosis:#}");

    front.kill().await?;
    front.resume().await?;
    until(SOON, || calls_pass(&stage, &enrolled)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inspecting_box_carries_what_it_cannot_read() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let inspector = Interceptor::start(HERE, stage.controller.address()).await?;
    let (cluster, agent) = stage.newcomer("inspected", ground).await?;
    let enrolled = stage.enrol_as(cluster, agent.dialling(inspector.address().to_string())).await?;
    calls_pass(&stage, &enrolled).await?;
    let way = way(&stage, &enrolled.cluster).await?;
    ensure!(way.contains(INSPECTOR), "{way}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_and_a_web_server_in_a_row_are_passed() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let front = Front::start(HERE, stage.controller.address()).await?;
    let proxy = ConnectProxy::start(HERE, &[front.address().port()]).await?;
    let folder = tempfile::tempdir()?;
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, format!("{}:{}", ConnectProxy::USER, proxy.password()))?;
    let (cluster, agent) = stage.newcomer("twice", ground).await?;
    let agent: Agent = agent
        .dialling(front.address().to_string())
        .flag("--proxy", proxy.url())
        .flag("--proxy-credentials-file", credentials.to_string_lossy())
        .flag("--carrier", "websocket");
    let enrolled = stage.enrol_as(cluster, agent).await?;
    calls_pass(&stage, &enrolled).await?;
    let way = way(&stage, &enrolled.cluster).await?;
    ensure!(way == "proxy, inside a WebSocket", "{way}");
    Ok(())
}

/// A connection to the controller's port for people, as a web server on the way makes it.
async fn outer(address: SocketAddr) -> anyhow::Result<TlsStream<TcpStream>> {
    let config = outer_client(&[b"http/1.1"], clock())?;
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
}

/// Opens a WebSocket by hand; gives the head of the answer.
async fn open(stream: &mut TlsStream<TcpStream>, protocol: &str) -> anyhow::Result<String> {
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: {protocol}\r\n\r\n",
        websocket::PATH
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 4096, "a head without end");
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

/// Says `raw` inside a WebSocket that is open, and is cut off.
async fn is_cut(address: SocketAddr, raw: &[u8]) -> anyhow::Result<()> {
    let mut stream = outer(address).await?;
    let head = open(&mut stream, "culvert.tunnel.v1").await?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(raw).await?;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(CUT, stream.read_to_end(&mut rest)).await;
    // A reset is an end as well.
    end.map(drop).with_context(|| format!("not cut off after {raw:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_agent_gets_nothing_from_a_websocket() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let address = stage.controller.address();
    let head = open(&mut outer(address).await?, "chat").await?;
    ensure!(head.starts_with("HTTP/1.1 426 "), "{head}");

    let masked = |payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap_or(125) | 0x80;
        [&[0x82, length, 0, 0, 0, 0], payload].concat()
    };
    // Silence, a frame without end, plain HTTP where TLS is due, and half a hello.
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    let (http, hello) = (masked(b"GET /api/v1/me HTTP/1.1\r\n\r\n"), masked(&[0x16, 3, 1, 2, 0]));
    let cuts = [&[][..], &huge, &http, &hello].map(|raw| is_cut(address, raw));
    futures::future::try_join_all(cuts).await?;

    // The door for people cannot be reached by one, and a stranger's key is no way in.
    let pins: Vec<culvert_pki::pin::Pin> =
        vec![stage.admin.info["ca"]["pin"].as_str().context("no pin")?.parse()?];
    let dialer = |name: &str| -> anyhow::Result<Dialer> {
        let tls = Arc::new(pinned_client(&pins, &[b"h2"], clock())?);
        let name = ServerName::try_from(name.to_owned())?;
        let address = format!("localhost:{}", address.port());
        Ok(Dialer { via: Via::WebSocket, ..Dialer::new(address, name, tls) })
    };
    let people = dialer("culvert.internal")?.dial().await;
    ensure!(matches!(people, Err(DialError::TlsBroken(_) | DialError::Tls(_))), "{people:?}");
    let carrier = dialer("agents.culvert.internal")?.dial().await?;
    ensure!(!carrier.peer_certificates().is_empty(), "the controller showed nothing");
    Ok(())
}
