//! Two instances of Valkey by the runner's driver alone, without Kubernetes: what the keeper of the Lease asks of it.
//!
//! Processes, TLS, users and replication are real; only the decision who is primary is the story's.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use culvert_integration::engines;
use culvert_integration::wait::until;
use culvert_resources::Method;
use culvert_resources::TlsMode;
use culvert_resources::instance::{InstanceConfig, SourceConfig};
use culvert_resources::job::TargetConfig;
use culvert_runner::args::Folders;
use culvert_runner::backup::make::{Wanted, make};
use culvert_runner::backup::manifest::{Sealed, Service};
use culvert_runner::backup::valkey::{Place, Snapshot};
use culvert_runner::credentials::Credentials;
use culvert_runner::engine::{Data, Engine as _, EngineError, Peer, Probed, Role, Situation};
use culvert_runner::filling::Filling;
use culvert_runner::pack::Meter;
use culvert_runner::storage::{Patience, Storage};
use culvert_runner::valkey::Valkey;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, TlsCertificates};
use tempfile::TempDir;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

/// An instance, and its process while it runs.
struct Instance {
    folder: TempDir,
    now: Situation,
    process: Option<Child>,
}

impl Instance {
    fn new(pod: &str, programs: &Path, tls: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let own = |name: &str| folder.path().join(name);
        for name in ["credentials", "volume"] {
            std::fs::create_dir(own(name))?;
        }
        let folders = Folders {
            config: own("config"),
            credentials: own("credentials"),
            tls: tls.to_owned(),
            archive: own("archive"),
            source: own("source"),
            share: own("share"),
            volume: own("volume"),
            run: own("run"),
            bin: own("bin"),
            engine_bin: Some(programs.to_owned()),
        };
        passwords(&folders.credentials, "first")?;
        let now = Situation {
            pod: pod.to_owned(),
            config: Arc::new(config(free_port()?)),
            credentials: Arc::new(Credentials::read(&folders.credentials)?),
            folders: Arc::new(folders),
            required: Arc::new([]),
            read_only: false,
            distrusted: false,
            filling: Filling::default(),
        };
        Ok(Self { folder, now, process: None })
    }

    fn peer(&self) -> Peer {
        Peer {
            pod: self.now.pod.clone(),
            host: "127.0.0.1".into(),
            port: self.now.config.port,
            runner_port: 1,
        }
    }

    async fn start(&mut self, role: &Role) -> anyhow::Result<()> {
        Valkey.configure(&self.now, role).await?;
        let launch = Valkey.launch(&self.now)?;
        let log = std::fs::File::create(self.folder.path().join("log"))?;
        let mut command = tokio::process::Command::new(&launch.program);
        command.args(&launch.args).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.process = Some(command.spawn()?);
        until(LIMIT, || async { Valkey.reload(&self.now).await.context("the engine is not up") })
            .await
            .with_context(|| self.log())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// As the power is cut.
    async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it does not run")?.kill().await.context("kill the engine")
    }

    async fn probe(&self) -> Result<Probed, EngineError> {
        Valkey.probe(&self.now).await
    }

    async fn followed(&self) -> anyhow::Result<Probed> {
        until(LIMIT, || async {
            let probed = self.probe().await?;
            ensure!(probed.streaming, "{probed:?}");
            Ok(probed)
        })
        .await
        .with_context(|| self.log())
    }

    fn set(&mut self, parameters: &[(&str, &str)]) {
        let mut config = (*self.now.config).clone();
        config.parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.now.config = Arc::new(config);
    }

    fn rotate(&mut self) -> anyhow::Result<()> {
        passwords(&self.now.folders.credentials, "second")?;
        self.now.credentials = Arc::new(Credentials::read(&self.now.folders.credentials)?);
        Ok(())
    }

    /// As an application logs in.
    async fn client(&self, user: &str, password: &str) -> redis::RedisResult<MultiplexedConnection> {
        let port = self.now.config.port;
        let address =
            ConnectionAddr::TcpTls { host: "localhost".into(), port, insecure: false, tls_params: None };
        let login = RedisConnectionInfo::default().set_username(user).set_password(password);
        let info = address.into_connection_info()?.set_redis_settings(login);
        let ca = std::fs::read(self.now.folders.tls.join("ca.crt")).unwrap();
        let tls = TlsCertificates { client_tls: None, root_cert: Some(ca) };
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(LIMIT));
        redis::Client::build_with_tls(info, tls)?.get_multiplexed_async_connection_with_config(&patient).await
    }
}

