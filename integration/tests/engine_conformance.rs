//! What every engine has to do, whatever it is: one life, told once, lived by each engine of the catalogue on a real node.
//!
//! Create, break, rotate, change, roll, back up, restore, delete. What differs between engines is the [`Tongue`]: how an
//! application puts a value in and gets it out again. An engine that is added to the catalogue and not here fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use culvert_integration::data_plane::{DataPlane, Service};
use culvert_integration::engines;
use culvert_integration::wait::until;
use culvert_resources::{Backup, BackupPhase, Database, Restore, RestorePhase};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service as KubeService};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For what takes a pod or a Job.
const STEP: Duration = Duration::from_secs(180);
/// For a failover: the Lease's time, and what the machine adds.
const FAILOVER: Duration = Duration::from_secs(90);

/// How an application speaks to an engine.
#[derive(Clone, Copy)]
enum Tongue {
    Sql,
    Resp,
}

impl Tongue {
    /// Puts a value in; returns when it is on a replica too, if the engine can tell.
    async fn put(self, plane: &DataPlane, to: &Service<'_>, key: &str, value: &str) -> anyhow::Result<()> {
        match self {
            Self::Sql => {
                let sql = format!(
                    "CREATE TABLE IF NOT EXISTS kept (k text PRIMARY KEY, v text); \
                     INSERT INTO kept VALUES ('{key}', '{value}') ON CONFLICT (k) DO UPDATE SET v = excluded.v"
                );
                to.sql(&sql).await.map(drop)
            }
            Self::Resp => {
                let mut client = resp(plane, to).await?;
                redis::cmd("SET").arg(key).arg(value).query_async::<()>(&mut client).await?;
                redis::cmd("WAIT").arg(1).arg(5000).query_async::<i64>(&mut client).await?;
                Ok(())
            }
        }
    }

    async fn get(self, plane: &DataPlane, from: &Service<'_>, key: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::Sql => {
                let found = from.sql(&format!("SELECT v FROM kept WHERE k = '{key}'")).await?;
                Ok(Some(found.trim_end().to_owned()).filter(|value| !value.is_empty()))
            }
            Self::Resp => {
                let mut client = resp(plane, from).await?;
                Ok(redis::cmd("GET").arg(key).query_async(&mut client).await?)
            }
        }
    }
}

/// Logs in as the owner, with what the Secret says now, through the Service, with TLS that is checked.
async fn resp(plane: &DataPlane, to: &Service<'_>) -> anyhow::Result<MultiplexedConnection> {
    let owner = format!("{}-owner", to.name());
    let (host, port) = (to.secret(&owner, "host").await?, to.secret(&owner, "port").await?.parse::<u16>()?);
    let services = plane.objects::<KubeService>(to.namespace())?;
    let address =
        services.get(to.name()).await?.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        to.secret(&format!("{}-ca", to.name()), "ca.crt").await?.as_bytes(),
    )?)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let user = (to.secret(&owner, "username").await?, to.secret(&owner, "password").await?);
    let login = RedisConnectionInfo::default().set_username(user.0).set_password(user.1);
    let within = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let connected = async {
        let stream = TcpStream::connect((address, port)).await?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?;
        let (client, driver) = MultiplexedConnection::new_with_config(&login, stream, within).await?;
        // It ends with the client.
        tokio::spawn(driver);
        anyhow::Ok(client)
    };
    tokio::time::timeout(Duration::from_secs(10), connected).await.context("no login within 10 s")?
}

/// An engine in this suite.
struct Case {
    name: &'static str,
    major: &'static str,
    tongue: Tongue,
    synchronous: bool,
    /// A parameter that a running engine takes.
    reloaded: (&'static str, &'static str),
}

const POSTGRESQL: Case = Case {
    name: "postgresql",
    major: "15",
    tongue: Tongue::Sql,
    synchronous: true,
    reloaded: ("log_statement", "ddl"),
};
const VALKEY: Case = Case {
    name: "valkey",
    major: "8",
    tongue: Tongue::Resp,
    synchronous: false,
    reloaded: ("slowlog-max-len", "256"),
};

