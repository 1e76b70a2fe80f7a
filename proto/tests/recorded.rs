//! What each release said on the wire, written down when it came out: the bytes mean
//! today what they meant then, and the same things are still said in the same bytes. So
//! agents and controllers of different releases understand each other.
//!
//! With `CULVERT_GEN=1` a recording is written where there is none. One that exists is
//! never changed: agents in the field go on speaking so.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::{answer_down, answer_up, control_down, control_up, open};
use prost::Message;
use prost::bytes::Bytes;

/// The release whose wire is recorded, and what it says.
const RELEASE: &str = "0.1";

fn up(kind: control_up::Kind) -> Vec<u8> {
    proto::ControlUp { kind: Some(kind) }.encode_to_vec()
}

fn down(kind: control_down::Kind) -> Vec<u8> {
    proto::ControlDown { kind: Some(kind) }.encode_to_vec()
}

fn answer_up(kind: answer_up::Kind) -> Vec<u8> {
    proto::AnswerUp { kind: Some(kind) }.encode_to_vec()
}

fn answer_down(kind: answer_down::Kind) -> Vec<u8> {
    proto::AnswerDown { kind: Some(kind) }.encode_to_vec()
}

fn header(name: &str, value: &'static str) -> proto::Header {
    proto::Header { name: name.into(), value: Bytes::from_static(value.as_bytes()) }
}

fn call_id() -> Bytes {
    (1..=16).collect::<Vec<u8>>().into()
}

fn hello() -> proto::Hello {
    proto::Hello {
        version: "0.1.0".into(),
        instance: vec![7; 16].into(),
        capabilities: vec!["one".into()],
        last_epoch: 6,
        standby: true,
        clock_ms: 1_700_000_000_000,
        place: Bytes::from_static(b"5f2c"),
    }
}

fn facts() -> proto::Facts {
    proto::Facts {
        kubernetes_version: "v1.36.0".into(),
        nodes: 3,
        storage_classes: vec!["fast".into()],
        cluster_uid: "uid".into(),
        api_latency_us: 900,
        problem: "none".into(),
        route: "direct".into(),
        policy: "all".into(),
        sealing_key: vec![9; 32].into(),
    }
}

fn open(kind: open::Kind) -> proto::Open {
    proto::Open {
        call_id: call_id(),
        epoch: 7,
        deadline_ms: 65_000,
        kind: Some(kind),
        caller: Some(proto::Caller {
            user: "culvert:ada".into(),
            groups: vec!["culvert:admin".into()],
            extra: [("request-id".into(), "r1".into())].into(),
        }),
        body: Bytes::from_static(b"{}"),
        body_end: true,
        traceparent: "00-1-2-01".into(),
        request_id: "r1".into(),
    }
}

fn request() -> proto::HttpRequest {
    proto::HttpRequest {
        method: "POST".into(),
        path: "/api?x=1".into(),
        headers: vec![header("accept", "application/json")],
    }
}

