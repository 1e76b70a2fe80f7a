//! A cluster that runs data services: the shared one, with the operator, the images of the
//! engines, volumes, and stores to back up to.
//!
//! ```no_run
//! # async fn story() -> anyhow::Result<()> {
//! use culvert_integration::data_plane::DataPlane;
//! let plane = DataPlane::shared().await?;
//! let namespace = plane.cluster().namespace("orders").await?;
//! let service = plane.create(namespace.name(), "orders", &serde_json::json!({
//!     "engine": "postgresql", "version": "17",
//! })).await?;
//! service.ready().await?;
//! assert_eq!(service.sql("select 40 + 2").await?, "42\n");
//! # Ok(()) }
//! ```

mod seen;
mod service;
mod store;
mod volumes;

use std::path::Path;
use std::time::Duration;

use ::kube::api::{Patch, PatchParams};
use ::kube::config::{KubeConfigOptions, Kubeconfig};
use anyhow::Context;
use culvert_resources::DataPlane as DataPlaneObject;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::engines;
use crate::kube::{Cluster, Image};
use crate::process;

pub use service::Service;
pub use store::{Store, target_spec};
pub use volumes::{GROWING, SMALL};

/// The operator's release, and its namespace.
const OPERATOR: &str = "culvert-operator";

/// How long a part of the cluster may take to be there.
const PART: Duration = Duration::from_secs(60);

/// What runs data services. One is shared by the stories of a test program.
pub struct DataPlane {
    cluster: &'static Cluster,
    config: ::kube::Config,
}

impl DataPlane {
    /// The shared one. Needs root.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<DataPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    async fn start() -> anyhow::Result<Self> {
        Self::start_in(Cluster::shared().await?).await
    }

    /// Another, in a cluster of its own with one node. Needs root. It lives until the program ends, as what is shared
    /// does; nothing of it stays then.
    pub async fn another() -> anyhow::Result<Self> {
        Self::start_in(Box::leak(Box::new(Cluster::start(1).await?))).await
    }

    async fn start_in(cluster: &'static Cluster) -> anyhow::Result<Self> {
        for part in ["dns", "storage", "engines"] {
            cluster.add(part).await?;
        }
        let folder = tempfile::tempdir()?;
        let runner = Image::of_program("culvert-runner", folder.path()).await?;
        cluster.load(&runner).await?;
        let operator = Image::of_program("culvert-operator", folder.path()).await?;
        cluster.load(&operator).await?;
        install(cluster, &operator, &runner).await?;
        let plane = Self { cluster, config: config(cluster).await? };
        plane.described().await?;
        for image in engines::images().await? {
            // A story that was killed may have left another.
            plane.exchange_image(&image.engine, &image.version, &image.reference()).await?;
        }
        plane.described().await?;
        Ok(plane)
    }

    /// Waits until the operator has read which images there are.
    async fn described(&self) -> anyhow::Result<()> {
        let planes: ::kube::Api<DataPlaneObject> = ::kube::Api::all(self.client()?);
        let read = || async {
            let plane = planes.get("default").await?;
            let read = plane.status.as_ref().and_then(|status| status.observed_generation);
            anyhow::ensure!(read == plane.metadata.generation, "the data plane: {:?}", plane.status);
            Ok(())
        };
        self.explained(crate::wait::until(PART, read).await, OPERATOR).await
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// A client with the rights of the cluster's owner. One lives as long as the runtime in
    /// which it was made, which is a test's own, so each caller gets another.
    pub fn client(&self) -> anyhow::Result<::kube::Client> {
        Ok(self.config.clone().try_into()?)
    }

    /// Applies an object of Culvert's kinds, given without `apiVersion`.
    pub async fn apply(&self, namespace: &str, kind: &str, name: &str, spec: &Value) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        });
        self.cluster.apply(&object.to_string()).await
    }

    /// Has an engine's version run another image; gives the one that it had.
    pub async fn exchange_image(&self, engine: &str, version: &str, image: &str) -> anyhow::Result<String> {
        let planes: ::kube::Api<DataPlaneObject> = ::kube::Api::all(self.client()?);
        let engines = planes.get("default").await?.spec.engines;
        let had = engines.get(engine).and_then(|engine| engine.images.get(version));
        let had = had.with_context(|| format!("there is no {engine} {version}"))?.clone();
        let spec = json!({"spec": {"engines": {engine: {"images": {version: image}}}}});
        planes.patch("default", &PatchParams::default(), &Patch::Merge(&spec)).await?;
        Ok(had)
    }

    /// Applies a DataService, and does not wait for it.
    pub async fn create(&self, namespace: &str, name: &str, spec: &Value) -> anyhow::Result<Service<'_>> {
        self.apply(namespace, "DataService", name, spec).await?;
        Ok(Service::new(self, namespace, name))
    }

    /// A DataService that is there already, or will be.
    pub fn service(&self, namespace: &str, name: &str) -> Service<'_> {
        Service::new(self, namespace, name)
    }
}

/// Installs the chart, or brings it up to this tree.
async fn install(cluster: &Cluster, operator: &Image, runner: &Image) -> anyhow::Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/operator");
    let chart = chart.to_str().context("a path that is not text")?;
    let mut of_engines = json!({});
    for image in engines::images().await? {
        of_engines[&image.engine]["images"][&image.version] = json!(image.reference());
    }
    let named = |image: &Image| json!({"repository": image.repository, "digest": image.digest});
    let values = json!({
        "image": named(operator),
        "runner": {"image": named(runner)},
        "engines": of_engines,
        "leaseSeconds": 3,
        "log": {"level": "info,culvert_operator=debug", "format": "text"},
    });
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), values.to_string())?;
    let values = file.path().to_str().context("a path that is not text")?;
    let release = ["upgrade", "--install", OPERATOR, chart, "--namespace", OPERATOR, "--create-namespace"];
    let waiting = ["--wait", "--timeout", "120s", "--values", values];
    let helm = cluster.client("helm", &cluster.admin(), &[release.as_slice(), &waiting].concat()).await?;
    if let Err(error) = process::run(helm).await {
        let pods = cluster.get(&["-n", OPERATOR, "describe", "pods"]).await?;
        return Err(error.context(pods));
    }
    Ok(())
}

async fn config(cluster: &Cluster) -> anyhow::Result<::kube::Config> {
    // An error means that another story has installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(cluster.admin())?;
    Ok(::kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
