//! One connection of the agent, from dialling to its end.
use std::sync::Arc;
use std::time::SystemTime;

use culvert_proto::tunnel::v1::{Facts, Hello};
use culvert_tunnel::{Handler, Limits, Link, LinkEnd, Signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::way::Way;
use crate::causes::{Cause, Remedy};
use crate::identity::{self, Identity, Keeper};
use crate::report::Reporter;

/// Tells connections of one process apart; a later one is higher.
pub(super) type ConnectionId = u64;

/// What a connection has to say while it lasts.
pub(super) enum Event {
    /// It is dialled, and not welcomed yet.
    Started { id: ConnectionId, link: Arc<Link>, identity: Box<Identity> },
    /// The controller said something.
    Signal { id: ConnectionId, signal: Signal },
}

/// One connection, from dialling to its end.
pub(super) struct Attempt<H> {
    pub(super) id: ConnectionId,
    pub(super) way: Arc<Way>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) handler: H,
    pub(super) facts: watch::Receiver<Option<Facts>>,
    pub(super) reporter: Reporter,
    pub(super) limits: Limits,
    pub(super) hello: Hello,
    /// The certificate is over by the controller's clock, whatever ours says.
    pub(super) lapsed: bool,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stop: CancellationToken,
}

impl<H: Handler> Attempt<H> {
    pub(super) async fn run(self) -> Result<LinkEnd, Cause> {
        let stop = self.stop.clone();
        let (link, identity) = tokio::select! {
            () = stop.cancelled() => return Ok(LinkEnd::Stopped),
            opened = self.open() => opened?,
        };
        let link = Arc::new(link);
        let hello = Hello {
            last_epoch: identity.last_epoch,
            place: self.keeper.place().await.into(),
            clock_ms: identity::clock_ms(SystemTime::now()),
            ..self.hello
        };
        // The loop lives as long as its tasks, so this cannot fail while it matters.
        let started = Event::Started { id: self.id, link: Arc::clone(&link), identity: Box::new(identity) };
        if self.events.send(started).await.is_err() {
            return Ok(LinkEnd::Stopped);
        }
        let (sender, mut signals) = mpsc::channel(16);
        let run = link.run(hello, self.handler, self.facts, sender, self.stop);
        let (id, events) = (self.id, self.events);
        let forward = async {
            while let Some(signal) = signals.recv().await {
                if events.send(Event::Signal { id, signal }).await.is_err() {
                    return;
                }
            }
        };
        let (end, ()) = tokio::join!(run, forward);
        // When the whole agent stops nobody else holds the link, and its last bytes must
        // have left before the process ends.
        if let Ok(link) = Arc::try_unwrap(link) {
            link.close().await;
        }
        Ok(end)
    }

    async fn open(&self) -> Result<(Link, Identity), Cause> {
        let state = match self.keeper.refreshed().await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "stored state could not be read again, using what is known");
                self.keeper.state().await
            }
        };
        let mut identity = state.identity.ok_or_else(|| {
            Cause::new(
                "state",
                "the agent has no identity",
                "its state was emptied",
                "enrol again with a new token",
            )
            .with(Remedy::GiveUp)
        })?;
        if self.lapsed || identity.expired(SystemTime::now()) {
            identity = self.rejoin(&identity).await?;
        }
        let link = self.way.connect(&identity, self.limits.clone()).await?;
        Ok((link, identity))
    }

    async fn rejoin(&self, identity: &Identity) -> Result<Identity, Cause> {
        tracing::info!(
            generation = identity.generation,
            "certificate has expired, asking for a new one with its key"
        );
        let (link, binding) = self.way.connect_bare(identity, self.limits.clone()).await?;
        let obtained =
            identity::rejoin(&self.keeper, link.channel(), identity, &binding, self.way.domain()).await;
        link.close().await;
        let obtained = obtained.map_err(|error| Cause::from(&error))?;
        tracing::info!(generation = obtained.identity.generation, "certificate obtained");
        self.reporter.identity(&obtained.identity);
        Ok(obtained.identity)
    }
}
