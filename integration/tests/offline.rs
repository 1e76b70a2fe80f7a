//! Story: the tunnel is down, and nothing waits for it. Databases serve, schedules fire,
//! what is edited with kubectl comes true; on return the control plane catches up, makes
//! nothing twice, and takes nothing back.

use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::Agent;
use culvert_integration::api::Api;
use culvert_integration::data_plane::{DataPlane, Service};
use culvert_integration::stage::{Enrolled, Stage, agent_kubeconfig};
use culvert_integration::wait;
use culvert_resources::{Backup, BackupPhase, meta};
use serde_json::{Value, json};

/// How long the control plane may take to see what is in a cluster.
const SEEN: Duration = Duration::from_secs(90);

/// A schedule's minute, and the time of a small backup.
const FIRED: Duration = Duration::from_secs(150);

/// Enrols the shared cluster with an agent that has the rights of its chart.
async fn enrol(stage: &Stage, plane: &DataPlane) -> anyhow::Result<Enrolled> {
    let kubeconfig = agent_kubeconfig(plane.cluster()).await?;
    let cluster = stage.admin.cluster_create("edge").await?;
    let token = stage.admin.join_token(&cluster).await?;
    // The agent is a process beside the cluster, and does not know its names.
    let operator =
        ["-n", "culvert-operator", "get", "service", "culvert-operator", "-o", "jsonpath={.spec.clusterIP}"];
    let operator = plane.cluster().get(&operator).await?;
    let agent = Agent::new(&stage.controller, &kubeconfig, &token)?;
    stage.enrol_as(cluster, agent.flag("--operator-metrics", format!("http://{operator}:9181/metrics"))).await
}

/// Waits until the operator's own figures are known, none of them a problem.
async fn operator_told(api: &Api, cluster: &str) -> anyhow::Result<()> {
    wait::until(SEEN, || async {
        let told = api.get(&format!("/clusters/{cluster}/metrics?since=10m")).await?.ok()?;
        let series = told["series"].as_array().context("no series")?;
        let leads = series.iter().any(|one| one["name"] == "culvert_operator_leading");
        ensure!(leads && told["problems"] == json!([]), "{told:#}");
        Ok(())
    })
    .await
}

/// Waits until the control plane shows a fresh service in a state.
async fn shown(api: &Api, id: &str, state: &str) -> anyhow::Result<Value> {
    let path = format!("/data-services/{id}");
    wait::until(SEEN, || async {
        let service = api.get(&path).await?.ok()?;
        ensure!(service["state"] == state && service["stale"] == false, "{service}");
        Ok(service)
    })
    .await
}

/// The backups that a schedule has made and that are complete.
async fn complete(plane: &DataPlane, service: &Service<'_>, schedule: &str) -> anyhow::Result<Vec<String>> {
    let label = format!("{}={schedule}", meta::SCHEDULE);
    let of_it = kube::api::ListParams::default().labels(&label);
    let backups = plane.objects::<Backup>(service.namespace())?.list(&of_it).await?;
    let done = |backup: &Backup| {
        backup.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Complete)
    };
    Ok(backups.into_iter().filter(done).filter_map(|backup| backup.metadata.name).collect())
}

/// A backup every minute into a store of the story's own.
async fn schedule(plane: &DataPlane, service: &Service<'_>, target: &str) -> anyhow::Result<()> {
    let spec = json!({"service": service.name(), "target": target, "cron": "* * * * *", "method": "logical"});
    plane.apply(service.namespace(), "BackupSchedule", "minutely", &spec).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_without_its_control_plane() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let mut stage = Stage::open().await?;
    let edge = enrol(&stage, plane).await?;
    let namespace = plane.cluster().namespace("offline").await?;
    let store = plane.store("backups").await?;
    let wish = json!({
        "name": "orders", "cluster": edge.cluster, "namespace": namespace.name(),
        "spec": {
            "engine": "postgresql", "version": "17",
            "resources": {"cpu": "50m", "memory": "256Mi"}, "deletion": {"strategy": "Delete"},
        },
    });
    let made = stage.admin.post("/data-services", &wish).await?.ok()?;
    let id = made["data_service"]["id"].as_str().context("a data service without an id")?.to_owned();
    shown(&stage.admin, &id, "ready").await?;
    operator_told(&stage.admin, &edge.cluster).await?;
    let service = plane.service(namespace.name(), "orders");
    plane.target(namespace.name(), "vault", &store, "backups").await?;
    service.sql("create table seen (at text)").await?;
    schedule(plane, &service, "vault").await?;

    // The control plane is gone as by a power cut, and the agent with it.
    stage.controller.kill().await?;
    let before = complete(plane, &service, "minutely").await?.len();
    service.sql("insert into seen values ('while it was down')").await?;
    service.change(&json!({"parameters": {"work_mem": "9MB"}})).await?;
    let edited = || async {
        let value = service.sql("show work_mem").await?;
        ensure!(value.trim() == "9MB", "work_mem is {value}");
        Ok(())
    };
    plane.explained(wait::until(SEEN, edited).await, namespace.name()).await?;
    let fired = || async {
        let now = complete(plane, &service, "minutely").await?;
        ensure!(now.len() > before, "{before} backups before, and now {now:?}");
        Ok(())
    };
    plane.explained(wait::until(FIRED, fired).await, namespace.name()).await?;

    stage.controller.resume().await?;
    let back = shown(&stage.admin, &id, "ready").await?;
    ensure!(back["name"] == "orders", "{back}");
    // Nothing twice: one service, and each backup once.
    let services = stage.admin.get("/data-services?name=orders").await?.ok()?;
    ensure!(services["items"].as_array().is_some_and(|items| items.len() == 1), "{services}");
    let there = complete(plane, &service, "minutely").await?;
    let told = || async {
        let told = stage.admin.get(&format!("/backups?data_service={id}")).await?.ok()?;
        let names: Vec<&str> =
            told["items"].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect();
        for name in &there {
            let times = names.iter().filter(|told| *told == name).count();
            ensure!(times == 1, "{name} is told {times} times: {names:?}");
        }
        Ok(())
    };
    wait::until(SEEN, told).await?;
    // And nothing taken back: what was edited here holds, and the rows are there.
    edited().await?;
    ensure!(service.sql("select at from seen").await?.trim() == "while it was down", "the row is lost");
    Ok(())
}
