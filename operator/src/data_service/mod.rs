//! Controller of data services: from what a person wants to what is released, and back to what they read.
//!
//! A round asks three things: can the spec be carried out (`Accepted`), is what it needs in the cluster (`Preflight`),
//! and may it be done now (window). What passes is written as a Database, which the other controller makes come true.
//! What has been released stays as it is until the spec changes ([`release`]): neither a new operator nor a new image
//! in the DataPlane moves a database that nobody touched.
//!
//! Deletion is a walk of its own ([`deletion`]), and volumes that outlive their service end by [`sweep`].

mod backups;
mod deletion;
mod phase;
mod preflight;
mod release;
mod retained;
mod status;
mod surroundings;
mod sweep;
mod window;

use std::sync::Arc;

use culvert_resources::{Backup, DataPlane, DataService, Database, meta};
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::reconcile::{self, Error, Next, Work, World};
use surroundings::Surroundings;

/// While something waits for a time or for the cluster.
const SOON: u64 = 10;
/// While nothing waits.
const LATER: u64 = 60;

/// Runs until `stop`.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::DataService, meta::manager::DATA_SERVICE);
    let all = watcher::Config::default;
    let client = world.client();
    let controller = Controller::new(Api::<DataService>::all(client.clone()), all());
    let services = controller.store();
    let controller = controller
        .owns(Api::<Database>::all(client.clone()), all())
        .watches(Api::<Backup>::all(client.clone()), all(), |backup| {
            let namespace = backup.namespace()?;
            Some(ObjectRef::<DataService>::new(&backup.spec.service).within(&namespace))
        })
        .watches(Api::<DataPlane>::all(client), all(), move |_| {
            services.state().iter().map(|service| ObjectRef::from_obj(service.as_ref())).collect::<Vec<_>>()
        });
    let sweeping = sweep::run(work.clone(), stop.clone());
    futures::future::join(work.run(controller, reconcile, stop), sweeping).await;
}

async fn reconcile(service: Arc<DataService>, work: Work) -> Result<Next, Error> {
    if service.metadata.deletion_timestamp.is_some() {
        return deletion::walk(&work, &service).await;
    }
    work.finalizer(service.as_ref(), true).await?;
    let around = Surroundings::look(&work, &service).await?;
    let decided = release::decide(&service, &around);
    let released = match &decided.release {
        Some(kept) => Some(write(&work, &service, kept).await?),
        None => around.database.clone(),
    };
    status::report(&work, &service, &around, &decided, released.as_ref()).await?;
    let waits = !decided.pending.is_empty() || decided.blocked.is_some() || !decided.faults.is_empty();
    Ok(Next::seconds(if waits { SOON } else { LATER }))
}

/// Writes the Database.
async fn write(work: &Work, service: &DataService, kept: &release::Release) -> Result<Database, Error> {
    let (name, engine) = (service.name_any(), &service.spec.engine);
    let mut database = Database::new(&name, kept.value.spec.clone());
    database.metadata = reconcile::owned(service, &name, reconcile::labels(&name, engine));
    database.metadata.annotations = Some([kept.annotation()?].into());
    work.apply(&database).await
}
