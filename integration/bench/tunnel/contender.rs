//! Who is measured: each as processes of its own, on loopback, with one encrypted hop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use culvert_integration::process::{Child, accepts, free_address};
use culvert_integration::usage::Usage;

use crate::client::{Client, Way};
use crate::{certificates, peers};

/// Everything must be up, or back, within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a contender is given.
pub(crate) struct Ground {
    /// Certificates, configurations and logs.
    pub(crate) folder: PathBuf,
    /// What it is to lead to.
    pub(crate) origin: SocketAddr,
    /// Where the programs of others are.
    pub(crate) peers: Option<PathBuf>,
}

/// A program with its arguments, to be started again after it was killed.
pub(crate) struct Program {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// A contender as it is set up: the side that users come to, the side that dials, and the way.
pub(crate) struct Plan {
    pub(crate) server: Program,
    /// None for the one that has a single relay.
    pub(crate) client: Option<Program>,
    pub(crate) way: Way,
    /// Must listen before the client starts.
    pub(crate) ready: Option<SocketAddr>,
}

/// A contender that runs.
pub(crate) struct Running {
    server: Program,
    client: Option<Program>,
    pub(crate) way: Way,
    log: PathBuf,
}

/// Each contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The load speaks mTLS to one relay: half of a tunnel.
    Raw,
    /// Two relays: the reference.
    Pair,
    /// The tunnel library.
    Culvert,
    Konnectivity,
    Chisel,
    Frp,
    Rathole,
}

impl Contender {
    pub(crate) const ALL: [Self; 7] =
        [Self::Pair, Self::Culvert, Self::Raw, Self::Konnectivity, Self::Chisel, Self::Frp, Self::Rathole];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw mTLS",
            Self::Pair => "pair",
            Self::Culvert => "culvert",
            Self::Konnectivity => "konnectivity 0.36",
            Self::Chisel => "chisel 1.12",
            Self::Frp => "frp 0.70",
            Self::Rathole => "rathole 0.5",
        }
    }

    /// Whether it needs no program of others.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Raw | Self::Pair | Self::Culvert)
    }

    /// Starts it with processes of its own and waits until a request goes through.
    pub(crate) async fn start(self, ground: &Ground) -> anyhow::Result<Running> {
        let Plan { mut server, mut client, way, ready } = self.plan(ground)?;
        let log = ground.folder.join("log");
        server.start(&log)?;
        if let Some(address) = ready {
            accepts(address, PATIENCE).await?;
        }
        if let Some(client) = &mut client {
            client.start(&log)?;
        }
        let running = Running { server, client, way, log };
        running.works(PATIENCE).await?;
        Ok(running)
    }

    fn plan(self, ground: &Ground) -> anyhow::Result<Plan> {
        match self {
            Self::Raw => raw(ground),
            Self::Pair => pair(ground),
            Self::Culvert => culvert(ground),
            Self::Konnectivity => peers::konnectivity(ground),
            Self::Chisel => peers::chisel(ground),
            Self::Frp => peers::frp(ground),
            Self::Rathole => peers::rathole(ground),
        }
    }
}

fn raw(ground: &Ground) -> anyhow::Result<Plan> {
    let listen = free_address("127.0.0.1")?;
    Ok(Plan {
        server: Program::role("far", [ground.text(), listen.to_string(), ground.origin.to_string()])?,
        client: None,
        way: Way::Tls(listen, certificates::client(&ground.folder, &[])?),
        ready: Some(listen),
    })
}

fn pair(ground: &Ground) -> anyhow::Result<Plan> {
    let (users, far) = (free_address("127.0.0.1")?, free_address("127.0.0.1")?);
    Ok(Plan {
        server: Program::role("near", [ground.text(), users.to_string(), far.to_string()])?,
        client: Some(Program::role("far", [ground.text(), far.to_string(), ground.origin.to_string()])?),
        way: Way::Tcp(users),
        ready: Some(users),
    })
}

fn culvert(ground: &Ground) -> anyhow::Result<Plan> {
    let (users, agents) = (free_address("127.0.0.1")?, free_address("127.0.0.1")?);
    Ok(Plan {
        server: Program::role("hub", [ground.text(), users.to_string(), agents.to_string()])?,
        client: Some(Program::role("link", [ground.text(), agents.to_string(), ground.origin.to_string()])?),
        way: Way::Tcp(users),
        ready: Some(agents),
    })
}

impl Ground {
    pub(crate) fn text(&self) -> String {
        self.folder.display().to_string()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Program {
    /// This same program in another role.
    pub(crate) fn role<const N: usize>(role: &str, arguments: [String; N]) -> anyhow::Result<Self> {
        let arguments = ["role".to_owned(), role.to_owned()].into_iter().chain(arguments).collect();
        Ok(Self { name: role.to_owned(), program: std::env::current_exe()?, arguments, child: None })
    }

    /// A program of others.
    pub(crate) fn of(program: &Path, arguments: Vec<String>) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, program: program.to_owned(), arguments, child: None }
    }

    pub(crate) fn start(&mut self, logs: &Path) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        self.child = Some(Child::spawn(&self.name, command, &logs.with_extension(&self.name))?);
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }
}

impl Running {
    /// Kills the side that users come to, as `kill -9` does, and starts it again at once.
    pub(crate) async fn restart_server(&mut self) -> anyhow::Result<()> {
        if let Some(child) = self.server.child.take() {
            child.kill().await?;
        }
        self.server.start(&self.log)
    }

    /// Waits until a request on a new connection is answered.
    pub(crate) async fn works(&self, limit: Duration) -> anyhow::Result<()> {
        let attempts = async {
            loop {
                let attempt = async { Client::connect(&self.way).await?.get().await };
                match tokio::time::timeout(Duration::from_millis(500), attempt).await {
                    Ok(Ok(())) => return,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let done = tokio::time::timeout(limit, attempts).await;
        done.map_err(|_| anyhow::anyhow!("no request goes through; {}", self.logs()))
    }

    /// What its processes use.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let pids = [self.server.pid(), self.client.as_ref().and_then(Program::pid)];
        Usage::of(pids.into_iter().flatten())
    }

    fn logs(&self) -> String {
        let children =
            [self.server.child.as_ref(), self.client.as_ref().and_then(|client| client.child.as_ref())];
        children.into_iter().flatten().map(Child::output).collect::<Vec<_>>().join("\n")
    }
}
