//! What is around a data service, looked at once in each round.
use culvert_resources::{Backup, DataPlane, DataService, Database, meta};
use k8s_openapi::api::core::v1::{LimitRange, PersistentVolumeClaim, ResourceQuota};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::data_plane;
use crate::database::Names;
use crate::reconcile::{Error, Work};

/// Most instances of a service, by the schema of its topology.
const MOST: i32 = 5;

/// What is around a data service.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) plane: Option<DataPlane>,
    pub(super) classes: Vec<StorageClass>,
    pub(super) quotas: Vec<ResourceQuota>,
    pub(super) limits: Vec<LimitRange>,
    /// Claims with the names that the service's would have, whoever made them.
    pub(super) claims: Vec<PersistentVolumeClaim>,
    pub(super) database: Option<Database>,
    /// Backups of the service.
    pub(super) backups: Vec<Backup>,
    pub(super) now: Timestamp,
}

impl Surroundings {
    pub(super) async fn look(work: &Work, service: &DataService) -> Result<Self, Error> {
        let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
        let client = work.world().client();
        let planes = Api::<DataPlane>::all(client.clone());
        let classes = Api::<StorageClass>::all(client);
        let everywhere = ListParams::default();
        let cluster = futures::future::try_join(planes.get_opt(data_plane::NAME), classes.list(&everywhere));
        let (plane, classes) = cluster.await.map_err(|error| Error::kube("looking at the cluster", error))?;
        let lists = futures::future::try_join4(
            work.all::<ResourceQuota>(&namespace),
            work.all::<LimitRange>(&namespace),
            claims(work, &name, &namespace),
            work.all::<Backup>(&namespace),
        );
        let (quotas, limits, claims, mut backups) = lists.await?;
        backups.retain(|backup| backup.spec.service == name);
        let database = work.find::<Database>(&namespace, &name).await?;
        let now = work.world().now();
        Ok(Self { plane, classes: classes.items, quotas, limits, claims, database, backups, now })
    }

    /// The database, when it is this service's and stays.
    pub(super) fn living(&self) -> Option<&Database> {
        self.database.as_ref().filter(|database| database.metadata.deletion_timestamp.is_none())
    }
}

/// Claims with the names of the service's, also when nothing of ours made them.
async fn claims(work: &Work, name: &str, namespace: &str) -> Result<Vec<PersistentVolumeClaim>, Error> {
    let mut found = work.list::<PersistentVolumeClaim>(namespace, meta::SERVICE, name).await?;
    let names = Names::new(name, namespace);
    found.retain(|claim| (0..MOST).any(|ordinal| names.claim(ordinal) == claim.name_any()));
    if found.is_empty() {
        // The first one stands for all: a foreign claim of this name would be mounted.
        found.extend(work.find::<PersistentVolumeClaim>(namespace, &names.claim(0)).await?);
    }
    Ok(found)
}
