//! Story: a cluster enrols with one token, and Kubernetes answers through the tunnel,
//! to each person as themselves.

use anyhow::{Context, ensure};
use culvert_integration::gateway::Gateway;
use culvert_integration::postgres::Postgres;
use culvert_integration::stage::{Ground, Stage, ground, succeeded};
use http::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn one_token_connects_a_cluster() -> anyhow::Result<()> {
    enrols(&Stage::open().await?, ground().await?).await
}

#[tokio::test]
async fn on_postgresql_it_is_the_same() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let stage = Stage::open_with(&format!("[database]\nurl = \"{}\"\n", postgres.url())).await?;
    enrols(&stage, ground().await?).await
}

async fn enrols(stage: &Stage, ground: &Ground) -> anyhow::Result<()> {
    let (cluster, agent) = stage.newcomer("plant", ground).await?;
    let before = stage.admin.diagnosis(&cluster).await?;
    ensure!(before["state"] == "pending" && lights(&before) == ["off"; 6], "{before:#}");

    let enrolled = stage.enrol_as(cluster, agent).await?;
    let facts = facts_told(stage, &enrolled.cluster).await?;
    let direct: Value = serde_json::from_str(&ground.plane.get(&["get", "--raw", "/version"]).await?)?;
    ensure!(facts["kubernetes_version"] == direct["gitVersion"], "{facts} is not {direct}");
    ensure!(
        facts["route"] == "direct" && facts["problem"].as_str().unwrap_or_default().is_empty(),
        "{facts}"
    );
    let namespace = ["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"];
    ensure!(facts["cluster_uid"] == ground.plane.get(&namespace).await?, "{facts}");

    agent_is_described(stage, &enrolled.cluster).await?;
    token_is_spent(stage, &enrolled.cluster).await?;
    let after = stage.admin.diagnosis(&enrolled.cluster).await?;
    ensure!(after["state"] == "connected" && lights(&after) == ["on"; 6], "{after:#}");
    ensure!(after["attempts"][0]["outcome"] == "passed", "{after:#}");

    let person = Gateway::person(stage.controller.address(), &stage.admin, &enrolled.cluster, 600).await?;
    ensure!(person.get("/version").await?.ok()? == direct);
    Ok(())
}

/// The facts of the cluster, once its agent has told them.
async fn facts_told(stage: &Stage, cluster: &str) -> anyhow::Result<Value> {
    let limit = std::time::Duration::from_secs(15);
    culvert_integration::wait::until(limit, || async {
        let cluster = stage.admin.get(&format!("/clusters/{cluster}")).await?.ok()?;
        ensure!(cluster["facts"].is_object(), "no facts: {cluster}");
        Ok(cluster["facts"].clone())
    })
    .await
}

async fn agent_is_described(stage: &Stage, cluster: &str) -> anyhow::Result<()> {
    let agent = stage.admin.agent_of(cluster).await?;
    ensure!(agent["state"] == "connected" && agent["version"] == env!("CARGO_PKG_VERSION"), "{agent}");
    ensure!(agent["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1")), "{agent}");
    ensure!(agent["epoch"].as_u64() >= Some(1), "{agent}");
    let moment = |field: &str| {
        let text = agent[field].as_str().with_context(|| format!("no {field}: {agent}"))?;
        anyhow::Ok(time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)?)
    };
    let life = moment("certificate_not_after")? - moment("enrolled_at")?;
    ensure!((life - time::Duration::hours(24)).abs() < time::Duration::minutes(1), "a certificate of {life}");
    let by_id =
        stage.admin.get(&format!("/agents/{}", agent["id"].as_str().unwrap_or_default())).await?.ok()?;
    ensure!(by_id["cluster_id"] == cluster, "{by_id}");
    Ok(())
}

async fn token_is_spent(stage: &Stage, cluster: &str) -> anyhow::Result<()> {
    let tokens = stage.admin.get(&format!("/clusters/{cluster}/join-tokens")).await?.ok()?;
    let token = &tokens["items"][0];
    ensure!(token["state"] == "used" && token["used_from"].is_string(), "{tokens}");
    ensure!(!tokens.to_string().contains("cvj1."), "a listed token shows its secret: {tokens}");
    Ok(())
}

fn lights(diagnosis: &Value) -> Vec<&str> {
    let lights = diagnosis["lights"].as_array().map(Vec::as_slice).unwrap_or_default();
    lights.iter().filter_map(|light| light["state"].as_str()).collect()
}

#[tokio::test]
async fn people_arrive_under_their_own_names() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let enrolled = stage.enrol("plant", ground).await?;
    let me = stage.admin.get("/me").await?.ok()?;

    let person = Gateway::person(stage.controller.address(), &stage.admin, &enrolled.cluster, 600).await?;
    let who = person.who().await?;
    ensure!(
        who["username"] == format!("culvert:{}", me["user"]["name"].as_str().unwrap_or_default()),
        "{who}"
    );
    ensure!(has(&who["groups"], "culvert:admins") && has(&who["groups"], "system:authenticated"), "{who}");
    ensure!(!has(&who["groups"], "system:masters"), "{who}");
    ensure!(who["extra"]["culvert.dev/org"] == json!([me["org"]["id"]]), "{who} {me}");
    ensure!(
        who["extra"]["culvert.dev/request-id"][0].as_str().is_some_and(|id| id.starts_with("req_")),
        "{who}"
    );

    let (_, token) = stage.admin.api_token("ci", "admin").await?;
    let machine = stage.gateway(&enrolled.cluster, &token)?.who().await?;
    ensure!(
        machine["username"] == "culvert:token:ci" && has(&machine["groups"], "culvert:admins"),
        "{machine}"
    );

    let kubeconfig = stage.person_kubeconfig(&enrolled.cluster, &stage.admin).await?;
    let whoami = ground.plane.kubectl_as(&kubeconfig, &["auth", "whoami", "-o", "json"]).await?;
    let whoami: Value = serde_json::from_str(&succeeded(&whoami)?)?;
    ensure!(whoami["status"]["userInfo"]["username"] == who["username"], "{whoami}");
    Ok(())
}

#[tokio::test]
async fn a_reader_may_look_and_not_touch() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let enrolled = stage.enrol("plant", ground).await?;
    let space = ground.plane.namespace("reader").await?;
    let (_, token) = stage.admin.api_token("viewer", "reader").await?;
    let reader = stage.gateway(&enrolled.cluster, &token)?;

    reader.get(&format!("/api/v1/namespaces/{}/configmaps", space.name())).await?.ok()?;
    let secrets = reader.get(&format!("/api/v1/namespaces/{}/secrets", space.name())).await?;
    ensure!(secrets.status == StatusCode::FORBIDDEN, "{secrets:?}");
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "made" } });
    let configmaps = format!("/api/v1/namespaces/{}/configmaps", space.name());
    let made = reader.post(&configmaps, &map).await?;
    ensure!(made.status == StatusCode::FORBIDDEN, "{made:?}");
    // It is the cluster's own RBAC that says so, and it names the person.
    ensure!(
        made.body["message"].as_str().is_some_and(|text| text.contains("culvert:token:viewer")),
        "{made:?}"
    );

    stage.gateway_as_admin(&enrolled.cluster)?.post(&configmaps, &map).await?.ok()?;
    reader.get(&format!("{configmaps}/made")).await?.ok()?;
    Ok(())
}

fn has(list: &Value, wanted: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|one| one == wanted))
}
