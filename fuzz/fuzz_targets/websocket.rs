//! `targets::websocket` under libFuzzer.
#![no_main]

#[allow(dead_code, reason = "each driver calls one")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::websocket(bytes));
