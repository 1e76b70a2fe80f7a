//! A BackupTarget as the runner wants it, with the volumes through which its Secret or its share is seen.
use culvert_resources::instance::SHARE_DIR;
use culvert_resources::job::TargetConfig;
use culvert_resources::{AgentAccount, BackupTarget, DataPlane};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume, VolumeMount,
};
use kube::ResourceExt as _;

/// Permissions of mounted Secrets: the pod's group may read.
pub(crate) const SECRET_MODE: i32 = 0o440;

/// What Jobs need to know of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plane {
    /// Image that holds the runner; nothing can run without it.
    pub(crate) runner: Option<String>,
    /// Proxy for targets that name none.
    pub(crate) proxy: Option<String>,
    /// Pull Secrets.
    pub(crate) pull_secrets: Vec<String>,
    /// The agent, which writes the Secrets of targets whose credentials are sealed to it.
    pub(crate) agent: Option<AgentAccount>,
}

impl Plane {
    /// What the cluster's DataPlane says.
    pub(crate) fn of(plane: Option<&DataPlane>) -> Self {
        let Some(plane) = plane else { return Self::default() };
        Self {
            runner: plane.spec.runner_image.clone(),
            proxy: plane.spec.egress_proxy.clone(),
            pull_secrets: plane.spec.image_pull_secrets.clone(),
            agent: plane.spec.agent.clone(),
        }
    }
}

/// A way to a target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reach {
    /// For the runner's file.
    pub(crate) config: TargetConfig,
    /// For the pod.
    pub(crate) volumes: Vec<Volume>,
    /// For the container.
    pub(crate) mounts: Vec<VolumeMount>,
}

impl Reach {
    /// The way to `target`, its Secret mounted at `folder` by a volume with the name `volume`.
    pub(crate) fn to(target: &BackupTarget, proxy: Option<&str>, volume: &str, folder: &str) -> Self {
        let spec = &target.spec;
        let mut reach = Self {
            config: TargetConfig {
                name: target.name_any(),
                s3: spec.s3.clone(),
                azure: spec.azure.clone(),
                gcs: spec.gcs.clone(),
                share: spec.file_share.as_ref().map(|_| SHARE_DIR.to_owned()),
                prefix: spec.prefix.clone(),
                credentials: spec.secret.as_ref().map(|_| folder.to_owned()),
                ca_bundle: spec.ca_bundle.clone(),
                proxy: spec.proxy.clone().or_else(|| proxy.map(ToOwned::to_owned)),
            },
            volumes: Vec::new(),
            mounts: Vec::new(),
        };
        if let Some(secret) = &spec.secret {
            reach.mount(secret_volume(volume, &secret.name), folder, true);
        }
        if let Some(share) = &spec.file_share {
            reach.mount(claim_volume(&format!("{volume}-share"), &share.claim), SHARE_DIR, false);
        }
        reach
    }

    fn mount(&mut self, volume: Volume, folder: &str, read_only: bool) {
        self.mounts.push(mounted(&volume.name, folder, read_only));
        self.volumes.push(volume);
    }
}

/// A mount of a volume.
pub(crate) fn mounted(volume: &str, folder: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: folder.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

/// A volume with all of a Secret.
pub(crate) fn secret_volume(volume: &str, secret: &str) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        default_mode: Some(SECRET_MODE),
        ..SecretVolumeSource::default()
    };
    Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() }
}

fn claim_volume(volume: &str, claim: &str) -> Volume {
    let source = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: Some(false) };
    Volume { name: volume.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_resources::BackupTargetSpec;

    fn target(json: serde_json::Value) -> BackupTarget {
        let spec: BackupTargetSpec = serde_json::from_value(json).unwrap();
        BackupTarget::new("away", spec)
    }

    #[test]
    fn a_secret_is_mounted_and_never_copied_into_the_file() {
        let target = target(serde_json::json!({"s3": {"bucket": "b"}, "secret": {"name": "keys"}}));
        let reach = Reach::to(&target, Some("http://proxy:3128"), "target", "/etc/t");
        assert_eq!(reach.config.credentials.as_deref(), Some("/etc/t"));
        assert_eq!(reach.config.proxy.as_deref(), Some("http://proxy:3128"));
        assert_eq!(reach.volumes[0].secret.as_ref().unwrap().secret_name.as_deref(), Some("keys"));
        assert_eq!(reach.mounts[0].read_only, Some(true));
    }

    #[test]
    fn its_own_proxy_comes_first() {
        let target = target(serde_json::json!({"s3": {"bucket": "b"}, "proxy": "http://own:1"}));
        let reach = Reach::to(&target, Some("http://proxy:3128"), "target", "/etc/t");
        assert_eq!(reach.config.proxy.as_deref(), Some("http://own:1"));
        assert_eq!(reach.config.credentials, None);
    }

    #[test]
    fn a_share_is_mounted_writable() {
        let target = target(serde_json::json!({"fileShare": {"claim": "nfs"}}));
        let reach = Reach::to(&target, None, "target", "/etc/t");
        assert_eq!(reach.config.share.as_deref(), Some(SHARE_DIR));
        assert_eq!((reach.mounts.len(), reach.mounts[0].read_only), (1, Some(false)));
    }
}
