//! Controller of databases: makes what has been released come true, and keeps it so.
//!
//! A round looks at everything ([`seen`]), applies the objects as values ([`children`]), takes one step of a change
//! that has an order ([`order`]), and reports ([`status`]). It holds no state between rounds: an operator that is
//! killed anywhere goes on from what it then sees. Passwords and keys are read only to be kept.
//!
//! The Lease of the primary belongs to the runners. It is made here, so that they need no right to make one, and it
//! outlives the Database with the volumes, because it says which of them is the newest.

mod archive;
mod certificates;
mod children;
mod credentials;
mod instances;
mod make;
mod names;
mod order;
mod seen;
mod status;
mod steps;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use culvert_resources::{Database, meta};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::driver;
use crate::metrics;
use crate::reconcile::{Error, Next, Work, World};
use children::Parent;
use seen::Seen;

pub(crate) use names::Names;

/// Name of the volume of an instance; its claims are `data-<pod>`.
const VOLUME: &str = "data";
/// While it waits for what it begins with, it is looked at each so many seconds.
const AT_ONCE: u64 = 1;
/// While something changes, it is looked at this often.
const SOON: u64 = 3;
/// While nothing changes.
const LATER: u64 = 20;

/// What instances are asked with: plainly and directly. A proxy in the environment is for ways out of the cluster, and
/// the image has no certificate authorities to trust.
///
/// # Errors
/// The client's.
pub(crate) fn http() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).connect_timeout(Duration::from_secs(1)).build()
}

/// Runs until `stop`. Secrets are not watched, because a right to watch them is a right to read all of them: one that
/// was deleted by hand comes back in the next round.
pub(crate) async fn run(world: World, http: reqwest::Client, stop: CancellationToken) {
    let work = Work::new(world.clone(), metrics::Controller::Database, meta::manager::DATABASE);
    let all = watcher::Config::default;
    let ours = || all().labels(meta::DATABASE);
    let client = world.client();
    let controller = Controller::new(Api::<Database>::all(client.clone()), all())
        .owns(Api::<StatefulSet>::all(client.clone()), ours())
        .owns(Api::<Service>::all(client.clone()), ours())
        .owns(Api::<ConfigMap>::all(client.clone()), ours())
        .watches(Api::<Pod>::all(client.clone()), ours(), of_label)
        .watches(Api::<PersistentVolumeClaim>::all(client), ours(), of_label);
    work.run(controller, move |database, work| reconcile(database, work, http.clone()), stop).await;
}

/// The database that an object belongs to by its label.
fn of_label<K: Resource>(object: K) -> Option<ObjectRef<Database>> {
    let name = object.labels().get(meta::DATABASE)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

async fn reconcile(database: Arc<Database>, work: Work, http: reqwest::Client) -> Result<Next, Error> {
    // Everything of it goes with it; a deleted object must not be given new children.
    if database.metadata.deletion_timestamp.is_some() {
        return Ok(Next::OnChange);
    }
    let (name, namespace) = (database.name_any(), database.namespace().unwrap_or_default());
    let Some((engine, driver)) = driver::engine(&database.spec.engine) else {
        return Err(Error::making(format!("this operator has no driver for {}", database.spec.engine)));
    };
    let parent = Parent { database: &database, name: &name, namespace: &namespace, engine, driver };
    let seen = Seen::look(&work, &http, &parent).await?;
    let made = make::make(&work, &parent, &seen).await;
    let looked = match &made {
        Ok(made) => steps::take(&work, &parent, &seen, made).await.map(Some),
        Err(_) => Ok(None),
    };
    let step = looked.as_ref().ok().and_then(Option::as_ref);
    let begins = made.as_ref().is_ok_and(|made| made.waits_for_source);
    let settled = status::report(&work, &parent, &seen, made.as_ref(), step).await?;
    made?;
    looked?;
    Ok(Next::seconds(match (settled, begins) {
        (_, true) => AT_ONCE,
        (false, false) => SOON,
        (true, false) => LATER,
    }))
}
