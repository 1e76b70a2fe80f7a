//! The cluster's API, as a Job uses it: it writes status, and looks whether it is cancelled.
//!
//! An API server that restarts is waited for. Hours of work are not thrown away because the last word of them
//! could not be said at once.

use std::path::PathBuf;
use std::time::Duration;

use culvert_resources::meta::{self, manager};
use culvert_resources::{Backup, BackupTarget};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::backup::error::JobError;

/// Attempts to say something that must be said, and the pause before the second; it doubles.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);

/// The cluster's API.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
}

impl Cluster {
    /// By the pod's ServiceAccount, or a kubeconfig.
    pub(super) async fn connect(kubeconfig: Option<PathBuf>) -> Result<Self, JobError> {
        let wrong = |error: String| JobError::Configuration(format!("the cluster's API: {error}"));
        let mut config = match kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrong(error.to_string()))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
            }
            None => Config::incluster().map_err(|error| wrong(error.to_string()))?,
        };
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(Duration::from_secs(20));
        Ok(Self { client: Client::try_from(config)? })
    }

    /// The Backup; none when it was deleted.
    pub(super) async fn backup(&self, namespace: &str, name: &str) -> Result<Option<Backup>, JobError> {
        let api: Api<Backup> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?)
    }

    /// Makes a Backup; that it is there already is no error.
    pub(super) async fn make_backup(&self, namespace: &str, backup: &Backup) -> Result<(), JobError> {
        let api: Api<Backup> = Api::namespaced(self.client.clone(), namespace);
        match api
            .create(
                &PostParams { field_manager: Some(manager::RUNNER.to_owned()), ..PostParams::default() },
                backup,
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes our part of a Backup's status.
    pub(super) async fn report_backup(
        &self,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<(), JobError> {
        let api: Api<Backup> = Api::namespaced(self.client.clone(), namespace);
        api.patch_status(name, &ours(), &Patch::Apply(applied("Backup", name, status))).await?;
        Ok(())
    }

    /// Writes our part of a BackupTarget's status.
    pub(super) async fn report_target(
        &self,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<(), JobError> {
        let api: Api<BackupTarget> = Api::namespaced(self.client.clone(), namespace);
        api.patch_status(name, &ours(), &Patch::Apply(applied("BackupTarget", name, status))).await?;
        Ok(())
    }
}

/// Says something that must be said: waits for an API that is away. What it refuses is not said again.
pub(super) async fn insist<T, F>(mut say: impl FnMut() -> F) -> Result<T, JobError>
where
    F: Future<Output = Result<T, JobError>>,
{
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match say().await {
            Err(JobError::Kubernetes(error)) if is_passing(&error) => {
                tracing::warn!(%error, "the cluster's API did not take a report; it is tried again");
            }
            said => return said,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    say().await
}

fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

fn ours() -> PatchParams {
    PatchParams::apply(manager::RUNNER).force()
}

fn applied(kind: &str, name: &str, status: &Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", meta::GROUP, meta::VERSION),
        "kind": kind,
        "metadata": { "name": name },
        "status": status,
    })
}
