//! Story: whatever strangers send to a door, in whatever way, ends soon, costs little,
//! is answered clearly where an answer is possible, and disturbs nobody else.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use culvert_integration::controller::Controller;
use culvert_integration::door::{Door, connect_from};
use culvert_integration::gateway::Gateway;
use culvert_integration::process;
use culvert_integration::stage::{Enrolled, Stage, clock, ground};
use culvert_integration::wait;
use culvert_pki::tls;
use futures::future::{join_all, try_join_all};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Where strangers come from, so that limits per address hit them and not the others.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));

/// What the controller is told to wait for a handshake or a request's head.
const PATIENCE: Duration = Duration::from_secs(2);

/// The latest moment at which a connection must have ended that stands still
/// in a handshake or in the head of a request.
const END: Duration = Duration::from_secs(15);

/// The same for one that sends a body in drops: bodies may take 15 s.
const BODY_END: Duration = Duration::from_secs(30);

/// Memory that an attack may leave behind, bytes: allocators keep some of it.
const LEFT_BEHIND: u64 = 96 << 20;

/// A controller with a working cluster, about to be attacked.
struct Siege {
    stage: Stage,
    site: Enrolled,
    gateway: Gateway,
    epoch: Value,
    memory: u64,
}

impl Siege {
    async fn begin() -> anyhow::Result<Self> {
        let seconds = PATIENCE.as_secs();
        let limits = format!("[limits]\nhandshake_seconds = {seconds}\nheader_seconds = {seconds}\n");
        let stage = Stage::open_with(&limits).await?;
        let site = stage.enrol("plant", ground().await?).await?;
        let gateway = stage.gateway_as_admin(&site.cluster)?;
        gateway.get("/version").await?.ok()?;
        let epoch = stage.admin.agent_of(&site.cluster).await?["epoch"].clone();
        let memory = stage.controller.memory()?;
        Ok(Self { stage, site, gateway, epoch, memory })
    }

    /// A door, as a stranger comes to it.
    fn door(&self, name: &str, alpn: &[u8]) -> anyhow::Result<Door> {
        let tls = tls::trusted_client(&self.stage.admin.roots()?, None, &[alpn], clock())?;
        Ok(Door::new(self.stage.controller.address(), name, tls)?.from(STRANGER))
    }

    /// Others are served, while it lasts and promptly.
    async fn serves_others(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.stage.admin.get("/me").await?.ok().context("the API")?;
        self.gateway.get("/version").await?.ok().context("the gateway")?;
        let took = began.elapsed();
        ensure!(took < Duration::from_secs(5), "two requests of others took {took:?}");
        Ok(())
    }

    /// Everything works as before, and memory has come back.
    async fn survived(self, what: &str) -> anyhow::Result<()> {
        self.serves_others().await.with_context(|| what.to_owned())?;
        let agent = self.stage.admin.agent_of(&self.site.cluster).await?;
        ensure!(agent["epoch"] == self.epoch, "{what}: the agent lost its connection: {agent}");
        wait::until(Duration::from_secs(10), || async {
            let (before, after) = (self.memory, self.stage.controller.memory()?);
            ensure!(after < before + LEFT_BEHIND, "{what}: memory went from {before} to {after} bytes");
            Ok(())
        })
        .await?;
        let log = self.stage.controller.log();
        ensure!(!log.contains("panicked"), "{what}: {log}");
        ensure!(log.len() < 1 << 20, "{what}: {} bytes of log", log.len());
        Ok(())
    }
}

/// Reads until the other end closes, which must be within `limit`; gives the
/// first 64 KiB of what it said.
async fn closed(mut stream: impl AsyncRead + Unpin, limit: Duration) -> anyhow::Result<String> {
    let mut said = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            if said.len() < 64 * 1024 {
                said.extend_from_slice(buffer.get(..length).unwrap_or_default());
            }
        }
    };
    let ended = tokio::time::timeout(limit, reading).await;
    ended.with_context(|| format!("still open after {limit:?}"))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Sends `bytes` and waits until the other end closes. That it closes while we still
