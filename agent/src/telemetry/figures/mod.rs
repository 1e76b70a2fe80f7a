//! Tells the controller what the instances of this cluster's databases, and their operator, measure of themselves.
//!
//! The operator is asked where there is a `DataPlane`, without which it runs nothing. Which instances
//! there are is read from the databases on the shelf; each is asked by its own name in the cluster's
//! DNS, so that no right at pods is needed. What is lost is not told again.
mod instance;
mod scrape;
mod text;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use culvert_proto::telemetry::v1 as wire;
use culvert_proto::telemetry::v1::telemetry_client::TelemetryClient;
use culvert_tunnel::Channel;
use futures::StreamExt;
use http::Uri;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

use self::instance::{Instance, instances};
use super::shelf::Shelf;

pub use self::instance::{AddressError, Addresses};

/// Instances that are asked at the same time: one that does not answer holds few others up.
const AT_ONCE: usize = 8;

/// Instances told of in one request, so that it stays far below what the controller takes.
const BATCH: usize = 20;

/// Time that the controller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that a controller can make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// Asks the instances now and then, and tells what they said.
pub(super) struct Sampler {
    pub(super) shelf: Arc<Shelf>,
    /// The connection that the controller welcomed last.
    pub(super) channel: watch::Receiver<Option<Channel>>,
    /// The controller's name on it.
    pub(super) origin: Uri,
    /// Where an instance is asked.
    pub(super) addresses: Addresses,
    /// Between two rounds.
    pub(super) period: Duration,
}

/// What came of telling.
enum Told {
    /// Go on after this time.
    Next(Duration),
    /// This controller does not take samples: wait for another connection.
    Unwanted,
}

impl Sampler {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let channel = self.channel.borrow_and_update().clone();
            let told = match channel {
                None => Told::Unwanted,
                Some(channel) => tokio::select! {
                    () = stop.cancelled() => return,
                    told = self.round(channel) => told,
                },
            };
            let pause = async {
                match told {
                    Told::Next(wait) => tokio::time::sleep(wait).await,
                    Told::Unwanted => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.channel.changed() => if changed.is_err() { return },
                () = pause => {}
            }
        }
    }

    /// Asks everyone once and tells what they said.
    async fn round(&self, channel: Channel) -> Told {
        let found = instances(self.shelf.of_kind("Database").iter().map(|object| object.json.as_ref()));
        let asked = futures::stream::iter(found.into_iter().map(|instance| self.ask(instance)));
        let (operator, sources): (_, Vec<wire::Source>) =
            futures::join!(self.ask_operator(), asked.buffered(AT_ONCE).collect());
        let sources: Vec<wire::Source> = operator.into_iter().chain(sources).collect();
        let mut client = TelemetryClient::with_origin(channel, self.origin.clone());
        let mut wait = self.period;
        for sources in sources.chunks(BATCH) {
            match tell(&mut client, sources.to_vec()).await {
                Ok(asked) => wait = wait.max(asked),
                Err(told) => return told.unwrap_or(Told::Next(wait)),
            }
        }
        Told::Next(wait)
    }

    /// What the operator says, when there is one.
    async fn ask_operator(&self) -> Option<wire::Source> {
        let address = self.addresses.operator()?;
        if self.shelf.of_kind("DataPlane").is_empty() {
            return None;
        }
        // Which of its pods answers is not known, and does not matter.
        let source = wire::Source {
            role: "operator".to_owned(),
            pod: "operator".to_owned(),
            ..wire::Source::default()
        };
        let asked = scrape::read(address).await.map_err(|error| crate::causes::chain(&error));
        Some(told_by(source, asked))
    }

    async fn ask(&self, instance: Instance) -> wire::Source {
        let asked = match self.addresses.of(&instance) {
            Ok(address) => scrape::read(&address).await.map_err(|error| crate::causes::chain(&error)),
            Err(error) => Err(crate::causes::chain(&error)),
        };
        let source = wire::Source {
            role: "instance".to_owned(),
            namespace: instance.namespace,
            pod: instance.pod,
            service: instance.database,
            ..wire::Source::default()
        };
        told_by(source, asked)
    }
}

/// A source with what its page says, or why there is none.
fn told_by(source: wire::Source, asked: Result<String, String>) -> wire::Source {
    match asked {
        Ok(page) => {
            let told = text::read(&page);
            wire::Source { samples: told.samples, left_out: told.left_out, ..source }
        }
        Err(problem) => wire::Source { problem: crate::causes::one_line(&problem), ..source },
    }
}

/// Tells; the wait that the controller asks for, or what follows from a failure.
async fn tell(
    client: &mut TelemetryClient<Channel>,
    sources: Vec<wire::Source>,
) -> Result<Duration, Option<Told>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let mut request = Request::new(wire::SampleRequest { at_ms, sources });
    request.set_timeout(ANSWER_TIMEOUT);
    match tokio::time::timeout(ANSWER_TIMEOUT, client.sample(request)).await {
        Ok(Ok(answer)) => Ok(Duration::from_millis(answer.into_inner().wait_ms.into()).min(LONGEST_WAIT)),
        Ok(Err(status)) if status.code() == Code::Unimplemented => Err(Some(Told::Unwanted)),
        Ok(Err(status)) => {
            let (code, why) = (status.code(), crate::causes::one_line(status.message()));
            tracing::debug!(?code, why, "samples were not taken");
            Err(None)
        }
        Err(_) => {
            tracing::debug!("the controller does not answer to samples");
            Err(None)
        }
    }
}
