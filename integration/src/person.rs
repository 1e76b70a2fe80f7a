//! A person with nothing but the command line and kubectl.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::Context;
use serde_json::json;

use crate::stage::{Stage, succeeded};
use crate::{kube, process};

/// A person at a terminal: their own folder, `culvert` and kubectl.
pub struct Person {
    folder: tempfile::TempDir,
    kubectl: PathBuf,
}

impl Person {
    /// Somebody who has nothing yet.
    pub async fn new() -> anyhow::Result<Self> {
        let kubectl = kube::programs().await?.join("kubectl");
        Ok(Self { folder: tempfile::tempdir()?, kubectl })
    }

    /// Signs in with a code that the administrator made for another device.
    pub async fn sign_in(&self, stage: &Stage) -> anyhow::Result<()> {
        let made = stage.admin.post("/sign-in-codes", &json!({})).await?.ok()?;
        let code = made["code"].as_str().context("no code")?.to_owned();
        succeeded(&self.login(stage, &code).await?).map(drop)
    }

    /// Signs in with this code; gives how it ended.
    pub async fn login(&self, stage: &Stage, code: &str) -> anyhow::Result<Output> {
        let pin = stage.admin.info["ca"]["pin"].as_str().context("info names no pin")?;
        let pin = if pin.starts_with("sha256:") { pin.to_owned() } else { format!("sha256:{pin}") };
        let url = format!("https://{}", stage.controller.address());
        let mut login = self.command(&["login", &url, "--pin", &pin])?;
        login.env("CULVERT_CODE", code);
        ended(login).await
    }

    /// `culvert` with these arguments, not started.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(process::program("culvert")?);
        command.arg("--no-input").args(arguments);
        self.at_home(&mut command);
        Ok(command)
    }

    /// `culvert` to its end; gives what it wrote, fails when it fails.
    pub async fn culvert(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = ended(self.command(arguments)?).await?;
        succeeded(&output).with_context(|| format!("culvert {arguments:?}"))
    }

    /// kubectl with the kubeconfig that `culvert` wrote, not started.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments).env("KUBECONFIG", self.path("kubeconfig"));
        self.at_home(&mut command);
        command
    }

    /// Writes the kubeconfig of a cluster, as the command line gives it.
    pub async fn take_kubeconfig(&self, cluster: &str) -> anyhow::Result<()> {
        let file = self.path("kubeconfig");
        let file = file.to_str().context("a path that is not text")?;
        self.culvert(&["cluster", "kubeconfig", cluster, "--output", file]).await.map(drop)
    }

    fn at_home(&self, command: &mut Command) {
        command.env("HOME", self.folder.path()).env("CULVERT_CONFIG", self.path("culvert.toml"));
        for elsewhere in ["HTTPS_PROXY", "https_proxy", "CULVERT_CONTEXT", "CULVERT_FORMAT", "KUBECACHEDIR"] {
            command.env_remove(elsewhere);
        }
    }

    /// A file in the person's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A command to its end, without input.
pub async fn ended(command: Command) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::from(command);
    Ok(command.stdin(Stdio::null()).kill_on_drop(true).output().await?)
}
