//! Story: something is not ready, and its status says the deepest cause in one sentence,
//! who can mend it, and what to do next; each cause made for real.

use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::data_plane::{DataPlane, SMALL, Service, target_spec};
use culvert_integration::targets::{S3, Skewed};
use culvert_integration::wait::until;
use culvert_integration::webhook::Webhook;
use culvert_resources::{BackupTarget, WhoCanFix, Why};
use serde_json::{Value, json};

/// How long a cause may take to be seen.
const SEEN: Duration = Duration::from_secs(60);

/// A PostgreSQL with a field of its spec set besides.
fn postgresql(field: &str, value: Value) -> Value {
    let mut spec = json!({
        "engine": "postgresql", "version": "17",
        "resources": {"cpu": "50m", "memory": "256Mi"},
        "deletion": {"strategy": "Delete"},
    });
    spec[field] = value;
    spec
}

/// A cause that helps: it says what, points at somebody, and says what to do.
fn helps(why: &Why, who: WhoCanFix, words: &str) -> anyhow::Result<()> {
    ensure!(why.who == who, "not for {who:?}: {why:?}");
    ensure!(why.message.contains(words), "does not say {words:?}: {why:?}");
    ensure!(!why.next.is_empty() && !why.message.contains('\n'), "{why:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_parameter_is_told_before_anything_is_made() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-parameter").await?;
    let wrong = postgresql("parameters", json!({"work_mem": "a lot"}));
    let service = plane.create(namespace.name(), "orders", &wrong).await?;
    let why = service.why("parameter_invalid", SEEN).await?;
    helps(&why, WhoCanFix::Developer, "work_mem")?;
    let made = plane.cluster().get(&["-n", namespace.name(), "get", "statefulsets", "-o", "name"]).await?;
    ensure!(made.is_empty(), "made in spite of it: {made}");

    service.change(&json!({"parameters": {"work_mem": "8MB"}})).await?;
    service.ready().await?;
    ensure!(service.sql("show work_mem").await?.trim() == "8MB", "the parameter is not in force");

    // A wrong one later leaves what runs as it is.
    service.change(&json!({"parameters": {"wrok_mem": "8MB"}})).await?;
    let why = service.why("parameter_unknown", SEEN).await?;
    helps(&why, WhoCanFix::Developer, "wrok_mem")?;
    ensure!(service.sql("show work_mem").await?.trim() == "8MB", "what runs has changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_lacks_is_named() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-lacks").await?;
    let n = namespace.name();
    let create = |name: &'static str, spec: Value| async move { plane.create(n, name, &spec).await };

    let class = create("class", postgresql("storage", json!({"class": "nowhere"}))).await?;
    helps(&class.why("no_storage_class", SEEN).await?, WhoCanFix::PlatformOperator, "nowhere")?;

    let wide = create("wide", postgresql("resources", json!({"cpu": "100", "memory": "256Mi"}))).await?;
    helps(&wide.why("unschedulable", SEEN).await?, WhoCanFix::PlatformOperator, "cpu")?;
    // Made smaller it comes up: nothing of the first try is in the way.
    wide.change(&json!({"resources": {"cpu": "50m"}})).await?;
    wide.ready().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_named_and_waited_for() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-quota").await?;
    let quota = |memory: &str| {
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "small-team", "namespace": namespace.name()},
            "spec": {"hard": {"requests.memory": memory}},
        })
    };
    plane.cluster().apply(&quota("100Mi").to_string()).await?;
    let service = plane.create(namespace.name(), "orders", &postgresql("stopped", json!(false))).await?;
    helps(&service.why("quota", SEEN).await?, WhoCanFix::PlatformOperator, "small-team")?;
    plane.cluster().apply(&quota("2Gi").to_string()).await?;
    service.ready().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhooks_own_words_are_handed_on() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let cluster = plane.cluster();
    let namespace = cluster.namespace("why-webhook").await?;
    let words = "images come from the house registry only";
    let webhook = Webhook::deny_pods(cluster, cluster.address(), namespace.name(), words).await?;
    let service = plane.create(namespace.name(), "orders", &postgresql("stopped", json!(false))).await?;
    helps(&service.why("denied_by_webhook", SEEN).await?, WhoCanFix::PlatformOperator, words)?;
    webhook.remove(cluster).await?;
    service.ready().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_named() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-image").await?;
    let nowhere = format!("localhost/nobody-has-this@sha256:{}", "0".repeat(64));
    // No other story of this program runs the oldest version.
    let kept = plane.exchange_image("postgresql", "15.18", &nowhere).await?;
    let mut spec = postgresql("stopped", json!(false));
    spec["version"] = json!("15.18");
    let seen = async {
        let service = plane.create(namespace.name(), "orders", &spec).await?;
        helps(&service.why("image_pull", SEEN).await?, WhoCanFix::PlatformOperator, "nobody-has-this")?;
        anyhow::Ok(service)
    };
    let seen = seen.await;
    plane.exchange_image("postgresql", "15.18", &kept).await?;
    seen?.ready().await.map(drop)
}

