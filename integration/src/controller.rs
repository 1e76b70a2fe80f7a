//! A controller as its operator runs it: the real program, a data folder, a port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use culvert_controller::domain::{Caller, ObservedObject};
use culvert_controller::store::{ObservedFilter, Store};
use sea_orm::{ConnectionTrait, Database};

use crate::api::Api;
use crate::process::{self, Child};
use crate::usage::Usage;
use crate::wait;

/// Trust domain, and suffix of the doors' names, of every controller here.
pub const DOMAIN: &str = "culvert.internal";

/// A controller, running or stopped; its data goes when it is dropped.
pub struct Controller {
    folder: tempfile::TempDir,
    address: SocketAddr,
    ops: SocketAddr,
    extra: String,
    child: Option<Child>,
    starts: u32,
}

impl Controller {
    /// Starts one on embedded defaults, at a free port of loopback.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with("127.0.0.1", "").await
    }

    /// Starts one that listens on `host`, with `extra` settings in TOML.
    pub async fn start_with(host: &str, extra: &str) -> anyhow::Result<Self> {
        let mut controller = Self::unstarted(host, extra)?;
        controller.resume().await?;
        Ok(controller)
    }

    /// One with an empty data folder that has not started yet.
    pub fn unstarted(host: &str, extra: &str) -> anyhow::Result<Self> {
        let address = process::free_address(host)?;
        let ops = process::free_address("127.0.0.1")?;
        Ok(Self {
            folder: tempfile::tempdir()?,
            address,
            ops,
            extra: extra.to_owned(),
            child: None,
            starts: 0,
        })
    }

    /// The same on a port of one's choice, before it starts.
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// Starts it again on the same data and port, after [`Self::stop`] or [`Self::kill`].
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        let address = self.address;
        let came = wait::until(Duration::from_secs(30), || async move { Api::reach(address).await }).await;
        came.map(drop).with_context(|| format!("the controller's log:\n{}", self.log()))
    }

    /// Starts its process and does not wait until it serves.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let config = self.path("controller.toml");
        std::fs::write(&config, self.settings())?;
        self.starts += 1;
        let log = self.path(&format!("controller-{}.log", self.starts));
        let mut command = std::process::Command::new(process::program("culvert-controller")?);
        command.arg("serve").arg("--config").arg(&config);
        self.child = Some(Child::spawn("culvert-controller", command, &log)?);
        Ok(())
    }

    /// Replaces the further settings, from the next start on.
    pub fn reconfigure(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
    }

    /// Waits for its process to end by itself.
    pub async fn ended(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let child = self.child.as_mut().context("the controller is stopped")?;
        child.ended(Duration::from_secs(30)).await
    }

    /// Ends it as an operator does, and waits.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(child) => child.terminate(Duration::from_secs(30)).await.map(drop),
            None => Ok(()),
        }
    }

    /// Ends it as a power cut does.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves health and metrics.
    pub fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// A file of its data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it logged since it last started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path(&format!("controller-{}.log", self.starts))).unwrap_or_default()
    }

    /// Memory it holds now, bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        Ok(self.usage()?.memory)
    }

    /// Its process.
    pub fn process(&self) -> anyhow::Result<&Child> {
        self.child.as_ref().context("the controller is stopped")
    }

    /// What its process uses.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of([self.process()?.pid()])
    }

    /// Changes rows of its embedded database behind its back, as to make time pass.
    pub async fn rewrite(&self, sql: &str) -> anyhow::Result<()> {
        let url = format!("sqlite://{}", self.path("culvert.db").display());
        let database = Database::connect(url).await?;
        let changed = database.execute_unprepared(sql).await?.rows_affected();
        database.close().await?;
        anyhow::ensure!(changed > 0, "{sql:?} changed nothing");
        Ok(())
    }

    /// Its embedded database, for a second pair of eyes.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&format!("sqlite://{}", self.path("culvert.db").display())).await?)
    }

    /// The objects of all clusters of its first organisation that it has a mirror of.
    pub async fn mirrored(&self) -> anyhow::Result<Vec<ObservedObject>> {
        let store = self.store().await?;
        let organisation = store.organisations().await?.into_iter().next().context("no organisation")?;
        let rows = store.org(&Caller::controller(organisation.id));
        let objects = rows.observed(&ObservedFilter::default(), 10_000).await?;
        store.close().await?;
        Ok(objects)
    }

    /// An API client of nobody.
    pub async fn api(&self) -> anyhow::Result<Api> {
        Api::reach(self.address).await
    }

    /// The administrator, signed in with the code of the first start (once), or
    /// with one made on the server.
    pub async fn admin(&self) -> anyhow::Result<Api> {
        let first = self.path("first-code");
        let code = match std::fs::read_to_string(&first) {
            Ok(code) => {
                std::fs::remove_file(&first)?;
                code
            }
            Err(_) => self.new_code().await?,
        };
        self.api().await?.sign_in(code.trim()).await
    }

    async fn new_code(&self) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(process::program("culvert-controller")?)
            .arg("sign-in-code")
            .arg("--config")
            .arg(self.path("controller.toml"))
            .output()
            .await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn settings(&self) -> String {
        let (folder, address, ops) = (self.folder.path().display(), self.address, self.ops);
        let (top, tables) = split_tables(&self.extra);
        format!(
            "domain = \"{DOMAIN}\"\nlisten = \"{address}\"\ndata_dir = \"{folder}\"\n{top}\n\
             [ops]\nlisten = \"{ops}\"\n\
             [bootstrap]\ncode_file = \"{folder}/first-code\"\n{tables}\n"
        )
    }
}

/// Settings before the first table, and from it on.
fn split_tables(extra: &str) -> (&str, &str) {
    extra.split_at(extra.find('[').unwrap_or(extra.len()))
}
