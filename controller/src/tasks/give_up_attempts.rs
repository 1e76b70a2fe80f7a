//! Ends enrolment attempts whose connection went away without a word.

use std::time::Duration;

use async_trait::async_trait;

use super::Task;
use crate::app::{App, Error};

pub(super) struct GiveUpAttempts(pub(super) App);

#[async_trait]
impl Task for GiveUpAttempts {
    fn name(&self) -> &'static str {
        "give up attempts"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn activate(&self) -> Result<u64, Error> {
        self.0.give_up_attempts().await
    }
}
