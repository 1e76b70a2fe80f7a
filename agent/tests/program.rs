//! The program from outside: exit codes, and what it says on the way out.
#![allow(clippy::unwrap_used, reason = "a test may")]
use std::process::{Command, Output};

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_culvert-agent")).args(arguments).env_clear().output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_version_is_printed() {
    let output = agent(&["version"]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("culvert-agent {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn bad_settings_end_with_64_and_every_fault() {
    let output = agent(&["run", "--state", "somewhere"]);
    assert_eq!(output.status.code(), Some(64));
    let said = stderr(&output);
    assert!(said.contains("--controller") && said.contains("--state"), "{said}");
    assert_eq!(agent(&["run", "--no-such-flag"]).status.code(), Some(64));
    assert_eq!(agent(&[]).status.code(), Some(64));
    let output = agent(&["run", "--controller", "c:1", "--state", "dir:/tmp/x", "--log", "=,="]);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
}

#[test]
fn a_probe_without_an_agent_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("status.json");
    let output = agent(&["health", "--status-file", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot be read"));
}

#[test]
fn outside_a_cluster_a_kubeconfig_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("dir:{}", folder.path().display());
    let output = agent(&["run", "--controller", "c:1", "--state", &state]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("--kubeconfig"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing may be written before");
}

#[test]
fn preflight_names_what_is_missing_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("dir:{}", folder.path().join("state").display());
    let output = agent(&["preflight", "--controller", "no-such-host.invalid:1", "--state", &state]);
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("no-such-host.invalid") && table.contains("FAILED"), "{table}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a preflight changes nothing");
}
