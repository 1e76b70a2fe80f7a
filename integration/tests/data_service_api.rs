//! Story: data services through the control plane's API, on a real API server and through a real
//! tunnel. No operator runs: what arrives in the cluster is what is looked at, and its status is
//! written by the story. The stories share one API server, so each has a service of its own name.

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

/// A cluster with the kinds of data services, enrolled.
struct Place {
    stage: Stage,
    site: Enrolled,
    space: Namespace,
    ground: &'static Ground,
}

impl Place {
    async fn new() -> anyhow::Result<Self> {
        let (stage, ground) = (Stage::open().await?, ground().await?);
        let kinds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../resources/crds");
        let kinds = kinds.to_str().context("a path that is not text")?;
        ground.plane.get(&["apply", "--server-side", "-f", kinds]).await?;
        ground.plane.get(&["wait", "--for=condition=Established", "-f", kinds, "--timeout=30s"]).await?;
        let space = ground.plane.namespace("services").await?;
        let site = stage.enrol("plant", ground).await?;
        Ok(Self { stage, site, space, ground })
    }

    fn wish(&self, name: &str) -> Value {
        json!({"name": name, "cluster": "plant", "namespace": self.space.name(), "spec": {
            "engine": "postgresql", "version": "17", "storage": {"size": "2Gi"},
            "parameters": {"work_mem": "8MB"}}})
    }

    async fn create(&self, name: &str) -> anyhow::Result<Value> {
        self.stage.admin.post("/data-services", &self.wish(name)).await?.ok()
    }

    async fn service(&self, name: &str) -> anyhow::Result<Value> {
        self.stage.admin.get(&format!("/data-services/{name}")).await?.ok()
    }

    async fn operation(&self, begun: &Value) -> anyhow::Result<Value> {
        let id = text(&begun["operation"]["id"])?;
        self.stage.admin.get(&format!("/operations/{id}")).await?.ok()
    }

