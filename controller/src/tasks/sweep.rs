//! Forgets codes, sessions, kept answers and old certificates whose time is over.

use std::time::Duration;

use async_trait::async_trait;

use super::Task;
use crate::app::{App, Error};

pub(super) struct Sweep(pub(super) App);

#[async_trait]
impl Task for Sweep {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn activate(&self) -> Result<u64, Error> {
        Ok(self.0.sweep().await?.total())
    }
}
