//! Backups measured beside the tools that people use by hand, on the same data in one run; prints Markdown.
//!
//! Nothing here asserts a time: a machine that is busy is slow, and not wrong. Each way is taken in turn, so that
//! what else the machine does falls on all of them. `CULVERT_BENCH_MIB` says how much data there is.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use culvert_integration::kube::ControlPlane;
use culvert_integration::postgres::Postgres;
use culvert_integration::process::{self, Child};
use culvert_integration::targets::S3;
use culvert_pki::stream::BackupKey;
use culvert_resources::job::{BackupJob, JobConfig, TargetConfig};
use culvert_resources::{DeletionPolicy, Method, S3Target};
use serde_json::json;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const NAMESPACE: &str = "bench";
const BUCKET: &str = "backups";
const PASSWORD: &str = "bench";
/// Odd, so that there is one in the middle.
const ROUNDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(1800);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bench = Bench::open().await?;
    let mib = std::env::var("CULVERT_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(2048);
    bench.fill(mib).await?;
    println!(
        "# Backups, measured\n\nPostgreSQL 15 with about {mib} MiB of rows; zstd at level 3 in every way; {ROUNDS} rounds, the middle one counts.\n"
    );
    println!(
        "| what | way | seconds | MiB/s | ratio | peak memory of the Job, MiB |\n| --- | --- | ---: | ---: | ---: | ---: |"
    );
    for (method, tool) in
        [(Method::Physical, "pg_basebackup \\| zstd"), (Method::Logical, "pg_dump \\| zstd")]
    {
        bench.compare(method, tool, mib).await?;
    }
    Ok(())
}

struct Bench {
    plane: ControlPlane,
    postgres: Postgres,
    store: S3,
    folder: tempfile::TempDir,
}

/// One run of one way.
#[derive(Debug, Clone, Copy)]
struct Run {
    seconds: f64,
    peak_mib: u64,
}

impl Bench {
    async fn open() -> anyhow::Result<Self> {
        let plane = ControlPlane::start().await?;
        let definitions: Vec<String> =
            culvert_resources::definitions().iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        plane.apply(&definitions.join("\n---\n")).await?;
        plane.get(&["create", "namespace", NAMESPACE]).await?;
        let postgres = Postgres::start().await?;
        for user in ["culvert_admin superuser", "culvert_replication replication"] {
            postgres.query("postgres", &format!("create role {user} login password '{PASSWORD}'")).await?;
        }
        let store = S3::start("127.0.0.1").await?;
        store.make_bucket(BUCKET)?;
        let folder = tempfile::tempdir_in("/tmp")?;
        for below in ["share", "secret", "credentials", "none", "out"] {
            std::fs::create_dir(folder.path().join(below))?;
        }
        let secret = folder.path().join("secret");
        std::fs::write(secret.join("access-key-id"), store.credentials().0)?;
        std::fs::write(secret.join("secret-access-key"), store.credentials().1)?;
        std::fs::write(secret.join("encryption-key"), BackupKey::generate()?.expose().as_bytes())?;
        for file in ["admin-password", "replication-password"] {
            std::fs::write(folder.path().join("credentials").join(file), PASSWORD)?;
        }
        std::fs::write(folder.path().join("pgpass"), format!("*:*:*:*:{PASSWORD}\n"))?;
        process::run(shell(&format!("chmod 600 {}", folder.path().join("pgpass").display()))).await?;
        Ok(Self { plane, postgres, store, folder })
    }

    /// Rows as applications have them: numbers, words that repeat, and some that do not.
    async fn fill(&self, mib: u64) -> anyhow::Result<()> {
        let rows = mib * 4096;
        let sql = format!(
            "create table orders as select n as id, n % 1000 as customer, now() - n * interval '1 second' as at, \
             md5(n::text) as token, 'Order of ' || (n % 50) || ' pieces, delivered by ' || (n % 7) as remark, \
             repeat(chr(97 + (n % 26)::int), 60) as note, random() as price \
             from generate_series(1, {rows}) n"
        );
        self.postgres.query("postgres", &sql).await?;
        self.postgres.query("postgres", "checkpoint").await.map(drop)
    }

