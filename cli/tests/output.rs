//! What people and programs read, in each format, from recorded answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod golden;
mod site;

use site::{Reply, Site, recorded};

fn stdout(site: &Site, arguments: &[&str]) -> String {
    let output = site.culvert(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn with_clusters() -> Site {
    let site = Site::start();
    site.signed_in();
    site.answer("GET", "/api/v1/clusters", Reply::json(200, recorded("clusters.json")));
    let all: serde_json::Value = serde_json::from_str(&recorded("clusters.json")).unwrap();
    for cluster in all["items"].as_array().unwrap() {
        let path = format!("/api/v1/clusters/{}", cluster["name"].as_str().unwrap());
        site.answer("GET", &path, Reply::json(200, cluster.to_string()));
    }
    site
}

#[test]
fn a_list_is_golden_in_each_format() {
    let site = with_clusters();
    for format in ["table", "wide", "json", "yaml", "name"] {
        let text = stdout(&site, &["cluster", "list", "-o", format, "--utc"]);
        golden::check(&format!("cluster-list-{format}"), &text);
    }
}

#[test]
fn one_thing_is_golden_in_each_format() {
    let site = with_clusters();
    for format in ["table", "wide", "json", "yaml", "name"] {
        let text = stdout(&site, &["cluster", "get", "factory-graz", "-o", format, "--utc"]);
        golden::check(&format!("cluster-get-{format}"), &text);
    }
    golden::check(
        "cluster-get-locked",
        &stdout(&site, &["cluster", "get", "hospital-with-a-rather-long-name-west", "--utc"]),
    );
}

#[test]
fn json_is_the_api_s_own_shape_and_order() {
    let site = with_clusters();
    let text = stdout(&site, &["cluster", "list", "-o", "json"]);
    let compact: String = text.lines().map(str::trim_start).collect();
    assert_eq!(compact.replace("\": ", "\":"), recorded("clusters.json").trim());
}

#[test]
fn a_table_fits_the_terminal_and_its_golden_file() {
    let site = with_clusters();
    let cut = |columns: &str, format: &str| {
        let output =
            site.culvert(&["cluster", "list", "-o", format, "--utc"]).env("COLUMNS", columns).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    golden::check("cluster-list-60-columns", &cut("60", "table"));
    assert!(cut("60", "table").lines().all(|line| line.chars().count() <= 60));
    assert!(cut("60", "wide").contains("hospital-with-a-rather-long-name-west"));
}

#[test]
fn colour_stands_beside_the_word_and_only_when_asked() {
    let site = with_clusters();
    let list = |name: &str, value: &str| {
        let output = site.culvert(&["cluster", "list"]).env(name, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(list("CLICOLOR_FORCE", "1").contains("\u{1b}[32mconnected\u{1b}[0m"));
    assert!(!list("TERM", "xterm").contains('\u{1b}'), "a pipe gets none");
    let both = site.culvert(&["cluster", "list"]).envs([("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).output();
    assert!(!String::from_utf8(both.unwrap().stdout).unwrap().contains('\u{1b}'));
}

#[test]
fn text_from_the_controller_cannot_steer_the_terminal() {
    let site = Site::start();
    site.signed_in();
    let evil = r#"{"items":[{"id":"cls_1","name":"a\u001b[2J\u202eb\nc","state":"connected","created_at":null}],"next":null}"#;
    site.answer("GET", "/api/v1/clusters", Reply::json(200, evil));
    for format in ["table", "wide", "name"] {
        let text = stdout(&site, &["cluster", "list", "-o", format]);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert_eq!(text.matches("b c").count(), 1, "{text:?}");
    }
}

#[test]
fn pages_are_gathered_and_a_limit_leaves_a_cursor() {
    let site = Site::start();
    site.signed_in();
    site.handle("GET", "/api/v1/clusters", |seen| {
        let page = |name: &str, next: &str| {
            let text = format!(
                r#"{{"items":[{{"id":"cls_{name}","name":"{name}","state":"pending"}}],"next":{next}}}"#
            );
            Reply::json(200, text)
        };
        if seen.query.contains("after=") { page("b", "null") } else { page("a", "\"c1\"") }
    });
    assert_eq!(stdout(&site, &["cluster", "list", "-o", "name"]), "a\nb\n");
    let one: serde_json::Value =
        serde_json::from_str(&stdout(&site, &["cluster", "list", "--limit", "1", "-o", "json"])).unwrap();
    assert_eq!(one["next"], "c1");
    assert!(site.requests().last().unwrap().query.contains("limit=1"));
}

#[test]
fn an_empty_list_says_what_to_do_and_a_program_gets_an_empty_list() {
    let site = Site::start();
    site.signed_in();
    site.answer("GET", "/api/v1/clusters", Reply::json(200, r#"{"items":[],"next":null}"#));
    let output = site.culvert(&["cluster", "list"]).output().unwrap();
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("culvert cluster connect NAME"));
    assert_eq!(stdout(&site, &["cluster", "list", "-o", "name"]), "");
    assert!(stdout(&site, &["cluster", "list", "-o", "json"]).contains("\"items\": []"));
}

#[test]
fn a_golden_diagnosis_tells_cause_and_fix() {
    let site = Site::start();
    site.signed_in();
    site.answer("GET", "/api/v1/clusters/edge/diagnosis", Reply::json(200, recorded("diagnosis.json")));
    let output = site.culvert(&["cluster", "diagnose", "edge", "--utc"]).output().unwrap();
    assert_eq!(output.status.code(), Some(9));
    golden::check("diagnose-stdout", &String::from_utf8(output.stdout).unwrap());
    golden::check("diagnose-stderr", &String::from_utf8(output.stderr).unwrap());
}

#[test]
fn the_api_command_sends_fields_and_shows_what_came() {
    let site = Site::start();
    site.signed_in();
    site.answer("POST", "/api/v1/clusters", Reply::json(201, r#"{"name":"edge","id":"cls_1"}"#));
    let arguments = ["api", "post", "clusters", "--field", "name=edge", "--field", "labels:={\"a\":\"b\"}"];
    assert_eq!(stdout(&site, &arguments), "{\n  \"name\": \"edge\",\n  \"id\": \"cls_1\"\n}\n");
    let seen = site.requests().pop().unwrap();
    assert_eq!(seen.body, r#"{"labels":{"a":"b"},"name":"edge"}"#);
    assert!(seen.headers.contains_key("idempotency-key"));
    let piped = site
        .culvert(&["api", "POST", "/api/v1/clusters", "--data", "-", "-o", "name"])
        .write_stdin("{\"name\":\"edge\"}")
        .output();
    assert_eq!(String::from_utf8(piped.unwrap().stdout).unwrap(), "edge\n");
    assert_eq!(site.requests().pop().unwrap().body, "{\"name\":\"edge\"}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let site = with_clusters();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("culvert"));
    command.env_clear().env("CULVERT_CONFIG", site.config()).args(["cluster", "list"]);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_busy_controller_is_asked_once_more() {
    let site = Site::start();
    site.signed_in();
    let mut calls = 0;
    site.handle("GET", "/api/v1/clusters", move |_| {
        calls += 1;
        let mut busy = Reply::problem(429, "rate_limited", "too many requests");
        busy.headers.push(("retry-after", "1".to_owned()));
        if calls == 1 { busy } else { Reply::json(200, recorded("clusters.json")) }
    });
    assert!(stdout(&site, &["cluster", "list", "-o", "name"]).starts_with("factory-graz\n"));
}