fn config(port: u16) -> InstanceConfig {
    InstanceConfig {
        engine: "valkey".into(),
        driver: "valkey".into(),
        version: "8.1.1".into(),
        namespace: "shop".into(),
        database: "cache".into(),
        uid: "u".into(),
        port,
        replicas: 2,
        synchronous: false,
        owner: "app".into(),
        parameters: BTreeMap::new(),
        tls: TlsMode::Required,
        archive: None,
        source: None,
        lease_seconds: 15,
        volume_bytes: None,
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn passwords(folder: &Path, time: &str) -> anyhow::Result<()> {
    for name in ["admin", "owner", "replication", "monitor"] {
        std::fs::write(folder.join(format!("{name}-password")), format!("{name} {time} \"\\ pass"))?;
    }
    Ok(())
}

/// A certificate of the service, by an authority of its own.
fn certificate(folder: &Path) -> anyhow::Result<()> {
    let (ca_key, key) = (rcgen::KeyPair::generate()?, rcgen::KeyPair::generate()?);
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new())?;
    // Two certificates with one name are one to OpenSSL.
    ca.distinguished_name.push(rcgen::DnType::CommonName, "authority of cache");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let names = vec!["cache.shop.svc".to_owned(), "localhost".to_owned()];
    let server = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    std::fs::write(folder.join("ca.crt"), ca_pem)?;
    std::fs::write(folder.join("tls.crt"), server.pem())?;
    std::fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

struct Stage {
    _folder: TempDir,
    programs: PathBuf,
    tls: PathBuf,
}

async fn stage() -> anyhow::Result<Stage> {
    let folder = tempfile::tempdir()?;
    let image = *engines::of_major("valkey", "8").await?.last().context("an image of valkey")?;
    let programs = image.programs(folder.path()).await?;
    let tls = folder.path().join("tls");
    std::fs::create_dir(&tls)?;
    certificate(&tls)?;
    Ok(Stage { _folder: folder, programs, tls })
}

async fn primary(stage: &Stage) -> anyhow::Result<Instance> {
    let mut first = Instance::new("cache-0", &stage.programs, &stage.tls)?;
    Valkey.initialise(&first.now).await?;
    first.start(&Role::Primary).await?;
    Valkey.settle(&first.now).await?;
    Ok(first)
}

async fn replica(stage: &Stage, of: &Instance) -> anyhow::Result<Instance> {
    let mut second = Instance::new("cache-1", &stage.programs, &stage.tls)?;
    Valkey.join(&second.now, &of.peer()).await?;
    second.start(&Role::Replica(Some(of.peer()))).await?;
    second.followed().await?;
    Ok(second)
}

async fn set(client: &mut MultiplexedConnection, key: &str, value: &str) -> redis::RedisResult<()> {
    redis::cmd("SET").arg(key).arg(value).query_async(client).await
}

async fn get(client: &mut MultiplexedConnection, key: &str) -> redis::RedisResult<Option<String>> {
    redis::cmd("GET").arg(key).query_async(client).await
}

const OWNER: &str = "owner first \"\\ pass";

#[tokio::test]
async fn a_replica_takes_over_and_the_old_primary_follows_it() -> anyhow::Result<()> {
    let stage = stage().await?;
    let mut first = primary(&stage).await?;
    let mut client = first.client("app", OWNER).await?;
    set(&mut client, "kept", "1").await?;
    let second = replica(&stage, &first).await?;
    let refused = set(&mut second.client("app", OWNER).await?, "lost", "1").await.unwrap_err();
    assert!(refused.to_string().contains("read only"), "a replica takes no writes: {refused}");
    let seen = until(LIMIT, || async {
        let standbys = Valkey.standbys(&first.now).await?;
        ensure!(standbys.len() == 1 && standbys[0].streaming, "{standbys:?}");
        Ok(standbys)
    })
    .await?;
    assert_eq!(seen[0].pod, "cache-1");
    let before = first.probe().await?;

    first.kill().await?;
    Valkey.promote(&second.now).await?;
    let after = second.probe().await?;
    assert!(after.primary && after.position > before.position, "{after:?} beyond {before:?}");
    let mut client = second.client("app", OWNER).await?;
    assert_eq!(get(&mut client, "kept").await?.as_deref(), Some("1"));
    set(&mut client, "new", "2").await?;

    let left = Valkey.inspect(&first.now).await?;
    let Data::Whole { led: true, position, .. } = left else { panic!("{left:?}") };
    assert!(position < after.position, "the old primary's data is behind: {position} {}", after.position);
    Valkey.join(&first.now, &second.peer()).await?;
    first.start(&Role::Replica(Some(second.peer()))).await?;
    let follows = first.followed().await?;
    assert_eq!(follows.position.epoch, after.position.epoch);
    assert_eq!(get(&mut first.client("app", OWNER).await?, "new").await?.as_deref(), Some("2"));
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_begins_a_new_epoch() -> anyhow::Result<()> {
    let stage = stage().await?;
    let mut first = primary(&stage).await?;
    let before = first.probe().await?;
    set(&mut first.client("app", OWNER).await?, "kept", "1").await?;
    first.kill().await?;
    first.start(&Role::Primary).await?;
    Valkey.settle(&first.now).await?;
    Valkey.settle(&first.now).await?;
    assert_eq!(get(&mut first.client("app", OWNER).await?, "kept").await?.as_deref(), Some("1"));
    assert_eq!(
        first.probe().await?.position.epoch,
        before.position.epoch + 1,
        "one more, though settled twice"
    );
    Ok(())
}

#[tokio::test]
async fn without_a_primary_a_replica_takes_no_writes() -> anyhow::Result<()> {
    let stage = stage().await?;
    let mut first = primary(&stage).await?;
    first.kill().await?;
    first.start(&Role::Replica(None)).await?;
    let probed = first.probe().await?;
    assert!(!probed.primary && !probed.streaming, "{probed:?}");
    assert!(set(&mut first.client("app", OWNER).await?, "lost", "1").await.is_err());
    Ok(())
}

#[tokio::test]
async fn new_passwords_are_in_force_at_once_and_old_ones_are_not() -> anyhow::Result<()> {
    let stage = stage().await?;
    let mut first = primary(&stage).await?;
    let mut second = replica(&stage, &first).await?;
    first.rotate()?;
    Valkey.configure(&first.now, &Role::Primary).await?;
    Valkey.settle(&first.now).await?;
    assert!(first.client("app", OWNER).await.is_err(), "the old password still works");
    set(&mut first.client("app", "owner second \"\\ pass").await?, "kept", "1").await?;
    assert!(second.probe().await?.streaming, "replication goes on with the login that it has");

    second.rotate()?;
    Valkey.configure(&second.now, &Role::Replica(Some(first.peer()))).await?;
    Valkey.rotate(&second.now).await?;
    second.kill().await?;
    second.start(&Role::Replica(Some(first.peer()))).await?;
    second.followed().await?;
    assert_eq!(
        get(&mut second.client("app", "owner second \"\\ pass").await?, "kept").await?.as_deref(),
        Some("1")
    );
    Ok(())
}

#[tokio::test]
async fn parameters_are_taken_at_once_or_wait_for_a_restart() -> anyhow::Result<()> {
    let stage = stage().await?;
    let mut first = primary(&stage).await?;
    first.set(&[("maxmemory", "64mb"), ("tcp-backlog", "128"), ("notify-keyspace-events", "Kx")]);
    assert!(Valkey.configure(&first.now, &Role::Primary).await?);
    Valkey.reload(&first.now).await?;
    assert_eq!(first.probe().await?.pending_restart, ["tcp-backlog"]);
    let admin = first.client("culvert_admin", "admin first \"\\ pass").await;
    let value: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("maxmemory").query_async(&mut admin?).await?;
    assert_eq!(value, ["maxmemory", "67108864"]);
    first.kill().await?;
    first.start(&Role::Primary).await?;
    assert_eq!(first.probe().await?.pending_restart, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn an_owner_may_use_the_data_and_nothing_else() -> anyhow::Result<()> {
    let stage = stage().await?;
    let first = primary(&stage).await?;
    let mut owner = first.client("app", OWNER).await?;
    for allowed in ["PING", "FLUSHALL", "INFO", "DBSIZE"] {
        redis::cmd(allowed)
            .query_async::<redis::Value>(&mut owner)
            .await
            .with_context(|| allowed.to_owned())?;
    }
    for refused in [&["CONFIG", "GET", "*"][..], &["ACL", "LIST"], &["SHUTDOWN"], &["REPLICAOF", "x", "1"]] {
        let mut command = redis::cmd(refused[0]);
        let answer = command.arg(&refused[1..]).query_async::<redis::Value>(&mut owner).await;
        assert!(
            answer.as_ref().is_err_and(|error| error.code() == Some("NOPERM")),
            "{refused:?}: {answer:?}"
        );
    }
    let probed = first.probe().await?;
    assert!(probed.primary, "emptying all databases does not confuse the probe");
    assert!(first.client("default", "").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_full_volume_leaves_the_owner_what_makes_room() -> anyhow::Result<()> {
    let stage = stage().await?;
    let mut first = primary(&stage).await?;
    let mut owner = first.client("app", OWNER).await?;
    set(&mut owner, "large", "1").await?;
    first.now.read_only = true;
    Valkey.configure(&first.now, &Role::Primary).await?;
    Valkey.reload(&first.now).await?;
    assert!(set(&mut owner, "more", "1").await.is_err());
    redis::cmd("DEL").arg("large").query_async::<()>(&mut owner).await?;
    first.now.read_only = false;
    Valkey.configure(&first.now, &Role::Primary).await?;
    Valkey.reload(&first.now).await?;
    set(&mut owner, "more", "1").await?;
    Ok(())
}

/// Backs up into a folder, through the network, as the Job does.
async fn back_up(from: &Instance, target: &TargetConfig) -> anyhow::Result<Sealed> {
    let wanted = Wanted {
        name: "one".into(),
        folder: "one".into(),
        engine: "valkey".into(),
        method: Method::Physical,
        service: Service {
            namespace: "shop".into(),
            name: "cache".into(),
            uid: "u".into(),
            owner: "app".into(),
            spec: serde_json::json!({}),
        },
        started_at: "2026-11-25T03:00:00Z".parse()?,
    };
    let mut dump = Snapshot::new(Place {
        host: "localhost".into(),
        port: from.now.config.port,
        ca: from.now.folders.tls.join("ca.crt"),
        password: from.now.credentials.replication.clone(),
    });
    let storage = Storage::open(target, Patience::CHECK)?;
    Ok(make(&wanted, &storage, &mut dump, &Meter::default(), &CancellationToken::new()).await?)
}

#[tokio::test]
async fn a_backup_brings_all_data_back_with_new_passwords_and_a_new_identity() -> anyhow::Result<()> {
    let stage = stage().await?;
    let first = primary(&stage).await?;
    let mut admin = first.client("culvert_admin", "admin first \"\\ pass").await?;
    let fill = "for i = 1, 20000 do redis.call('SET', 'key' .. i, string.rep('x', 500) .. i) end";
    redis::cmd("EVAL").arg(fill).arg(0).query_async::<()>(&mut admin).await?;
    let share = tempfile::tempdir()?;
    let share = share.path().display().to_string();
    let target = TargetConfig { name: "share".into(), share: Some(share), ..TargetConfig::default() };
    let sealed = back_up(&first, &target).await?;
    assert!(sealed.manifest.version.starts_with("8.") && sealed.manifest.data_bytes > 100_000, "{sealed:?}");
    set(&mut admin, "later", "1").await?;

    let mut again = Instance::new("cache-0", &stage.programs, &stage.tls)?;
    let mut config = (*again.now.config).clone();
    config.source = Some(SourceConfig {
        restore: "again".into(),
        target,
        path: "one".into(),
        manifest_digest: Some(sealed.digest),
        point_in_time: None,
    });
    again.now.config = Arc::new(config);
    again.rotate()?;
    Valkey.initialise(&again.now).await?;
    again.start(&Role::Primary).await?;
    Valkey.settle(&again.now).await?;
    let mut owner = again.client("app", "owner second \"\\ pass").await?;
    assert!(get(&mut owner, "key20000").await?.is_some_and(|value| value.ends_with("x20000")));
    assert_eq!(get(&mut owner, "later").await?, None);
    assert!(again.client("app", OWNER).await.is_err(), "the password of the source works");
    let identities = (Valkey.inspect(&first.now).await?, Valkey.inspect(&again.now).await?);
    let (Data::Whole { identity: one, .. }, Data::Whole { identity: two, .. }) = &identities else {
        panic!("{identities:?}")
    };
    assert_ne!(one, two);
    assert!(again.probe().await?.primary);
    Ok(())
}
