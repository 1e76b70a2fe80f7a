//! Signing in and out: whom the command trusts, where the secrets go and do not go.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod site;

use culvert_pki::token::{BearerToken, SignInCode};
use site::{Reply, Site, mode, write_private};

/// A site that takes one code, and the code.
fn with_code() -> (Site, String) {
    let site = Site::start();
    let code = SignInCode::generate().unwrap().expose().to_string();
    let (expected, token) = (code.clone(), site.token.clone());
    site.handle("POST", "/api/v1/sessions", move |seen| {
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
        if body["code"] == expected.as_str() {
            let session =
                serde_json::json!({"token": token, "expires_at": "2026-11-24T06:00:00Z", "user": {}});
            Reply::json(201, session.to_string())
        } else {
            Reply::problem(401, "code_unknown", "the code is not valid")
        }
    });
    (site, code)
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_pin_and_a_code_make_a_session() {
    let (site, code) = with_code();
    let output = site
        .culvert(&["login", &site.url(), "--pin", &site.pin])
        .write_stdin(format!("{code}\n"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("signed in as ada (admin) at Example"), "{}", text(&output));
    assert!(output.stdout.is_empty(), "a sign-in has no data");

    let name = format!("127.0.0.1-{}", site.address.port());
    let token = site.config().with_extension("tokens").join(&name);
    assert_eq!(std::fs::read_to_string(&token).unwrap(), site.token);
    assert_eq!((mode(&token), mode(token.parent().unwrap()), mode(&site.config())), (0o600, 0o700, 0o600));
    let config = std::fs::read_to_string(site.config()).unwrap();
    assert!(!config.contains("cvs1."), "the list of contexts holds no secret");
    assert!(config.contains(&site.pin) && config.contains("BEGIN CERTIFICATE"));

    for secret in [&code, &site.token] {
        assert!(!text(&output).contains(secret.as_str()), "a secret was shown");
    }
    let whoami = site.culvert(&["whoami", "--utc"]).output().unwrap();
    assert!(String::from_utf8_lossy(&whoami.stdout).contains("ada"), "{}", text(&whoami));
    let bearer = site.requests().pop().unwrap().headers;
    assert_eq!(bearer.get("authorization").unwrap().to_str().unwrap(), format!("Bearer {}", site.token));
}

#[test]
fn a_ca_file_is_as_good_as_a_pin_and_the_environment_as_standard_input() {
    let (site, code) = with_code();
    let ca = site.home.path().join("ca.pem");
    std::fs::write(&ca, &site.ca_pem).unwrap();
    let arguments = ["--context", "mine", "login", &site.url(), "--ca-file", ca.to_str().unwrap()];
    let output = site.culvert(&arguments).env("CULVERT_CODE", &code).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let list = site.culvert(&["context", "list", "-o", "name"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&list.stdout), "mine\n");
    // A second sign-in knows the controller already.
    let again = site.culvert(&["login"]).env("CULVERT_CODE", &code).output().unwrap();
    assert!(again.status.success(), "{}", text(&again));
}

#[test]
fn a_controller_that_nobody_vouched_for_gets_nothing() {
    let (site, code) = with_code();
    let output = site.culvert(&["login", &site.url()]).env("CULVERT_CODE", &code).output().unwrap();
    assert_eq!(output.status.code(), Some(8), "{}", text(&output));
    assert!(
        text(&output).contains(&format!("--pin {}", site.pin)),
        "the next command is whole: {}",
        text(&output)
    );
    assert!(site.requests().is_empty());
    // A blanket yes is no knowledge of the pin.
    let output = site.culvert(&["login", &site.url(), "--yes"]).env("CULVERT_CODE", &code).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert!(site.requests().is_empty());
}

#[test]
fn a_wrong_pin_stops_before_anything_is_sent() {
    let (site, code) = with_code();
    let other = Site::start();
    let output = site
        .culvert(&["login", &site.url(), "--pin", &other.pin])
        .env("CULVERT_CODE", &code)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(8), "{}", text(&output));
    assert!(text(&output).contains("wrong_pin"), "{}", text(&output));
    assert!(site.requests().is_empty() && !site.config().exists());
}

#[test]
fn a_controller_is_reached_by_an_address_that_its_certificate_does_not_name() {
    let site = Site::named(&["culvert.internal"]);
    let token = site.token.clone();
    site.handle("POST", "/api/v1/sessions", move |_| Reply::json(201, format!("{{\"token\":\"{token}\"}}")));
    let code = SignInCode::generate().unwrap().expose().to_string();
    let output = site
        .culvert(&["login", &site.url(), "--pin", &site.pin])
        .env("CULVERT_CODE", &code)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(std::fs::read_to_string(site.config()).unwrap().contains("server_name = \"culvert.internal\""));
    assert!(site.culvert(&["whoami"]).output().unwrap().status.success());
}

#[test]
fn a_refused_code_is_3_and_a_mistyped_one_never_leaves() {
    let (site, _) = with_code();
    let other = SignInCode::generate().unwrap().expose().to_string();
    let arguments = ["login", &site.url(), "--pin", &site.pin];
    let output = site.culvert(&arguments).env("CULVERT_CODE", &other).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("sign-in-code") && !text(&output).contains(&other), "{}", text(&output));

    let before = site.count("POST", "/api/v1/sessions");
    let output = site.culvert(&arguments).env("CULVERT_CODE", "hunter2").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(!text(&output).contains("hunter2"));
    assert_eq!(site.count("POST", "/api/v1/sessions"), before);
}

