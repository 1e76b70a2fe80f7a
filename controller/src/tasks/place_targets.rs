//! Brings backup targets to the clusters that use them.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::Task;
use crate::app::{App, Error};

pub(super) struct PlaceTargets(pub(super) App);

#[async_trait]
impl Task for PlaceTargets {
    fn name(&self) -> &'static str {
        "backup targets"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn wake(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.placements_due())
    }

    async fn activate(&self) -> Result<u64, Error> {
        self.0.place_targets().await
    }
}
