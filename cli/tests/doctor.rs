//! `doctor`: each check against a controller that is well, and the first that fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod site;

use site::{Reply, Site, culvert};

fn checks(output: &std::process::Output) -> Vec<(String, String, String)> {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let rows = report["checks"].as_array().unwrap().iter();
    rows.map(|check| (text(check, "check"), text(check, "result"), text(check, "detail"))).collect()
}

fn result<'c>(checks: &'c [(String, String, String)], name: &str) -> (&'c str, &'c str) {
    let found = checks.iter().find(|(check, _, _)| check == name);
    found
        .map(|(_, result, detail)| (result.as_str(), detail.as_str()))
        .unwrap_or_else(|| panic!("no {name}: {checks:?}"))
}

#[test]
fn all_is_well() {
    let site = Site::start();
    site.signed_in();
    let output = site.culvert(&["doctor", "-o", "json"]).output().unwrap();
    let checks = checks(&output);
    assert!(output.status.success(), "{checks:?}");
    for name in ["controller", "proxy", "name", "connection", "TLS", "clock", "version", "sign-in"] {
        assert_eq!(result(&checks, name).0, "ok", "{checks:?}");
    }
    assert!(result(&checks, "TLS").1.contains(&site.pin));
    assert_eq!(result(&checks, "kubectl").0, "warning", "there is no PATH");
}

#[test]
fn a_wrong_ca_is_found_at_tls_and_nothing_after_it_is_claimed() {
    let (site, other) = (Site::start(), Site::start());
    site.signed_in();
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace(site.ca_pem.trim(), other.ca_pem.trim())).unwrap();
    let output = site.culvert(&["doctor", "-o", "json"]).output().unwrap();
    let checks = checks(&output);
    assert_eq!(output.status.code(), Some(8), "{checks:?}");
    assert_eq!(result(&checks, "connection").0, "ok");
    assert_eq!(result(&checks, "TLS").0, "failed");
    assert_eq!(result(&checks, "sign-in").0, "skipped");
}

#[test]
fn an_ended_session_is_3() {
    let site = Site::start();
    site.signed_in();
    site.answer("GET", "/api/v1/me", Reply::problem(401, "session_expired", "the session has ended"));
    let output = site.culvert(&["doctor"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("culvert login"), "{text}");
}

#[test]
fn a_proxy_is_named_and_a_dead_one_is_the_first_failure() {
    let site = Site::start();
    site.signed_in();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = site
        .culvert(&["doctor", "-o", "json"])
        .env("HTTPS_PROXY", format!("http://{free}"))
        .output()
        .unwrap();
    let checks = checks(&output);
    assert_eq!(output.status.code(), Some(8), "{checks:?}");
    assert!(result(&checks, "proxy").1.contains(&free.to_string()));
    assert_eq!(result(&checks, "connection").0, "failed");
}

#[test]
fn before_the_first_login_the_pin_is_shown() {
    let site = Site::start();
    let output = site.culvert(&["doctor", &site.url(), "-o", "json"]).output().unwrap();
    let checks = checks(&output);
    assert!(output.status.success(), "{checks:?}");
    assert_eq!(result(&checks, "TLS").0, "warning");
    assert!(result(&checks, "TLS").1.contains(&site.pin));
    assert!(site.requests().is_empty());
}

#[test]
fn an_inspecting_proxy_is_named_by_its_issuer() {
    let stranger = stranger_s_server();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("https://127.0.0.1:{}", stranger.port());
    let output = culvert(&["doctor", &url, "-o", "json"]).env("HOME", folder.path()).output().unwrap();
    let checks = checks(&output);
    assert_eq!(output.status.code(), Some(8), "{checks:?}");
    assert!(result(&checks, "TLS").1.contains("Example Inspection CA"), "{checks:?}");
}

/// A TLS server with a certificate of somebody else's CA.
fn stranger_s_server() -> std::net::SocketAddr {
    use rcgen::{CertificateParams, DnType, KeyPair};
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Example Inspection CA");
    let certificate = params.self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut tls = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
            // The client refuses the certificate, which is an error here and the point there.
            let _ = tls.complete_io(&mut stream);
        }
    });
    address
}
