//! An agent outside its cluster: the real program with a kubeconfig and a folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::api::Api;
use crate::controller::{Controller, DOMAIN};
use crate::process::{self, Child, Signal};
use crate::wait;

/// An agent's process and what it keeps.
pub struct Agent {
    folder: tempfile::TempDir,
    controller: String,
    kubeconfig: PathBuf,
    /// `NAMESPACE/NAME` of the Secret that holds its state, if a Secret does.
    secret: Option<String>,
    extra: Vec<String>,
    wrapper: Option<Wrapper>,
    child: Option<Child>,
    starts: u32,
}

/// Turns the agent's command into one that runs it elsewhere, such as in a network namespace.
pub type Wrapper = Box<dyn Fn(Command) -> Command + Send + Sync>;

impl Agent {
    /// An agent that has not started: `kubeconfig` reaches its cluster, `token` enrols it.
    pub fn new(controller: &Controller, kubeconfig: &Path, token: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("token"), token)?;
        Ok(Self {
            folder,
            controller: controller.address().to_string(),
            kubeconfig: kubeconfig.to_owned(),
            secret: None,
            extra: Vec::new(),
            wrapper: None,
            child: None,
            starts: 0,
        })
    }

    /// Adds a flag.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.extra.push(name.to_owned());
        self.extra.push(value.into());
        self
    }

    /// Dials another address than the controller's own.
    #[must_use]
    pub fn dialling(mut self, address: impl Into<String>) -> Self {
        self.dial(address);
        self
    }

    /// Dials another address from the next start on.
    pub fn dial(&mut self, address: impl Into<String>) {
        self.controller = address.into();
    }

    /// Reaches another API server.
    #[must_use]
    pub fn reaching(mut self, kubeconfig: &Path) -> Self {
        kubeconfig.clone_into(&mut self.kubeconfig);
        self
    }

    /// Keeps its state in a Secret of its cluster, as a pod does.
    #[must_use]
    pub fn keeping_in_secret(mut self, namespace_and_name: impl Into<String>) -> Self {
        self.secret = Some(namespace_and_name.into());
        self
    }

    /// The next pod of this agent's Deployment, not started: the same state in the same
    /// Secret, and no token.
    pub fn next_pod(&self) -> anyhow::Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            controller: self.controller.clone(),
            kubeconfig: self.kubeconfig.clone(),
            secret: self.secret.clone(),
            extra: self.extra.clone(),
            wrapper: None,
            child: None,
            starts: 0,
        })
    }

    /// Another agent, not started, with a copy of this one's state and without a token.
    pub fn copy(&self) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let state = folder.path().join("state");
        std::fs::create_dir(&state)?;
        for entry in std::fs::read_dir(self.path("state"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), state.join(entry.file_name()))?;
        }
        Ok(Self {
            folder,
            controller: self.controller.clone(),
            kubeconfig: self.kubeconfig.clone(),
            secret: self.secret.clone(),
            extra: self.extra.clone(),
            wrapper: None,
            child: None,
            starts: 0,
        })
    }

    /// Runs the program elsewhere.
    #[must_use]
    pub fn wrapped(mut self, wrapper: Wrapper) -> Self {
        self.wrapper = Some(wrapper);
        self
    }

    /// Starts it, or starts it again on the same state.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let mut command = Command::new(process::program("culvert-agent")?);
        command
            .arg("run")
            .args(["--controller", &self.controller, "--domain", DOMAIN])
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--state", &self.state()])
            .arg("--token-file")
            .arg(self.path("token"))
            .args(&self.extra)
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy");
        let command = match &self.wrapper {
            Some(wrapper) => wrapper(command),
            None => command,
        };
        let log = self.log_path();
        self.child = Some(Child::spawn("culvert-agent", command, &log)?);
        Ok(())
    }

    /// Ends it as a kubelet does, and waits.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(child) => child.terminate(Duration::from_secs(30)).await.map(drop),
            None => Ok(()),
        }
    }

    /// Ends it after a refusal for good. It shows the refusal for half a minute before
    /// it ends by itself; its exit code tells that it would have.
    pub async fn gave_up(&mut self) -> anyhow::Result<()> {
        let child = self.child.take().context("the agent is stopped")?;
        let code = child.terminate(Duration::from_secs(30)).await?.code();
        anyhow::ensure!(code == Some(4), "exit code {code:?}, the agent's log:\n{}", self.log());
        Ok(())
    }

    /// Ends it as a power cut does.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Its process.
    pub fn process(&self) -> anyhow::Result<&Child> {
        self.child.as_ref().context("the agent is stopped")
    }

    /// Sends it a signal and does not wait for what it does.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.child.as_mut().context("the agent is stopped")?.signal(signal)
    }

    /// A file of its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it logged since it last started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until its log names `code` as the cause why it is not connected.
    pub async fn names_cause(&self, code: &str) -> anyhow::Result<()> {
        self.says(&format!("code=\"{code}\""), Duration::from_secs(30)).await
    }

    /// Waits for its process to end by itself.
    pub async fn ended(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let child = self.child.as_mut().context("the agent is stopped")?;
        child.ended(Duration::from_secs(30)).await
    }

    /// Waits until it has logged `text`.
    pub async fn says(&self, text: &str, limit: Duration) -> anyhow::Result<()> {
        wait::until(limit, || async {
            let log = self.log();
            anyhow::ensure!(log.contains(text), "no {text:?} in the agent's log:\n{log}");
            Ok(())
        })
        .await
    }

    /// Waits until the controller calls the cluster connected.
    pub async fn connected(&self, api: &Api, cluster: &str) -> anyhow::Result<Value> {
        wait::until(Duration::from_secs(20), || cluster_in(api, cluster, "connected"))
            .await
            .with_context(|| format!("the agent's log:\n{}", self.log()))
    }

    fn state(&self) -> String {
        self.secret.as_ref().map_or_else(
            || format!("dir:{}", self.path("state").display()),
            |secret| format!("secret:{secret}"),
        )
    }

    fn log_path(&self) -> PathBuf {
        self.path(&format!("agent-{}.log", self.starts))
    }
}

/// The cluster, if it is in `state`.
pub async fn cluster_in(api: &Api, cluster: &str, state: &str) -> anyhow::Result<Value> {
    let cluster = api.get(&format!("/clusters/{cluster}")).await?.ok()?;
    anyhow::ensure!(cluster["state"] == state, "not {state}: {cluster}");
    Ok(cluster)
}