/// Writes until the server takes no more; gives its last word.
async fn fill(service: &Service<'_>) -> anyhow::Result<String> {
    // Not compressed, or it would stay small.
    let table =
        "create table if not exists ballast (line text); alter table ballast alter line set storage external";
    if let Err(error) = service.sql(table).await {
        return Ok(format!("{error:#}"));
    }
    for _ in 0..64 {
        let more = "insert into ballast select repeat(md5(n::text), 250) from generate_series(1, 2000) n";
        if let Err(error) = service.sql(more).await {
            return Ok(format!("{error:#}"));
        }
    }
    anyhow::bail!("the disk never filled up")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_what_is_there_can_be_read() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-disk").await?;
    let mut small = postgresql("storage", json!({"class": SMALL, "size": "512Mi"}));
    // The small disk is one of memory, and counts as the pod's.
    small["resources"]["memory"] = json!("768Mi");
    let service = plane.create(namespace.name(), "orders", &small).await?;
    service.ready().await?;
    service.sql("create table kept as select 42 as n").await?;
    // A checkpoint may free old segments of the log and make room once more: then it is filled again.
    let full = || async {
        let word = fill(&service).await?;
        service.why("disk_full", Duration::from_secs(10)).await.context(word)
    };
    let why = until(SEEN, full).await?;
    helps(&why, WhoCanFix::Developer, "full")?;
    // The engine may have ended on the full disk; it comes back by the room that was kept for this.
    let readable = || async {
        let kept = service.sql("select n from kept").await?;
        ensure!(kept.trim() == "42", "what was there cannot be read: {kept}");
        Ok(())
    };
    plane.explained(until(SEEN, readable).await, namespace.name()).await
}

/// Waits until a target says why it is not reachable.
async fn target_why(plane: &DataPlane, namespace: &str, name: &str, code: &str) -> anyhow::Result<Why> {
    plane
        .until(namespace, name, SEEN, |target: &BackupTarget| {
            let status = target.status.as_ref().context("no status yet")?;
            let why = status.why.clone().filter(|why| why.code == code);
            why.with_context(|| format!("not {code}: {status:?}"))
        })
        .await
}

/// Asks for a check at once.
async fn check(plane: &DataPlane, namespace: &str, name: &str, mark: &str) -> anyhow::Result<()> {
    let (target, asked) = (format!("backuptarget/{name}"), format!("data.culvert.dev/run-now={mark}"));
    let annotate = ["-n", namespace, "annotate", "--overwrite", &target, &asked];
    plane.cluster().get(&annotate).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_reachable_says_why_it_is_no_more() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-target").await?;
    let n = namespace.name();
    let mut store = plane.store("backups").await?;
    plane.target(n, "vault", &store, "backups").await?;

    store.rotate().await?;
    check(plane, n, "vault", "after-the-key").await?;
    let why = target_why(plane, n, "vault", "credentials_invalid").await?;
    helps(&why, WhoCanFix::StorageOwner, "")?;
    plane.credentials(n, "vault", &store).await?;
    check(plane, n, "vault", "after-the-new-key").await?;
    plane.target(n, "vault", &store, "backups").await?;

    store.kill().await?;
    check(plane, n, "vault", "after-the-end").await?;
    let why = target_why(plane, n, "vault", "target_unreachable").await?;
    helps(&why, WhoCanFix::PlatformOperator, "")?;
    store.resume().await?;
    check(plane, n, "vault", "after-the-return").await?;
    plane.target(n, "vault", &store, "backups").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_never_right_says_what_is_wrong() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-never").await?;
    let n = namespace.name();
    let store = plane.store("backups").await?;
    for name in ["missing", "stranger"] {
        plane.credentials(n, name, &store).await?;
    }
    plane.apply(n, "BackupTarget", "missing", &target_spec("missing", &store, "nowhere")).await?;
    // Nobody has vouched for the store's authority.
    let mut stranger = target_spec("stranger", &store, "backups");
    let another = S3::start("127.0.0.1").await?;
    stranger["caBundle"] = json!(another.ca());
    plane.apply(n, "BackupTarget", "stranger", &stranger).await?;
    plane.apply(n, "BackupTarget", "keyless", &target_spec("no-such-secret", &store, "backups")).await?;

    let why = target_why(plane, n, "missing", "bucket_missing").await?;
    helps(&why, WhoCanFix::StorageOwner, "nowhere")?;
    let why = target_why(plane, n, "stranger", "tls_untrusted").await?;
    ensure!(!why.next.is_empty(), "{why:?}");
    let why = target_why(plane, n, "keyless", "no_secret").await?;
    helps(&why, WhoCanFix::Developer, "no-such-secret")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_clock_is_off_is_told_from_one_that_refuses_the_key() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("why-clock").await?;
    let n = namespace.name();
    let store = plane.store("backups").await?;
    let host = plane.cluster().address();
    let mut stores = Vec::new();
    for (name, minutes) in [("ten", 10), ("twenty", 20)] {
        let skewed = Skewed::before(&store, host, time::Duration::minutes(minutes)).await?;
        plane.cluster().open(skewed.server().address().port()).await?;
        plane.credentials(n, name, &store).await?;
        let mut spec = target_spec(name, &store, "backups");
        spec["s3"]["endpoint"] = json!(format!("https://{}", skewed.server().address()));
        spec["caBundle"] = json!(skewed.server().ca());
        plane.apply(n, "BackupTarget", name, &spec).await?;
        stores.push(skewed);
    }
    // The protocol bears ten minutes; that the clocks differ is said all the same.
    let reachable = |target: &BackupTarget| {
        let status = target.status.as_ref().context("no status yet")?;
        let told = status.conditions.iter().find(|told| told.type_ == "Reachable" && told.status == "True");
        let told = told.with_context(|| format!("{status:?}"))?;
        ensure!(told.message.contains("the clocks differ by"), "{told:?}");
        Ok(())
    };
    plane.until(n, "ten", SEEN, reachable).await?;
    let why = target_why(plane, n, "twenty", "clock_skew").await?;
    helps(&why, WhoCanFix::PlatformOperator, "")
}
