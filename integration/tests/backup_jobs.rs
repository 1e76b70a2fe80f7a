//! The Jobs of backups, as Kubernetes runs them: with `job.json`, a Secret in a folder, and an account that may
//! write status and little else. Against a real PostgreSQL, real stores and a real API server.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use culvert_integration::kube::{ControlPlane, Namespace};
use culvert_integration::postgres::Postgres;
use culvert_integration::process::{self, Child, Signal};
use culvert_integration::targets::{Azure, S3};
use culvert_integration::wait;
use culvert_resources::instance::SourceConfig;
use culvert_resources::job::{
    BackupJob, EXIT_PERMANENT, InspectJob, Inspected, JobConfig, ProbeJob, PruneJob, TargetConfig,
};
use culvert_resources::{AzureTarget, DeletionPolicy, Method, S3Target};
use culvert_runner::pack::Meter;
use culvert_runner::restore::{Source, fetch_base};
use serde_json::{Value, json};

/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(90);
const BUCKET: &str = "backups";
const SERVICE: &str = "services/data.shop.12345678";
/// The rights of the ServiceAccount of Jobs.
const ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: culvert-job, namespace: NAMESPACE}
rules:
- {apiGroups: [data.culvert.dev], resources: [backups], verbs: [get, create]}
- {apiGroups: [data.culvert.dev], resources: [backups/status], verbs: [get, patch]}
- {apiGroups: [data.culvert.dev], resources: [backuptargets/status, restores/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: culvert-job, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: culvert-job}
subjects: [{kind: ServiceAccount, name: culvert-job, namespace: NAMESPACE}]
"#;

/// What a namespace with a service and a target is to a Job.
struct Place {
    cluster: ControlPlane,
    namespace: Namespace,
    kubeconfig: PathBuf,
    postgres: Postgres,
    store: S3,
    folder: tempfile::TempDir,
}

impl Place {
    async fn make() -> anyhow::Result<Self> {
        let cluster = ControlPlane::start().await?;
        let definitions: Vec<String> =
            culvert_resources::definitions().iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        cluster.apply(&definitions.join("\n---\n")).await?;
        let namespace = cluster.namespace("shop").await?;
        let kubeconfig = cluster.service_account_kubeconfig(namespace.name(), "culvert-job").await?;
        cluster.apply(&ROLE.replace("NAMESPACE", namespace.name())).await?;
        let postgres = Postgres::start().await?;
        for user in ["culvert_admin superuser", "culvert_replication replication"] {
            postgres.query("postgres", &format!("create role {user} login password 'pass:word'")).await?;
        }
        let store = S3::start("127.0.0.1").await?;
        store.make_bucket(BUCKET)?;
        let folder = tempfile::tempdir()?;
        for below in ["secret", "credentials", "none"] {
            std::fs::create_dir(folder.path().join(below))?;
        }
        for password in ["admin-password", "replication-password"] {
            std::fs::write(folder.path().join("credentials").join(password), "pass:word")?;
        }
        let place = Self { cluster, namespace, kubeconfig, postgres, store, folder };
        place.write_secret(place.store.credentials().1)?;
        let key = culvert_pki::stream::BackupKey::generate()?;
        std::fs::write(place.folder.path().join("secret/encryption-key"), key.expose().as_bytes())?;
        Ok(place)
    }

    /// As the kubelet does when the Secret changes.
    fn write_secret(&self, secret: &str) -> anyhow::Result<()> {
        std::fs::write(self.folder.path().join("secret/access-key-id"), self.store.credentials().0)?;
        Ok(std::fs::write(self.folder.path().join("secret/secret-access-key"), secret)?)
    }

    fn target(&self) -> TargetConfig {
        let s3 = S3Target {
            bucket: BUCKET.into(),
            endpoint: Some(self.store.endpoint()),
            path_style: true,
            ..S3Target::default()
        };
        TargetConfig {
            name: "nightly".into(),
            s3: Some(s3),
            prefix: "of/us".into(),
            credentials: Some(self.folder.path().join("secret").display().to_string()),
            ca_bundle: Some(self.store.ca().to_owned()),
            ..TargetConfig::default()
        }
    }

    async fn make_backup(&self, name: &str) -> anyhow::Result<()> {
        let backup = json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": self.namespace.name()},
            "spec": {"service": "shop", "target": "nightly"},
        });
        self.cluster.apply(&backup.to_string()).await
    }

    fn backup_job(&self, name: Option<&str>, method: Method) -> anyhow::Result<JobConfig> {
        let url = self.postgres.url();
        let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).context("a port")?;
        Ok(JobConfig::Backup(BackupJob {
            namespace: self.namespace.name().into(),
            backup: name.map(str::to_owned),
            schedule: name.is_none().then(|| "hourly".to_owned()),
            service: "shop".into(),
            service_uid: "12345678-0000".into(),
            engine: "postgresql".into(),
            method,
            host: "127.0.0.1".into(),
            port: port.parse()?,
            owner: "app".into(),
            target: self.target(),
            path: SERVICE.into(),
            archived: false,
            jitter_seconds: 0,
            service_spec: json!({"engine": "postgresql", "version": "15"}),
            deletion_policy: DeletionPolicy::Delete,
        }))
    }

    /// A Job's process that has begun.
    fn start(&self, job: &JobConfig, env: &[(&str, &str)]) -> anyhow::Result<Child> {
        let folder = self.folder.path().join(format!("job-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("job.json"), serde_json::to_vec(job)?)?;
        let mut command = Command::new(process::program("culvert-runner")?);
        command.args(["job", "--engine-bin", "/usr/lib/postgresql/15/bin"]);
        command.arg("--job").arg(&folder).arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--credentials").arg(self.folder.path().join("credentials"));
        command.arg("--tls").arg(self.folder.path().join("none"));
        command.arg("--termination").arg(self.word());
        command.envs(env.iter().copied());
        Child::spawn("job", command, &folder.join("log"))
    }

    /// The termination message.
    fn word(&self) -> PathBuf {
        self.folder.path().join("termination")
    }

    async fn run(&self, job: &JobConfig) -> anyhow::Result<(ExitStatus, String)> {
        self.run_with(job, &[]).await
    }

    async fn run_with(&self, job: &JobConfig, env: &[(&str, &str)]) -> anyhow::Result<(ExitStatus, String)> {
        let mut child = self.start(job, env)?;
        let status = child.ended(LIMIT).await.with_context(|| child.output())?;
        Ok((status, std::fs::read_to_string(self.word())?))
    }

    async fn succeed(&self, job: &JobConfig) -> anyhow::Result<String> {
        let (status, word) = self.run(job).await?;
        ensure!(status.success(), "{status}: {word}");
        Ok(word)
    }

    /// The code of a Job that fails, and whether it is for ever.
    async fn fail(&self, job: &JobConfig) -> anyhow::Result<(String, bool)> {
        let (status, word) = self.run(job).await?;
        ensure!(!status.success(), "it did not fail: {word}");
        let failure: culvert_resources::Failure = serde_json::from_str(&word)?;
        Ok((failure.code, status.code() == Some(EXIT_PERMANENT)))
    }

    async fn status(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        let text = self.cluster.get(&["get", kind, name, "-n", self.namespace.name(), "-o", "json"]).await?;
        Ok(serde_json::from_str::<Value>(&text)?["status"].take())
    }

    async fn phase(&self, name: &str) -> anyhow::Result<String> {
        let status = self.status("backup", name).await?;
        Ok(status["phase"].as_str().unwrap_or_default().to_owned())
    }

    fn inspect(&self, path: &str) -> JobConfig {
        JobConfig::Inspect(InspectJob {
            namespace: self.namespace.name().into(),
            restore: "again".into(),
            target: self.target(),
            path: path.into(),
            point_in_time: None,
            manifest_digest: None,
        })
    }

    async fn probe(&self, name: &str, target: TargetConfig) -> anyhow::Result<Value> {
        let job = JobConfig::Probe(ProbeJob {
            namespace: self.namespace.name().into(),
            name: name.into(),
            generation: 1,
            credential_generation: 4,
            asked: None,
            target,
        });
        self.succeed(&job).await?;
        Ok(self.status("backuptarget", name).await?["probe"].take())
    }

    /// Rows that compression makes little of, so that an upload has parts.
    async fn fill(&self, megabytes: u32) -> anyhow::Result<()> {
        let rows = megabytes * 1024;
        let noise = "decode(string_agg(md5(random()::text || n || m), ''), 'hex')";
        let sql = format!(
            "create table noise as select n, (select {noise} from generate_series(1, 64) m) as bytes \
             from generate_series(1, {rows}) n; alter table noise alter bytes set storage external"
        );
        self.postgres.query("postgres", &sql).await.map(drop)
    }

    /// Parts of uploads that nobody has completed or aborted.
    fn open_uploads(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut folders = vec![self.store.file(BUCKET, ".sgwtmp")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path())
                } else {
                    found.push(entry.path())
                }
            }
        }
        Ok(found)
    }

    /// Waits until parts are on their way.
    async fn uploading(&self) -> anyhow::Result<()> {
        wait::until(LIMIT, || async {
            let open = self.open_uploads()?;
            ensure!(open.len() > 1, "{} parts of uploads", open.len());
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_looked_at_brought_back_and_deleted() -> anyhow::Result<()> {
    let place = Place::make().await?;
    place.make_backup("one").await?;
    place.succeed(&place.backup_job(Some("one"), Method::Physical)?).await?;
    let status = place.status("backup", "one").await?;
    ensure!(status["phase"] == "Complete" && status["encrypted"] == true, "{status}");
    ensure!(status["madeFrom"].as_str().is_some_and(|from| from.starts_with("postgresql 15.")), "{status}");
    ensure!(status["dataBytes"].as_i64() > status["storedBytes"].as_i64(), "{status}");
    ensure!(status["conditions"][0]["type"] == "Complete", "{status}");

    let path = format!("{SERVICE}/backups/one");
    for asked in [path.as_str(), SERVICE] {
        let word = place.succeed(&place.inspect(asked)).await?;
        let inspected: Inspected = serde_json::from_str(&word)?;
        ensure!(inspected.path == path && status["manifestDigest"] == inspected.manifest_digest, "{word}");
    }

    let source = SourceConfig {
        restore: "again".into(),
        target: place.target(),
        path: path.clone(),
        manifest_digest: status["manifestDigest"].as_str().map(str::to_owned),
        point_in_time: None,
    };
    let data = place.folder.path().join("restored");
    fetch_base(&Source::open(&source).await?, &data, &Arc::new(Meter::default())).await?;
    ensure!(data.join("global/pg_control").is_file() && data.join("backup_label").is_file());

    let foreign = place.store.file(BUCKET, &format!("of/us/{path}/holiday.jpg"));
    std::fs::write(&foreign, "not ours")?;
    let prune = JobConfig::Prune(PruneJob {
        namespace: place.namespace.name().into(),
        backup: "one".into(),
        target: place.target(),
        path,
        wal_path: Some(format!("{SERVICE}/wal")),
    });
    let word = place.succeed(&prune).await?;
    ensure!(word.contains("1 foreign"), "{word}");
    place.succeed(&prune).await?;
    let left = place.store.objects(BUCKET)?;
    ensure!(left.len() == 1 && foreign.exists(), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_makes_one_backup_however_often_its_job_runs() -> anyhow::Result<()> {
    let place = Place::make().await?;
    let job = place.backup_job(None, Method::Logical)?;
    for _ in 0..2 {
        let (status, word) = place.run_with(&job, &[("CULVERT_JOB_NAME", "hourly-backup-29333190")]).await?;
        ensure!(status.success(), "{status}: {word}");
    }
    let names = place.cluster.get(&["get", "backups", "-n", place.namespace.name(), "-o", "name"]).await?;
    ensure!(names.trim() == "backup.data.culvert.dev/hourly-29333190", "{names}");
    let status = place.status("backup", "hourly-29333190").await?;
    ensure!(status["phase"] == "Complete" && status["attempt"] == 1, "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_in_the_middle_is_waited_for() -> anyhow::Result<()> {
    let mut place = Place::make().await?;
    place.fill(600).await?;
    place.make_backup("one").await?;
    let mut job = place.start(&place.backup_job(Some("one"), Method::Physical)?, &[])?;
    place.uploading().await?;
    place.store.kill().await?;
    ensure!(place.phase("one").await? == "Running", "{}", place.status("backup", "one").await?);
    place.store.resume().await?;
    let status = job.ended(LIMIT).await.with_context(|| job.output())?;
    ensure!(status.success(), "{status}: {}", job.output());
    place.succeed(&place.inspect(&format!("{SERVICE}/backups/one"))).await?;
    ensure!(place.open_uploads()?.is_empty(), "{:?}", place.open_uploads()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_killed_or_cancelled_leaves_no_half_backup() -> anyhow::Result<()> {
    let place = Place::make().await?;
    place.fill(600).await?;
    place.make_backup("one").await?;
    let config = place.backup_job(Some("one"), Method::Physical)?;
    let job = place.start(&config, &[])?;
    place.uploading().await?;
    job.kill().await?;
    let path = format!("{SERVICE}/backups/one");
    ensure!(place.fail(&place.inspect(&path)).await?.0 == "backup_missing");
    ensure!(!place.open_uploads()?.is_empty(), "the kill left nothing to remove");
    place.succeed(&config).await?;
    ensure!(place.status("backup", "one").await?["attempt"] == 2);
    ensure!(place.open_uploads()?.is_empty(), "{:?}", place.open_uploads()?);
    place.succeed(&place.inspect(&path)).await?;

    place.make_backup("two").await?;
    let mut job = place.start(&place.backup_job(Some("two"), Method::Physical)?, &[])?;
    place.uploading().await?;
    // Held, so that it cannot come to its end before it is told.
    job.signal(Signal::Stop)?;
    let annotate = ["annotate", "backup", "two", "-n", place.namespace.name(), "data.culvert.dev/cancel=now"];
    place.cluster.get(&annotate).await?;
    job.signal(Signal::Cont)?;
    let status = job.ended(LIMIT).await.with_context(|| job.output())?;
    ensure!(status.code() == Some(EXIT_PERMANENT), "{status}: {}", job.output());
    ensure!(place.status("backup", "two").await?["failure"]["code"] == "cancelled");

    place.make_backup("three").await?;
    let mut job = place.start(&place.backup_job(Some("three"), Method::Physical)?, &[])?;
    place.uploading().await?;
    job.signal(Signal::Term)?;
    let status = job.ended(LIMIT).await.with_context(|| job.output())?;
    ensure!(status.code() == Some(1), "{status}: {}", job.output());
    ensure!(place.phase("three").await? == "Running", "another attempt is to come");
    ensure!(place.open_uploads()?.is_empty(), "{:?}", place.open_uploads()?);
    let left = place.store.objects(BUCKET)?;
    ensure!(left.iter().all(|(name, _)| name.contains("backups/one/")), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_before_anything_is_touched() -> anyhow::Result<()> {
    let place = Place::make().await?;
    place.make_backup("one").await?;
    place.succeed(&place.backup_job(Some("one"), Method::Logical)?).await?;
    let path = format!("{SERVICE}/backups/one");
    let inspect = place.inspect(&path);
    let object = |name: &str| place.store.file(BUCKET, &format!("of/us/{path}/{name}"));
    for (name, code) in [("globals.sql.zst.enc.000", "backup_damaged"), ("manifest.json", "backup_forged")] {
        let good = std::fs::read(object(name))?;
        let mut flipped = good.clone();
        let last_space = flipped.iter().rposition(|byte| *byte == b' ').unwrap_or(flipped.len() / 2);
        flipped[last_space] ^= 0x29;
        std::fs::write(object(name), &flipped)?;
        ensure!(place.fail(&inspect).await? == (code.to_owned(), true), "{name} was changed");
        std::fs::write(object(name), &good)?;
    }
    let globals = object("globals.sql.zst.enc.000");
    let good = std::fs::read(&globals)?;
    std::fs::write(&globals, &good[..good.len() - 1])?;
    ensure!(place.fail(&inspect).await? == ("backup_damaged".to_owned(), true));
    std::fs::remove_file(&globals)?;
    ensure!(place.fail(&inspect).await? == ("backup_damaged".to_owned(), true));
    std::fs::write(&globals, &good)?;
    place.succeed(&inspect).await?;

    let key = culvert_pki::stream::BackupKey::generate()?;
    std::fs::write(place.folder.path().join("secret/encryption-key"), key.expose().as_bytes())?;
    ensure!(place.fail(&inspect).await? == ("key_missing".to_owned(), true));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_what_is_wrong_with_a_target() -> anyhow::Result<()> {
    let mut place = Place::make().await?;
    let target = json!({
        "apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupTarget",
        "metadata": {"name": "nightly", "namespace": place.namespace.name()},
        "spec": {"s3": {"bucket": BUCKET}},
    });
    place.cluster.apply(&target.to_string()).await?;
    let good = place.target();
    let probe = place.probe("nightly", good.clone()).await?;
    ensure!(probe["ok"] == true && probe["credentialGeneration"] == 4, "{probe}");
    ensure!(probe["clockSkewMs"].as_i64().is_some_and(|skew| skew.abs() < 5000), "{probe}");
    ensure!(place.store.objects(BUCKET)?.is_empty(), "{:?}", place.store.objects(BUCKET)?);

    let with = |change: &dyn Fn(&mut S3Target)| {
        let mut target = good.clone();
        target.s3.as_mut().into_iter().for_each(change);
        target
    };
    let untrusted = TargetConfig { ca_bundle: None, ..good.clone() };
    let nobody = with(&|s3| s3.endpoint = Some("https://127.0.0.1:1".into()));
    let nowhere = with(&|s3| s3.endpoint = Some("https://store.invalid".into()));
    let none = with(&|s3| s3.bucket = "nothing".into());
    let proxy = TargetConfig { proxy: Some("http://127.0.0.1:1".into()), ..good.clone() };
    for (target, code, step) in [
        (untrusted, "tls_untrusted", "connect"),
        (nobody, "target_unreachable", "connect"),
        (nowhere, "name_unknown", "connect"),
        (proxy, "target_unreachable", "connect"),
        (none, "bucket_missing", "write"),
    ] {
        let probe = place.probe("nightly", target).await?;
        ensure!(probe["ok"] == false && probe["why"]["code"] == code, "{code}: {probe}");
        ensure!(probe["failedStep"] == step, "{code}: {probe}");
    }

    // The kubelet brings new credentials into the folder: they work without anything being started anew.
    place.store.rotate().await?;
    let probe = place.probe("nightly", good.clone()).await?;
    ensure!(
        probe["why"]["code"] == "credentials_invalid" && probe["failedStep"] == "authenticate",
        "{probe}"
    );
    ensure!(!probe.to_string().contains(place.store.credentials().1), "{probe}");
    place.write_secret(place.store.credentials().1)?;
    let probe = place.probe("nightly", good).await?;
    ensure!(probe["ok"] == true, "{probe}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_takes_a_backup_and_gives_it_back() -> anyhow::Result<()> {
    let place = Place::make().await?;
    place.fill(30).await?;
    let azure = Azure::start("127.0.0.1").await?;
    azure.make_container(BUCKET).await?;
    std::fs::write(place.folder.path().join("secret/account-key"), azure.account_key())?;
    let target = TargetConfig {
        s3: None,
        azure: Some(AzureTarget {
            account: azure.account().to_owned(),
            container: BUCKET.into(),
            endpoint: Some(azure.endpoint()),
            allow_http: false,
        }),
        ca_bundle: Some(azure.ca().to_owned()),
        ..place.target()
    };
    place.make_backup("one").await?;
    let JobConfig::Backup(mut job) = place.backup_job(Some("one"), Method::Physical)? else { return Ok(()) };
    job.target = target.clone();
    place.succeed(&JobConfig::Backup(job)).await?;
    let path = format!("{SERVICE}/backups/one");
    let source =
        SourceConfig { restore: "again".into(), target, path, manifest_digest: None, point_in_time: None };
    restore(&source, &place.folder.path().join("restored")).await
}

async fn restore(source: &SourceConfig, data: &Path) -> anyhow::Result<()> {
    fetch_base(&Source::open(source).await?, data, &Arc::new(Meter::default())).await?;
    ensure!(data.join("global/pg_control").is_file());
    Ok(())
}
