//! What the agent tells of its cluster on its own accord, on the tunnel's connection.
//!
//! One task for each kind of data.culvert.dev keeps a shelf as the cluster is; one task tells the
//! controller: everything after each connection, what changes from then on, and everything again
//! now and then, in case something was missed. Nothing here holds a call up: there is one report
//! under way at most, of bounded size, and a controller that does not know the service is left in
//! peace until the next connection.
//!
//! A third task asks the instances of databases for their figures and tells those ([`figures`]).
//!
//! Mistakes a newcomer could make:
//! - To tell what somebody asks for. The controller can ask for everything again and for a pause,
//!   and for nothing else: what is told is decided here.
//! - To conclude from an empty list that there is nothing. A kind that could not be seen makes a
//!   full telling a partial one, from which the controller takes nothing away.
mod figures;
mod object;
mod shelf;
mod teller;
mod watch;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use culvert_tunnel::Channel;
use http::Uri;
use kube::Client;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::figures::Sampler;
use self::shelf::Shelf;
use self::teller::Teller;
use self::watch::Watch;
use crate::causes::CauseLog;

pub use self::figures::{AddressError, Addresses};

/// Periods of telling; tests make them shorter.
#[derive(Debug, Clone)]
pub struct Periods {
    /// Between two full tellings that nobody asked for.
    pub resync: Duration,
    /// How long the first full telling waits for the API server.
    pub settle: Duration,
    /// Until a kind that is not installed is asked for again.
    pub recheck: Duration,
    /// Between two readings of the instances' figures.
    pub sample: Duration,
}

impl Default for Periods {
    fn default() -> Periods {
        Periods {
            resync: Duration::from_secs(10 * 60),
            settle: Duration::from_secs(15),
            recheck: watch::RECHECK,
            sample: Duration::from_secs(15),
        }
    }
}

/// Tells until `stop`. `channel` is the connection that the controller welcomed last, `origin` the
/// controller's name on it, `kube` a client whose watches may be silent for minutes, and `addresses`
/// where instances are asked for their figures.
pub async fn run(
    kube: Client,
    channel: Receiver<Option<Channel>>,
    origin: Uri,
    addresses: Addresses,
    periods: Periods,
    stop: CancellationToken,
) {
    let shelf = Arc::new(Shelf::new(watch::KINDS.map(|(kind, _)| kind)));
    let causes = Arc::new(Mutex::new(CauseLog::default()));
    let mut tasks = JoinSet::new();
    for (kind, plural) in watch::KINDS {
        let watch = Watch {
            kube: kube.clone(),
            kind,
            plural,
            shelf: Arc::clone(&shelf),
            recheck: periods.recheck,
            causes: Arc::clone(&causes),
            start: Instant::now(),
        };
        tasks.spawn(watch.run(stop.clone()));
    }
    let sampler = Sampler {
        shelf: Arc::clone(&shelf),
        channel: channel.clone(),
        origin: origin.clone(),
        addresses,
        period: periods.sample,
    };
    tasks.spawn(sampler.run(stop.clone()));
    let teller = Teller { shelf, channel, origin, resync: periods.resync, settle: periods.settle };
    tasks.spawn(teller.run(stop));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task that tells of the cluster failed");
        }
    }
}
