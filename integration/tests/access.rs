//! Story: who may pass the gateway, for how long, and that nothing written into a
//! request leads anywhere else.

use std::time::Duration;

use anyhow::ensure;
use culvert_integration::stage::{Stage, ground};
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// What a watch of the shared cluster always has something to say about.
const WATCH: &str = "/api/v1/namespaces/kube-system/configmaps?watch=1";

/// The longest that a live stream may outlive its right.
const CUT: Duration = Duration::from_secs(5);

/// The gateway's own refusals look like Kubernetes' to a client of Kubernetes.
fn is_status(body: &Value, code: StatusCode) -> anyhow::Result<()> {
    ensure!(
        body["kind"] == "Status" && body["apiVersion"] == "v1" && body["code"] == code.as_u16(),
        "{body}"
    );
    ensure!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    Ok(())
}

#[tokio::test]
async fn nobody_and_strangers_do_not_pass() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let (_, token) = stage.admin.api_token("ci", "admin").await?;
    stage.gateway(&site.cluster, &token)?.get("/version").await?.ok()?;
    let mut almost = token.clone();
    let last = almost.pop();
    almost.push(if last == Some('A') { 'B' } else { 'A' });
    let join = stage.admin.join_token(&site.cluster).await?;
    let long = "x".repeat(9000);
    for stranger in ["", "nonsense", &almost, &join, &long] {
        let answer = stage.gateway(&site.cluster, stranger)?.get("/version").await?;
        ensure!(answer.status == StatusCode::UNAUTHORIZED, "{stranger:.20}: {answer:?}");
        is_status(&answer.body, answer.status)?;
        let answer = stage.admin.with_bearer(stranger).get("/clusters").await?;
        ensure!(answer.status == StatusCode::UNAUTHORIZED, "{stranger:.20}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_does_not_govern() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let cluster = stage.admin.cluster_create("plant").await?;
    let (id, token) = stage.admin.api_token("viewer", "reader").await?;
    let reader = stage.admin.with_bearer(&token);
    reader.get("/clusters").await?.ok()?;
    let path = |rest: &str| format!("/clusters/{cluster}{rest}");
    for (method, path, body) in [
        (Method::POST, "/clusters".to_owned(), json!({ "name": "mine" })),
        (Method::POST, path("/join-tokens"), json!({})),
        (Method::PUT, path("/lock"), json!({ "message": "x" })),
        (Method::DELETE, path(""), Value::Null),
        (
            Method::POST,
            "/api-tokens".to_owned(),
            json!({ "name": "up", "role": "admin", "ttl_seconds": 600 }),
        ),
        (Method::DELETE, format!("/api-tokens/{id}"), Value::Null),
    ] {
        let answer = reader.request(method.clone(), &path).json(&body).send().await?;
        ensure!(answer.status() == StatusCode::FORBIDDEN, "{method} {path}: {}", answer.status());
        let problem: Value = answer.json().await?;
        ensure!(problem["code"].is_string() && problem["detail"].is_string(), "{method} {path}: {problem}");
    }
    stage.admin.get(&path("")).await?.ok().map(drop)
}

#[tokio::test]
async fn a_revoked_token_is_cut_off() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let (id, token) = stage.admin.api_token("ci", "reader").await?;
    let (_, other) = stage.admin.api_token("other", "reader").await?;
    let (gateway, bystander) = (stage.gateway(&site.cluster, &token)?, stage.gateway(&site.cluster, &other)?);
    let (watch, undisturbed) = (gateway.watch(WATCH).await?, bystander.watch(WATCH).await?);
    stage.admin.delete(&format!("/api-tokens/{id}")).await?.ok()?;
    watch.cut(CUT).await?;
    let answer = gateway.get("/version").await?;
    ensure!(answer.status == StatusCode::UNAUTHORIZED, "{answer:?}");
    ensure!(undisturbed.cut(Duration::from_millis(300)).await.is_err(), "a bystander was cut as well");
    Ok(())
}

#[tokio::test]
async fn a_session_ends_with_its_sign_out() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let code = stage.admin.post("/sign-in-codes", &json!({})).await?.ok()?;
    let code = code["code"].as_str().unwrap_or_default().to_owned();
    let second = stage.controller.api().await?.sign_in(&code).await?;
    ensure!(stage.controller.api().await?.sign_in(&code).await.is_err(), "a code was good twice");
    let watch = stage.gateway(&site.cluster, second.bearer())?.watch(WATCH).await?;
    second.delete("/sessions/current").await?.ok()?;
    watch.cut(CUT).await?;
    ensure!(second.get("/me").await?.status == StatusCode::UNAUTHORIZED);
    stage.admin.get("/me").await?.ok().map(drop)
}