/// send is its good right.
async fn sent(stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> anyhow::Result<String> {
    let (reading, mut writing) = tokio::io::split(stream);
    let (said, _) = tokio::join!(closed(reading, END), writing.write_all(bytes));
    said
}

/// Sends `start`, then single bytes for as long as the other end takes them, which
/// must be no longer than `limit`.
async fn dripped(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    start: &[u8],
    limit: Duration,
) -> anyhow::Result<String> {
    let (reading, mut writing) = tokio::io::split(stream);
    let dripping = async {
        let mut drops = tokio::time::interval(Duration::from_millis(100));
        let mut result = writing.write_all(start).await;
        while result.is_ok() {
            drops.tick().await;
            result = writing.write_all(b"a").await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        said = closed(reading, limit) => said,
        () = dripping => anyhow::bail!("unreachable"),
    }
}

/// A handshake message of TLS that never ends.
fn endless_hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..64 {
        bytes.extend_from_slice(&[0x16, 3, 1, 0x40, 0]);
        bytes.extend_from_slice(&[1, 0xff, 0xff, 0xff]);
        bytes.resize(bytes.len() + 0x4000 - 4, 0);
    }
    bytes
}

/// A ClientHello as this build's clients send it.
fn hello(door: &str) -> anyhow::Result<Vec<u8>> {
    let tls = tls::pinned_client(&[culvert_pki::pin::Pin::of_spki(b"x")], &[b"h2"], clock())?;
    let name = rustls::pki_types::ServerName::try_from(door.to_owned())?;
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(tls), name)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

#[tokio::test]
async fn noise_before_tls() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let address = siege.stage.controller.address();
    let connect = || connect_from(STRANGER, address);

    let noise: Vec<u8> = (0..64 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let endless = endless_hello();
    for bytes in
        [noise.as_slice(), &endless, b"\x16\x03\x01\x00\x00", b"\x80\x2e\x01\x00\x02", b"SSH-2.0-x\r\n"]
    {
        for stream in try_join_all((0..20).map(|_| connect())).await? {
            sent(stream, bytes).await?;
        }
    }
    let plain = sent(connect().await?, b"GET / HTTP/1.1\r\nHost: culvert.internal\r\n\r\n").await?;
    ensure!(plain.starts_with("HTTP/1.1 400") && plain.contains("https://"), "{plain:?}");

    // Silence, drops of a hello, and a hello with nothing after it; more than one
    // address may have in a handshake.
    let hello = hello("agents.culvert.internal")?;
    let (silence, start) = (Vec::new(), hello.get(..hello.len() / 2).unwrap_or_default().to_vec());
    let mut slow = Vec::new();
    for round in 0..100 {
        let said = [&silence, &start, &hello].into_iter().nth(round % 3).unwrap_or(&silence);
        let mut stream = connect().await?;
        // One too many of an address is closed at once, perhaps before we speak.
        let _ = stream.write_all(said).await;
        slow.push(stream);
    }
    siege.serves_others().await?;
    for ended in join_all(slow.into_iter().map(|stream| closed(stream, END))).await {
        ended?;
    }
    siege.survived("noise before TLS").await
}

/// Requests that are no requests, with a word that the answer begins with, if there
/// has to be one.
fn crooked_requests() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let host = "Host: culvert.internal\r\n";
    let many: String = (0..5000).map(|n| format!("x-{n}: y\r\n")).collect();
    let text = |text: String| text.into_bytes();
    vec![
        ("garbage", vec![0xfe; 4096], ""),
        (
            "a head without end",
            text(format!("GET /api/v1/info HTTP/1.1\r\n{host}x: {}", "a".repeat(1 << 20))),
            "",
        ),
        ("too many fields", text(format!("GET /api/v1/info HTTP/1.1\r\n{host}{many}\r\n")), ""),
        ("a long path", text(format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(1 << 20))), ""),
        (
            "two lengths",
            text(format!(
                "POST /api/v1/sessions HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
            )),
            "HTTP/1.1 400",
        ),
        (
            "a negative length",
            text(format!("POST /api/v1/sessions HTTP/1.1\r\n{host}Content-Length: -5\r\n\r\nhello")),
            "HTTP/1.1 400",
        ),
        ("a bad version", text(format!("GET /api/v1/info HTTP/9.9\r\n{host}\r\n")), ""),
        (
            "a field without a name",
            text(format!("GET /api/v1/info HTTP/1.1\r\n{host}: x\r\n\r\n")),
            "HTTP/1.1 400",
        ),
        (
            "a folded field",
            text(format!("GET /api/v1/info HTTP/1.1\r\n{host}a: b\r\n c\r\n\r\n")),
            "HTTP/1.1 400",
        ),
    ]
}

