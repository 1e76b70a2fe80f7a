//! `cluster connect`: the record, the helm line, the lights.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod golden;
mod site;

use culvert_pki::pin::Pin;
use culvert_pki::token::JoinToken;
use site::{Reply, Site, mode};

const CLUSTER: &str = r#"{"id":"cls_1","name":"edge","labels":{},"state":"pending"}"#;

/// A site where "edge" does not exist yet, and the join token it gives.
fn site_for_connect() -> (Site, String) {
    let site = Site::start();
    site.signed_in();
    let token = JoinToken::generate(Pin::from([7; 32]), None).unwrap().expose().to_string();
    site.answer("POST", "/api/v1/clusters", Reply::json(201, CLUSTER));
    let made = serde_json::json!({
        "id": "jtk_1", "token": token, "expires_at": "2026-11-23T19:00:00Z",
        "helm": {"repo_chart": "helm/agent", "values": {"controller": {"address": "c.example:443"}, "token": token},
                 "command": "helm …"},
    });
    site.answer("POST", "/api/v1/clusters/cls_1/join-tokens", Reply::json(201, made.to_string()));
    (site, token)
}

fn lights(on: usize, failed: Option<&str>) -> String {
    let stages = ["reached", "tls", "token", "identity", "tunnel", "capabilities"];
    let lights: Vec<_> = stages
        .iter()
        .enumerate()
        .map(|(n, stage)| {
            let state = if failed == Some(*stage) { "failed" } else if n < on { "on" } else { "off" };
            serde_json::json!({"stage": stage, "state": state, "at": "2026-11-23T18:00:00Z", "source": "192.0.2.1"})
        })
        .collect();
    let attempts = if failed.is_some() {
        serde_json::json!([{"id": "att_1", "at": "2026-11-23T18:00:00Z", "source": "192.0.2.1", "stage": "token",
            "outcome": "refused", "code": "token_used", "detail": "the token was used at 17:00",
            "fix": "make a new one: culvert cluster token create edge"}])
    } else {
        serde_json::json!([])
    };
    let state = if on == 6 { "connected" } else { "pending" };
    serde_json::json!({"state": state, "lights": lights, "attempts": attempts}).to_string()
}

#[test]
fn the_golden_lights_are_followed_to_the_end() {
    let (site, token) = site_for_connect();
    let mut reads = 0;
    site.handle("GET", "/api/v1/clusters/cls_1/diagnosis", move |_| {
        reads += 1;
        Reply::json(
            200,
            match reads {
                1 => lights(0, None),
                2 => lights(2, Some("token")),
                3 => lights(4, None),
                _ => lights(6, None),
            },
        )
    });
    let event = "event: attempt\ndata: {}\n\n";
    site.answer(
        "GET",
        "/api/v1/events",
        Reply::stream(&[(0, ": beat\n\n"), (50, event), (50, event), (50, event)]),
    );
    let output = site.culvert(&["cluster", "connect", "edge", "--utc"]).output().unwrap();
    let (data, notes) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{notes}");

    let home = site.home.path().to_str().unwrap().to_owned();
    golden::check("connect-stdout", &data.replace(&home, "[HOME]"));
    golden::check("connect-stderr", &notes.replace(&home, "[HOME]"));
    assert!(!data.contains("cvj1.") && !notes.contains("cvj1."), "the token is in the file alone");
    assert!(token.starts_with("cvj1."));
    let values = site.config().with_extension("joins").join("cls_1-values.yaml");
    assert!(!values.exists(), "a used token is not left behind");
    let created = site.requests().into_iter().find(|seen| seen.method == "POST").unwrap();
    assert_eq!(created.body, r#"{"labels":{},"name":"edge"}"#);
}

#[test]
fn without_waiting_the_line_is_all_there_is_and_the_file_is_private() {
    let (site, token) = site_for_connect();
    let output = site.culvert(&["cluster", "connect", "edge", "--no-wait"]).output().unwrap();
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line.lines().count(), 1, "it can be piped into a shell: {line}");
    let values = site.config().with_extension("joins").join("cls_1-values.yaml");
    assert!(line.trim_end().ends_with(&format!("--values {}", values.display())), "{line}");
    assert_eq!(mode(&values), 0o600);
    assert!(std::fs::read_to_string(&values).unwrap().contains(&token));
    assert_eq!(site.count("GET", "/api/v1/events"), 0);
}