#[test]
fn an_api_token_from_a_file_or_the_environment_serves_machines() {
    let site = Site::start();
    let token = BearerToken::generate_api().unwrap().expose().to_string();
    let file = site.home.path().join("token");
    write_private(&file, &format!("{token}\n"));
    let arguments = ["login", &site.url(), "--pin", &site.pin, "--token-file", file.to_str().unwrap()];
    let output = site.culvert(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(site.count("POST", "/api/v1/sessions"), 0);

    let other = BearerToken::generate_api().unwrap().expose().to_string();
    site.culvert(&["whoami"]).env("CULVERT_API_TOKEN", &other).output().unwrap();
    let sent =
        site.requests().pop().unwrap().headers.get("authorization").unwrap().to_str().unwrap().to_owned();
    assert_eq!(sent, format!("Bearer {other}"));

    let broken = site.culvert(&["whoami"]).env("CULVERT_API_TOKEN", "cva1.half").output().unwrap();
    assert_eq!(broken.status.code(), Some(3));
    assert!(!text(&broken).contains("cva1.half"), "{}", text(&broken));
}

#[test]
fn a_token_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::start();
    site.signed_in();
    let token = site.config().with_extension("tokens").join("site");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = site.culvert(&["whoami"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("chmod 600"), "{}", text(&output));
    assert!(site.requests().is_empty());
}

#[test]
fn signing_out_ends_the_session_there_and_here() {
    let site = Site::start();
    site.signed_in();
    site.answer("DELETE", "/api/v1/sessions/current", Reply::json(204, ""));
    let output = site.culvert(&["logout"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(site.count("DELETE", "/api/v1/sessions/current"), 1);
    assert!(!site.config().with_extension("tokens").join("site").exists());
    assert!(site.culvert(&["logout"]).output().unwrap().status.success(), "twice is fine");
}

#[test]
fn a_sign_out_that_cannot_be_told_is_an_error_unless_it_is_local() {
    let site = Site::start();
    site.signed_in();
    site.answer("DELETE", "/api/v1/sessions/current", Reply::problem(500, "internal", "internal error"));
    let token = site.config().with_extension("tokens").join("site");
    assert_eq!(site.culvert(&["logout"]).output().unwrap().status.code(), Some(1));
    assert!(token.exists(), "the session is still open, so it is still known");
    assert!(site.culvert(&["logout", "--local"]).output().unwrap().status.success());
    assert!(!token.exists());
}

#[test]
fn verbose_shows_requests_and_no_secret() {
    let (site, code) = with_code();
    let arguments = ["login", &site.url(), "--pin", &site.pin, "--verbose"];
    let output = site.culvert(&arguments).env("CULVERT_CODE", &code).output().unwrap();
    assert!(text(&output).contains("POST /api/v1/sessions → 201"), "{}", text(&output));
    assert!(!text(&output).contains(&code) && !text(&output).contains(&site.token));
}

#[test]
fn a_redirect_is_not_followed() {
    let site = Site::start();
    site.signed_in();
    let mut away = Reply::json(307, "");
    away.headers.push(("location", "https://elsewhere.example/".to_owned()));
    site.answer("GET", "/api/v1/me", away);
    let output = site.culvert(&["whoami"]).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(site.requests().len(), 1);
}