#[tokio::test]
async fn crooked_http() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let doors = ["culvert.internal", "kube.culvert.internal"];
    for name in doors {
        let door = siege.door(name, b"http/1.1")?;
        for (what, bytes, answer) in crooked_requests() {
            let said = sent(door.open().await?, &bytes).await.with_context(|| format!("{what} at {name}"))?;
            ensure!(said.starts_with(answer), "{what} at {name}: {said:?}");
            ensure!(!said.starts_with("HTTP/1.1 2"), "{what} at {name}: {said:?}");
        }
    }
    // Drops of a head, of a hundred at once.
    let start = b"GET /api/v1/info HTTP/1.1\r\nHost: culvert.internal\r\nx: ";
    let doors = doors.map(|name| siege.door(name, b"http/1.1"));
    let [api, kube] = doors;
    let (api, kube) = (api?, kube?);
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(dripped(api.open().await?, start, END));
        slow.push(dripped(kube.open().await?, start, END));
    }
    let (ended, served) = tokio::join!(join_all(slow), siege.serves_others());
    served?;
    for (number, ended) in ended.into_iter().enumerate() {
        ended.with_context(|| format!("slow client {number}"))?;
    }
    siege.survived("crooked HTTP").await
}

#[tokio::test]
async fn crooked_json() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let admin = &siege.stage.admin;
    let nested = format!("{{\"name\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let many = format!("{{\"name\":\"a\",\"labels\":{{{}}}}}", labels(20_000));
    for (what, body) in [
        ("nothing", ""),
        ("half an object", "{\"name\": \"pl"),
        ("no JSON", "\u{0}\u{1}"),
        ("a number", "7"),
        ("a wrong kind", "{\"name\": 7}"),
        ("an unknown field", "{\"name\": \"plant\", \"nmae\": 1}"),
        ("no name", "{}"),
        ("an empty name", "{\"name\": \"\"}"),
        ("a name with a slash", "{\"name\": \"../../etc\"}"),
        ("deep nesting", &nested),
        ("thousands of labels", &many),
    ] {
        let request = admin.request(Method::POST, "/clusters").header("content-type", "application/json");
        let answer = request.body(body.to_owned()).send().await.with_context(|| what.to_owned())?;
        let status = answer.status();
        ensure!([400, 413, 422].contains(&status.as_u16()), "{what}: {status}");
        let kind = answer.headers()["content-type"].to_str()?.to_owned();
        ensure!(kind == "application/problem+json", "{what}: {kind}");
        let problem: Value = answer.json().await?;
        for field in ["type", "title", "detail", "code", "request_id"] {
            ensure!(problem[field].is_string(), "{what}: no {field}: {problem}");
        }
        ensure!(problem["status"] == status.as_u16(), "{what}: {problem}");
    }
    let other = admin
        .request(Method::POST, "/clusters")
        .header("content-type", "text/plain")
        .body("{}")
        .send()
        .await?;
    ensure!([400, 415].contains(&other.status().as_u16()), "{}", other.status());
    let latin = admin.request(Method::POST, "/clusters").header("content-type", "application/json");
    let latin = latin.body(b"{\"name\": \"\xff\xfe\"}".to_vec()).send().await?;
    ensure!(latin.status() == StatusCode::BAD_REQUEST, "{}", latin.status());
    for query in
        ["limit=0", "limit=-1", "limit=x", "limit=99999999999999999999", "after=%00", "after=garbage"]
    {
        let answer = admin.get(&format!("/clusters?{query}")).await?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{query}: {answer:?}");
        ensure!(answer.body["errors"][0]["field"].is_string(), "{query}: {answer:?}");
    }
    let clusters = admin.get("/clusters").await?.ok()?;
    ensure!(clusters["items"].as_array().map(Vec::len) == Some(1), "{clusters}");
    siege.survived("crooked JSON").await
}

fn labels(count: usize) -> String {
    (0..count).map(|n| format!("\"label-{n}\":\"x\"")).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn bodies_without_end() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let door = siege.door("culvert.internal", b"http/1.1")?;
    let head =
        "POST /api/v1/sessions HTTP/1.1\r\nHost: culvert.internal\r\nContent-Type: application/json\r\n";
    let announced = format!("{head}Content-Length: 1000000000000\r\n\r\n{}", "a".repeat(8 << 20));
    let said = sent(door.open().await?, announced.as_bytes()).await?;
    ensure!(said.is_empty() || said.starts_with("HTTP/1.1 413"), "{said:?}");
    let chunk = format!("100000\r\n{}\r\n", "a".repeat(1 << 20)).repeat(64);
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    let said = sent(door.open().await?, chunked.as_bytes()).await?;
    ensure!(said.is_empty() || said.starts_with("HTTP/1.1 413"), "{said:?}");
    // One that announces a body and sends none of it, and one that sends it in drops.
    let short = format!("{head}Content-Length: 100000\r\n\r\n{{");
    let slow = (0..40).map(|_| async {
        let stream = door.open().await?;
        dripped(stream, short.as_bytes(), BODY_END).await
    });
    let (ended, served) = tokio::join!(join_all(slow), siege.serves_others());
    served?;
    for ended in ended {
        let said = ended.context("a slow body")?;
        ensure!(!said.starts_with("HTTP/1.1 2"), "{said:?}");
    }
    siege.survived("bodies without end").await
}

#[tokio::test]
async fn crooked_http2() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let names = ["culvert.internal", "kube.culvert.internal", "agents.culvert.internal"];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = frame(4, 0, 0, &[]);
    for name in names {
        let door = siege.door(name, b"h2")?;
        let empties = [frame(1, 4, 1, &request_head(name)), frame(0, 0, 1, &[]).repeat(50_000)].concat();
        let continued =
            [frame(1, 0, 1, &request_head(name)), frame(9, 0, 1, &[0; 1000]).repeat(5_000)].concat();
        let huge = [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 1 << 16]].concat();
        for (what, frames) in [
            ("empty frames without end", empties),
            ("a head without end", continued),
            ("a huge frame", huge),
            ("garbage", vec![0xa5; 1 << 16]),
            ("data on no stream", frame(0, 0, 7, b"hello")),
        ] {
            let bytes = [&preface[..], &settings, &frames].concat();
            sent(door.open().await?, &bytes).await.with_context(|| format!("{what} at {name}"))?;
        }
        // What HTTP/2 allows is answered for as long as somebody reads the answers.
        for allowed in [frame(6, 0, 0, &[0; 8]), frame(4, 0, 0, &[0, 3, 0, 0, 0, 1])] {
            let mut stream = door.open().await?;
            let bytes = [&preface[..], &settings, &allowed.repeat(50_000)].concat();
            // It takes them, or it does not and neither waits nor keeps them.
            let _ = tokio::time::timeout(END, stream.write_all(&bytes)).await;
        }
        rapid_reset(&door).await.with_context(|| format!("resets at {name}"))?;
    }
    // Neither preface nor frame, where strangers have no business to stay.
    let silent = siege.door("agents.culvert.internal", b"h2")?.open().await?;
    closed(silent, 2 * END).await.context("silence")?;
    siege.survived("crooked HTTP/2").await
}

