//! What is there of a database, looked at once in each round.
use std::collections::BTreeMap;

use culvert_resources::instance::InstanceStatus;
use culvert_resources::meta;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::archive::Targets;
use super::children::Parent;
use super::instances;
use super::volumes::Fill;
use crate::reconcile::{Error, Work};

/// What is there.
pub(super) struct Seen {
    pub(super) stateful_set: Option<StatefulSet>,
    pub(super) config: Option<ConfigMap>,
    pub(super) pods: Vec<Pod>,
    pub(super) claims: Vec<PersistentVolumeClaim>,
    pub(super) lease: Option<Lease>,
    pub(super) credentials: Option<Secret>,
    pub(super) authority: Option<Secret>,
    pub(super) server: Option<Secret>,
    pub(super) targets: Targets,
    pub(super) told: BTreeMap<String, InstanceStatus>,
    pub(super) now: Timestamp,
}

impl Seen {
    pub(super) async fn look(
        work: &Work,
        http: &reqwest::Client,
        parent: &Parent<'_>,
    ) -> Result<Self, Error> {
        let (names, namespace) = (parent.names(), parent.namespace);
        let (own, instance, lease) = (names.own(), names.instance(), names.lease());
        let (passwords, authority, server) = (names.credentials(), names.ca_key(), names.tls());
        let objects = futures::future::try_join4(
            work.find::<StatefulSet>(namespace, &own),
            work.find::<ConfigMap>(namespace, &instance),
            work.find::<Lease>(namespace, &lease),
            Targets::look(work, parent),
        );
        let secrets = futures::future::try_join3(
            work.find::<Secret>(namespace, &passwords),
            work.find::<Secret>(namespace, &authority),
            work.find::<Secret>(namespace, &server),
        );
        let lists = futures::future::try_join(
            work.list::<Pod>(namespace, meta::DATABASE, parent.name),
            work.list::<PersistentVolumeClaim>(namespace, meta::DATABASE, parent.name),
        );
        let (
            (stateful_set, config, lease, targets),
            (credentials, authority, server),
            (mut pods, mut claims),
        ) = futures::future::try_join3(Box::pin(objects), Box::pin(secrets), Box::pin(lists)).await?;
        // Jobs of the service have its labels too, and other names.
        pods.retain(|pod| names.ordinal(&pod.name_any()).is_some());
        pods.sort_by_key(|pod| names.ordinal(&pod.name_any()));
        claims.sort_by_key(kube::ResourceExt::name_any);
        let told = instances::ask(http, &pods).await;
        let now = work.world().now();
        Ok(Self {
            stateful_set,
            config,
            pods,
            claims,
            lease,
            credentials,
            authority,
            server,
            targets,
            told,
            now,
        })
    }

    /// The pod of the primary: the holder of the Lease.
    pub(super) fn primary(&self) -> Option<&str> {
        let holder = self.lease.as_ref()?.spec.as_ref()?.holder_identity.as_deref()?;
        self.pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(holder)).then_some(holder)
    }

    /// How full the volumes are.
    pub(super) fn fills(&self) -> Vec<Fill> {
        let fill = |told: &InstanceStatus| Some(Fill { total: told.volume_bytes?, free: told.free_bytes? });
        self.told.values().filter_map(fill).collect()
    }
}

/// Whether the kubelet says that a pod serves.
pub(super) fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
