//! Controller of the data plane: what this cluster can run, and whether it is fit to.
mod checks;
mod given;

pub(crate) use checks::default_class;
pub(crate) use given::read;

use std::sync::Arc;

use culvert_engines::catalogue;
use culvert_resources::{CheckResult, ConditionType, DataPlane, DataPlaneStatus, meta};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::reconcile::{Conditions, Error, Next, Work, World};

/// The one data plane of a cluster.
pub(crate) const NAME: &str = "default";

/// Runs until `stop`.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::DataPlane, meta::manager::DATA_PLANE);
    let all = watcher::Config::default;
    let planes = Api::<DataPlane>::all(world.client());
    let classes = Api::<StorageClass>::all(world.client());
    let controller =
        Controller::new(planes, all()).watches(classes, all(), |_| [ObjectRef::<DataPlane>::new(NAME)]);
    let writing = given::write(work.clone(), stop.clone());
    futures::future::join(work.run(controller, reconcile, stop), writing).await;
}

async fn reconcile(plane: Arc<DataPlane>, work: Work) -> Result<Next, Error> {
    if plane.metadata.deletion_timestamp.is_some() {
        return Ok(Next::OnChange);
    }
    let classes = Api::<StorageClass>::all(work.world().client()).list(&ListParams::default()).await;
    let classes = classes.map_err(|error| Error::kube("listing storage classes", error))?.items;
    let engines = checks::engines(&plane.spec, catalogue());
    let checks = checks::all(&plane.spec, &classes, &engines);
    let before = plane.status.as_ref().map_or(&[][..], |status| status.conditions.as_slice());
    let mut conditions = Conditions::new(before, plane.metadata.generation, work.world().now());
    match checks.iter().find(|check| check.result == CheckResult::Fail) {
        Some(failed) => {
            let message = format!("{} {}", failed.message, failed.remedy);
            conditions.say(ConditionType::Available, false, "CheckFailed", message)
        }
        None => conditions.say(ConditionType::Available, true, "ChecksPassed", "Databases can run here."),
    };
    work.tell_changes(plane.as_ref(), &conditions).await;
    let status = DataPlaneStatus {
        observed_generation: plane.metadata.generation,
        operator_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        checks,
        engines,
        capabilities: checks::capabilities(&plane.spec, &classes),
        conditions: conditions.done(),
    };
    work.status(plane.as_ref(), &status).await?;
    Ok(Next::OnChange)
}
