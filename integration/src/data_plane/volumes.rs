//! What a storage system does and folders of a node cannot: growing volumes.

use ::kube::Api;
use ::kube::api::{ListParams, Patch, PatchParams};
use anyhow::Context;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use super::DataPlane;

/// The class of the kit that allows to grow. A folder has no size, so nothing has to be
/// done but to say so, which [`DataPlane::grow_volumes`] does in the place of its driver.
pub const GROWING: &str = "local-path-growing";

/// The class of the kit whose volumes share a disk of 256 MiB.
pub const SMALL: &str = "local-path-small";

impl DataPlane {
    /// Grows the volumes of a namespace to what their claims ask for; gives how many.
    pub async fn grow_volumes(&self, namespace: &str) -> anyhow::Result<usize> {
        let claims = self.objects::<PersistentVolumeClaim>(namespace)?;
        let volumes: Api<PersistentVolume> = Api::all(self.client()?);
        let mut grown = 0;
        for claim in claims.list(&ListParams::default()).await? {
            let name = claim.metadata.name.context("a claim without a name")?;
            let spec = claim.spec.context("a claim without a spec")?;
            let asked = spec.resources.and_then(|resources| resources.requests?.remove("storage"));
            let has = claim.status.and_then(|status| status.capacity?.remove("storage"));
            let Some(volume) = spec.volume_name.filter(|_| asked != has) else { continue };
            let capacity = json!({"capacity": {"storage": asked}});
            let (how, none) = (Patch::Merge(json!({"spec": capacity})), PatchParams::default());
            volumes.patch(&volume, &none, &how).await?;
            claims.patch_status(&name, &none, &Patch::Merge(json!({"status": capacity}))).await?;
            grown += 1;
        }
        Ok(grown)
    }
}
