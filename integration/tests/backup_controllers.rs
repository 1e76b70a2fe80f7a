//! The controllers of backups against a real API server: what they make, what they say, and what they let go.
//!
//! There is no node, so pods never start by themselves: the stories end them as a kubelet would, and speak for the
//! runner with its field manager. Whoever writes what part of a status is decided by real server-side apply.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use culvert_integration::kube::ControlPlane;
use culvert_integration::process::{self, Child};
use culvert_integration::wait;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// A round of the operator and a little more, on a busy machine.
const ROUND: Duration = Duration::from_secs(60);
/// Where the backups of these stories lie.
const PATH: &str = "services/shop.orders.0a1b2c3d/backups/one";
/// A moment that has been.
const THEN: &str = "2026-01-01T00:00:00Z";

/// One story at a time: what they say for a service stands only until the operator looks, which on a machine that is
/// busy with other stories is before anybody else did.
static ALONE: Mutex<()> = Mutex::const_new(());

struct World {
    plane: ControlPlane,
    _operator: Child,
    _folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// A cluster with a target, a service that is said to answer, and an operator.
    async fn open() -> Result<Self> {
        let alone = ALONE.lock().await;
        let plane = ControlPlane::start().await?;
        let folder = tempfile::tempdir()?;
        let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/crds");
        let definitions = definitions.to_str().context("a path that is not text")?;
        plane.get(&["apply", "--server-side", "-f", definitions]).await?;
        plane.get(&["wait", "--for=condition=Established", "--timeout=60s", "-f", definitions]).await?;
        plane.get(&["create", "namespace", "shop"]).await?;
        plane.apply(CLASS).await?;
        let images = json!({"postgresql": {"images": {"15.18": "localhost/postgresql:15.18"}}});
        let described = json!({"runnerImage": "localhost/culvert-runner:1", "engines": images});
        plane.apply(&object("DataPlane", "", "default", described).to_string()).await?;
        let operator = operator(&plane, folder.path())?;
        let world = Self { plane, _operator: operator, _folder: folder, _alone: alone };
        world.plane.apply(SECRET).await?;
        world
            .make("BackupTarget", "away", json!({"s3": {"bucket": "b"}, "secret": {"name": "keys"}}))
            .await?;
        let wanted = json!({"engine": "postgresql", "version": "15", "backup": {"target": "away"}});
        world.make("DataService", "orders", wanted).await?;
        Ok(world)
    }

    async fn make(&self, kind: &str, name: &str, spec: Value) -> Result<()> {
        self.plane.apply(&object(kind, "shop", name, spec).to_string()).await
    }

