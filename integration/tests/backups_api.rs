//! Story: backups and restores through the control plane's API, on a real API server and through
//! a real tunnel. No operator runs: what arrives in the cluster is what is looked at, and its
//! status is written by the story.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::kube::Namespace;
use culvert_integration::stage::{Enrolled, Ground, Stage, ground};
use culvert_integration::wait;
use http::Method;
use serde_json::{Value, json};

/// The longest until something that is due is done.
const SOON: Duration = Duration::from_secs(30);

/// An enrolled cluster with the kinds of data services, a data service `orders` and its target.
struct Place {
    stage: Stage,
    site: Enrolled,
    space: Namespace,
    /// Id of `orders`: others may have one of this name on the same API server.
    orders: String,
    ground: &'static Ground,
}

impl Place {
    async fn new() -> anyhow::Result<Self> {
        let (stage, ground) = (Stage::open().await?, ground().await?);
        let kinds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../resources/crds");
        let kinds = kinds.to_str().context("a path that is not text")?;
        ground.plane.get(&["apply", "--server-side", "-f", kinds]).await?;
        ground.plane.get(&["wait", "--for=condition=Established", "-f", kinds, "--timeout=30s"]).await?;
        let space = ground.plane.namespace("backups").await?;
        let site = stage.enrol("plant", ground).await?;
        let mut place = Self { stage, site, space, orders: String::new(), ground };
        place.post("/backup-targets", &json!({"name": "vault", "spec": {"s3": {"bucket": "b"}}})).await?;
        let orders = json!({"name": "orders", "cluster": "plant", "namespace": place.space.name(),
            "spec": {"engine": "postgresql", "version": "17", "backup": {"target": "vault"}}});
        let begun = place.post("/data-services", &orders).await?;
        text(&begun["data_service"]["id"])?.clone_into(&mut place.orders);
        Ok(place)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.stage.admin.post(path, body).await?.ok()
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.stage.admin.get(path).await?.ok()
    }

    async fn cancel(&self, begun: &Value) -> anyhow::Result<()> {
        let path = format!("/operations/{}/cancel", text(&begun["operation"]["id"])?);
        let answer = self.stage.admin.request(Method::POST, &path).send().await?;
        ensure!(answer.status() == 202, "{}", answer.text().await?);
        Ok(())
    }

    /// Waits until what is asked for at `path` is as it should be; gives it.
    async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        wait::until(SOON, || async {
            let found = self.get(path).await?;
            ensure!(holds(&found), "{found:#}\n{}", self.stage.controller.log());
            Ok(found)
        })
        .await
    }

    /// Waits until a step of an operation is in this state.
    async fn step(&self, begun: &Value, step: &str, state: &str) -> anyhow::Result<Value> {
        let path = format!("/operations/{}", text(&begun["operation"]["id"])?);
        self.until(&path, |operation| {
            let steps = operation["steps"].as_array();
            steps.is_some_and(|steps| steps.iter().any(|s| s["name"] == step && s["state"] == state))
        })
        .await
    }

    /// Waits until an operation is in this state.
    async fn ended(&self, begun: &Value, state: &str) -> anyhow::Result<Value> {
        let path = format!("/operations/{}", text(&begun["operation"]["id"])?);
        self.until(&path, |operation| operation["state"] == state).await
    }

    async fn live(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        let asked = ["get", kind, name, "-n", self.space.name(), "-o", "json"];
        Ok(serde_json::from_str(&self.ground.plane.get(&asked).await?)?)
    }

    async fn set_status(&self, kind: &str, name: &str, status: Value) -> anyhow::Result<()> {
        let (space, patch) = (self.space.name(), json!({"status": status}).to_string());
        let asked = ["patch", kind, name, "-n", space, "--subresource=status", "--type=merge", "-p", &patch];
        self.ground.plane.get(&asked).await.map(drop)
    }

    /// What a CronJob does in the cluster, whoever listens.
    async fn backup_by_cron(&self, name: &str) -> anyhow::Result<()> {
        let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": self.space.name()},
            "spec": {"service": "orders", "target": "vault", "trigger": "schedule"}});
        self.ground.plane.apply(&object.to_string()).await?;
        self.set_status("backup", name, complete(name)).await
    }

    async fn backups(&self) -> anyhow::Result<Vec<String>> {
        let list = self.get(&format!("/backups?data_service={}", self.orders)).await?;
        let items = list["items"].as_array().context("items")?;
        items.iter().map(|item| text(&item["name"]).map(str::to_owned)).collect()
    }
}

