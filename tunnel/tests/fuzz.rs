//! The fuzz targets without a fuzzer: the committed corpus, and mutations of it for
//! a moment each (`CULVERT_FUZZ_SECONDS`, two by default). `make fuzz` runs the same
//! functions with coverage, for as long as one likes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    reason = "what it drives is shared with another crate"
)]

mod site;
#[path = "../../fuzz/targets.rs"]
mod targets;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_tunnel::{CallOptions, Hub};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use site::{Does, PATIENCE, Site, hello, limits, pattern};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::timeout;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name)
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Numbers without an end, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

/// A neighbour of a seed: bits turned, bytes taken out, put in, repeated, or the
/// head of one before the tail of another.
fn mutated(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seeds[numbers.next(seeds.len())].clone();
    for _ in 0..=numbers.next(6) {
        let at = numbers.next(bytes.len() + 1);
        let len = numbers.next(16).min(bytes.len() - at);
        match numbers.next(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.next(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.next(5)],
            2 => drop(bytes.drain(at..at + len)),
            3 => bytes.insert(at, numbers.next(256) as u8),
            4 => {
                let piece = bytes[at..at + len].repeat(1 + numbers.next(4));
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = &seeds[numbers.next(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[numbers.next(other.len() + 1)..]);
            }
        }
    }
    bytes.truncate(64 << 10);
    bytes
}

fn hold(name: &str, target: fn(&[u8]), bytes: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| target(bytes)) {
        eprintln!("{name} breaks its promise on {}", bytes.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

fn fuzz(name: &str) {
    let (_, target) = targets::ALL.into_iter().find(|(other, _)| *other == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no corpus");
    for seed in &seeds {
        hold(name, target, seed);
    }
    let seconds = std::env::var("CULVERT_FUZZ_SECONDS").map_or(2, |text| text.parse().unwrap());
    let (begin, mut numbers, mut runs) = (Instant::now(), Numbers(88_172_645_463_325_252), 0_u64);
    while begin.elapsed() < Duration::from_secs(seconds) || runs == 0 {
        hold(name, target, &mutated(&seeds, &mut numbers));
        runs += 1;
    }
    println!("{name}: {runs} runs");
}

macro_rules! fuzzed {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            fuzz(stringify!($name));
        }
    )*};
}

fuzzed! { decode open head refusal connect token csr hub link }

#[test]
fn every_target_has_a_corpus_and_a_driver_with_coverage() {
    for (name, _) in targets::ALL {
        assert!(!seeds(name).is_empty(), "{name} has no corpus");
        let driver = corpus(name).join("../../fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(driver).unwrap();
        assert!(text.contains(&format!("targets::{name}(")), "{name} is not driven");
    }
}

/// A pipe's end that keeps what is written into it.
struct Recorded {
    io: DuplexStream,
    said: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = written {
            self.said.lock().unwrap().extend_from_slice(&buf[..count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What each end says in a short and ordinary session.
async fn conversation() -> (Vec<u8>, Vec<u8>) {
    let (near, far) = tokio::io::duplex(256 << 10);
    let (by_hub, by_link) = (Arc::default(), Arc::default());
    let near = Recorded { io: near, said: Arc::clone(&by_hub) };
    let far = Recorded { io: far, said: Arc::clone(&by_link) };
    let hub = Hub::new("replica".into(), limits());
    let echo = Does(|call: culvert_tunnel::Call| async move {
        let body = call.request.into_body().map_err(culvert_tunnel::BoxError::from).boxed_unsync();
        Ok(culvert_tunnel::Reply::Http(http::Response::new(body)))
    });
    let site = Site::over(&hub, near, far, limits(), hello(), echo).await;
    for body in [Bytes::new(), Bytes::from_static(b"hello"), pattern(40_000)] {
        let request = http::Request::post("/api/v1/pods?watch=true").header("x-a", "1").body(Full::new(body));
        let cluster = site.cluster();
        let response = timeout(PATIENCE, cluster.call(request.unwrap(), CallOptions::default()));
        let response = response.await.unwrap().unwrap();
        timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
    }
    let (by_hub, by_link) = (by_hub.lock().unwrap().clone(), by_link.lock().unwrap().clone());
    (by_hub, by_link)
}

fn http_request() -> proto::HttpRequest {
    proto::HttpRequest {
        method: "GET".into(),
        path: "/api/v1/pods?limit=500".into(),
        headers: vec![proto::Header { name: "accept".into(), value: Bytes::from_static(b"*/*") }],
    }
}

/// The first corpus of a target.
fn first_seeds(name: &str, by_hub: &[u8], by_link: &[u8]) -> Vec<Vec<u8>> {
    let open = |kind| proto::Open {
        call_id: vec![7; 16].into(),
        epoch: 3,
        kind: Some(kind),
        body: Bytes::from_static(b"body"),
        ..Default::default()
    };
    let head = proto::Head { status: 200, headers: http_request().headers, failure: None };
    let up = |kind| site::hand::up(kind).to_vec();
    match name {
        "decode" => vec![
            [vec![0], site::hand::head().to_vec(), up(proto::answer_up::Kind::Data(pattern(300)))].concat(),
            [vec![9], up(proto::answer_up::Kind::End(proto::End { trailers: http_request().headers }))]
                .concat(),
            [&[3], &[0, 0, 0, 0, 4, 0x0a, 2, 1, 2][..]].concat(),
        ],
        "open" => vec![
            open(proto::open::Kind::Http(http_request())).encode_to_vec(),
            open(proto::open::Kind::Upgrade(http_request())).encode_to_vec(),
            open(proto::open::Kind::Tcp(proto::TcpTarget { target: "db".into() })).encode_to_vec(),
        ],
        "head" => vec![head.encode_to_vec()],
        "refusal" => {
            let text = "grpc-status:8\ngrpc-message:too%20many\nculvert-refusal:overloaded\nculvert-retry-after-ms:1500";
            vec![text.as_bytes().to_vec(), b"grpc-status:0".to_vec()]
        }
        "connect" => [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n",
            "HTTP/1.1 403 No\r\n\r\nbody",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        "token" => {
            let pin = culvert_pki::pin::Pin::of_spki(b"a key");
            let token = culvert_pki::token::JoinToken::generate(pin, Some(pin)).unwrap();
            vec![token.expose().as_bytes().to_vec()]
        }
        "csr" => {
            let key = culvert_pki::key::KeyPair::generate().unwrap();
            vec![culvert_pki::csr::make(&key).unwrap()]
        }
        "hub" => vec![[&[255], by_link].concat(), [&[0], &by_link[..600]].concat()],
        "link" => vec![[&[255], by_hub].concat(), [&[0], &by_hub[..600]].concat()],
        _ => Vec::new(),
    }
}

/// Writes what a target begins with, when asked by `CULVERT_GEN` and it has nothing.
#[tokio::test]
async fn first_corpus() {
    if std::env::var_os("CULVERT_GEN").is_none() {
        return;
    }
    let (by_hub, by_link) = conversation().await;
    for (name, _) in targets::ALL {
        let folder = corpus(name);
        if folder.exists() {
            continue;
        }
        std::fs::create_dir_all(&folder).unwrap();
        for (at, seed) in first_seeds(name, &by_hub, &by_link).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{at}")), seed).unwrap();
        }
    }
}