/// Everything that is said, by name.
fn said() -> BTreeMap<&'static str, Vec<u8>> {
    let tcp = proto::TcpTarget { target: "metrics".into() };
    let head =
        proto::Head { status: 200, headers: vec![header("content-type", "text/plain")], failure: None };
    let failure = proto::Failure { code: proto::failure::Code::Denied.into(), message: "no".into() };
    let refused = proto::Head { failure: Some(failure), ..proto::Head::default() };
    let end = || proto::End { trailers: vec![header("grpc-status", "0")] };
    let rejected = proto::Reject {
        call_id: call_id(),
        reason: proto::reject::Reason::Draining.into(),
        message: "stopping".into(),
    };
    let welcome = proto::Welcome {
        epoch: 7,
        replica: "a".into(),
        heartbeat_ms: 20_000,
        max_calls: 4096,
        clock_ms: 1_700_000_000_001,
    };
    let superseded = proto::Superseded {
        by_epoch: 8,
        same_instance: true,
        source: "192.0.2.1:1".into(),
        handed_over: true,
    };
    let beat = || proto::Heartbeat { sequence: 3, sent_us: 4 };
    BTreeMap::from([
        ("up hello", up(control_up::Kind::Hello(hello()))),
        ("up heartbeat", up(control_up::Kind::Heartbeat(beat()))),
        ("up reject", up(control_up::Kind::Reject(rejected))),
        ("up facts", up(control_up::Kind::Facts(facts()))),
        ("up draining", up(control_up::Kind::Draining(proto::Draining {}))),
        ("down welcome", down(control_down::Kind::Welcome(welcome))),
        ("down heartbeat", down(control_down::Kind::Heartbeat(beat()))),
        ("down open http", down(control_down::Kind::Open(open(open::Kind::Http(request()))))),
        ("down open upgrade", down(control_down::Kind::Open(open(open::Kind::Upgrade(request()))))),
        ("down open tcp", down(control_down::Kind::Open(open(open::Kind::Tcp(tcp))))),
        ("down cancel", down(control_down::Kind::Cancel(proto::Cancel { call_id: call_id() }))),
        ("down drain", down(control_down::Kind::Drain(proto::Drain { spread_ms: 5, deadline_ms: 30_000 }))),
        ("down renew", down(control_down::Kind::Renew(proto::Renew {}))),
        ("down superseded", down(control_down::Kind::Superseded(superseded))),
        ("answer up head", answer_up(answer_up::Kind::Head(head))),
        ("answer up failure", answer_up(answer_up::Kind::Head(refused))),
        ("answer up data", answer_up(answer_up::Kind::Data(Bytes::from_static(b"data")))),
        ("answer up end", answer_up(answer_up::Kind::End(end()))),
        ("answer down data", answer_down(answer_down::Kind::Data(Bytes::from_static(b"data")))),
        ("answer down end", answer_down(answer_down::Kind::End(end()))),
    ])
}

/// What a message says, in words.
fn meaning(name: &str, bytes: &[u8]) -> String {
    let read = |result: Result<String, prost::DecodeError>| {
        result.unwrap_or_else(|error| panic!("{name} cannot be read any more: {error}"))
    };
    match name.split(' ').take(2).collect::<Vec<_>>().as_slice() {
        ["answer", "up"] => read(proto::AnswerUp::decode(bytes).map(|said| format!("{said:?}"))),
        ["answer", _] => read(proto::AnswerDown::decode(bytes).map(|said| format!("{said:?}"))),
        ["up", _] => read(proto::ControlUp::decode(bytes).map(|said| format!("{said:?}"))),
        _ => read(proto::ControlDown::decode(bytes).map(|said| format!("{said:?}"))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit) as u8).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

fn record_if_missing() {
    let file = folder().join(format!("{RELEASE}.txt"));
    if std::env::var_os("CULVERT_GEN").is_none() || file.exists() {
        return;
    }
    let lines: String = said().iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
    std::fs::create_dir_all(folder()).expect("a folder for recordings");
    std::fs::write(file, lines).expect("a recording is written");
}

/// Every recording there is, of whichever release.
fn recordings() -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder()).expect("the recordings are there");
    let read = files.map(|file| {
        let file = file.expect("a file").path();
        (file.display().to_string(), std::fs::read_to_string(&file).expect("a recording"))
    });
    read.collect()
}

#[test]
fn what_was_said_by_every_release_means_the_same_today() {
    record_if_missing();
    let today = said();
    let recordings = recordings();
    assert!(!recordings.is_empty());
    for (file, lines) in recordings {
        for line in lines.lines() {
            let (name, bytes) = line.split_once(": ").expect("a name and bytes");
            let said = today.get(name).unwrap_or_else(|| panic!("{file}: {name} is not known any more"));
            assert_eq!(meaning(name, &unhex(bytes)), meaning(name, said), "{file}: {name}");
            assert_eq!(bytes, hex(said), "{file}: {name} is said in other bytes");
        }
    }
}

#[test]
fn everything_that_is_said_today_is_recorded() {
    record_if_missing();
    let recorded = recordings().into_iter().map(|(_, lines)| lines).collect::<String>();
    for name in said().keys() {
        assert!(recorded.lines().any(|line| line.starts_with(&format!("{name}: "))), "{name} is not");
    }
}
