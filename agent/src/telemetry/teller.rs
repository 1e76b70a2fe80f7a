//! Tells the controller what is on the shelf: everything after each connection, then what changes.
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_proto::telemetry::v1 as wire;
use culvert_proto::telemetry::v1::telemetry_client::TelemetryClient;
use culvert_tunnel::{Backoff, Channel};
use http::Uri;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::shelf::Shelf;

/// Objects in one report, and bytes of them: below the controller's bounds, and short enough that
/// calls beside it do not wait.
const BATCH: usize = 200;
const BATCH_BYTES: usize = 1024 * 1024;

/// Changes are gathered so long before they are told: one act makes several.
const GATHER: Duration = Duration::from_millis(100);

/// Time that the controller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that a controller can make us wait between two reports.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The one who tells. There is one report under way at most.
pub(super) struct Teller {
    pub(super) shelf: Arc<Shelf>,
    /// The connection that the controller welcomed last.
    pub(super) channel: watch::Receiver<Option<Channel>>,
    /// The controller's name on it.
    pub(super) origin: Uri,
    /// Between two full tellings that nobody asked for.
    pub(super) resync: Duration,
    /// How long a full telling waits for kinds that nobody could ask for yet.
    pub(super) settle: Duration,
}

/// Why telling on this connection came to its end.
enum Ended {
    /// Another connection is there, or none; or the agent stops.
    Moved,
    /// The controller has no such service.
    Unknown,
    /// A report was not taken.
    Failed(Status),
}

impl Teller {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let channel = self.channel.borrow_and_update().clone();
            let ended = match channel {
                None => Ended::Moved,
                Some(channel) => {
                    let mut moved = self.channel.clone();
                    tokio::select! {
                        () = stop.cancelled() => return,
                        // A connection that is gone may keep its last report waiting.
                        _ = moved.changed() => Ended::Moved,
                        ended = Telling::new(&self, channel).run(&mut backoff) => ended,
                    }
                }
            };
            let wait = match ended {
                Ended::Failed(status) => {
                    let (code, why) = (status.code(), crate::causes::one_line(status.message()));
                    tracing::debug!(?code, why, "a report was not taken");
                    Some(backoff.failed(Instant::now(), None))
                }
                Ended::Unknown => {
                    tracing::info!("this controller does not want to know of data services");
                    None
                }
                Ended::Moved => None,
            };
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.channel.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }
}

/// Telling on one connection.
struct Telling<'t> {
    shelf: &'t Shelf,
    client: TelemetryClient<Channel>,
    bell: watch::Receiver<u64>,
    resync: Duration,
    settle: Duration,
    /// Counts full tellings of this connection.
    tellings: u64,
    /// The last one was a partial one.
    partial: bool,
}

impl<'t> Telling<'t> {
    fn new(teller: &'t Teller, channel: Channel) -> Telling<'t> {
        Telling {
            shelf: &teller.shelf,
            client: TelemetryClient::with_origin(channel, teller.origin.clone()),
            bell: teller.shelf.bell(),
            resync: teller.resync,
            settle: teller.settle,
            tellings: 0,
            partial: false,
        }
    }

    async fn run(mut self, backoff: &mut Backoff) -> Ended {
        self.settled().await;
        loop {
            if let Err(ended) = self.everything().await {
                return ended;
            }
            backoff.connected(Instant::now());
            let due = tokio::time::Instant::now() + self.resync.mul_f64(0.9 + 0.2 * spread());
            match tokio::time::timeout_at(due, self.changes()).await {
                // Asked for another one.
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(ended)) => return ended,
            }
        }
    }

    /// Waits until every kind was asked for, so that the first full telling is one.
    async fn settled(&mut self) {
        let settled = async {
            while !self.shelf.is_settled() {
                if self.bell.changed().await.is_err() {
                    return;
                }
            }
        };
        // What is not known then makes the telling a partial one.
        let _ = tokio::time::timeout(self.settle, settled).await;
    }

