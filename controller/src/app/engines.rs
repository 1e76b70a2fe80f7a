//! Engines: what there is, and what a cluster can really run.

use culvert_engines::{Engine, Plan, Seen, catalogue, plan};
use culvert_resources::{DataPlaneStatus, DataServiceSpec, EngineState};
use serde_json::Value;

use super::{App, Error};
use crate::domain::quota::Exceeded;
use crate::domain::{Caller, ClusterId, ClusterRef, DataService, Fault, ObjectKey, ObjectKind, Time};

/// What a cluster's data plane told.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPlaneView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its status, verbatim; absent when the operator is not installed or has told nothing.
    pub status: Option<Value>,
    /// When it last told something new.
    pub observed_at: Option<Time>,
    /// Whether it may be out of date, as the cluster is not connected.
    pub stale: bool,
}

impl DataPlaneView {
    /// The engine versions that the cluster has images of.
    #[must_use]
    pub fn engines(&self) -> Vec<EngineState> {
        self.read().map(|status| status.engines).unwrap_or_default()
    }

    fn read(&self) -> Option<DataPlaneStatus> {
        self.status.as_ref().and_then(|status| serde_json::from_value(status.clone()).ok())
    }

    /// What a plan has to know of the cluster. A cluster that told nothing is not spoken for: what
    /// the catalogue has is taken as there.
    fn seen(&self, engine: &Engine, service: Option<&DataService>) -> Seen {
        let status = self.read();
        let available = match &status {
            Some(status) => {
                let ours = status.engines.iter().filter(|state| state.engine == engine.name && state.ready);
                ours.map(|state| state.version.clone()).collect()
            }
            None => engine.releases.iter().map(|release| release.version.clone()).collect(),
        };
        let grows = |status: DataPlaneStatus| status.capabilities.iter().any(|c| c == "volume-expansion");
        let now = service.and_then(|service| service.seen.as_ref()).map(|seen| seen.status());
        Seen {
            running_version: now.as_ref().and_then(|now| now.version.clone()).and_then(|v| v.running),
            available_versions: available,
            can_expand: status.map(grows),
            replicas: now.and_then(|now| now.replicas).unwrap_or_default(),
        }
    }
}

impl App {
    /// What a cluster's data plane told.
    pub async fn data_plane(&self, caller: &Caller, which: &ClusterRef) -> Result<DataPlaneView, Error> {
        let cluster = self.store().org(caller).cluster(which).await?.ok_or(Error::NotFound("cluster"))?.id;
        let name = "default".to_owned();
        let key = ObjectKey { kind: ObjectKind::DataPlane, namespace: String::new(), name };
        let known = self.observed_one(caller, cluster, &key).await?;
        let status = known.as_ref().and_then(|known| known.told.object.get("status")).cloned();
        Ok(DataPlaneView {
            cluster,
            status: status.filter(|status| !status.is_null()),
            observed_at: known.map(|known| known.observed_at),
            stale: self.is_stale(caller, cluster).await?,
        })
    }

    /// What making or changing a service to `desired` alters, costs and risks in its cluster.
    pub(super) async fn plan_in(
        &self,
        caller: &Caller,
        cluster: ClusterId,
        current: Option<&DataService>,
        desired: &DataServiceSpec,
    ) -> Result<Plan, Error> {
        let engine = engine(&desired.engine)?;
        let plane = self.data_plane(caller, &ClusterRef::Id(cluster)).await?;
        Ok(plan(engine, current.map(|service| &service.spec), desired, &plane.seen(engine, current)))
    }
}

/// An engine of the catalogue, or the fault of the field that names it.
fn engine(name: &str) -> Result<&'static Engine, Error> {
    catalogue().engine(name).ok_or_else(|| {
        let names: Vec<&str> = catalogue().engines().map(|engine| engine.name.as_str()).collect();
        let detail = format!("there is no such engine; there are {}", names.join(", "));
        Error::invalid("spec.engine", "unknown_engine", detail)
    })
}

/// The faults of a plan as those of a request.
pub(super) fn refuse(plan: &Plan) -> Result<(), Error> {
    if plan.faults.is_empty() {
        return Ok(());
    }
    let fault = |fault: &culvert_engines::Fault| {
        let detail = format!("{}. {}", fault.message, fault.next);
        Fault { field: fault.field.clone(), code: fault.code.clone().into(), detail }
    };
    Err(Error::Invalid(plan.faults.iter().map(fault).collect()))
}

/// Bounds of a quota as faults of a plan.
pub(super) fn over_quota(exceeded: &[Exceeded]) -> impl Iterator<Item = culvert_engines::Fault> {
    exceeded.iter().map(|exceeded| culvert_engines::Fault {
        field: format!("quota.{}", exceeded.what),
        code: "quota_exceeded".to_owned(),
        message: format!("the project's quota does not allow it: {exceeded}"),
        next: "ask for less, or have the quota raised".to_owned(),
    })
}