    /// Writes a part of a status as somebody else.
    async fn say(&self, who: &str, kind: &str, name: &str, status: Value) -> Result<()> {
        let mut said = object(kind, "shop", name, Value::Null);
        said["status"] = status;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), said.to_string())?;
        let file = file.path().to_str().context("a path that is not text")?;
        let manager = format!("--field-manager={who}");
        let apply =
            ["apply", "--server-side", "--force-conflicts", &manager, "--subresource=status", "-f", file];
        self.plane.get(&apply).await.map(drop)
    }

    /// Has the service answer, as no instance of it ever will here.
    async fn answering(&self, service: &str) -> Result<()> {
        let found = self.object(&format!("dataservice/{service}")).await?;
        let condition = json!({"type": "Available", "status": "True", "reason": "Told", "message": "",
            "lastTransitionTime": THEN});
        let status =
            json!({"observedGeneration": found["metadata"]["generation"], "conditions": [condition]});
        self.say("story", "DataService", service, status).await
    }

    async fn object(&self, what: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.plane.get(&["-n", "shop", "get", what, "-o", "json"]).await?)?)
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let round = || async {
            let object = self.object(what).await?;
            look(&object).with_context(|| format!("{what}: {object}"))
        };
        wait::until(ROUND, round).await
    }

    async fn phase(&self, what: &str, phase: &str) -> Result<Value> {
        self.until(what, |object| (object["status"]["phase"] == phase).then(|| object["status"].clone()))
            .await
    }

    /// Starts a backup and waits for its Job, having the service answer meanwhile.
    async fn begun(&self, backup: &str) -> Result<()> {
        let job = format!("job/{backup}-backup");
        let what = format!("backup/{backup}");
        let tries = AtomicU32::new(0);
        // The operator takes back what is said here, so the backup is looked at in the same moment.
        let round = || async {
            let told = format!("story/try={}", tries.fetch_add(1, Ordering::Relaxed));
            let (first, second) = (format!("{told}-a"), format!("{told}-b"));
            tokio::try_join!(self.answering("orders"), self.annotate(&what, &first), async {
                self.answering("orders").await?;
                self.annotate(&what, &second).await
            },)?;
            self.object(&job).await.map(drop)
        };
        wait::until(ROUND, round).await
    }

    /// Ends the pod of a Job, as a kubelet would.
    async fn end(&self, job: &str, code: i32, reason: &str, message: &str) -> Result<()> {
        let selector = format!("batch.kubernetes.io/job-name={job}");
        let round = || async {
            let pending = "--field-selector=status.phase=Pending";
            let found = self
                .plane
                .get(&["-n", "shop", "get", "pods", "-l", &selector, pending, "-o", "name"])
                .await?;
            let pod = found.lines().next().map(ToOwned::to_owned);
            pod.with_context(|| format!("{job} has no pod"))
        };
        let pod = wait::until(ROUND, round).await?;
        let ended = json!({"exitCode": code, "reason": reason, "message": message, "startedAt": THEN, "finishedAt": THEN});
        let container = json!({"name": "runner", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "state": {"terminated": ended}});
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let patch = json!({"status": {"phase": phase, "containerStatuses": [container]}}).to_string();
        let patching = ["-n", "shop", "patch", &pod, "--subresource=status", "--type=merge", "-p", &patch];
        self.plane.get(&patching).await.map(drop)
    }

    /// A backup that is whole, as its runner tells it.
    async fn complete(&self, backup: &str) -> Result<()> {
        let spec = json!({"service": "orders", "target": "away", "attempts": 1});
        self.make("Backup", backup, spec).await?;
        self.begun(backup).await?;
        let running = json!({"phase": "Running", "attempt": 1, "startedAt": THEN, "path": PATH});
        self.say("culvert-runner", "Backup", backup, running).await?;
        let whole = json!({"phase": "Complete", "attempt": 1, "startedAt": THEN, "endedAt": THEN, "path": PATH,
            "manifestDigest": "d", "storedBytes": 77});
        self.say("culvert-runner", "Backup", backup, whole).await?;
        self.end(&format!("{backup}-backup"), 0, "Completed", "").await
    }

    async fn gone(&self, what: &str) -> Result<()> {
        let round = || async {
            let asked = ["-n", "shop", "get", what, "--ignore-not-found", "-o", "yaml"];
            let found = self.plane.get(&asked).await?;
            ensure!(found.trim().is_empty(), "{what} is still there: {found}");
            Ok(())
        };
        wait::until(ROUND, round).await
    }

    async fn annotate(&self, what: &str, annotation: &str) -> Result<()> {
        self.plane.get(&["-n", "shop", "annotate", "--overwrite", what, annotation]).await.map(drop)
    }

    async fn delete(&self, what: &str) -> Result<()> {
        self.plane.get(&["-n", "shop", "delete", what, "--wait=false"]).await.map(drop)
    }
}

const CLASS: &str = r#"{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
    "metadata": {"name": "never", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "example.com/never"}"#;

const SECRET: &str = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"},
    "stringData": {"access-key-id": "a", "secret-access-key": "b"}}"#;

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let mut object =
        json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if !spec.is_null() {
        object["spec"] = spec;
    }
    object
}

fn operator(plane: &ControlPlane, folder: &Path) -> Result<Child> {
    let mut operator = Command::new(process::program("culvert-operator")?);
    operator.arg("--kubeconfig").arg(plane.admin());
    operator.args(["--namespace", "default", "--lease-seconds", "3", "--identity", "story"]);
    operator.args(["--listen", &process::free_address("127.0.0.1")?.to_string()]);
    Child::spawn("operator", operator, &folder.join("operator.log"))
}

