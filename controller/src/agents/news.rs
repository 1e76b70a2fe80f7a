//! Carries the hub's news to the app: who came, who left, what was told.

use std::convert::Infallible;

use culvert_tunnel::SessionEvent;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::door::Agents;

impl Agents {
    /// Runs until the process stops. One event after the other, so that the store ends with the
    /// newest; what was missed because the store was slow is read from the hub instead.
    pub(crate) async fn carry_news(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut events = self.hub.events();
        loop {
            let event = match stop.run_until_cancelled(events.recv()).await {
                None | Some(Err(RecvError::Closed)) => return Ok(()),
                Some(event) => event,
            };
            self.count(&event);
            let noted = match event {
                Ok(event) => self.app.session_event(event).await,
                Err(_) => self.app.catch_up().await.map(|_| ()),
            };
            if let Err(error) = noted {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "news of an agent was not written down"
                );
            }
        }
    }

    fn count(&self, event: &Result<SessionEvent, RecvError>) {
        match event {
            Ok(SessionEvent::Connected(info)) => {
                self.metrics.sessions.inc();
                tracing::info!(agent = %info.agent, source = %info.source, epoch = info.epoch, version = info.version, "agent connected");
            }
            Ok(SessionEvent::Refused { .. }) => {
                self.metrics.refused.inc();
            }
            Ok(SessionEvent::Duplicate { .. }) => {
                self.metrics.duplicates.inc();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "missed news of agents; reading their state anew"),
        }
    }
}
