//! A data service as its user meets it: wished for, waited for, logged in to.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_resources::{DataService, Phase, Why};
use k8s_openapi::api::core::v1::{Secret, Service as KubeService};
use serde_json::Value;

use super::DataPlane;
use crate::process;

/// How long a service may take until it is ready, on a machine with two cores that has
/// its images.
const READY: Duration = Duration::from_secs(120);

/// How long a node may take to know the way to an instance that is ready.
const WAY: Duration = Duration::from_secs(10);

/// Any psql speaks to any server.
const PSQL: &str = "/usr/lib/postgresql/15/bin/psql";

/// A data service of a story.
#[derive(Clone)]
pub struct Service<'a> {
    plane: &'a DataPlane,
    namespace: String,
    name: String,
}

impl<'a> Service<'a> {
    pub(super) fn new(plane: &'a DataPlane, namespace: &str, name: &str) -> Self {
        Self { plane, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Waits until `look` finds in it what it looks for.
    pub async fn until<T>(
        &self,
        limit: Duration,
        look: impl Fn(&DataService) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.plane.until(&self.namespace, &self.name, limit, look).await
    }

    /// Waits until it is ready in the state of its present spec.
    pub async fn ready(&self) -> anyhow::Result<DataService> {
        self.until(READY, |service| {
            let status = service.status.as_ref().context("no status yet")?;
            let current = status.observed_generation == service.metadata.generation;
            ensure!(current && status.phase == Some(Phase::Ready), "{status:?}");
            Ok(service.clone())
        })
        .await
    }

    /// Waits until the cause with this code is the one why it is not ready.
    pub async fn why(&self, code: &str, limit: Duration) -> anyhow::Result<Why> {
        self.until(limit, |service| {
            let status = service.status.as_ref().context("no status yet")?;
            let why = status.why.clone().filter(|why| why.code == code);
            why.with_context(|| format!("not {code}: {status:?}"))
        })
        .await
    }

    /// Merges a change into its spec.
    pub async fn change(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = serde_json::json!({ "spec": spec }).to_string();
        let service = format!("dataservice/{}", self.name);
        let asked = ["-n", &self.namespace, "patch", &service, "--type=merge", "-p", &patch];
        self.plane.cluster().get(&asked).await.map(drop)
    }

    /// Deletes it, and waits until it is gone.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let service = format!("dataservice/{}", self.name);
        self.plane.cluster().get(&["-n", &self.namespace, "delete", &service, "--wait=false"]).await?;
        self.plane.gone::<DataService>(&self.namespace, &self.name, READY).await
    }

    /// Runs SQL as the owner of its database, through its Service with TLS that is checked,
    /// and gives bare rows.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<String> {
        self.sql_at(&self.name, sql).await
    }

    /// As [`Service::sql`], at another of its Services, such as `NAME-ro`. Waits for the way there: a node learns it a
    /// little after an instance became ready.
    pub async fn sql_at(&self, service: &str, sql: &str) -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        let authority = folder.path().join("ca.crt");
        std::fs::write(&authority, self.secret(&format!("{}-ca", self.name), "ca.crt").await?)?;
        let services = self.plane.objects::<KubeService>(&self.namespace)?;
        let address = services.get(service).await?.spec.and_then(|spec| spec.cluster_ip);
        let address = address.with_context(|| format!("the Service {service} has no address"))?;
        let owner = format!("{}-owner", self.name);
        let field = |key: &'static str| self.secret(&owner, key);
        let port = field("port").await?;
        process::accepts(SocketAddr::new(address.parse()?, port.parse()?), WAY).await?;
        let host = field("host").await?.replacen(&self.name, service, 1);
        let mut psql = Command::new(PSQL);
        psql.args(["--no-password", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-Atqc", sql]);
        psql.env("PGHOST", host).env("PGHOSTADDR", address).env("PGPORT", port);
        psql.env("PGUSER", field("username").await?).env("PGPASSWORD", field("password").await?);
        psql.env("PGDATABASE", field("database").await?).env("PGCONNECT_TIMEOUT", "5");
        psql.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &authority);
        process::run(psql).await
    }

    /// A field of one of its Secrets.
    pub async fn secret(&self, name: &str, key: &str) -> anyhow::Result<String> {
        let secret = self.plane.objects::<Secret>(&self.namespace)?.get(name).await?;
        let value = secret.data.and_then(|mut data| data.remove(key));
        let value = value.with_context(|| format!("the Secret {name} has no {key}"))?;
        Ok(String::from_utf8(value.0)?)
    }
}