#[tokio::test]
async fn a_session_that_runs_out_ends_what_it_began() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let code = stage.admin.post("/sign-in-codes", &json!({})).await?.ok()?;
    let second = stage.controller.api().await?.sign_in(code["code"].as_str().unwrap_or_default()).await?;
    let soon = (time::OffsetDateTime::now_utc().unix_timestamp() + 4) * 1000;
    let newest = "(SELECT id FROM sessions ORDER BY created_at DESC LIMIT 1)";
    stage.controller.rewrite(&format!("UPDATE sessions SET expires_at = {soon} WHERE id = {newest}")).await?;
    let watch = stage.gateway(&site.cluster, second.bearer())?.watch(WATCH).await?;
    watch.cut(Duration::from_secs(4) + CUT).await?;
    ensure!(second.get("/me").await?.status == StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn a_cluster_of_others_does_not_exist() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let gateway = stage.gateway_as_admin(&site.cluster)?;
    let theirs = stage.cluster_of_another_org("theirs").await?;
    for cluster in [theirs.as_str(), "theirs", "nothing-like-it", "cls_00000000000000000000000000"] {
        let answer = gateway.at(cluster).get("/version").await?;
        ensure!(answer.status == StatusCode::NOT_FOUND, "{cluster}: {answer:?}");
        is_status(&answer.body, answer.status)?;
        for rest in ["", "/diagnosis", "/join-tokens", "/kubeconfig?exec=culvert"] {
            let answer = stage.admin.get(&format!("/clusters/{cluster}{rest}")).await?;
            ensure!(answer.status == StatusCode::NOT_FOUND, "{cluster}{rest}: {answer:?}");
        }
        ensure!(stage.admin.delete(&format!("/clusters/{cluster}")).await?.status == StatusCode::NOT_FOUND);
    }
    let all = stage.admin.get("/clusters").await?.ok()?;
    ensure!(!all.to_string().contains(&theirs), "{all}");
    Ok(())
}

#[tokio::test]
async fn nobody_becomes_another_by_a_header() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let (_, token) = stage.admin.api_token("viewer", "reader").await?;
    let reader = stage.gateway(&site.cluster, &token)?;
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    for header in [
        ("impersonate-user", "admin"),
        ("Impersonate-Group", "system:masters"),
        ("impersonate-extra-scopes", "x"),
    ] {
        let answer = reader.send(Method::POST, path, &[header], Some(&review)).await?;
        ensure!(answer.status == StatusCode::FORBIDDEN, "{header:?}: {answer:?}");
        is_status(&answer.body, answer.status)?;
        ensure!(
            answer.body["message"].as_str().is_some_and(|text| text.contains("impersonat")),
            "{answer:?}"
        );
    }
    // What a front proxy would say of its callers is not heard.
    let front = [
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
        ("x-forwarded-client-cert", "x"),
        ("connection", "keep-alive, impersonate-user"),
    ];
    let answer = reader.send(Method::POST, path, &front, Some(&review)).await?;
    ensure!(answer.body["status"]["userInfo"]["username"] == "culvert:token:viewer", "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_path_leads_where_it_says_or_nowhere() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let theirs = stage.cluster_of_another_org("theirs").await?;
    let (_, token) = stage.admin.api_token("viewer", "reader").await?;
    let reader = stage.gateway(&site.cluster, &token)?;
    let here = format!("/clusters/{}", site.cluster);
    for path in [
        format!("{here}/api/v1/../../version"),
        format!("{here}/%2e%2e/{theirs}/version"),
        format!("{here}/../{theirs}/version"),
        format!("{here}//api/v1/namespaces"),
        format!("{here}/api/v1/namespaces/default/configmaps/..%2f..%2fkube-system%2fsecrets"),
        format!("{here}/api/v1/namespaces/default/configmaps/%2e%2e/secrets"),
        format!("{here}/api/v1/namespaces/default/configmaps/a%5c..%5c..%5csecrets"),
        format!("{here}/api/v1/%6eamespaces/default/./secrets"),
        format!("{here}/api/v1/namespaces/default/configmaps/a%00b"),
        format!("{here}/api/v1/namespaces/default/configmaps/%zz"),
        format!("/clusters//{}/version", site.cluster),
        format!("/clusters/{theirs}/../{}/version", site.cluster),
        "/clusters/".to_owned(),
        "/api/v1/namespaces".to_owned(),
        "/version".to_owned(),
    ] {
        let answer = reader.raw(Method::GET, &path, &[], None).await?;
        ensure!(answer.status.is_client_error(), "{path}: {answer:?}");
        is_status(&answer.body, answer.status)?;
    }
    // Names that merely look odd are names.
    let odd = reader.get("/api/v1/namespaces/default/configmaps/a..b%2dc").await?;
    ensure!(odd.status == StatusCode::NOT_FOUND && odd.body["details"]["name"] == "a..b-c", "{odd:?}");
    Ok(())
}

#[tokio::test]
async fn the_record_names_who_did_what() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let (_, token) = stage.admin.api_token("viewer", "reader").await?;
    let reader = stage.gateway(&site.cluster, &token)?;
    reader.get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt").await?;
    reader.get("/api/v1/namespaces/default/secrets").await?;
    let spool = stage.controller.path("audit/gateway.jsonl");
    let lines = culvert_integration::wait::until(Duration::from_secs(10), || async {
        let text = std::fs::read_to_string(&spool)?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        ensure!(lines.iter().any(|line| line["resource"] == "secrets"), "{text}");
        Ok(lines)
    })
    .await?;
    let found =
        |resource: &str| lines.iter().find(|line| line["resource"] == resource).cloned().unwrap_or_default();
    let read = found("configmaps");
    ensure!(read["verb"] == "get" && read["namespace"] == "default" && read["status"] == 200, "{read}");
    ensure!(read["name"] == "kube-root-ca.crt" && read.to_string().contains("viewer"), "{read}");
    let denied = found("secrets");
    ensure!(denied["verb"] == "list" && denied["status"] == 403, "{denied}");
    ensure!(!lines.iter().any(|line| line.to_string().contains(&token)), "the record shows a token");
    Ok(())
}
