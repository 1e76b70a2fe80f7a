//! How far the filling of a new service has come: counted by the engine's side, told in the status of its Restore.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use culvert_resources::meta::manager;
use culvert_resources::{Progress, Restore};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::pack::Meter;

/// Time between two writes of the status.
const EVERY: Duration = Duration::from_secs(3);

/// How far it has come; copies are the same.
#[derive(Debug, Clone, Default)]
pub struct Filling {
    meter: Arc<Meter>,
    reached: Arc<Mutex<Option<String>>>,
}

impl Filling {
    /// Counts.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Says which moment was reached.
    pub fn reach(&self, moment: String) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(moment);
    }

    fn reached(&self) -> Option<String> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn progress(&self, at: jiff::Timestamp) -> Option<Progress> {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let step = self.meter.current_step();
        (!step.is_empty()).then(|| Progress {
            step: step.to_owned(),
            done_bytes: signed(self.meter.done()),
            total_bytes: self.meter.total().map(signed),
            at: Some(Time(at)),
        })
    }
}

/// Writes the status of the Restore while something changes, until the token is cancelled.
pub async fn tell(
    client: Client,
    namespace: String,
    restore: String,
    filling: Filling,
    stop: CancellationToken,
) {
    let api: Api<Restore> = Api::namespaced(client, &namespace);
    let mut told = None;
    while !stop.is_cancelled() {
        let state = (filling.reached(), filling.meter.current_step(), filling.meter.done());
        if let Some(progress) = filling.progress(jiff::Timestamp::now())
            && told.as_ref() != Some(&state)
        {
            match write(&api, &restore, progress, state.0.clone()).await {
                Ok(()) => told = Some(state),
                Err(error) => tracing::debug!(%error, restore, "the progress cannot be told"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn write(
    api: &Api<Restore>,
    name: &str,
    progress: Progress,
    reached: Option<String>,
) -> Result<(), kube::Error> {
    let mut status = serde_json::json!({ "progress": progress });
    if let (Some(reached), Some(status)) = (reached, status.as_object_mut()) {
        status.insert("reached".to_owned(), reached.into());
    }
    let object = serde_json::json!({
        "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Restore", "metadata": { "name": name }, "status": status,
    });
    let params = PatchParams::apply(manager::RUNNER).force();
    api.patch_status(name, &params, &Patch::Apply(object)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_before_anything_is_done() {
        let filling = Filling::default();
        assert_eq!(filling.progress(jiff::Timestamp::UNIX_EPOCH), None);
        filling.meter().step("copying files");
        filling.meter().expect(10);
        filling.meter().add_done(4);
        let progress = filling.progress(jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((progress.done_bytes, progress.total_bytes), (4, Some(10)));
        filling.clone().reach("end of backup".to_owned());
        assert_eq!(filling.reached().as_deref(), Some("end of backup"));
    }
}