/// One frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_uint(payload.len() as u64, 3);
    bytes.put_u8(kind);
    bytes.put_u8(flags);
    bytes.put_u32(stream);
    bytes.put_slice(payload);
    bytes.to_vec()
}

/// `POST https://name/` without compression, RFC 7541.
fn request_head(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x83, 0x87, 0x84, 0x01, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

/// Opens streams and resets each at once, as fast as it can.
async fn rapid_reset(door: &Door) -> anyhow::Result<()> {
    let (client, connection) = h2::client::handshake(door.open().await?).await?;
    let ended = tokio::spawn(connection);
    for _ in 0..20_000 {
        let request = Request::post(format!("https://{}/", door.name())).body(())?;
        let Ok(mut ready) = client.clone().ready().await else { break };
        let Ok((_, mut body)) = ready.send_request(request, false) else { break };
        body.send_reset(h2::Reason::CANCEL);
    }
    drop(client);
    let ended = tokio::time::timeout(END, ended).await.context("the connection lives on")?;
    // That the other end hangs up on such a client is fine; so is that it does not.
    drop(ended);
    Ok(())
}

/// A gRPC request by hand; gives the status' number, or none if the stream broke.
async fn grpc(door: &Door, path: &str, message: Bytes, end: bool) -> anyhow::Result<Option<String>> {
    let (client, connection) = h2::client::handshake(door.open().await?).await?;
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await?;
    let request = Request::post(format!("https://{}{path}", door.name()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = client.send_request(request, false)?;
    body.send_data(message, end)?;
    let exchange = async {
        let mut response = response.await.ok()?;
        while let Some(Ok(data)) = response.body_mut().data().await {
            // What is not given back holds up the other end.
            response.body_mut().flow_control().release_capacity(data.len()).ok()?;
        }
        let in_head = response.headers().get("grpc-status").cloned();
        let trailers = response.body_mut().trailers().await.ok()?;
        let status = in_head.or_else(|| trailers?.get("grpc-status").cloned())?;
        status.to_str().ok().map(str::to_owned)
    };
    let status = tokio::time::timeout(Duration::from_secs(40), exchange).await.context("no end")?;
    connection.abort();
    Ok(status)
}

fn message(declared: u32, compressed: u8, bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(compressed);
    framed.put_u32(declared);
    framed.put_slice(bytes);
    framed.freeze()
}

#[tokio::test]
async fn crooked_grpc() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let door = siege.door("agents.culvert.internal", b"h2")?;
    let (enrol, control, answer) = (
        "/culvert.enrolment.v1.Enrolment/Enrol",
        "/culvert.tunnel.v1.Tunnel/Control",
        "/culvert.tunnel.v1.Tunnel/Answer",
    );
    let garbage = [0xff; 64];
    for path in [enrol, control, answer, "/culvert.enrolment.v1.Enrolment/Renew", "/nothing.Like/It", "/"] {
        for (what, bytes, end) in [
            ("nothing", Bytes::new(), true),
            ("garbage", message(64, 0, &garbage), true),
            ("a message of four gigabytes", message(u32::MAX, 0, &garbage), false),
            ("a compressed message", message(64, 1, &garbage), true),
            ("a message that is cut off", message(1000, 0, &garbage), true),
            ("a large message", message(16 << 20, 0, &vec![b'a'; 16 << 20]), true),
        ] {
            let status = grpc(&door, path, bytes, end).await.with_context(|| format!("{what} at {path}"))?;
            ensure!(status.as_deref() != Some("0"), "{what} at {path} was taken");
        }
    }
    // Somebody who begins a message and stops does not hold anything up for long.
    let (slow, served) = tokio::join!(
        join_all((0..30).map(|_| grpc(&door, enrol, message(100, 0, b"abc"), false))),
        siege.serves_others(),
    );
    served?;
    for status in slow {
        ensure!(status.context("a slow message")?.as_deref() != Some("0"));
    }
    siege.survived("crooked gRPC").await
}

/// What needs no certificate at the gateway is little, and what is large is refused.
#[tokio::test]
async fn large_requests_at_the_gateway() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let long = format!("/api/v1/namespaces/default/configmaps/{}", "a".repeat(60_000));
    let answer = siege.gateway.get(&long).await?;
    ensure!(answer.status.is_client_error(), "{}", answer.status);
    let many: Vec<(String, String)> = (0..100).map(|n| (format!("x-{n}"), "y".repeat(100))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    siege.gateway.send(Method::GET, "/version", &many, None).await?.ok()?;
    // The API server's own limit, 3 MiB, is reached through the tunnel as without it.
    let data = "a".repeat(4 << 20);
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "big" }, "data": { "a": data } });
    let answer = siege.gateway.post("/api/v1/namespaces/default/configmaps", &map).await?;
    ensure!(answer.status == StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    siege.survived("large requests").await
}