    async fn compare(&self, method: Method, tool: &str, mib: u64) -> anyhow::Result<()> {
        let (mut hand, mut share, mut s3) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            hand.push(self.by_hand(method).await?);
            share.push(self.by_job(method, self.share(), &format!("share-{round}")).await?);
            s3.push(self.by_job(method, self.s3(), &format!("s3-{round}")).await?);
        }
        let what = match method {
            Method::Physical => "physical",
            Method::Logical => "logical",
        };
        let base = middle(hand);
        row(what, tool, base, base, mib);
        row(what, "Job, encrypted, to a file share", middle(share), base, mib);
        row(what, "Job, encrypted, to S3", middle(s3), base, mib);
        Ok(())
    }

    /// As a person does it, on the same disk, with the result on the disk at the end.
    async fn by_hand(&self, method: Method) -> anyhow::Result<Run> {
        let out = self.folder.path().join("out/backup.zst");
        let login = format!(
            "host=127.0.0.1 port={} user=culvert_admin dbname=postgres passfile={}",
            self.port()?,
            self.folder.path().join("pgpass").display()
        );
        let dump = match method {
            Method::Physical => format!("{PROGRAMS}/pg_basebackup -D - -F tar -X fetch -c fast -d '{login}'"),
            Method::Logical => format!("{PROGRAMS}/pg_dump -d '{login}'"),
        };
        let began = Instant::now();
        let line = format!("set -o pipefail; {dump} | zstd -q -3 -f -o {0} && sync {0}", out.display());
        process::run(shell(&line)).await?;
        Ok(Run { seconds: began.elapsed().as_secs_f64(), peak_mib: 0 })
    }

    async fn by_job(&self, method: Method, target: TargetConfig, name: &str) -> anyhow::Result<Run> {
        let name = format!("{name}-{}", serde_json::to_value(method)?.as_str().unwrap_or_default());
        let backup = json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"service": "bench", "target": "bench"},
        });
        self.plane.apply(&backup.to_string()).await?;
        let folder = self.folder.path().join(&name);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("job.json"), serde_json::to_vec(&self.job(method, target, &name)?)?)?;
        let began = Instant::now();
        let mut child = Child::spawn("job", self.command(&folder)?, &folder.join("log"))?;
        let peak_mib = peak(child.pid()).await;
        let status = child.ended(LIMIT).await?;
        ensure!(status.success(), "{status}: {}", child.output());
        Ok(Run { seconds: began.elapsed().as_secs_f64(), peak_mib })
    }

    fn job(&self, method: Method, target: TargetConfig, name: &str) -> anyhow::Result<JobConfig> {
        Ok(JobConfig::Backup(BackupJob {
            namespace: NAMESPACE.into(),
            backup: Some(name.into()),
            schedule: None,
            service: "bench".into(),
            service_uid: "12345678".into(),
            engine: "postgresql".into(),
            method,
            host: "127.0.0.1".into(),
            port: self.port()?.parse()?,
            owner: "app".into(),
            target,
            path: "services/bench".into(),
            archived: false,
            jitter_seconds: 0,
            service_spec: json!({}),
            deletion_policy: DeletionPolicy::Delete,
        }))
    }

    fn command(&self, job: &Path) -> anyhow::Result<Command> {
        let at = |below: &str| self.folder.path().join(below);
        let mut command = Command::new(runner()?);
        command.args(["job", "--engine-bin", PROGRAMS]).arg("--job").arg(job);
        command.arg("--kubeconfig").arg(self.plane.admin()).arg("--credentials").arg(at("credentials"));
        command.arg("--tls").arg(at("none")).arg("--termination").arg(at("termination"));
        Ok(command)
    }

    fn share(&self) -> TargetConfig {
        TargetConfig {
            name: "share".into(),
            share: Some(self.folder.path().join("share").display().to_string()),
            credentials: Some(self.folder.path().join("secret").display().to_string()),
            ..TargetConfig::default()
        }
    }

    fn s3(&self) -> TargetConfig {
        let s3 = S3Target {
            bucket: BUCKET.into(),
            endpoint: Some(self.store.endpoint()),
            path_style: true,
            ..S3Target::default()
        };
        TargetConfig {
            share: None,
            s3: Some(s3),
            ca_bundle: Some(self.store.ca().to_owned()),
            ..self.share()
        }
    }

    fn port(&self) -> anyhow::Result<String> {
        let url = self.postgres.url();
        let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).context("a port")?;
        Ok(port.to_owned())
    }
}

/// The program as it is released; it lies beside where this one does.
fn runner() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().and_then(Path::parent).context("a folder of programs")?;
    Ok(folder.join("culvert-runner"))
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", line]);
    command
}

/// Most memory that a process had, in MiB, from its beginning to its end. The kernel keeps the mark itself, so looking
/// now and then misses at most what was asked for in the last moment.
async fn peak(pid: u32) -> u64 {
    let mut peak = 0;
    while let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(kib) = line.and_then(|rest| rest.split_whitespace().next()) else { break };
        peak = kib.parse().map_or(peak, |kib: u64| kib / 1024);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peak
}

fn middle(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let peak_mib = runs.iter().map(|run| run.peak_mib).max().unwrap_or_default();
    let seconds = runs.get(runs.len() / 2).map_or(f64::NAN, |run| run.seconds);
    Run { seconds, peak_mib }
}

fn row(what: &str, way: &str, run: Run, base: Run, mib: u64) {
    let memory = if run.peak_mib == 0 { String::new() } else { run.peak_mib.to_string() };
    let (rate, ratio) = (mib as f64 / run.seconds, base.seconds / run.seconds);
    println!("| {what} | {way} | {:.1} | {rate:.0} | {ratio:.2} | {memory} |", run.seconds);
}
