//! Controller of the databases.
use culvert_resources::{Database, meta};
use kube::Api;
use kube::runtime::controller::Controller;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::reconcile::{Next, Work, World};

/// Runs until `stop`.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::Database, meta::manager::DATABASE);
    let planes = Api::<Database>::all(world.client());
    let controller = Controller::new(planes, kube::runtime::watcher::Config::default());
    work.run(controller, |_, _| async { Ok(Next::seconds(60)) }, stop).await;
}