/// People who ask for much and read nothing of it stop nobody and fill no memory.
#[tokio::test]
async fn answers_that_nobody_reads() -> anyhow::Result<()> {
    let siege = Siege::begin().await?;
    let space = ground().await?.plane.namespace("unread").await?;
    let path = format!("/api/v1/namespaces/{}/configmaps", space.name());
    for number in 0..8 {
        let (meta, data) = (json!({ "name": format!("big-{number}") }), "a".repeat(900 << 10));
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "a": data } });
        siege.gateway.post(&path, &map).await?.ok()?;
    }
    // 7 MiB each, of which the two ends of the tunnel hold one or two.
    let unread = try_join_all((0..40).map(|_| siege.gateway.unread(&path))).await?;
    siege.serves_others().await?;
    let list = siege.gateway.get(&path).await?.ok()?;
    ensure!(list["items"].as_array().map(Vec::len) > Some(7), "a list was cut");
    let (before, now) = (siege.memory, siege.stage.controller.memory()?);
    ensure!(now < before + (256 << 20), "memory went from {before} to {now} bytes");
    drop(unread);
    siege.survived("answers that nobody reads").await
}

/// Every fault of a configuration is told at once, before anything is opened or made.
#[tokio::test]
async fn wrong_configurations() -> anyhow::Result<()> {
    let wrong = "listne = \"127.0.0.1:1\"\n[agents]\nminimum_version = \"new\"\n[limits]\nconnections = -1\n";
    let mut controller = Controller::unstarted("127.0.0.1", wrong)?;
    controller.launch()?;
    ensure!(controller.ended().await?.code() == Some(64), "{}", controller.log());
    for fault in ["listne", "agents.minimum_version", "limits.connections"] {
        ensure!(controller.log().contains(fault), "{fault} is not named:\n{}", controller.log());
    }
    ensure!(!controller.path("culvert.db").exists() && !controller.path("kek").exists());

    let agent = process::program("culvert-agent")?;
    let output = tokio::process::Command::new(agent)
        .args(["run", "--controller", "not a host", "--state", "nowhere", "--domain", "UPPER CASE"])
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(64), "{}: {said}", output.status);
    for fault in ["--controller", "--state", "--domain"] {
        ensure!(said.contains(fault), "{fault} is not named:\n{said}");
    }
    Ok(())
}
