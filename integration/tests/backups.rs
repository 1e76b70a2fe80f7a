//! Story: backups as their owner lives with them, on a real node. A mistake is undone to the second before it, also in
//! another cluster from a copy of the bucket; a service is replaced in place, and only with proof; a schedule keeps what
//! it shall and proves that it can be restored; and a backup survives the end of everything around it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use culvert_integration::data_plane::{DataPlane, Service, Store};
use culvert_integration::kube::Namespace;
use culvert_integration::wait::until;
use culvert_resources::{
    Backup, BackupPhase, BackupSchedule, DataService, Restore, RestorePhase, RestoreStatus, Trigger, meta,
};
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};

/// For what takes a pod or a Job, on a machine with two cores on which other stories run.
const STEP: Duration = Duration::from_secs(240);

/// A namespace with a store, a target `vault` and a PostgreSQL `orders` that has one row.
struct Place {
    plane: &'static DataPlane,
    namespace: Namespace,
    store: Store,
}

impl Place {
    async fn new(name: &str, backup: Value) -> anyhow::Result<Self> {
        let plane = DataPlane::shared().await?;
        let namespace = plane.cluster().namespace(name).await?;
        let store = plane.store("backups").await?;
        plane.target(namespace.name(), "vault", &store, "backups").await?;
        let place = Self { plane, namespace, store };
        let mut spec = json!({
            "engine": "postgresql", "version": "17", "resources": {"cpu": "50m", "memory": "256Mi"},
            "storage": {"size": "512Mi"}, "deletion": {"strategy": "Delete"},
        });
        if !backup.is_null() {
            spec["backup"] = backup;
        }
        let orders = plane.create(place.name(), "orders", &spec).await?;
        orders.ready().await?;
        orders
            .sql("create table kept (n serial, what text); insert into kept (what) values ('first')")
            .await?;
        Ok(place)
    }

    fn name(&self) -> &str {
        self.namespace.name()
    }

    fn orders(&self) -> Service<'static> {
        self.plane.service(self.name(), "orders")
    }

    async fn backup(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let mut whole = json!({"service": "orders", "target": "vault"});
        if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
            whole.extend(spec);
        }
        self.plane.apply(self.name(), "Backup", name, &whole).await
    }

    async fn phase(&self, name: &str, phase: BackupPhase) -> anyhow::Result<Backup> {
        let reached = |backup: &Backup| {
            let status = backup.status.as_ref().context("no status yet")?;
            ensure!(status.phase == Some(phase), "{status:?}");
            Ok(backup.clone())
        };
        self.plane.until(self.name(), name, STEP, reached).await
    }

    /// Waits until an attempt of a backup has begun.
    async fn attempt(&self, name: &str, number: i64) -> anyhow::Result<()> {
        let under_way = |backup: &Backup| {
            let status = backup.status.as_ref().context("no status yet")?;
            ensure!(status.attempt == number && status.phase == Some(BackupPhase::Running), "{status:?}");
            Ok(())
        };
        self.plane.until(self.name(), name, STEP, under_way).await
    }

    async fn delete_pods(&self, namespace: &str, selector: &str) -> anyhow::Result<usize> {
        let pods: Api<Pod> = self.plane.objects(namespace)?;
        let found = pods.list(&ListParams::default().labels(selector)).await?.items;
        for pod in &found {
            let name = pod.metadata.name.as_deref().context("a pod without a name")?;
            pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(found.len())
    }
}

/// Brings something back into a namespace, and waits for the end.
async fn restore(
    plane: &DataPlane,
    namespace: &str,
    name: &str,
    spec: &Value,
    phase: RestorePhase,
) -> anyhow::Result<RestoreStatus> {
    plane.apply(namespace, "Restore", name, spec).await?;
    let ended = |restore: &Restore| {
        let status = restore.status.as_ref().context("no status yet")?;
        ensure!(status.phase == Some(phase), "{status:?}");
        Ok(status.clone())
    };
    plane.until(namespace, name, STEP, ended).await
}

async fn kept(service: &Service<'_>) -> anyhow::Result<Vec<String>> {
    let rows = service.sql("select what from kept order by n").await?;
    Ok(rows.lines().map(str::to_owned).collect())
}

