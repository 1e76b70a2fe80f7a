//! Probes the engine again and again while it runs, apart from everything else that goes on.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::engine::{Engine, Probed, Situation};

/// Time between probes of an engine that was well.
const EVERY: Duration = Duration::from_secs(2);
/// Time between probes of one that was not.
const SOON: Duration = Duration::from_millis(300);
/// How long a probe may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What probes found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// What the last one that succeeded saw, and when.
    pub(super) well: Option<(Probed, Duration)>,
    /// Why the last one failed, if it did.
    pub(super) problem: Option<String>,
}

/// Probes while `subject` has somebody to probe; forgets what it found when that ends. Returns when nobody listens.
pub(super) async fn probe(
    engine: Arc<dyn Engine>,
    clock: Clock,
    mut subject: watch::Receiver<Option<Situation>>,
    found: watch::Sender<Found>,
) {
    while !found.is_closed() {
        let Some(now) = subject.borrow_and_update().clone() else {
            found.send_replace(Found::default());
            if subject.changed().await.is_err() {
                return;
            }
            continue;
        };
        let problem = match tokio::time::timeout(LIMIT, engine.probe(&now)).await {
            Ok(Ok(probed)) => {
                found.send_replace(Found { well: Some((probed, clock.now())), problem: None });
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("a probe took longer than {} s", LIMIT.as_secs())),
        };
        let wait = if problem.is_some() { SOON } else { EVERY };
        if problem.is_some() {
            found.send_modify(|found| found.problem = problem);
        }
        if let Ok(Err(_)) = tokio::time::timeout(wait, subject.changed()).await {
            return;
        }
    }
}
