//! What kubectl gets: a credential made once, and a kubeconfig that loses nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod golden;
mod site;

use std::path::PathBuf;

use culvert_pki::token::BearerToken;
use culvert_pki::{csr, pem};
use jiff::{SignedDuration, Timestamp};
use site::{Reply, Site, mode};

/// Answers certificate requests with the number of the request in place of a certificate.
fn issuing(site: &Site, life: SignedDuration) {
    let mut issued = 0;
    site.handle("POST", "/api/v1/certificates", move |seen| {
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
        let request = pem::request_from_pem(body["csr_pem"].as_str().unwrap()).unwrap();
        csr::public_key(&request).expect("a request that the controller would take");
        assert!(body["ttl_seconds"].as_u64().unwrap() <= 3600);
        issued += 1;
        let not_after = Timestamp::now() + life;
        let answer = serde_json::json!({
            "certificate_pem": format!("certificate {issued}"), "not_after": not_after.to_string(),
        });
        Reply::json(201, answer.to_string())
    });
}

fn credential(site: &Site) -> serde_json::Value {
    let output = site.culvert(&["kube", "credential", "--context", "site"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn kept(site: &Site) -> Vec<PathBuf> {
    let folder = site.config().with_extension("certificates");
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect()
}

#[test]
fn a_credential_is_what_kubectl_expects_and_is_kept() {
    let site = Site::start();
    site.signed_in();
    issuing(&site, SignedDuration::from_hours(1));
    let first = credential(&site);
    assert_eq!(first["apiVersion"], "client.authentication.k8s.io/v1");
    assert_eq!(first["kind"], "ExecCredential");
    assert_eq!(first["status"]["clientCertificateData"], "certificate 1");
    assert!(first["status"]["clientKeyData"].as_str().unwrap().contains("PRIVATE KEY"));
    let until: Timestamp = first["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    let left = until.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_mins(54) && left <= SignedDuration::from_mins(55), "{left:?}");

    assert_eq!(credential(&site), first, "the second time it is the kept one");
    assert_eq!(site.count("POST", "/api/v1/certificates"), 1);
    let files = kept(&site);
    assert_eq!(files.len(), 1);
    assert_eq!(mode(&files[0]), 0o600);
    let sent = site.requests().iter().map(|seen| seen.body.clone()).collect::<String>();
    assert!(!sent.contains("PRIVATE KEY"), "the key stays here");
}

#[test]
fn many_kubectl_at_once_make_one_certificate() {
    let site = Site::start();
    site.signed_in();
    issuing(&site, SignedDuration::from_hours(1));
    let answers: Vec<serde_json::Value> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..8).map(|_| scope.spawn(|| credential(&site))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(site.count("POST", "/api/v1/certificates"), 1);
}

#[test]
fn an_old_a_broken_and_another_session_s_certificate_are_made_anew() {
    let site = Site::start();
    site.signed_in();
    issuing(&site, SignedDuration::from_secs(1));
    credential(&site);
    site::wait_for("the end of a certificate of one second", || {
        let now = credential(&site)["status"]["clientCertificateData"].clone();
        (now != "certificate 1", now)
    });

    issuing(&site, SignedDuration::from_hours(1));
    std::fs::remove_file(&kept(&site)[0]).unwrap();
    credential(&site);
    std::fs::write(&kept(&site)[0], "half a fi").unwrap();
    assert_eq!(credential(&site)["status"]["clientCertificateData"], "certificate 2");

    site.with_token(BearerToken::generate_session().unwrap().expose().as_str());
    assert_eq!(credential(&site)["status"]["clientCertificateData"], "certificate 3");
}

#[test]
fn an_ended_sign_in_is_one_clear_line_and_never_a_question() {
    let site = Site::start();
    site.signed_in();
    site.answer(
        "POST",
        "/api/v1/certificates",
        Reply::problem(401, "session_expired", "the session has ended"),
    );
    let expired = site.culvert(&["kube", "credential", "--context", "site"]).output().unwrap();
    std::fs::remove_file(site.config().with_extension("tokens").join("site")).unwrap();
    let missing = site.culvert(&["kube", "credential", "--context", "site"]).output().unwrap();
    for output in [expired, missing] {
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty());
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "error: culvert: your sign-in has ended; run: culvert login --context site\n"
        );
    }
}

#[test]
fn an_api_token_goes_to_kubectl_as_a_bearer() {
    let site = Site::start();
    let token = BearerToken::generate_api().unwrap().expose().to_string();
    site.with_token(&token);
    assert_eq!(credential(&site)["status"], serde_json::json!({ "token": token }));
    assert!(site.requests().is_empty());
}

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: edge\nclusters:\n- name: edge\n  cluster:\n    \
    server: https://controller.example:443/clusters/cls_1\n    tls-server-name: kube.culvert.internal\n    \
    certificate-authority-data: Q0E=\nusers:\n- name: edge\n  user:\n    exec:\n      apiVersion: \
    client.authentication.k8s.io/v1\n      command: culvert\ncontexts:\n- name: edge\n  context:\n    cluster: edge\n    \
    user: edge\n";

fn with_kubeconfig() -> Site {
    let site = Site::start();
    site.signed_in();
    site.answer("GET", "/api/v1/clusters/edge/kubeconfig", Reply::yaml(KUBECONFIG));
    site
}

#[test]
fn a_kubeconfig_calls_this_program_in_this_context() {
    let site = with_kubeconfig();
    let output = site.culvert(&["cluster", "kubeconfig", "edge", "-o", "json"]).output().unwrap();
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let exec = &config["users"][0]["user"]["exec"];
    assert_eq!(exec["args"], serde_json::json!(["kube", "credential", "--context", "site"]));
    assert_eq!(exec["interactiveMode"], "Never");
    assert_eq!(exec["env"][0]["value"], site.config().to_str().unwrap());
    assert!(exec["command"].as_str().unwrap().ends_with("/culvert"), "{}", exec["command"]);
    assert_eq!(config["clusters"][0]["cluster"]["tls-server-name"], "kube.culvert.internal");
}

#[test]
fn a_golden_merge_keeps_what_was_there() {
    let site = with_kubeconfig();
    let path = site.home.path().join(".kube/config");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let before = "apiVersion: v1\nkind: Config\nx-unknown: {a: '0755', b: 1.5}\npreferences: {}\nclusters:\n- name: home\n  \
        cluster: {server: 'https://home:6443', x-more: yes please}\nusers: []\ncontexts: null\ncurrent-context: home\n";
    std::fs::write(&path, before).unwrap();
    let output = site.culvert(&["cluster", "kubeconfig", "edge", "--merge"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    let home = site.home.path().to_string_lossy().into_owned();
    let program =
        assert_cmd::cargo::cargo_bin!("culvert").canonicalize().unwrap().to_string_lossy().into_owned();
    let merged =
        std::fs::read_to_string(&path).unwrap().replace(&home, "[HOME]").replace(&program, "[CULVERT]");
    golden::check("merged-kubeconfig", &merged);
    assert!(!path.with_file_name("config.lock").exists());
}

#[test]
fn a_file_that_cannot_be_merged_is_not_touched() {
    let site = with_kubeconfig();
    let path = site.home.path().join("config");
    for (before, exit) in [
        ("clusters: [", 1),
        ("- a list", 1),
        ("kind: Pod\n", 1),
        ("clusters: {}\n", 1),
        ("users:\n- name: edge\n  user: {token: mine}\n", 6),
    ] {
        std::fs::write(&path, before).unwrap();
        let output = site.culvert(&["kube", "login", "edge"]).env("KUBECONFIG", &path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{before}: {text}");
        assert!(text.contains("not touched"), "{text}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    }
    let renamed =
        site.culvert(&["kube", "login", "edge", "--as", "prod"]).env("KUBECONFIG", &path).output().unwrap();
    assert!(renamed.status.success(), "{}", String::from_utf8_lossy(&renamed.stderr));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("token: mine") && text.contains("name: prod"), "{text}");
}

#[test]
fn merges_at_once_lose_nothing() {
    let site = with_kubeconfig();
    for n in 0..6 {
        let text = KUBECONFIG.replace("cls_1", &format!("cls_{n}")).replace("edge", &format!("edge-{n}"));
        site.answer("GET", &format!("/api/v1/clusters/edge-{n}/kubeconfig"), Reply::yaml(text));
    }
    std::thread::scope(|scope| {
        for n in 0..6 {
            let site = &site;
            scope.spawn(move || {
                let output = site.culvert(&["kube", "login", &format!("edge-{n}")]).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            });
        }
    });
    let text = std::fs::read_to_string(site.home.path().join(".kube/config")).unwrap();
    for n in 0..6 {
        assert_eq!(text.matches(&format!("/clusters/cls_{n}")).count(), 1, "{text}");
    }
}
