//! Story: a person's data services from the command line alone, on a real API server and through a
//! real tunnel; what they mistype is named, and of two people at once the second is told. No
//! operator runs, so work is started and not waited for.

use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::kube::Namespace;
use culvert_integration::person::{Person, ended};
use culvert_integration::stage::{Enrolled, Ground, Stage, ground};
use culvert_integration::wait;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// The longest until something that is due is done.
const SOON: Duration = Duration::from_secs(30);

/// Somebody who is signed in, and a cluster with the kinds of data services, enrolled.
struct Place {
    person: Person,
    space: Namespace,
    ground: &'static Ground,
    stage: Stage,
    _site: Enrolled,
}

impl Place {
    async fn new() -> anyhow::Result<Self> {
        let (stage, ground) = (Stage::open().await?, prepared().await?);
        let space = ground.plane.namespace("cli").await?;
        let site = stage.enrol("plant", ground).await?;
        let person = Person::new().await?;
        person.sign_in(&stage).await?;
        let place = Self { person, space, ground, stage, _site: site };
        place.knows_versions().await?;
        Ok(place)
    }

    /// `culvert` to its good end; gives what it wrote.
    async fn culvert(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.person.culvert(arguments).await.with_context(|| self.stage.controller.log())
    }

    async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.culvert(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("culvert {arguments:?}: {text}"))
    }

    /// `culvert` to its bad end, with this exit code; gives what it said.
    async fn refused(&self, code: i32, arguments: &[&str]) -> anyhow::Result<String> {
        let output = ended(self.person.command(arguments)?).await?;
        ensure!(output.status.code() == Some(code), "culvert {arguments:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What a person types to make a service in this story's namespace.
    fn making<'a>(&'a self, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let base = ["data-service", "create", name, "--cluster", "plant", "--namespace", self.space.name()];
        [&base[..], &["--engine", "postgresql", "--storage", "2Gi"], more].concat()
    }

    async fn knows_versions(&self) -> anyhow::Result<()> {
        wait::until(SOON, || async {
            let list = self.json(&["engine", "list", "--cluster", "plant"]).await?;
            ensure!(list["items"][0]["version"] == "17.12", "{list:#}");
            Ok(())
        })
        .await
    }

    async fn live(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        let asked = ["get", kind, name, "-n", self.space.name(), "-o", "json"];
        Ok(serde_json::from_str(&self.ground.plane.get(&asked).await?)?)
    }

    /// Waits until a service's object is in the cluster.
    async fn arrived(&self, name: &str) -> anyhow::Result<Value> {
        wait::until(SOON, || self.live("dataservice", name)).await
    }
}

