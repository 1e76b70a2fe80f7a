//! Ends sessions of agents that may have none.
//!
//! Whoever deletes or locks something cuts its session at once; this catches what
//! was changed by another process on the same database, or cut while the session
//! was just beginning.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::Task;
use crate::app::{App, Error};

pub(super) struct CutUnwanted(pub(super) App);

#[async_trait]
impl Task for CutUnwanted {
    fn name(&self) -> &'static str {
        "cut unwanted"
    }

    /// A lock holds on live streams within five seconds.
    fn every(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn wake(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.revocations())
    }

    async fn activate(&self) -> Result<u64, Error> {
        let cut = self.0.cut_unwanted().await?;
        Ok(u64::try_from(cut).unwrap_or(u64::MAX))
    }
}
