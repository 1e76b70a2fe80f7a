//! The table of exit codes, each shown by a command that ends with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod golden;
mod site;

use site::{Reply, Site, culvert};

/// Runs and gives exit code and standard error.
fn end(command: &mut assert_cmd::Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn each_answer_of_the_api_has_its_exit_code() {
    let site = Site::start();
    site.signed_in();
    let table = [
        (400, 2),
        (401, 3),
        (403, 4),
        (404, 5),
        (409, 6),
        (412, 6),
        (422, 2),
        (429, 1),
        (500, 1),
        (502, 8),
        (503, 8),
        (504, 8),
    ];
    for (status, exit) in table {
        site.answer("GET", "/api/v1/agents/agt_1", Reply::problem(status, "some_code", "some title"));
        let (code, text) = end(&mut site.culvert(&["agent", "get", "agt_1"]));
        assert_eq!(code, exit, "{status}: {text}");
        assert!(text.contains("req_test"), "a request id can be quoted: {text}");
        assert!(text.contains("some_code"), "{text}");
    }
}

#[test]
fn a_golden_error_says_what_why_field_next_and_request() {
    let site = Site::start();
    site.signed_in();
    let body = r#"{"type":"about:blank","title":"the request is not valid","status":400,"detail":"one field is wrong",
        "code":"invalid","request_id":"req_1","errors":[{"field":"name","code":"format","detail":"has capitals"}],
        "next":"choose another name"}"#;
    site.answer("POST", "/api/v1/clusters", Reply::json(400, body));
    let (code, text) = end(&mut site.culvert(&["cluster", "create", "Edge"]));
    assert_eq!(code, 2);
    golden::check("error", &text);
}

#[test]
fn usage_is_2() {
    for arguments in [
        &["cluster"][..],
        &["nonsense"],
        &["cluster", "list", "--state", "odd"],
        &["cluster", "get"],
        &["api", "FETCH", "x"],
        &["api", "POST", "x", "--data", "{}"],
        &["--timeout", "1w", "version"],
        &["login", "http://plain.example"],
        &["login"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (code, text) = end(culvert(arguments).env("HOME", folder.path()));
        assert_eq!(code, 2, "{arguments:?}: {text}");
    }
}

#[test]
fn no_session_is_3_and_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = end(culvert(&["cluster", "list"]).env("HOME", folder.path()));
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("culvert login URL"), "{text}");

    let site = Site::start();
    site.signed_in();
    std::fs::remove_file(site.config().with_extension("tokens").join("site")).unwrap();
    let (code, text) = end(&mut site.culvert(&["cluster", "list"]));
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("culvert login"), "{text}");
    assert!(site.requests().is_empty());
}

#[test]
fn an_unknown_context_is_5() {
    let site = Site::start();
    site.signed_in();
    for arguments in
        [&["--context", "odd", "whoami"][..], &["context", "use", "odd"], &["context", "delete", "odd"]]
    {
        assert_eq!(end(&mut site.culvert(arguments)).0, 5, "{arguments:?}");
    }
}

#[test]
fn a_deletion_without_a_yes_is_2_and_with_it_0() {
    let site = Site::start();
    site.signed_in();
    let cluster = r#"{"id":"cls_1","name":"edge","state":"pending"}"#;
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, cluster));
    site.answer("DELETE", "/api/v1/clusters/cls_1", Reply::json(204, ""));
    let (code, text) = end(&mut site.culvert(&["cluster", "delete", "edge"]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--yes"), "{text}");
    assert_eq!(site.count("DELETE", "/api/v1/clusters/cls_1"), 0);
    assert_eq!(end(&mut site.culvert(&["cluster", "delete", "edge", "--yes"])).0, 0);
    assert_eq!(site.count("DELETE", "/api/v1/clusters/cls_1"), 1);
}

#[test]
fn a_wait_that_ends_is_7_and_says_how_to_go_on() {
    let site = Site::start();
    site.signed_in();
    let cluster = r#"{"id":"cls_1","name":"edge","state":"pending"}"#;
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, cluster));
    site.answer("GET", "/api/v1/clusters/cls_1", Reply::json(200, cluster));
    site.answer(
        "GET",
        "/api/v1/clusters/cls_1/diagnosis",
        Reply::json(200, r#"{"state":"pending","lights":[],"attempts":[]}"#),
    );
    site.answer("GET", "/api/v1/events", Reply::stream(&[]));
    let (code, text) = end(&mut site.culvert(&["cluster", "connect", "edge", "--follow", "--timeout", "1s"]));
    assert_eq!(code, 7, "{text}");
    assert!(text.contains("culvert cluster connect edge --follow"), "{text}");
    let arguments = ["cluster", "watch", "edge", "--until", "connected", "--timeout", "1s"];
    assert_eq!(end(&mut site.culvert(&arguments)).0, 7);
}

#[test]
fn unreachable_and_untrusted_are_8() {
    let site = Site::start();
    site.signed_in();
    let text = std::fs::read_to_string(site.config()).unwrap();
    let port = site.address.port().to_string();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    std::fs::write(site.config(), text.replace(&port, &free)).unwrap();
    let (code, told) = end(&mut site.culvert(&["cluster", "list"]));
    assert_eq!(code, 8, "{told}");
    assert!(told.contains("refused"), "{told}");

    let other = Site::start();
    std::fs::write(site.config(), text.replace(site.ca_pem.trim(), other.ca_pem.trim())).unwrap();
    let (code, told) = end(&mut site.culvert(&["cluster", "list"]));
    assert_eq!(code, 8, "{told}");
    assert!(told.contains("wrong_pin") && told.contains(&site.pin), "{told}");
    assert!(site.requests().is_empty(), "nothing was sent to a controller that is not trusted");
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let site = Site::start();
    site.signed_in();
    let (code, text) = end(site.culvert(&["whoami"]).env("HTTPS_PROXY", "http://127.0.0.1:9"));
    assert_eq!(code, 8, "{text}");
    assert!(text.contains("culvert doctor") || text.contains("HTTPS_PROXY"), "{text}");
}

#[test]
fn ctrl_c_while_following_is_130_and_says_how_to_go_on() {
    let site = Site::start();
    site.signed_in();
    let cluster = r#"{"id":"cls_1","name":"edge","state":"pending"}"#;
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, cluster));
    site.answer(
        "GET",
        "/api/v1/clusters/cls_1/diagnosis",
        Reply::json(200, r#"{"state":"pending","lights":[],"attempts":[]}"#),
    );
    site.answer("GET", "/api/v1/events", Reply::stream(&[]));
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("culvert"))
        .args(["cluster", "connect", "edge", "--follow"])
        .env_clear()
        .env("CULVERT_CONFIG", site.config())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    site::wait_for("the stream", || (site.count("GET", "/api/v1/events") > 0, site.requests().len()));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("culvert cluster connect edge --follow"), "{text}");
}
