//! `make demo` as a newcomer runs it: everything comes up, kubectl answers through
//! the tunnel, a second run changes nothing, and `make demo-down` leaves nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::process;
use culvert_integration::stage::succeeded;

/// From the controller's start to the first answer of kubectl, on a machine with two cores.
const PROMISED: Duration = Duration::from_secs(60);

/// A demo in a folder and on a port of its own, beside one that the developer may have.
struct Demo {
    folder: PathBuf,
    port: u16,
}

impl Demo {
    fn new() -> anyhow::Result<Self> {
        // Short, because a Unix socket's path is.
        let folder = tempfile::Builder::new().prefix("culvert-").tempdir_in("/tmp")?.keep();
        Ok(Self { folder, port: free_ports()? })
    }

    /// `make TARGET` to its end; gives what a person reads on the terminal.
    fn make(&self, target: &str) -> Command {
        let mut make = Command::new("make");
        make.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).arg(target);
        make.env("CULVERT_DEMO_FOLDER", &self.folder).env("CULVERT_DEMO_PORT", self.port.to_string());
        // The demo's choices, and what a test has in its environment from cargo and make.
        for name in ["KUBECONFIG", "CULVERT_DEMO_IMAGE", "CULVERT_DEMO_ADDRESS", "MAKEFLAGS", "MAKELEVEL"] {
            make.env_remove(name);
        }
        make
    }

    /// A line of shell with the demo's own environment, as the printed list says.
    async fn shell(&self, line: &str) -> anyhow::Result<String> {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -eu; . '{}/env'; {line}", self.folder.display())]);
        process::run(shell).await.with_context(|| line.to_owned())
    }

    /// What is still there: the folder, processes, mounts, links of the cluster's network.
    fn remains(&self, slot: &str) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        if self.folder.exists() {
            found.push(self.folder.display().to_string());
        }
        let name = self.folder.to_str().context("a path that is not text")?;
        for process in std::fs::read_dir("/proc")?.flatten() {
            let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            if line.contains(name) {
                found.push(line);
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
        let bridge = format!("cvt{slot}");
        let of_the_slot = |link: &String| *link == bridge || link.starts_with(&format!("{bridge}n"));
        let links = std::fs::read_dir("/sys/class/net")?.flatten();
        found.extend(links.map(|link| link.file_name().to_string_lossy().into_owned()).filter(of_the_slot));
        Ok(found)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.folder.exists() {
            let down = self.make("demo-down").stdin(Stdio::null()).output();
            if !down.is_ok_and(|output| output.status.success()) {
                tracing::error!(folder = %self.folder.display(), "a demo remains");
            }
        }
    }
}

/// A port that is free, as is the next but 999, which serves health and metrics.
fn free_ports() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let port = process::free_address("0.0.0.0")?.port();
        if port <= 64_000 && std::net::TcpListener::bind(("0.0.0.0", port + 1000)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no two ports are free")
}

/// Seconds in the line that the demo prints about itself.
fn seconds_printed(said: &str) -> anyhow::Result<f64> {
    let line = said.lines().find_map(|line| line.split_once(" s from the start of the controller"));
    let (seconds, _) = line.with_context(|| format!("no time is printed:\n{said}"))?;
    Ok(seconds.trim().parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_kubectl_through_the_tunnel_and_leaves_nothing() -> anyhow::Result<()> {
    let demo = Demo::new()?;
    let first = tokio::process::Command::from(demo.make("demo")).stdin(Stdio::null()).output().await?;
    let said = succeeded(&first)?;
    let node = said.lines().find(|line| line.contains(" Ready "));
    ensure!(node.is_some_and(|line| line.starts_with("node1")), "no node is listed:\n{said}");
    let took = seconds_printed(&said)?;
    ensure!(took < PROMISED.as_secs_f64(), "{took} s from controller to kubectl");

    // What it says to try next works.
    let nodes = demo.shell("kubectl get nodes --output name").await?;
    ensure!(nodes == "node/node1\n", "{nodes}");
    let me = demo.shell("kubectl auth whoami -o jsonpath={.status.userInfo.username}").await?;
    ensure!(me == "culvert:admin", "{me}");
    let log = demo.shell("kubectl -n culvert-agent logs deployment/culvert-agent").await?;
    ensure!(log.contains("connected"), "{log}");
    demo.shell("culvert cluster diagnose demo").await?;
    demo.shell("culvert data-service scale shop-restored --replicas 2").await?;
    let databases = demo.shell("kubectl -n data-default get culvert").await?;
    ensure!(databases.contains("2/2"), "{databases}");

    // Again it does what is missing, which is nothing.
    let pod = "kubectl -n culvert-agent get pods --output name";
    let before = demo.shell(pod).await?;
    let second = tokio::process::Command::from(demo.make("demo")).stdin(Stdio::null()).output().await?;
    succeeded(&second)?;
    ensure!(demo.shell(pod).await? == before, "the second run made another agent");

    let settings = std::fs::read_to_string(demo.folder.join("kube/settings"))?;
    let slot = settings.lines().find_map(|line| line.strip_prefix("SLOT=")).context("no slot")?;
    let here = demo.remains(slot)?;
    ensure!(here.len() > 5 && here.contains(&format!("cvt{slot}")), "a running demo shows: {here:?}");
    process::run(demo.make("demo-down")).await?;
    let left = demo.remains(slot)?;
    ensure!(left.is_empty(), "{left:?}");
    // And there is nothing to do for a second one.
    process::run(demo.make("demo-down")).await.map(drop)
}
