//! The committed generated code is what the contract generates today.
//! With `CULVERT_GEN=1`, which `make gen` sets, it is written instead.

#![allow(clippy::expect_used, reason = "a test that cannot go on stops")]

use std::path::{Path, PathBuf};

const CONTRACTS: [&str; 4] = [
    "culvert/tunnel/v1/tunnel.proto",
    "culvert/enrolment/v1/enrolment.proto",
    "culvert/telemetry/v1/telemetry.proto",
    "culvert/peer/v1/peer.proto",
];

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors = protox::compile(CONTRACTS, [&root]).expect("the contract compiles");
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .out_dir(into)
        .compile_fds(descriptors)
        .expect("code is generated");
}

#[test]
fn committed_code_is_current() {
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    if std::env::var_os("CULVERT_GEN").is_some() {
        generate(&committed);
        return;
    }
    let fresh = tempfile::tempdir().expect("a temporary folder");
    generate(fresh.path());
    for package in ["tunnel", "enrolment", "telemetry", "peer"] {
        let name = format!("culvert.{package}.v1.rs");
        let want = std::fs::read_to_string(fresh.path().join(&name)).expect("generated");
        let have = std::fs::read_to_string(committed.join(&name)).unwrap_or_default();
        assert!(have == want, "src/gen/{name} is stale: run `make gen`");
    }
}