/// The only Job whose name begins so.
async fn job(world: &World, prefix: &str) -> Result<String> {
    let round = || async {
        let found = world.plane.get(&["-n", "shop", "get", "jobs", "-o", "name"]).await?;
        let names = found.lines().filter_map(|line| line.strip_prefix("job.batch/"));
        let of_ours: Vec<String> =
            names.filter(|name| name.starts_with(prefix)).map(ToOwned::to_owned).collect();
        ensure!(of_ours.len() == 1, "{prefix}: {found}");
        of_ours.into_iter().next().context("none")
    };
    wait::until(ROUND, round).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_counts_as_reachable_when_its_check_said_so_and_goes_when_nothing_uses_it() -> Result<()> {
    let world = World::open().await?;
    let check = job(&world, "away-check-").await?;
    let probe = json!({"at": THEN, "generation": 1, "credentialGeneration": 0, "ok": true, "tookMs": 7});
    world.say("culvert-runner", "BackupTarget", "away", json!({"probe": probe})).await?;
    world.end(&check, 0, "Completed", "").await?;
    let reachable = |object: &Value, status: &str| {
        let conditions = object["status"]["conditions"].as_array()?;
        conditions.iter().any(|one| one["type"] == "Reachable" && one["status"] == status).then_some(())
    };
    // What was checked so long ago says nothing any more; what is checked now does.
    world.until("backuptarget/away", |object| reachable(object, "Unknown")).await?;
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339)?;
    let fresh = json!({"at": now, "generation": 1, "credentialGeneration": 0, "ok": true, "tookMs": 7});
    world.say("culvert-runner", "BackupTarget", "away", json!({"probe": fresh})).await?;
    world.until("backuptarget/away", |object| reachable(object, "True")).await?;

    world.delete("backuptarget/away").await?;
    let why = |object: &Value| {
        let why = &object["status"]["why"];
        (why["code"] == "in_use" && why["message"].as_str()?.contains("DataService/orders")).then_some(())
    };
    world.until("backuptarget/away", why).await?;
    world.delete("dataservice/orders").await?;
    world.gone("backuptarget/away").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_the_phase_that_its_runner_tells_and_goes_from_its_target_first() -> Result<()> {
    let world = World::open().await?;
    world.complete("one").await?;
    let status = world.phase("backup/one", "Complete").await?;
    ensure!(status["storedBytes"] == 77 && status["why"].is_null(), "{status}");
    world.delete("backup/one").await?;
    world
        .end(
            "one-prune",
            1,
            "Error",
            r#"{"step":"delete","code":"target_unreachable","message":"No answer.","hint":"Look."}"#,
        )
        .await?;
    world.phase("backup/one", "Deleting").await?;
    // It may be tried three times before the Job has failed, with pauses; abandoning does not wait for that.
    world.annotate("backup/one", "data.culvert.dev/abandon=yes").await?;
    world.gone("backup/one").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_dies_without_a_word_and_one_that_is_cancelled_end_their_backups() -> Result<()> {
    let world = World::open().await?;
    world.make("Backup", "dies", json!({"service": "orders", "target": "away", "attempts": 1})).await?;
    world.begun("dies").await?;
    world.end("dies-backup", 137, "OOMKilled", "").await?;
    let status = world.phase("backup/dies", "Failed").await?;
    ensure!(status["failure"]["code"] == "out_of_memory", "{status}");

    world.make("Backup", "stops", json!({"service": "orders", "target": "away"})).await?;
    world.begun("stops").await?;
    world.say("culvert-runner", "Backup", "stops", json!({"phase": "Running", "attempt": 1})).await?;
    world.annotate("backup/stops", "data.culvert.dev/cancel=yes").await?;
    world.phase("backup/stops", "Cancelled").await?;
    world.gone("job/stops-backup").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_its_backups_along() -> Result<()> {
    let world = World::open().await?;
    world.complete("one").await?;
    world.phase("backup/one", "Complete").await?;
    world.plane.get(&["delete", "namespace", "shop", "--wait=false"]).await?;
    let round = || async {
        let found =
            world.plane.get(&["get", "namespace", "shop", "--ignore-not-found", "-o", "yaml"]).await?;
        ensure!(found.trim().is_empty(), "still there: {found}");
        Ok(())
    };
    wait::until(ROUND, round).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_has_its_cron_job_and_answers_each_request_once() -> Result<()> {
    let world = World::open().await?;
    let spec =
        json!({"service": "orders", "target": "away", "cron": "30 3 * * *", "timeZone": "Europe/Vienna"});
    world.make("BackupSchedule", "nightly", spec.clone()).await?;
    let zone = |object: &Value| (object["spec"]["timeZone"] == "Europe/Vienna").then_some(());
    world.until("cronjob/nightly-backup", zone).await?;
    world.annotate("backupschedule/nightly", "data.culvert.dev/run-now=first").await?;
    world
        .until("backupschedule/nightly", |object| (object["status"]["asked"] == "first").then_some(()))
        .await?;
    let list = || async {
        let found = world.plane.get(&["-n", "shop", "get", "backups", "-o", "name"]).await?;
        Ok::<_, anyhow::Error>(found.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
    };
    let made = list().await?;
    ensure!(made.len() == 1, "{made:?}");
    // The request stays in the object; the backup that answered it does not come back.
    let name = made.first().context("a backup")?;
    world.annotate(name, "data.culvert.dev/abandon=yes").await?;
    world.delete(name).await?;
    world.gone(name).await?;
    let mut wrong = spec;
    wrong["cron"] = json!("0 0 30 2 *");
    world.make("BackupSchedule", "nightly", wrong).await?;
    world
        .until("backupschedule/nightly", |object| {
            (object["status"]["why"]["code"] == "bad_schedule").then_some(())
        })
        .await?;
    world.gone("cronjob/nightly-backup").await?;
    ensure!(list().await?.is_empty(), "{:?}", list().await?);
    Ok(())
}

fn inspected(from: &str, until: &str) -> String {
    json!({
        "path": PATH, "manifestDigest": "d", "engine": "postgresql", "version": "15.18", "method": "physical",
        "dataBytes": 1000, "recoverableFrom": from, "recoverableUntil": until,
        "serviceSpec": {"engine": "postgresql", "version": "15", "backup": {"target": "away"}},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_looks_first_refuses_with_the_window_and_removes_what_it_made() -> Result<()> {
    let world = World::open().await?;
    let source = json!({"target": "away", "path": PATH});
    let early = json!({"service": "early", "source": source, "pointInTime": "2025-01-01T00:00:00Z"});
    world.make("Restore", "early", early).await?;
    world.end("early-inspect", 0, "Completed", &inspected(THEN, "2026-01-01T01:00:00Z")).await?;
    let status = world.phase("restore/early", "Failed").await?;
    let message = status["failure"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("from 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z"), "{status}");
    world.gone("dataservice/early").await?;

    world.make("Restore", "back", json!({"service": "orders2", "source": source})).await?;
    world.end("back-inspect", 0, "Completed", &inspected(THEN, THEN)).await?;
    let service = world.until("dataservice/orders2", |object| Some(object.clone())).await?;
    ensure!(
        service["spec"]["backup"].is_null() && service["spec"]["source"]["restore"] == "back",
        "{service}"
    );
    let round = || async {
        world.answering("orders2").await?;
        let status = world.object("restore/back").await?["status"].clone();
        ensure!(status["phase"] == "Complete", "{status}");
        Ok(())
    };
    wait::until(ROUND, round).await?;

    world.make("Restore", "broken", json!({"service": "orders3", "source": source})).await?;
    world.end("broken-inspect", 0, "Completed", &inspected(THEN, THEN)).await?;
    world.until("dataservice/orders3", |object| Some(object.clone())).await?;
    let failure =
        json!({"step": "fetch", "code": "backup_damaged", "message": "damaged", "hint": "Take another."});
    world.say("culvert-runner", "Restore", "broken", json!({"failure": failure})).await?;
    let status = world.phase("restore/broken", "Failed").await?;
    ensure!(status["failure"]["code"] == "backup_damaged", "{status}");
    world.gone("dataservice/orders3").await
}
