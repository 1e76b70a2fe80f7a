//! One instance of a database: the loop that looks at how things stand and does the next thing.
//!
//! [`plan`] decides, as a pure function; the rest of this room gathers what it needs and carries out what it says. A turn
//! never waits for anything that takes long: that runs as the one task of the moment, and the Lease is renewed and the
//! engine probed by tasks of their own.
mod act;
mod look;
pub mod plan;
mod prober;
mod report;
mod why;

use std::sync::Arc;
use std::time::Duration;

use culvert_resources::Why;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::Folders;
use crate::board::Board;
use crate::clock::Clock;
use crate::engine::{Data, Engine, EngineError, Peer, Position, Role, Situation};
use crate::filling::Filling;
use crate::lease::claim::{Claim, PeerSeen, Refusal};
use crate::lease::fence::Fence;
use crate::lease::keeper::{Intent, Standing};
use crate::peers::Peers;
use crate::process::Process;
use crate::volume::Volume;
use crate::wish::Wish;
use prober::Found;

/// Time between turns.
const TURN: Duration = Duration::from_millis(250);

/// Failures in a row after which data of a replica is fetched anew.
const DISTRUST: u32 = 3;

/// What a member is given.
pub struct Given {
    /// The driver.
    pub engine: Arc<dyn Engine>,
    /// Where things are.
    pub folders: Arc<Folders>,
    /// Name of this pod.
    pub pod: String,
    /// The clock of this process.
    pub clock: Clock,
    /// Ends the engine in time.
    pub fence: Fence,
    /// Where the others are.
    pub peers: Peers,
    /// What the operator wishes.
    pub wish: watch::Receiver<Arc<Wish>>,
    /// Why it cannot be read.
    pub wish_problem: watch::Receiver<Option<String>>,
    /// How things stand with the Lease.
    pub standing: watch::Receiver<Standing>,
    /// What is wanted of it.
    pub intent: watch::Sender<Intent>,
    /// How far the filling from a source has come.
    pub filling: Filling,
    /// What others are told.
    pub board: Board,
    /// The role on the pod's label.
    pub label: watch::Sender<Option<&'static str>>,
    /// Asks to end.
    pub stop: CancellationToken,
}

/// Something that takes long.
struct Task {
    doing: Doing,
    handle: JoinHandle<Result<Option<Position>, EngineError>>,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Doing {
    Initialise,
    Join(Peer),
    Promote,
    Settle(String),
    Follow(Peer),
    Require(Arc<[String]>),
    Reconfigure(String),
}

impl Doing {
    /// In words, as the beginning of a sentence.
    fn word(&self) -> &'static str {
        match self {
            Self::Initialise => "making the first data",
            Self::Join(_) => "joining the primary",
            Self::Promote => "the promotion",
            Self::Settle(_) => "setting users and passwords",
            Self::Follow(_) => "following the primary",
            Self::Require(_) => "making commits wait for standbys",
            Self::Reconfigure(_) => "taking the new configuration",
        }
    }
}

/// The member.
pub struct Member {
    given: Given,
    found: watch::Receiver<Found>,
    subject: watch::Sender<Option<Situation>>,
    process: Option<Process>,
    role: Option<Role>,
    /// Since when the process has run, or has not.
    since: Duration,
    /// The process was told to end.
    told: bool,
    /// It was told to end so that another becomes primary.
    handing_over: bool,
    /// The Lease is to be given back.
    release: bool,
    /// What lay on the volume when the process was started, or lies there now.
    data: Option<Data>,
    task: Option<Task>,
    settled: Option<String>,
    configured: Option<String>,
    in_force: Arc<Wish>,
    joined: Option<Peer>,
    /// Standbys that commits shall wait for.
    required: Arc<[String]>,
    /// Those that they do wait for, and the position of the log from which on they do.
    enforced: (Arc<[String]>, Option<Position>),
    /// What the Lease shall list, until it does.
    list: Option<Option<Vec<String>>>,
    standbys: Vec<crate::engine::Standby>,
    looked: Duration,
    others: watch::Receiver<Vec<PeerSeen>>,
    volume: Option<Volume>,
    read_only: bool,
    /// When a standby last received from its primary, or had no reason to.
    streamed: Duration,
    claim: Result<Claim, Refusal>,
    problem: Option<Why>,
    /// How often in a row the engine ended by itself or could not be started.
    failures: u32,
    /// How often in a row a task has failed.
    attempts: u32,
    /// Until when this instance leaves the Lease to others.
    rest_until: Duration,
    /// Until when nothing is tried again.
    pause_until: Duration,
}

/// Runs the member until it was asked to end and has ended in order.
pub async fn run(given: Given) {
    let (subject, subject_seen) = watch::channel(None);
    let (found, found_seen) = watch::channel(Found::default());
    let (others, others_seen) = watch::channel(Vec::new());
    let prober = tokio::spawn(prober::probe(given.engine.clone(), given.clock, subject_seen, found));
    let asker = tokio::spawn(look::ask(given.peers.clone(), given.wish.clone(), given.pod.clone(), others));
    let clock = given.clock;
    let mut member = Member::new(given, found_seen, subject, others_seen);
    while !member.turn().await {
        // A change of anything is seen at the next turn; only the request to end is worth an early one.
        tokio::select! {
            () = tokio::time::sleep(TURN) => {}
            _ = member.given.standing.changed() => {}
        }
    }
    prober.abort();
    asker.abort();
    tracing::info!(seconds = clock.now().as_secs(), "ended in order");
}

impl Member {
    fn new(
        given: Given,
        found: watch::Receiver<Found>,
        subject: watch::Sender<Option<Situation>>,
        others: watch::Receiver<Vec<PeerSeen>>,
    ) -> Self {
        let in_force = given.wish.borrow().clone();
        Self {
            given,
            found,
            subject,
            others,
            in_force,
            process: None,
            role: None,
            since: Duration::ZERO,
            told: false,
            handing_over: false,
            release: false,
            data: None,
            task: None,
            settled: None,
            configured: None,
            joined: None,
            required: Arc::from([]),
            enforced: (Arc::from([]), None),
            list: None,
            standbys: Vec::new(),
            looked: Duration::ZERO,
            volume: None,
            read_only: false,
            streamed: Duration::ZERO,
            claim: Err(Refusal::NotRunning),
            problem: None,
            failures: 0,
            attempts: 0,
            rest_until: Duration::ZERO,
            pause_until: Duration::ZERO,
        }
    }

    /// One turn. True when all has ended.
    async fn turn(&mut self) -> bool {
        self.see_process();
        self.see_task().await;
        self.see_volume();
        self.see_data().await;
        self.see_lease();
        self.see_standbys().await;
        self.decide_claim();
        let act = self.plan();
        let exit = act == plan::Act::Exit;
        if !exit {
            self.act(act).await;
        }
        self.tell_intent();
        self.report();
        exit
    }

    /// What the engine is told.
    fn situation(&self) -> Situation {
        let wish = self.given.wish.borrow().clone();
        Situation {
            folders: self.given.folders.clone(),
            pod: self.given.pod.clone(),
            config: wish.config.clone(),
            credentials: wish.credentials.clone(),
            required: self.required.clone(),
            read_only: self.read_only,
            // On a replica: there is a primary to fetch all from.
            distrusted: self.failures >= DISTRUST,
            filling: self.given.filling.clone(),
        }
    }

    fn now(&self) -> Duration {
        self.given.clock.now()
    }

    /// Whether this instance holds the Lease and may let its engine write.
    fn leading(&self) -> bool {
        self.given.standing.borrow().leading && self.given.fence.open()
    }
}