    /// A full telling; again when the controller wants another one at its end.
    async fn everything(&mut self) -> Result<(), Ended> {
        let snapshot = self.shelf.snapshot();
        self.tellings += 1;
        self.partial = snapshot.partial;
        let mut batches = batches(snapshot.objects).into_iter().peekable();
        let mut first = true;
        while let Some(objects) = batches.next() {
            let last = batches.peek().is_none();
            let partial = last && snapshot.partial;
            let resync = wire::Resync { id: self.tellings, first, last, partial };
            let report = wire::ReportRequest { resync: Some(resync), objects, deleted: Vec::new() };
            let answer = self.report(report).await?;
            if answer.resync {
                return Err(Ended::Failed(Status::aborted("the controller wants it from the beginning")));
            }
            first = false;
        }
        Ok(())
    }

    /// Tells changes as they come, until the controller asks for everything, or until what was
    /// missing from a partial telling is known.
    async fn changes(&mut self) -> Result<(), Ended> {
        loop {
            let changes = self.shelf.take_changes(BATCH, BATCH_BYTES);
            if changes.is_empty() {
                if self.bell.changed().await.is_err() {
                    return Err(Ended::Moved);
                }
                tokio::time::sleep(GATHER).await;
                self.bell.mark_unchanged();
                if self.partial && !self.shelf.is_partial() {
                    return Ok(());
                }
                continue;
            }
            let report = wire::ReportRequest {
                resync: None,
                objects: changes.objects.iter().map(|object| (**object).clone()).collect(),
                deleted: changes.gone.iter().map(super::object::Key::to_wire).collect(),
            };
            if self.report(report).await?.resync {
                return Ok(());
            }
        }
    }

    async fn report(&mut self, report: wire::ReportRequest) -> Result<wire::ReportResponse, Ended> {
        let mut request = Request::new(report);
        request.set_timeout(ANSWER_TIMEOUT);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.client.report(request)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) if status.code() == Code::Unimplemented => return Err(Ended::Unknown),
            Ok(Err(status)) => return Err(Ended::Failed(status)),
            Err(_) => return Err(Ended::Failed(Status::deadline_exceeded("no answer"))),
        };
        if let Some(refused) = answer.refused.first() {
            let (name, reason) = (refused.key.as_ref().map(|key| &key.name), &refused.reason);
            tracing::warn!(
                name,
                reason,
                count = answer.refused.len(),
                "the controller keeps some objects not"
            );
        }
        let wait = Duration::from_millis(answer.wait_ms.into()).min(LONGEST_WAIT);
        tokio::time::sleep(wait).await;
        Ok(answer)
    }
}

/// Objects in reports of bounded size; one empty report when there is nothing.
fn batches(objects: Vec<Arc<wire::Object>>) -> Vec<Vec<wire::Object>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for object in objects {
        let size = object.json.len();
        if let Some(batch) = batches.last()
            && !batch.is_empty()
            && (batch.len() >= BATCH || bytes + size > BATCH_BYTES)
        {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.push((*object).clone());
        }
    }
    batches
}

/// A number from 0 to 1, so that agents which came together do not tell everything together.
fn spread() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_hold_everything_in_order_and_none_is_too_large(
            sizes in prop::collection::vec(0_usize..64 * 1024, 0..500),
        ) {
            let object = |(n, size): (usize, &usize)| {
                Arc::new(wire::Object { generation: n as i64, json: vec![0; *size].into(), ..Default::default() })
            };
            let batches = batches(sizes.iter().enumerate().map(object).collect());
            prop_assert!(!batches.is_empty());
            for batch in &batches {
                let bytes: usize = batch.iter().map(|object| object.json.len()).sum();
                prop_assert!(batch.len() <= BATCH && (bytes <= BATCH_BYTES || batch.len() == 1));
                prop_assert!(!batch.is_empty() || sizes.is_empty());
            }
            let told: Vec<_> = batches.iter().flatten().map(|object| object.generation).collect();
            prop_assert_eq!(told, (0..sizes.len() as i64).collect::<Vec<_>>());
        }
    }
}
