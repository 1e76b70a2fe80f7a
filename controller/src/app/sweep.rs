//! Forgetting what has served its time.

use super::{App, Error};
use crate::domain::Caller;
use crate::store::Swept;

/// An attempt that is still running after this has lost its connection: the doors
/// give a handshake and an enrolment less.
const ATTEMPT_MAX: time::Duration = time::Duration::minutes(2);

impl App {
    /// Deletes codes, sessions, answers and the like whose time is over.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        Ok(self.store().sweep(self.now()).await?)
    }

    /// Ends attempts whose connection is gone. Gives how many.
    pub async fn give_up_attempts(&self) -> Result<u64, Error> {
        let now = self.now();
        let mut given_up = 0;
        for organisation in self.store().organisations().await? {
            let tx = self.store().write(&Caller::controller(organisation.id)).await?;
            let count = tx.give_up_attempts(now - ATTEMPT_MAX, "the connection ended without a word").await?;
            if count > 0 {
                tx.commit().await?;
            }
            given_up += count;
        }
        Ok(given_up)
    }
}