/// A moment in whole seconds after what was committed before it, and before what is committed after: the server's
/// clock goes over into another second on either side.
async fn moment(service: &Service<'_>) -> anyhow::Result<String> {
    let over = "select pg_sleep_until(date_trunc('second', clock_timestamp()) + interval '1 second')";
    let told = r#"select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;
    Ok(service.sql(&format!("{over}; {told}; {over}")).await?.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_undone_to_the_second_before_it_also_elsewhere() -> anyhow::Result<()> {
    let place = Place::new("time", json!({"target": "vault"})).await?;
    let (plane, orders) = (place.plane, place.orders());
    place.backup("base", json!({"method": "physical"})).await?;
    let base = place.phase("base", BackupPhase::Complete).await?;
    orders.sql("insert into kept (what) values ('in time')").await?;
    let before = moment(&orders).await?;
    orders.sql("delete from kept; insert into kept (what) values ('too late')").await?;
    let after: k8s_openapi::jiff::Timestamp = moment(&orders).await?.parse()?;
    let archived = |service: &DataService| {
        let window = service.status.as_ref().and_then(|status| status.recoverable.as_ref());
        ensure!(window.is_some_and(|window| window.until.0 > after), "{after} is not archived: {window:?}");
        Ok(())
    };
    orders.until(STEP, archived).await?;

    // A moment that no backup reaches is refused, and the window told.
    let spec = |service: &str, at: &str| {
        json!({"service": service, "source": {"backup": "base"}, "pointInTime": at,
            "overrides": {"topology": {"replicas": 1}}})
    };
    let early = spec("early", "2020-01-01T00:00:00Z");
    let refused = restore(plane, place.name(), "early", &early, RestorePhase::Failed).await?;
    let failure = refused.failure.context("no failure")?;
    ensure!(failure.message.contains("from ") && failure.message.contains(" to "), "{failure:?}");

    restore(plane, place.name(), "back", &spec("back", &before), RestorePhase::Complete).await?;
    let back = plane.service(place.name(), "back");
    ensure!(kept(&back).await? == ["first", "in time"], "{:?}", kept(&back).await?);
    ensure!(kept(&orders).await? == ["too late"], "the service itself was touched");

    // The first cluster and all its objects are of no more use: a copy of the bucket is.
    let path = base.status.and_then(|status| status.path).context("no path")?;
    let folder = path.split_once("/backups/").context("a path of another shape")?.0;
    let other = DataPlane::another().await?;
    let copy = other.copy_of(&place.store).await?;
    let elsewhere = other.cluster().namespace("elsewhere").await?;
    other.target(elsewhere.name(), "mirror", &copy, "backups").await?;
    let spec = json!({"service": "orders", "source": {"target": "mirror", "path": folder}, "pointInTime": before,
        "overrides": {"topology": {"replicas": 1}}});
    restore(&other, elsewhere.name(), "orders", &spec, RestorePhase::Complete).await?;
    let there = other.service(elsewhere.name(), "orders");
    ensure!(kept(&there).await? == ["first", "in time"], "{:?}", kept(&there).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_replaced_in_place_only_with_proof_and_a_way_back() -> anyhow::Result<()> {
    let place = Place::new("in-place", Value::Null).await?;
    let (plane, orders) = (place.plane, place.orders());
    place.backup("base", json!({})).await?;
    place.phase("base", BackupPhase::Complete).await?;
    orders.sql("delete from kept; insert into kept (what) values ('later')").await?;

    let spec = |confirm: &str| json!({"service": "orders", "source": {"backup": "base"}, "inPlace": {"confirm": confirm}});
    let refused = restore(plane, place.name(), "blind", &spec("not-its-uid"), RestorePhase::Failed).await?;
    let code = refused.failure.map(|failure| failure.code);
    ensure!(code.as_deref() == Some("confirm_mismatch"), "{code:?}");
    ensure!(kept(&orders).await? == ["later"], "it was touched without proof");

    let uid = orders.ready().await?.metadata.uid.context("no uid")?;
    restore(plane, place.name(), "sure", &spec(&uid), RestorePhase::Complete).await?;
    let same = orders.ready().await?.metadata.uid;
    ensure!(same.as_deref() == Some(uid.as_str()), "it is another service");
    ensure!(kept(&orders).await? == ["first"], "{:?}", kept(&orders).await?);

    // What was there before can be had again: it was backed up first.
    let backups: Api<Backup> = plane.objects(place.name())?;
    let all = backups.list(&ListParams::default()).await?.items;
    let prior =
        all.iter().find(|backup| backup.spec.trigger == Trigger::PreRestore).context("no backup before")?;
    let prior = prior.metadata.name.as_deref().context("no name")?;
    place.phase(prior, BackupPhase::Complete).await?;
    let spec = json!({"service": "undone", "source": {"backup": prior}});
    restore(plane, place.name(), "undone", &spec, RestorePhase::Complete).await?;
    ensure!(kept(&plane.service(place.name(), "undone")).await? == ["later"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_keeps_what_it_shall_and_proves_what_it_keeps() -> anyhow::Result<()> {
    let place = Place::new("schedule", Value::Null).await?;
    let plane = place.plane;
    let spec = |dry_run: bool| {
        json!({"service": "orders", "target": "vault", "cron": "0 0 1 1 *", "method": "logical", "verifyEvery": 1,
            "retention": {"keepLast": 1, "dryRun": dry_run}})
    };
    plane.apply(place.name(), "BackupSchedule", "yearly", &spec(true)).await?;
    let mut made: Vec<String> = Vec::new();
    let backups: Api<Backup> = plane.objects(place.name())?;
    for (count, asked) in ["one", "two"].into_iter().enumerate() {
        let asked = format!("{}={asked}", meta::RUN_NOW);
        let annotate = ["-n", place.name(), "annotate", "--overwrite", "backupschedule/yearly", &asked];
        plane.cluster().get(&annotate).await?;
        let complete = until(STEP, || async {
            let all = backups.list(&ListParams::default()).await?.items;
            let whole = all.into_iter().filter(|backup| {
                backup.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Complete)
            });
            let names: Vec<String> = whole.filter_map(|backup| backup.metadata.name).collect();
            ensure!(names.len() == count + 1, "{names:?}");
            Ok(names)
        });
        let names = plane.explained(complete.await, place.name()).await?;
        made.extend(names.into_iter().filter(|name| !made.contains(name)).collect::<Vec<_>>());
    }
    let [first, second] = made.as_slice() else { anyhow::bail!("{made:?}") };
    let (first, second) = (first.as_str(), second.as_str());
    let path = |backup: Backup| backup.status.and_then(|status| status.path).context("no path");
    let (old, new) = (path(backups.get(first).await?)?, path(backups.get(second).await?)?);

    // Each is restored in a namespace of its own, of which nothing stays.
    let verified = |backup: &Backup| {
        let verified = backup.status.as_ref().and_then(|status| status.verified.as_ref());
        ensure!(verified.is_some_and(|verified| verified.ok && verified.seconds > 0), "{verified:?}");
        Ok(())
    };
    plane.until(place.name(), second, STEP, verified).await?;
    let namespaces: Api<KubeNamespace> = Api::all(plane.client()?);
    let purpose = format!("{}/", place.name());
    let gone = until(STEP, || async {
        let all = namespaces.list(&ListParams::default()).await?.items;
        let ours = all.into_iter().filter(|one| {
            let of = one.metadata.annotations.as_ref().and_then(|all| all.get(meta::VERIFIES));
            of.is_some_and(|of| of.starts_with(&purpose))
        });
        let left: Vec<_> = ours.filter_map(|one| one.metadata.name).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    });
    plane.explained(gone.await, place.name()).await?;

    // First it only says what would go; then it goes, with all that lies in the bucket.
    let would = |schedule: &BackupSchedule| {
        let status = schedule.status.as_ref().context("no status yet")?;
        ensure!(status.would_delete == [first], "{status:?}");
        Ok(())
    };
    plane.until(place.name(), "yearly", STEP, would).await?;
    let below = |path: &str| {
        let all = place.store.objects("backups")?;
        anyhow::Ok(all.into_iter().filter(|(name, _)| name.starts_with(path)).count())
    };
    ensure!(below(&old)? > 0 && below(&new)? > 0, "nothing lies in the bucket");
    plane.apply(place.name(), "BackupSchedule", "yearly", &spec(false)).await?;
    plane.gone::<Backup>(place.name(), first, STEP).await?;
    ensure!(below(&old)? == 0, "{:?}", place.store.objects("backups")?);
    ensure!(below(&new)? > 0, "the backup that is kept is gone from the bucket");
    place.phase(second, BackupPhase::Complete).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_survives_the_end_of_everything_around_it() -> anyhow::Result<()> {
    let mut place = Place::new("faults", Value::Null).await?;
    let database: Api<Pod> = place.plane.objects(place.name())?;
    let uid = async || anyhow::Ok(database.get("orders-0").await?.metadata.uid);
    let before = uid().await?;

    // The store stands still, so that the backup is surely in the middle when its pod and the operator end.
    place.store.pause()?;
    place.backup("hurt", json!({})).await?;
    place.attempt("hurt", 1).await?;
    let of_job = "batch.kubernetes.io/job-name=hurt-backup";
    ensure!(place.delete_pods(place.name(), of_job).await? == 1, "the Job has no pod");
    let operators = place.delete_pods("culvert-operator", "app.kubernetes.io/name=culvert-operator").await?;
    ensure!(operators > 0, "no operator runs");
    place.attempt("hurt", 2).await?;
    place.store.go_on()?;
    place.phase("hurt", BackupPhase::Complete).await?;
    let objects = place.store.objects("backups")?;
    let manifests = objects.iter().filter(|(name, _)| name.ends_with("/manifest.json")).count();
    ensure!(manifests == 1, "{objects:?}");
    ensure!(uid().await? == before, "the end of the operator restarted the database");

    // A store that stays away: it ends with the cause, and nothing of it counts.
    place.store.kill().await?;
    place.backup("lost", json!({"attempts": 1, "deadlineSeconds": 60})).await?;
    let failed = place.phase("lost", BackupPhase::Failed).await?;
    let failure = failed.status.and_then(|status| status.failure).context("no failure")?;
    ensure!(["target_unreachable", "deadline"].contains(&failure.code.as_str()), "{failure:?}");
    place.store.resume().await?;
    place.backup("next", json!({})).await?;
    place.phase("next", BackupPhase::Complete).await?;

    let spec = json!({"service": "back", "source": {"backup": "hurt"}});
    restore(place.plane, place.name(), "back", &spec, RestorePhase::Complete).await?;
    ensure!(kept(&place.plane.service(place.name(), "back")).await? == ["first"]);
    Ok(())
}