/// The kinds, and what an operator would say: that one version of PostgreSQL can be run. All
/// stories share them; the services of each have names that no other uses, as every cluster's
/// record follows what it sees.
async fn prepared() -> anyhow::Result<&'static Ground> {
    static PREPARED: OnceCell<()> = OnceCell::const_new();
    let ground = ground().await?;
    PREPARED.get_or_try_init(|| ground.offer_postgresql()).await?;
    Ok(ground)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_lives_from_its_plan_to_its_end() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let engines = place.culvert(&["engine", "list"]).await?;
    ensure!(engines.contains("postgresql") && engines.contains("17.12"), "{engines}");
    let parameters = place.culvert(&["engine", "get", "postgresql"]).await?;
    ensure!(parameters.contains("work_mem"), "{parameters}");

    let plan = place.culvert(&place.making("orders", &["--version", "17", "--dry-run"])).await?;
    ensure!(plan.contains("new") && plan.contains("17.12"), "{plan}");
    ensure!(place.refused(5, &["data-service", "get", "orders"]).await?.contains("\"orders\""));
    let made = place.making("orders", &["--version", "17", "-p", "work_mem=8MB", "--no-wait"]);
    let shown = place.culvert(&made).await?;
    ensure!(shown.contains("orders") && shown.contains("plant"), "{shown}");
    let live = place.arrived("orders").await?;
    ensure!(live["spec"]["parameters"]["work_mem"] == "8MB", "{live:#}");
    let list = place.culvert(&["data-service", "list", "--cluster", "plant"]).await?;
    ensure!(list.contains("orders") && list.contains("progressing"), "{list}");
    let one = place.json(&["data-service", "get", "orders"]).await?;
    ensure!(one["revision"] == 1 && one["cluster"]["name"] == "plant", "{one:#}");

    let plan = place.culvert(&["data-service", "plan", "orders", "-p", "work_mem=16MB"]).await?;
    ensure!(
        plan.contains("parameters.work_mem") && plan.contains("8MB") && plan.contains("reload"),
        "{plan}"
    );
    place.culvert(&["data-service", "update", "orders", "-p", "work_mem=16MB", "--no-wait"]).await?;
    let events = place.culvert(&["data-service", "events", "orders"]).await?;
    ensure!(events.contains("update") && events.contains("asked for it"), "{events}");
    let metrics = ended(place.person.command(&["data-service", "metrics", "orders"])?).await?;
    ensure!(String::from_utf8_lossy(&metrics.stderr).contains("no figures"), "{metrics:?}");

    let manifest = place.culvert(&["data-service", "export", "orders"]).await?;
    ensure!(manifest.contains("kind: DataService") && manifest.contains("16MB"), "{manifest}");
    let file = place.person.path("orders.yaml");
    std::fs::write(&file, &manifest)?;
    let file = file.to_str().context("a path that is not text")?;
    let applied = place.culvert(&["apply", "-f", file, "--cluster", "plant"]).await?;
    ensure!(applied.contains("unchanged"), "{applied}");
    std::fs::write(file, manifest.replace("16MB", "32MB"))?;
    let planned = place.culvert(&["apply", "-f", file, "--cluster", "plant", "--dry-run"]).await?;
    ensure!(planned.contains("planned") && planned.contains("32MB"), "{planned}");
    let applied = place.culvert(&["apply", "-f", file, "--cluster", "plant", "--no-wait"]).await?;
    ensure!(applied.contains("updated"), "{applied}");

    let asked = place.refused(2, &["data-service", "delete", "orders", "--no-wait"]).await?;
    ensure!(asked.contains("--yes"), "{asked}");
    place.culvert(&["data-service", "delete", "orders", "--no-wait", "--yes"]).await?;
    wait::until(SOON, || async {
        let one = place.json(&["data-service", "get", "orders"]).await?;
        ensure!(one["state"] == "deleted" && one["undelete_until"].is_string(), "{one:#}");
        Ok(())
    })
    .await?;
    ensure!(place.live("dataservice", "orders").await.is_err());
    let list = place.culvert(&["data-service", "list", "--deleted", "-o", "name"]).await?;
    ensure!(list.lines().any(|name| name == "orders"), "{list}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_named_with_the_way_on() -> anyhow::Result<()> {
    let place = Place::new().await?;
    for (more, words) in [
        (&["--version", "99"][..], &["spec.version", "15, 17"][..]),
        (&["--version", "17", "-p", "wrok_mem=8MB"], &["spec.parameters.wrok_mem"]),
        (&["--version", "17", "-p", "work_mem=lots"], &["spec.parameters.work_mem"]),
        (&["--version", "17", "--memory", "1Mi"], &["spec.resources.memory", "128Mi"]),
        (&["--version", "17", "--storage", "1000Ti"], &["spec.storage.size", "16Ti"]),
    ] {
        for last in ["--dry-run", "--no-wait"] {
            // A later --storage would be given twice: this one stands instead.
            let mut typed = place.making("limits", &[]);
            typed.truncate(typed.len() - 2);
            typed.extend(more.iter().chain([&last]));
            let said = place.refused(2, &typed).await?;
            ensure!(words.iter().all(|word| said.contains(word)), "{typed:?}:\n{said}");
        }
    }
    // Names at their limits.
    let longest = "a".repeat(40);
    place.culvert(&place.making(&longest, &["--version", "17", "--no-wait"])).await?;
    place.arrived(&longest).await?;
    let too_long = "a".repeat(41);
    for name in [too_long.as_str(), "1limits", "Orders", "limits-", "../limits"] {
        let said = place.refused(2, &place.making(name, &["--version", "17", "--no-wait"])).await?;
        ensure!(said.contains("name") && said.contains("1 to 40"), "{name}:\n{said}");
    }
    let again = place.making(&longest, &["--version", "17", "--no-wait"]);
    let said = place.refused(6, &again).await?;
    ensure!(said.contains("there is a data service") && said.contains("another name"), "{said}");
    let elsewhere = ["data-service", "create", "x", "--cluster", "nowhere", "--engine", "postgresql"];
    place.refused(5, &[&elsewhere[..], &["--version", "17", "--no-wait"]].concat()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_people_is_told_and_hand_edits_are_seen() -> anyhow::Result<()> {
    let place = Place::new().await?;
    place.culvert(&place.making("edited", &["--version", "17", "-p", "work_mem=8MB", "--no-wait"])).await?;
    place.arrived("edited").await?;
    // Both looked at revision 1.
    let change = |value: &'static str| ["data-service", "update", "edited", "-p", value, "--revision", "1"];
    place.culvert(&[&change("work_mem=16MB")[..], &["--no-wait"]].concat()).await?;
    let said = place.refused(6, &[&change("work_mem=64MB")[..], &["--no-wait"]].concat()).await?;
    ensure!(said.contains("revision 2") && said.contains("made from 1"), "{said}");
    let one = place.json(&["data-service", "get", "edited"]).await?;
    ensure!(one["spec"]["parameters"]["work_mem"] == "16MB" && one["revision"] == 2, "{one:#}");

    let edit = r#"{"spec":{"parameters":{"work_mem":"1GB"}}}"#;
    let space = place.space.name();
    place
        .ground
        .plane
        .get(&["patch", "dataservice", "edited", "-n", space, "--type=merge", "-p", edit])
        .await?;
    let diff = place.culvert(&["data-service", "diff", "edited"]).await?;
    ensure!(
        diff.contains("parameters.work_mem") && diff.contains("1GB") && diff.contains("kubectl"),
        "{diff}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_changed_run_and_deleted_in_the_cluster() -> anyhow::Result<()> {
    let place = Place::new().await?;
    place.culvert(&place.making("shop", &["--version", "17", "--no-wait"])).await?;
    place.arrived("shop").await?;
    let base = ["backup-schedule", "create", "shop", "--name", "nightly", "--cron"];
    let said = place.refused(2, &[&base[..], &["0 25 * * *", "--target", "vault"]].concat()).await?;
    ensure!(said.contains("spec.cron"), "{said}");
    let said = place.refused(2, &[&base[..], &["0 3 * * *"]].concat()).await?;
    ensure!(said.contains("spec.target") && said.contains("no backup target of its own"), "{said}");
    let good = [&base[..], &["0 3 * * *", "--target", "vault", "--keep-last", "7"]].concat();
    let made = place.json(&good).await?;
    ensure!(made["data_service"]["name"] == "shop" && made["status"].is_null(), "{made:#}");
    let live = place.live("backupschedule", "nightly").await?;
    ensure!(live["spec"]["retention"]["keepLast"] == 7 && live["spec"]["target"] == "vault", "{live:#}");
    ensure!(place.refused(6, &good).await?.contains("nightly"));

    let change = ["backup-schedule", "update", "nightly", "--keep-for", "30d", "--suspended=yes"];
    let changed = place.json(&[&change[..], &["--retention-dry-run=true"]].concat()).await?;
    ensure!(changed["id"] == made["id"] && changed["spec"]["suspended"] == true, "{changed:#}");
    let live = place.live("backupschedule", "nightly").await?;
    let retention = json!({"keepLast": 7, "keepAtLeast": 1, "maxAgeHours": 720, "dryRun": true});
    ensure!(live["spec"]["retention"] == retention, "{live:#}");

    place.culvert(&["backup-schedule", "run", "nightly", "--no-wait"]).await?;
    let live = place.live("backupschedule", "nightly").await?;
    let asked = live["metadata"]["annotations"]["data.culvert.dev/run-now"].clone();
    let shown = place.json(&["backup-schedule", "get", "nightly"]).await?;
    ensure!(asked.is_string() && shown["run_asked"] == asked, "{live:#}\n{shown:#}");
    // The operator answers: it made the backup, and says what retention would delete.
    let status = json!({"status": {"asked": "soon", "kept": 2, "wouldDelete": ["old-one"]}}).to_string();
    let (space, sub) = (place.space.name(), "--subresource=status");
    let answer = ["patch", "backupschedule", "nightly", "-n", space, sub, "--type=merge", "-p", &status];
    place.ground.plane.get(&answer).await?;
    wait::until(SOON, || async {
        let shown = place.culvert(&["backup-schedule", "get", "nightly"]).await?;
        ensure!(shown.contains("old-one"), "{shown}");
        Ok(())
    })
    .await?;
    let late = place.refused(7, &["backup-schedule", "run", "nightly", "--timeout", "1s"]).await?;
    ensure!(late.contains("has begun no backup yet"), "{late}");

    place.culvert(&["backup-schedule", "delete", "nightly", "--yes"]).await?;
    ensure!(place.live("backupschedule", "nightly").await.is_err());
    let list = place.json(&["backup-schedule", "list", "--data-service", "shop"]).await?;
    ensure!(list["items"] == json!([]), "{list:#}");
    place.refused(5, &["backup-schedule", "get", "nightly"]).await.map(drop)
}
