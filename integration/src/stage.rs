//! The usual scene of a story: a controller, an administrator, a real API server,
//! and an agent with the rights that its chart gives it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::agent::Agent;
use crate::api::Api;
use crate::controller::{Controller, DOMAIN};
use crate::gateway::{Gateway, person_certificate};
use crate::kube::{ControlPlane, Kubernetes};

/// A controller with an administrator who is signed in.
pub struct Stage {
    /// The controller.
    pub controller: Controller,
    /// Its administrator.
    pub admin: Api,
}

impl Stage {
    /// Starts a controller on embedded defaults.
    pub async fn open() -> anyhow::Result<Self> {
        Self::open_with("").await
    }

    /// Starts a controller with `extra` settings in TOML.
    pub async fn open_with(extra: &str) -> anyhow::Result<Self> {
        let controller = Controller::start_with("127.0.0.1", extra).await?;
        let admin = controller.admin().await?;
        Ok(Self { controller, admin })
    }

    /// Enrols the cluster of `ground` under `name`: an agent outside it, connected.
    pub async fn enrol(&self, name: &str, ground: &Ground) -> anyhow::Result<Enrolled> {
        let (cluster, agent) = self.newcomer(name, ground).await?;
        self.enrol_as(cluster, agent).await
    }

    /// A cluster record, and an agent with a token for it that has not started.
    pub async fn newcomer(&self, name: &str, ground: &Ground) -> anyhow::Result<(String, Agent)> {
        let cluster = self.admin.cluster_create(name).await?;
        let token = self.admin.join_token(&cluster).await?;
        let agent = Agent::new(&self.controller, &ground.kubeconfig, &token)?;
        Ok((cluster, agent))
    }

    /// Starts an agent, and waits until it is connected.
    pub async fn enrol_as(&self, cluster: String, mut agent: Agent) -> anyhow::Result<Enrolled> {
        agent.start()?;
        let connected = agent.connected(&self.admin, &cluster).await;
        connected.with_context(|| format!("the controller's log:\n{}", self.controller.log()))?;
        Ok(Enrolled { cluster, agent })
    }

    /// A cluster through the gateway, as the holder of `token`.
    pub fn gateway(&self, cluster: &str, token: &str) -> anyhow::Result<Gateway> {
        Gateway::bearer(self.controller.address(), &self.admin, cluster, token)
    }

    /// A cluster through the gateway, as the administrator's session.
    pub fn gateway_as_admin(&self, cluster: &str) -> anyhow::Result<Gateway> {
        self.gateway(cluster, self.admin.bearer())
    }

    /// Makes a second organisation, which has no way in yet, with a cluster called
    /// `name`; gives the cluster's id.
    pub async fn cluster_of_another_org(&self, name: &str) -> anyhow::Result<String> {
        let (org, cluster) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        let blob = |id: uuid::Uuid| format!("x'{}'", id.simple());
        let (org, row) = (blob(org), blob(cluster));
        let made = format!(
            "INSERT INTO organisations (id, name, audit_sequence, created_at) VALUES ({org}, '{name}', 0, 0)"
        );
        self.controller.rewrite(&made).await?;
        let made = format!(
            "INSERT INTO clusters (id, org_id, name, labels, created_at) VALUES ({row}, {org}, '{name}', '{{}}', 0)"
        );
        self.controller.rewrite(&made).await?;
        Ok(culvert_controller::domain::ClusterId::from(cluster).to_string())
    }

    /// A kubeconfig for the gateway that shows a bearer token.
    pub fn bearer_kubeconfig(&self, cluster: &str, bearer: &str) -> anyhow::Result<PathBuf> {
        self.kubeconfig(cluster, json!({ "token": bearer }))
    }

    /// A kubeconfig for the gateway with a person's certificate, of a key made here.
    pub async fn person_kubeconfig(&self, cluster: &str, person: &Api) -> anyhow::Result<PathBuf> {
        let (certificate, key) = person_certificate(person, 3600).await?;
        self.kubeconfig(
            cluster,
            json!({
                "client-certificate-data": BASE64_STANDARD.encode(certificate),
                "client-key-data": BASE64_STANDARD.encode(key),
            }),
        )
    }