fn complete(name: &str) -> Value {
    json!({"phase": "Complete", "attempt": 1, "storedBytes": 7, "path": format!("services/orders/backups/{name}")})
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[tokio::test]
async fn a_backup_is_made_watched_listed_and_deleted_through_the_tunnel() -> anyhow::Result<()> {
    let mut place = Place::new().await?;
    let begun = place.post("/backups", &json!({"data_service": place.orders})).await?;
    let name = text(&begun["backup"]["name"])?.to_owned();
    place.step(&begun, "send", "done").await?;
    let live = place.live("backup", &name).await?;
    ensure!(live["spec"]["service"] == "orders" && live["spec"]["target"] == "vault", "{live:#}");
    ensure!(live["metadata"]["labels"]["data.culvert.dev/record"] == begun["backup"]["id"], "{live:#}");
    ensure!(place.live("backuptarget", "vault").await?["spec"]["s3"]["bucket"] == "b");

    let running = json!({"phase": "Running", "attempt": 1,
        "progress": {"step": "copying files", "doneBytes": 5, "totalBytes": 9}});
    place.set_status("backup", &name, running).await?;
    let operation = place.step(&begun, "started", "done").await?;
    ensure!(operation["progress"]["done_bytes"] == 5, "{operation:#}");
    place.set_status("backup", &name, complete(&name)).await?;
    place.ended(&begun, "succeeded").await?;
    ensure!(place.backups().await? == [name.clone()], "an operation ended before its backup was listed");
    let asked = place.get(&format!("/backups/{}", text(&begun["backup"]["id"])?)).await?;
    ensure!(asked["name"] == *name && asked["status"]["storedBytes"] == 7, "{asked:#}");

    // While the tunnel is down a CronJob makes one. It is there once, as soon as the agent is.
    place.site.agent.kill().await?;
    place.backup_by_cron("nightly").await?;
    place.site.agent.start()?;
    place.until("/backups/nightly", |backup| backup["status"]["phase"] == "Complete").await?;
    let mut found = place.backups().await?;
    found.sort_unstable();
    ensure!(found == ["nightly".to_owned(), name.clone()], "{found:?}");

    let deleted = place.stage.admin.delete("/backups/nightly").await?.ok()?;
    place.ended(&deleted, "succeeded").await?;
    ensure!(place.live("backup", "nightly").await.is_err());
    ensure!(place.backups().await? == [name]);
    Ok(())
}

#[tokio::test]
async fn a_backup_that_fails_says_why_and_one_that_is_cancelled_is_stopped_there() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let begun = place.post("/backups", &json!({"data_service": place.orders, "name": "doomed"})).await?;
    place.step(&begun, "started", "running").await?;
    let failed = json!({"phase": "Failed", "attempt": 3, "failure":
        {"step": "copy", "code": "access_denied", "message": "the bucket refuses it", "hint": "grant it"}});
    place.set_status("backup", "doomed", failed).await?;
    let failed = place.ended(&begun, "failed").await?;
    ensure!(
        failed["failure"]["code"] == "access_denied" && failed["failure"]["next"] == "grant it",
        "{failed:#}"
    );

    let begun = place.post("/backups", &json!({"data_service": place.orders, "name": "unwanted"})).await?;
    place.step(&begun, "started", "running").await?;
    place.cancel(&begun).await?;
    wait::until(SOON, || async {
        let live = place.live("backup", "unwanted").await?;
        ensure!(live["metadata"]["annotations"]["data.culvert.dev/cancel"].is_string(), "{live:#}");
        Ok(())
    })
    .await?;
    place.set_status("backup", "unwanted", json!({"phase": "Cancelled"})).await?;
    place.ended(&begun, "cancelled").await?;

    // Somebody deletes one with kubectl while it is waited for.
    let begun = place.post("/backups", &json!({"data_service": place.orders, "name": "lost"})).await?;
    place.step(&begun, "started", "running").await?;
    place.ground.plane.get(&["delete", "backup", "lost", "-n", place.space.name()]).await?;
    let failed = place.ended(&begun, "failed").await?;
    ensure!(failed["failure"]["code"] == "deleted_by_hand", "{failed:#}");
    Ok(())
}

#[tokio::test]
async fn a_restored_service_is_one_of_the_projects() -> anyhow::Result<()> {
    let place = Place::new().await?;
    place.backup_by_cron("weekly").await?;
    place.until("/backups/weekly", |backup| backup["status"]["phase"] == "Complete").await?;
    let copy = place.space.name();
    let project = place.post("/projects", &json!({"name": "shop"})).await?;
    let asked = json!({"data_service": copy, "source": {"data_service": place.orders}, "project": "shop",
        "namespace": place.space.name(), "overrides": {"version": "17"}});
    let begun = place.post("/restores", &asked).await?;
    let name = text(&begun["restore"]["name"])?.to_owned();
    place.step(&begun, "send", "done").await?;
    let live = place.live("restore", &name).await?;
    ensure!(live["spec"]["service"] == *copy && live["spec"]["source"]["backup"] == "weekly", "{live:#}");
    let taken = place.stage.admin.post("/backups", &json!({"data_service": copy})).await?;
    ensure!(taken.status == 404, "there is no such service yet: {taken:?}");

    // What the operator does: the service, and one step after the other.
    let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
        "metadata": {"name": copy, "namespace": place.space.name()},
        "spec": {"engine": "postgresql", "version": "17", "source": {"restore": name}}});
    place.ground.plane.apply(&object.to_string()).await?;
    let steps = json!({"phase": "Running", "progress": {"step": "fetching", "doneBytes": 3}, "steps": [
        {"name": "check-manifest", "state": "Done", "message": "postgresql 17.2"},
        {"name": "prior-backup", "state": "Skipped"}, {"name": "create-service", "state": "Done"},
        {"name": "fetch", "state": "Running"}]});
    place.set_status("restore", &name, steps).await?;
    let operation = place.step(&begun, "create-service", "done").await?;
    ensure!(operation["progress"]["done_bytes"] == 3, "{operation:#}");
    place.step(&begun, "prior-backup", "skipped").await?;
    place.set_status("restore", &name, json!({"phase": "Complete", "reached": "end of backup"})).await?;
    place.ended(&begun, "succeeded").await?;

    let service = place.get(&format!("/data-services/{copy}")).await?;
    ensure!(service["managed"] == true && service["project"]["id"] == project["id"], "{service:#}");
    ensure!(service["in_sync"] == true && service["spec"]["source"]["restore"] == *name, "{service:#}");
    let restore = place.get(&format!("/restores/{name}")).await?;
    ensure!(restore["data_service"]["id"] == service["id"], "{restore:#}");
    Ok(())
}