#[test]
fn values_can_be_piped_instead_of_kept() {
    let (site, token) = site_for_connect();
    let output = site.culvert(&["cluster", "connect", "edge", "--values-file", "-"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("token: {token}")), "{text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--values -"));
    assert!(!site.config().with_extension("joins").exists());
}

#[test]
fn a_connected_cluster_needs_no_token_and_a_locked_one_gets_none() {
    let (site, _) = site_for_connect();
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, CLUSTER.replace("pending", "connected")));
    assert!(site.culvert(&["cluster", "connect", "edge"]).output().unwrap().status.success());
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, CLUSTER.replace("pending", "locked")));
    let output = site.culvert(&["cluster", "connect", "edge"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("culvert cluster unlock edge"));
    assert!(site.requests().iter().all(|seen| seen.method == "GET"));
}

#[test]
fn a_stream_that_is_cut_is_resumed_where_it_was() {
    let (site, _) = site_for_connect();
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, CLUSTER));
    site.answer("GET", "/api/v1/clusters/cls_1/diagnosis", Reply::json(200, lights(1, None)));
    let mut opened = 0;
    site.handle("GET", "/api/v1/events", move |_| {
        opened += 1;
        let text = format!("id: {opened}\nevent: cluster\ndata: {{}}\n\n");
        // A plain answer ends at once, as a controller that restarts does.
        let mut reply = Reply::json(200, text);
        reply.kind = "text/event-stream";
        reply
    });
    site.culvert(&["cluster", "connect", "edge", "--follow", "--timeout", "3s"]).output().unwrap();
    let ids: Vec<_> = site
        .requests()
        .iter()
        .filter(|seen| seen.path == "/api/v1/events")
        .map(|seen| seen.headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned()))
        .collect();
    assert!(ids.len() >= 2, "{ids:?}");
    assert_eq!(ids[0], None);
    assert_eq!(ids[1].as_deref(), Some("1"), "{ids:?}");
    assert!(site.requests().iter().any(|seen| seen.query == "cluster=cls_1"));
}

#[test]
fn a_watch_shows_each_change_once() {
    let (site, _) = site_for_connect();
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, CLUSTER));
    site.answer("GET", "/api/v1/clusters/cls_1", Reply::json(200, CLUSTER));
    let connected = CLUSTER.replace("pending", "connected");
    let events = [
        format!("id: 1\nevent: cluster\ndata: {CLUSTER}\n\n"),
        format!("id: 2\nevent: cluster\ndata: {connected}\n\n"),
    ];
    site.answer("GET", "/api/v1/events", Reply::stream(&[(0, &events[0]), (20, &events[1])]));
    let arguments = ["cluster", "watch", "edge", "--until", "connected", "-o", "json", "--timeout", "20s"];
    let output = site.culvert(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{CLUSTER}\n{connected}\n"));
}

#[test]
fn a_join_token_is_shown_once_on_standard_output() {
    let (site, token) = site_for_connect();
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, CLUSTER));
    let arguments = ["cluster", "token", "create", "edge", "--ttl", "15m", "--from", "192.0.2.0/24", "--utc"];
    let output = site.culvert(&arguments).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{token}\n"));
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("until 2026-11-23 19:00:00Z") && !notes.contains("cvj1."), "{notes}");
    assert_eq!(site.requests().pop().unwrap().body, r#"{"cidr":"192.0.2.0/24","ttl_seconds":900}"#);
}