    async fn patch(&self, name: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let path = format!("/data-services/{name}");
        let answer = self.stage.admin.request(Method::PATCH, &path).json(body).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    async fn act(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        let answer = self.stage.admin.request(Method::POST, path).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// Waits until a step of an operation is in this state; gives the operation.
    async fn step(&self, begun: &Value, step: &str, state: &str) -> anyhow::Result<Value> {
        wait::until(SOON, || async {
            let operation = self.operation(begun).await?;
            let steps = operation["steps"].as_array().context("steps")?;
            let found = steps.iter().find(|s| s["name"] == step).context("no such step")?;
            ensure!(found["state"] == state, "{operation:#}\n{}", self.stage.controller.log());
            Ok(operation)
        })
        .await
    }

    /// Waits until an operation is in this state; gives it.
    async fn ended(&self, begun: &Value, state: &str) -> anyhow::Result<Value> {
        wait::until(SOON, || async {
            let operation = self.operation(begun).await?;
            ensure!(operation["state"] == state, "{operation:#}\n{}", self.stage.controller.log());
            Ok(operation)
        })
        .await
    }

    async fn live(&self, name: &str) -> anyhow::Result<Value> {
        let asked =
            ["get", "dataservice", name, "-n", self.space.name(), "-o", "json", "--show-managed-fields"];
        Ok(serde_json::from_str(&self.ground.plane.get(&asked).await?)?)
    }

    /// Does what an operator would: says that all is well with the present spec.
    async fn all_is_well(&self, name: &str, phase: &str) -> anyhow::Result<()> {
        let generation = self.live(name).await?["metadata"]["generation"].clone();
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "reason": "Story", "message": format!("{kind} it is"),
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let kinds = ["Accepted", "Provisioned", "Available", "UpToDate"].map(condition);
        let status =
            json!({"status": {"observedGeneration": generation, "phase": phase, "conditions": kinds}});
        self.set_status(name, &status).await
    }

    async fn set_status(&self, name: &str, status: &Value) -> anyhow::Result<()> {
        let (space, patch) = (self.space.name(), status.to_string());
        let asked =
            ["patch", "dataservice", name, "-n", space, "--subresource=status", "--type=merge", "-p", &patch];
        self.ground.plane.get(&asked).await.map(drop)
    }
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[tokio::test]
async fn a_service_is_made_changed_and_deleted_through_the_tunnel() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let begun = place.create("made").await?;
    place.step(&begun, "send", "done").await?;
    let live = place.live("made").await?;
    ensure!(live["spec"]["parameters"]["work_mem"] == "8MB", "{live:#}");
    ensure!(live["metadata"]["labels"]["data.culvert.dev/record"] == begun["data_service"]["id"], "{live:#}");
    ensure!(live["metadata"]["managedFields"][0]["manager"] == "culvert-controller", "{live:#}");
    place.step(&begun, "accepted", "running").await?;
    place.all_is_well("made", "Ready").await?;
    place.ended(&begun, "succeeded").await?;
    let service = place.service("made").await?;
    ensure!(service["state"] == "ready" && service["in_sync"] == true, "{service:#}");

    // A change goes out with the next revision, and only from the present one.
    let change = json!({"revision": 1, "spec": {"parameters": {"work_mem": "16MB"}}});
    let (status, changed) = place.patch("made", &change).await?;
    ensure!(status == 202, "{changed:#}");
    place.step(&changed, "send", "done").await?;
    place.all_is_well("made", "Ready").await?;
    place.ended(&changed, "succeeded").await?;
    ensure!(place.live("made").await?["spec"]["parameters"]["work_mem"] == "16MB");
    let (status, refused) = place.patch("made", &change).await?;
    ensure!(status == 409 && refused["code"] == "revision_conflict", "{refused:#}");
    ensure!(refused["details"]["revision"] == 2, "{refused:#}");

    let deleted = place.stage.admin.delete("/data-services/made?strategy=Delete").await?.ok()?;
    place.ended(&deleted, "succeeded").await?;
    ensure!(place.live("made").await.is_err());
    let service = place.service("made").await?;
    ensure!(service["state"] == "deleted" && service["undelete_until"].is_null(), "{service:#}");
    Ok(())
}

#[tokio::test]
async fn an_operation_waits_for_its_cluster_and_survives_the_controller() -> anyhow::Result<()> {
    let mut place = Place::new().await?;
    place.site.agent.kill().await?;
    let begun = place.create("patient").await?;
    let waiting = place.step(&begun, "check", "running").await?;
    wait::until(SOON, || async {
        let operation = place.operation(&begun).await?;
        let said = text(&operation["steps"][0]["message"])?.to_owned();
        ensure!(said.contains("disconnected") && operation["state"] == "running", "{operation:#}");
        Ok(())
    })
    .await?;
    ensure!(waiting["failure"].is_null(), "{waiting:#}");

    // Killed in the middle, the controller goes on where it was.
    place.stage.controller.kill().await?;
    place.stage.controller.resume().await?;
    place.site.agent.start()?;
    place.step(&begun, "send", "done").await?;
    place.stage.controller.kill().await?;
    place.all_is_well("patient", "Ready").await?;
    place.stage.controller.resume().await?;
    wait::until(Duration::from_secs(60), || async {
        let operation = place.operation(&begun).await?;
        ensure!(operation["state"] == "succeeded", "{operation:#}\n{}", place.stage.controller.log());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_cancelled_is_taken_back_and_what_failed_goes_on() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let begun = place.create("unwanted").await?;
    place.step(&begun, "accepted", "running").await?;
    let id = text(&begun["operation"]["id"])?;
    let (status, cancelling) = place.act(&format!("/operations/{id}/cancel")).await?;
    ensure!(status == 202 && cancelling["state"] == "cancelling", "{cancelling:#}");
    place.ended(&begun, "cancelled").await?;
    ensure!(place.live("unwanted").await.is_err());
    ensure!(place.service("unwanted").await?["state"] == "deleted");

    // The operator refuses it for good: that ends it, and a retry goes on from there.
    let begun = place.create("refused").await?;
    place.step(&begun, "accepted", "running").await?;
    let generation = place.live("refused").await?["metadata"]["generation"].clone();
    let refused = json!({"status": {"observedGeneration": generation, "phase": "Pending",
        "why": {"code": "unknown_parameter", "message": "there is no such parameter", "who": "developer",
            "next": "remove it"},
        "conditions": [{"type": "Accepted", "status": "False", "reason": "Story", "message": "no",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    place.set_status("refused", &refused).await?;
    let failed = place.ended(&begun, "failed").await?;
    ensure!(failed["failure"]["code"] == "unknown_parameter", "{failed:#}");
    place.all_is_well("refused", "Ready").await?;
    let id = text(&begun["operation"]["id"])?;
    let (status, _) = place.act(&format!("/operations/{id}/retry")).await?;
    ensure!(status == 202);
    place.ended(&begun, "succeeded").await.map(drop)
}

#[tokio::test]
async fn what_somebody_did_by_hand_is_seen_kept_and_adopted() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let begun = place.create("edited").await?;
    place.step(&begun, "accepted", "running").await?;
    place.all_is_well("edited", "Ready").await?;
    place.ended(&begun, "succeeded").await?;

    let space = place.space.name();
    let edit = r#"{"spec":{"parameters":{"work_mem":"32MB"}}}"#;
    let by_hand = ["patch", "dataservice", "edited", "-n", space, "--type=merge", "-p", edit];
    place.ground.plane.get(&by_hand).await?;
    wait::until(SOON, || async {
        let service = place.service("edited").await?;
        ensure!(service["in_sync"] == false, "{service:#}");
        Ok(())
    })
    .await?;
    let diff = place.stage.admin.get("/data-services/edited/diff").await?.ok()?;
    let first = &diff["differences"][0];
    ensure!(first["field"] == "parameters.work_mem" && first["live"] == "32MB", "{diff:#}");
    ensure!(text(&first["manager"])?.starts_with("kubectl"), "{diff:#}");

    // A change does not silently undo it.
    let change = json!({"spec": {"parameters": {"maintenance_work_mem": "64MB"}}});
    let (_, changed) = place.patch("edited", &change).await?;
    let failed = place.ended(&changed, "failed").await?;
    ensure!(failed["failure"]["code"] == "hand_edited", "{failed:#}");
    ensure!(place.live("edited").await?["spec"]["parameters"]["work_mem"] == "32MB");

    let (status, adopted) = place.act("/data-services/edited/adopt").await?;
    ensure!(status == 200 && adopted["spec"]["parameters"]["work_mem"] == "32MB", "{adopted:#}");
    ensure!(adopted["in_sync"] == true, "{adopted:#}");
    // It is ours now: the next change of the same field is nobody's business but ours.
    let change = json!({"spec": {"parameters": {"work_mem": "48MB"}}});
    let (_, changed) = place.patch("edited", &change).await?;
    place.step(&changed, "send", "done").await?;
    ensure!(place.live("edited").await?["spec"]["parameters"]["work_mem"] == "48MB");

    // What was made with kubectl alone has a record too.
    let foreign = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
        "metadata": {"name": "foreign", "namespace": space}, "spec": {"engine": "valkey", "version": "8"}});
    place.ground.plane.apply(&foreign.to_string()).await?;
    wait::until(SOON, || async {
        let service = place.service("foreign").await?;
        ensure!(service["managed"] == false && service["spec"]["engine"] == "valkey", "{service:#}");
        Ok(())
    })
    .await?;
    let taken = place.stage.admin.post("/data-services", &place.wish("foreign")).await?;
    ensure!(taken.code() == "name_taken", "{taken:?}");
    Ok(())
}

#[tokio::test]
async fn manifests_are_applied_exported_and_refused_when_hostile() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
        "metadata": {"name": "applied", "namespace": place.space.name()},
        "spec": {"engine": "postgresql", "version": "17"}});
    let apply =
        |object: &Value, dry_run: bool| json!({"objects": [object], "cluster": "plant", "dry_run": dry_run});
    let admin = &place.stage.admin;
    let planned = admin.post("/apply", &apply(&object, true)).await?.ok()?;
    ensure!(planned["items"][0]["result"] == "planned", "{planned:#}");
    ensure!(planned["items"][0]["plan"]["changes"].is_array(), "{planned:#}");
    ensure!(admin.get("/data-services/applied").await?.status == 404);
    let created = admin.post("/apply", &apply(&object, false)).await?.ok()?;
    ensure!(created["items"][0]["result"] == "created", "{created:#}");
    place.step(&created["items"][0], "send", "done").await?;
    let again = admin.post("/apply", &apply(&object, false)).await?.ok()?;
    ensure!(again["items"][0]["result"] == "unchanged", "{again:#}");
    let manifest = admin.get("/data-services/applied/manifest").await?.ok()?;
    let manifest = text(&manifest)?;
    ensure!(manifest.contains("kind: DataService") && manifest.contains("engine: postgresql"), "{manifest}");

    let events = admin.get("/data-services/applied/events").await?.ok()?;
    ensure!(events["items"].as_array().is_some_and(|items| !items.is_empty()), "{events:#}");

    for (field, hostile) in [
        ("metadata.name", json!({"kind": "DataService", "metadata": {"name": "../x"}, "spec": {}})),
        ("kind", json!({"kind": "Secret", "metadata": {"name": "x"}, "stringData": {}})),
        (
            "metadata.namespace",
            json!({"kind": "DataService", "metadata": {"name": "x", "namespace": "kube-system"}, "spec": {}}),
        ),
    ] {
        let mut hostile = hostile;
        hostile["apiVersion"] = json!("data.culvert.dev/v1alpha1");
        let refused = admin.post("/apply", &apply(&hostile, false)).await?;
        ensure!(refused.status == 400, "{field}: {refused:?}");
        ensure!(text(&refused.body["errors"][0]["field"])?.ends_with(field), "{field}: {refused:?}");
    }
    Ok(())
}