#[test]
fn every_engine_of_the_catalogue_lives_this_life() {
    let known: Vec<&str> =
        culvert_engines::catalogue().engines().map(|engine| engine.name.as_str()).collect();
    assert_eq!(known, [POSTGRESQL.name, VALKEY.name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_lives_the_life_of_an_engine() -> anyhow::Result<()> {
    live(&POSTGRESQL).await
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_lives_the_life_of_an_engine() -> anyhow::Result<()> {
    live(&VALKEY).await
}

async fn live(case: &Case) -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace(&format!("life-{}", case.name)).await?;
    let life = Life { case, plane, namespace: namespace.name().to_owned() };
    let service = life.create().await.context("create")?;
    life.breaks(&service).await.context("break")?;
    life.rotates(&service).await.context("rotate")?;
    life.reloads(&service).await.context("change a parameter")?;
    life.rolls(&service).await.context("roll")?;
    life.comes_back(&service).await.context("back up and restore")?;
    life.ends(&service).await.context("delete")
}

struct Life<'a> {
    case: &'a Case,
    plane: &'static DataPlane,
    namespace: String,
}

impl Life<'_> {
    async fn put(&self, service: &Service<'_>, key: &str, value: &str) -> anyhow::Result<()> {
        self.case.tongue.put(self.plane, service, key, value).await
    }

    async fn holds(&self, service: &Service<'_>, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        let found = self.case.tongue.get(self.plane, service, key).await?;
        ensure!(found.as_deref() == value, "{key} is {found:?} and not {value:?}");
        Ok(())
    }

    /// The oldest release that there is an image of, and the newest.
    async fn versions(&self) -> anyhow::Result<(String, String)> {
        let images = engines::of_major(self.case.name, self.case.major).await?;
        let (first, last) = images.first().zip(images.last()).context("no image")?;
        Ok((first.version.clone(), last.version.clone()))
    }

    async fn create(&self) -> anyhow::Result<Service<'static>> {
        let spec = json!({
            "engine": self.case.name,
            "version": self.versions().await?.0,
            "topology": {"replicas": 2, "synchronous": self.case.synchronous},
            "resources": {"cpu": "100m", "memory": "256Mi"},
            "storage": {"size": "512Mi"},
            "deletion": {"strategy": "Delete"},
        });
        let service = self.plane.create(&self.namespace, "life", &spec).await?;
        service.ready().await?;
        self.put(&service, "first", "1").await?;
        self.holds(&service, "first", Some("1")).await?;
        Ok(service)
    }

    /// Pods of the service by name, with their uids.
    async fn pods(&self, service: &Service<'_>) -> anyhow::Result<BTreeMap<String, String>> {
        let selector = format!("data.culvert.dev/database={}", service.name());
        let pods = self.plane.objects::<Pod>(&self.namespace)?;
        let found = pods.list(&::kube::api::ListParams::default().labels(&selector)).await?;
        let instance = |pod: &Pod| {
            pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "StatefulSet")
        };
        let named =
            found.items.into_iter().filter(instance).map(|pod| Some((pod.metadata.name?, pod.metadata.uid?)));
        named.collect::<Option<_>>().context("a pod without a name")
    }

    async fn primary(&self, service: &Service<'_>) -> anyhow::Result<String> {
        let databases = self.plane.objects::<Database>(&self.namespace)?;
        let database = databases.get(service.name()).await?;
        database.status.and_then(|status| status.primary).context("no primary")
    }

    /// The primary's pod is killed, and each that comes in its place, as on a node that is broken: another takes over,
    /// and nothing that was acknowledged is lost.
    async fn breaks(&self, service: &Service<'_>) -> anyhow::Result<()> {
        let killed = self.primary(service).await?;
        self.put(service, "before", "2").await?;
        let kill = [
            "-n",
            &self.namespace,
            "delete",
            "pod",
            &killed,
            "--force",
            "--grace-period=0",
            "--ignore-not-found",
            // The next pod of the same name may be there before kubectl looks whether this one is gone.
            "--wait=false",
        ];
        let another = until(FAILOVER, || async {
            let primary = self.primary(service).await?;
            if primary == killed {
                self.plane.cluster().get(&kill).await?;
            }
            ensure!(primary != killed, "{primary} is still told to be the primary");
            Ok(())
        });
        self.plane.explained(another.await, &self.namespace).await?;
        let taken_over = until(FAILOVER, || async {
            self.put(service, "after", "3").await?;
            self.holds(service, "before", Some("2")).await
        });
        self.plane.explained(taken_over.await, &self.namespace).await?;
        service.ready().await?;
        self.holds(service, "first", Some("1")).await
    }

    /// New passwords come into force, and old ones go out of it.
    async fn rotates(&self, service: &Service<'_>) -> anyhow::Result<()> {
        let secret = format!("{}-owner", service.name());
        let old = service.secret(&secret, "password").await?;
        let asked = "2026-01-01T00:00:00Z";
        service.change(&json!({"credentialsRotatedAt": asked})).await?;
        let done = |database: &Database| {
            let done = database.status.as_ref().and_then(|status| status.credentials_rotated_at.as_deref());
            ensure!(done == Some(asked), "{:?}", database.status);
            Ok(())
        };
        self.plane.until(&self.namespace, service.name(), STEP, done).await?;
        ensure!(service.secret(&secret, "password").await? != old, "the password is the old one");
        self.put(service, "rotated", "4").await
    }

    /// A parameter that a running engine takes restarts nothing.
    async fn reloads(&self, service: &Service<'_>) -> anyhow::Result<()> {
        let pods = self.pods(service).await?;
        let (name, value) = self.case.reloaded;
        service.change(&json!({"parameters": {name: value}})).await?;
        let released = |database: &Database| {
            let set = database.spec.parameters.get(name).map(String::as_str) == Some(value);
            let status = database.status.as_ref().context("no status")?;
            let current = status.observed_generation == database.metadata.generation;
            ensure!(set && current && status.pending_restart.is_empty(), "{:?}", database.status);
            Ok(())
        };
        self.plane.until(&self.namespace, service.name(), STEP, released).await?;
        service.ready().await?;
        ensure!(self.pods(service).await? == pods, "instances were made anew");
        Ok(())
    }

    /// To the newest release, or without one a restart: instance by instance, and the data stays.
    async fn rolls(&self, service: &Service<'_>) -> anyhow::Result<()> {
        let pods = self.pods(service).await?;
        let (_, newest) = self.versions().await?;
        service.change(&json!({"version": newest, "restartedAt": "2026-01-01T00:00:00Z"})).await?;
        let rolled = until(STEP, || async {
            let now = self.pods(service).await?;
            ensure!(
                now.len() == 2 && now.iter().all(|(name, uid)| pods.get(name) != Some(uid)),
                "{now:?} of {pods:?}"
            );
            Ok(())
        });
        self.plane.explained(rolled.await, &self.namespace).await?;
        let object = service.ready().await?;
        let running = object.status.and_then(|status| status.version).and_then(|version| version.running);
        ensure!(running.as_deref() == Some(newest.as_str()), "{running:?} runs and not {newest}");
        self.holds(service, "after", Some("3")).await?;
        self.put(service, "rolled", "5").await
    }

    /// A backup, and a new service made of it: with the data of then, and with passwords of its own.
    async fn comes_back(&self, service: &Service<'_>) -> anyhow::Result<()> {
        let store = self.plane.store("conformance").await?;
        self.plane.target(&self.namespace, "store", &store, "conformance").await?;
        let spec = json!({"service": service.name(), "target": "store", "method": "physical"});
        self.plane.apply(&self.namespace, "Backup", "once", &spec).await?;
        let stored = |backup: &Backup| {
            let status = backup.status.as_ref().context("no status yet")?;
            ensure!(status.phase == Some(BackupPhase::Complete), "{status:?}");
            Ok(status.stored_bytes.unwrap_or(0))
        };
        let bytes = self.plane.until(&self.namespace, "once", STEP, stored).await?;
        ensure!(bytes > 0, "a backup of nothing");
        self.put(service, "later", "6").await?;

        let spec = json!({"service": "again", "source": {"backup": "once"}, "overrides": {"topology": {"replicas": 1}}});
        self.plane.apply(&self.namespace, "Restore", "again", &spec).await?;
        let restored = |restore: &Restore| {
            let status = restore.status.as_ref().context("no status yet")?;
            ensure!(status.phase == Some(RestorePhase::Complete), "{status:?}");
            Ok(())
        };
        self.plane.until(&self.namespace, "again", STEP, restored).await?;
        let again = self.plane.service(&self.namespace, "again");
        again.ready().await?;
        self.holds(&again, "rolled", Some("5")).await?;
        self.holds(&again, "later", None).await?;
        let password = async |of: &Service<'_>| of.secret(&format!("{}-owner", of.name()), "password").await;
        ensure!(
            password(&again).await? != password(service).await?,
            "the restored service has the source's password"
        );
        self.holds(service, "later", Some("6")).await
    }

    /// With the strategy `Delete` nothing of it stays but its backups.
    async fn ends(&self, service: &Service<'_>) -> anyhow::Result<()> {
        service.delete().await?;
        let cleared = until(STEP, || async {
            let claims = self.plane.objects::<PersistentVolumeClaim>(&self.namespace)?;
            let left = claims.list(&::kube::api::ListParams::default()).await?.items;
            let own: Vec<_> = left.iter().filter_map(|claim| claim.metadata.name.as_deref()).collect();
            ensure!(!own.iter().any(|name| name.starts_with("data-life-")), "{own:?} are left");
            ensure!(self.pods(service).await?.is_empty(), "pods are left");
            Ok(())
        });
        self.plane.explained(cleared.await, &self.namespace).await?;
        let backups = self.plane.objects::<Backup>(&self.namespace)?;
        ensure!(backups.get_opt("once").await?.is_some(), "the backup went with the service");
        Ok(())
    }
}