    fn kubeconfig(&self, cluster: &str, user: Value) -> anyhow::Result<PathBuf> {
        let ca = self.admin.info["ca"]["pem"].as_str().context("info names no CA")?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}/clusters/{cluster}", self.controller.address()),
                "tls-server-name": format!("kube.{DOMAIN}"),
                "certificate-authority-data": BASE64_STANDARD.encode(ca),
            }}],
            "users": [{"name": "u", "user": user}],
        });
        let file = self.controller.path(&format!("kubeconfig-{}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        Ok(file)
    }
}

/// A cluster that is enrolled and connected.
pub struct Enrolled {
    /// Its id at the controller.
    pub cluster: String,
    /// Its agent.
    pub agent: Agent,
}

/// The API server that the stories of one test program share: they stay apart by
/// namespaces, and by controllers of their own.
pub struct Ground {
    /// The API server.
    pub plane: ControlPlane,
    /// A kubeconfig with the rights that the agent's chart gives.
    pub kubeconfig: PathBuf,
}

impl Ground {
    /// Has the kinds of data services, and says what an operator would: that one version of
    /// PostgreSQL can be run. No operator runs, so what is asked for begins and does not end.
    pub async fn offer_postgresql(&self) -> anyhow::Result<()> {
        let kinds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/crds");
        let kinds = kinds.to_str().context("a path that is not text")?;
        self.plane.get(&["apply", "--server-side", "-f", kinds]).await?;
        self.plane.get(&["wait", "--for=condition=Established", "-f", kinds, "--timeout=30s"]).await?;
        let plane =
            "apiVersion: data.culvert.dev/v1alpha1\nkind: DataPlane\nmetadata: {name: default}\nspec: {}\n";
        self.plane.apply(plane).await?;
        let engine = json!({"engine": "postgresql", "version": "17.12", "image": "example/postgresql:17.12",
            "ready": true});
        let status = json!({"status": {"engines": [engine]}}).to_string();
        let asked = ["patch", "dataplane", "default", "--subresource=status", "--type=merge", "-p", &status];
        self.plane.get(&asked).await.map(drop)
    }
}

/// The ground, which the first story to come prepares.
pub async fn ground() -> anyhow::Result<&'static Ground> {
    static GROUND: OnceCell<Ground> = OnceCell::const_new();
    let prepare = || async {
        let plane = ControlPlane::start().await?;
        let kubeconfig = agent_kubeconfig(&plane).await?;
        anyhow::Ok(Ground { plane, kubeconfig })
    };
    GROUND.get_or_try_init(prepare).await
}

/// A kubeconfig with the rights that the agent's chart gives its service account.
pub async fn agent_kubeconfig(plane: &Kubernetes) -> anyhow::Result<PathBuf> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/agent");
    let chart = chart.to_str().context("the chart's path is not text")?;
    let version: Value = serde_json::from_str(&plane.get(&["get", "--raw", "/version"]).await?)?;
    let version = version["gitVersion"].as_str().context("the API server tells no version")?;
    let rendered = plane
        .helm(&[
            "template",
            "culvert-agent",
            chart,
            "--namespace",
            "culvert-system",
            "--kube-version",
            version,
            "--set",
            "controller.address=unused.example:443",
            "--show-only",
            "templates/rbac.yaml",
            "--show-only",
            "templates/access.yaml",
            "--show-only",
            "templates/dataservices.yaml",
        ])
        .await?;
    succeeded(&rendered)?;
    let _ = plane.kubectl(&["create", "namespace", "culvert-system"]).await?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &rendered.stdout)?;
    let path = file.path().to_str().context("a path that is not text")?;
    succeeded(&plane.kubectl(&["apply", "-f", path]).await?)?;
    plane.service_account_kubeconfig("culvert-system", "culvert-agent").await
}

/// Fails with what a program said when it failed.
pub fn succeeded(output: &Output) -> anyhow::Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{}: {}{said}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// The system's clock, for TLS configurations.
pub fn clock() -> culvert_pki::tls::Clock {
    Arc::new(rustls::time_provider::DefaultTimeProvider)
}
