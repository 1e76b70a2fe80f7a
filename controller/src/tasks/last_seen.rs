//! Writes down when agents that are connected were last heard of, so that it is
//! known after a crash too.

use std::time::Duration;

use async_trait::async_trait;

use super::Task;
use crate::app::{App, Error};

pub(super) struct LastSeen(pub(super) App);

#[async_trait]
impl Task for LastSeen {
    fn name(&self) -> &'static str {
        "last seen"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(300)
    }

    async fn activate(&self) -> Result<u64, Error> {
        let here = self.0.catch_up().await?;
        Ok(u64::try_from(here).unwrap_or(u64::MAX))
    }
}
