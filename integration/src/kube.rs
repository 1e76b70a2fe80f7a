//! Real Kubernetes, by the kit in `integration/kube`.
//!
//! [`ControlPlane`] is cheap (4 s, 300 MB) and needs no root, so every story has its
//! own. A [`Cluster`] with a node costs more, so the stories of one run share one:
//! whoever comes first starts it, and a guard purges it when nobody has used it for
//! [`LINGER`], which is longer than the gap between two test programs.

use std::ffi::OsStr;
use std::fs::File;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::OnceCell;

use crate::process;
use crate::site::Site;

/// How long the shared cluster waits for the next test program.
pub const LINGER: Duration = Duration::from_secs(20);

/// What every cluster can do. [`ControlPlane`] and [`Cluster`] lead here.
#[derive(Debug)]
pub struct Kubernetes {
    folder: PathBuf,
    address: IpAddr,
    port: u16,
    /// What has to stand before a command for it to reach the API server.
    reach: Vec<String>,
}

/// etcd, API server and controllers, without nodes; ends when dropped.
#[derive(Debug)]
pub struct ControlPlane {
    kubernetes: Kubernetes,
    owned: Owned,
}

/// A cluster that runs pods.
#[derive(Debug)]
pub struct Cluster {
    kubernetes: Kubernetes,
    owned: Option<Owned>,
}

/// A namespace of one test; deleted, without waiting, when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    delete: Option<Command>,
}

/// A container image in an archive.
#[derive(Clone, Debug)]
pub struct Image {
    /// `localhost/NAME`, without tag or digest.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// `sha256:…`, for charts that pin by digest.
    pub digest: String,
    /// The archive.
    pub archive: PathBuf,
}

impl ControlPlane {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_by(Vec::new()).await
    }

    /// Starts one inside a site: it listens on the loopback address of the site, so
    /// only what runs in the site reaches it. [`Kubernetes::kubectl`] still does.
    pub async fn start_in(site: &Site) -> anyhow::Result<Self> {
        Self::start_by(site.entrance()).await
    }

    async fn start_by(reach: Vec<String>) -> anyhow::Result<Self> {
        let owned = Owned::new()?;
        let held = owned.held();
        let arguments = [owned.cluster().into_os_string(), "--while-held".into(), held.into_os_string()];
        process::run(through(&reach, kit("up"), arguments)).await?;
        let kubernetes = Kubernetes::at(owned.cluster(), reach)?;
        Ok(Self { kubernetes, owned })
    }

    /// Ends it, and waits until nothing of it is left, as dropping does.
    pub async fn stop(self) -> anyhow::Result<()> {
        process::run(self.owned.purge()).await.map(drop)
    }
}

impl Cluster {
    /// The cluster with one node that the stories of this run share. Needs root.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<(Cluster, File)> = OnceCell::const_new();
        let (cluster, _held) = SHARED.get_or_try_init(Self::join).await?;
        Ok(cluster)
    }

    /// Starts a cluster of one's own, for stories that break nodes. Needs root; give it
    /// 1 to 8 nodes.
    pub async fn start(nodes: u8) -> anyhow::Result<Self> {
        let owned = Owned::new()?;
        let mut up = script("up", [owned.cluster()]);
        up.args(["--nodes", &nodes.to_string(), "--while-held"]).arg(owned.held());
        process::run(up).await?;
        let kubernetes = Kubernetes::at(owned.cluster(), Vec::new())?;
        Ok(Self { kubernetes, owned: Some(owned) })
    }

    /// Ends a cluster of one's own, and waits until nothing of it is left.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        match self.owned.take() {
            Some(owned) => process::run(owned.purge()).await.map(drop),
            None => Ok(()),
        }
    }

    async fn join() -> anyhow::Result<(Self, File)> {
        let (folder, held, start) = shared_places()?;
        let starting = lock_file(&start)?;
        let using = lock_file(&held)?;
        // Waits while another program starts or purges the same cluster.
        let locking = tokio::task::spawn_blocking(move || {
            starting.lock()?;
            using.lock_shared()?;
            std::io::Result::Ok((starting, using))
        });
        let (starting, using) = locking.await??;
        if process::run(script("status", [&folder])).await.is_err() {
            // Whatever is left of it, after a crash for instance.
            process::run(script("down", [folder.as_os_str(), "--purge".as_ref()])).await?;
            let mut up = script("up", [&folder]);
            up.args(["--nodes", "1", "--linger", &LINGER.as_secs().to_string()])
                .arg("--while-held")
                .arg(&held);
            process::run(up).await?;
        }
        drop(starting);
        Ok((Self { kubernetes: Kubernetes::at(folder, Vec::new())?, owned: None }, using))
    }

    /// The address under which pods reach this machine, on opened ports only, and
    /// under which this machine reaches the API server.
    pub fn address(&self) -> IpAddr {
        self.kubernetes.address
    }

    /// Lets pods reach a TCP port of this machine at [`Cluster::address`].
    pub async fn open(&self, port: u16) -> anyhow::Result<()> {
        self.kit("door", [port.to_string()]).await.map(drop)
    }

    /// Takes [`Cluster::open`] back, for new connections.
    pub async fn close(&self, port: u16) -> anyhow::Result<()> {
        self.kit("door", ["--close".to_owned(), port.to_string()]).await.map(drop)
    }

    /// Imports an image; pods name it by tag or digest, with `imagePullPolicy` not `Always`.
    pub async fn load(&self, image: &Image) -> anyhow::Result<()> {
        self.kit("load", [&image.archive]).await.map(drop)
    }

    /// Adds a part and waits for it: `dns`, `storage` or `engines`, the images of [`crate::engines`].
    pub async fn add(&self, part: &str) -> anyhow::Result<()> {
        self.kit("add", [part]).await.map(drop)
    }
}

impl Kubernetes {
    /// The user in the group that RBAC binds to cluster-admin.
    pub fn admin(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The user that RBAC binds to view.
    pub fn viewer(&self) -> PathBuf {
        self.folder.join("viewer.kubeconfig")
    }

    /// The user in system:masters, for whom RBAC is not asked.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.kubeconfig")
    }

    /// `https://ADDRESS:PORT` of the API server.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    /// Certificates, logs and settings of the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs kubectl as the administrator; the caller looks at the exit status.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.kubectl_as(&self.admin(), arguments).await
    }

    /// Runs kubectl as the user of a kubeconfig.
    pub async fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
        output(self.client("kubectl", kubeconfig, arguments).await?).await
    }

    /// Runs kubectl as the administrator and gives its output; fails when it fails.
    pub async fn get(&self, arguments: &[&str]) -> anyhow::Result<String> {
        process::run(self.client("kubectl", &self.admin(), arguments).await?).await
    }

    /// Runs helm as the administrator; the caller looks at the exit status.
    pub async fn helm(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        output(self.client("helm", &self.admin(), arguments).await?).await
    }

    /// A command of kubectl or helm that has not started, to give it input or a log.
    pub async fn client(
        &self,
        program: &str,
        kubeconfig: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Command> {
        let mut command = through(&self.reach, programs().await?.join(program), arguments);
        // What they keep would otherwise go to the user's home.
        command.env("KUBECONFIG", kubeconfig).env("HOME", self.folder.join("home"));
        for kept_elsewhere in ["KUBECACHEDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env_remove(kept_elsewhere);
        }
        Ok(command)
    }

    /// Applies manifests as the administrator.
    pub async fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), manifests)?;
        let path = file.path().to_str().context("a temporary path that is not text")?;
        self.get(&["apply", "-f", path]).await.map(drop)
    }

    /// The kubeconfig of a user with a certificate, in these groups. Rights come from RBAC.
    pub async fn user(&self, name: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        let path = self.kit("user", [&[name], groups].concat()).await?;
        Ok(path.trim_end().into())
    }

    /// The kubeconfig of a service account, by a token of 24 hours. Makes namespace and
    /// account where they are missing.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.kit("user", ["--service-account", &format!("{namespace}/{name}")]).await?;
        Ok(path.trim_end().into())
    }

    /// Makes a namespace with a name that no other test has: `prefix-` and a number.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<Namespace> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.get(&["create", "namespace", &name]).await?;
        let delete = ["delete", "namespace", &name, "--wait=false"];
        let delete = Some(self.client("kubectl", &self.admin(), &delete).await?);
        Ok(Namespace { name, delete })
    }

    fn at(folder: PathBuf, reach: Vec<String>) -> anyhow::Result<Self> {
        let settings = std::fs::read_to_string(folder.join("settings"))?;
        let setting = |name: &str| {
            let line = settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.with_context(|| format!("no {name} in the cluster's settings"))
        };
        let (address, port) = (setting("API_IP")?.parse()?, setting("API_PORT")?.parse()?);
        Ok(Self { folder, address, port, reach })
    }

    async fn kit<A: AsRef<OsStr>>(
        &self,
        script: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<String> {
        let mut command = through(&self.reach, kit(script), [&self.folder]);
        command.args(arguments);
        process::run(command).await
    }
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let Some(mut delete) = self.delete.take() else { return };
        // In the shared cluster pods of finished tests would be in the way; should this
        // fail, the purge still takes them.
        let _ = delete.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).status();
    }
}

impl Deref for ControlPlane {
    type Target = Kubernetes;
    fn deref(&self) -> &Kubernetes {
        &self.kubernetes
    }
}

impl Deref for Cluster {
    type Target = Kubernetes;
    fn deref(&self) -> &Kubernetes {
        &self.kubernetes
    }
}

impl Image {
    /// Packs one of the workspace's programs, such as `culvert-agent`, as `localhost/NAME:test`
    /// into `folder`.
    pub async fn of_program(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let program = process::program(name)?;
        let (repository, tag) = (format!("localhost/{name}"), "test".to_owned());
        let archive = folder.join(format!("{name}.tar"));
        let mut build = Command::new(workspace().join("images/build"));
        build.arg(format!("{repository}:{tag}")).arg(program).arg(&archive);
        let digest = process::run(build).await?.trim_end().to_owned();
        Ok(Self { repository, tag, digest, archive })
    }

    /// One of the kit's own: `busybox` or `coredns`, for instance. Nodes have busybox already.
    pub async fn of_kit(name: &str) -> anyhow::Result<PathBuf> {
        let folder = process::run(Command::new(kit("images"))).await?;
        Ok(Path::new(folder.trim_end()).join(format!("{name}.tar")))
    }
}

/// The folder of kubectl, helm and the rest; builds them when this machine has none yet.
pub async fn programs() -> anyhow::Result<&'static Path> {
    static PROGRAMS: OnceCell<PathBuf> = OnceCell::const_new();
    let find = || async {
        let folder = process::run(Command::new(kit("build"))).await?;
        anyhow::Ok(Path::new(folder.trim_end()).join("bin"))
    };
    Ok(PROGRAMS.get_or_try_init(find).await?)
}

/// A cluster's folder and the lock that says it is in use. What is dropped without
/// having been stopped is purged here; what is not even dropped, by the guard.
#[derive(Debug)]
struct Owned {
    folder: PathBuf,
    _lock: File,
}

impl Owned {
    fn new() -> anyhow::Result<Self> {
        // Short, because a Unix socket's path is.
        let folder = tempfile::Builder::new().prefix("culvert-").tempdir_in("/tmp")?.keep();
        let lock = lock_file(&folder.join("held"))?;
        lock.lock_shared()?;
        Ok(Self { folder, _lock: lock })
    }

    fn cluster(&self) -> PathBuf {
        self.folder.join("kube")
    }

    fn held(&self) -> PathBuf {
        self.folder.join("held")
    }

    fn purge(&self) -> Command {
        script("down", [self.cluster().as_os_str(), "--purge".as_ref()])
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let purged = self.purge().stdout(Stdio::null()).stdin(Stdio::null()).status();
        if !purged.is_ok_and(|status| status.success()) {
            tracing::error!(folder = %self.folder.display(), "a cluster was not purged");
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::error!(folder = %self.folder.display(), %error, "a cluster's folder remains");
        }
    }
}

/// Where the shared cluster of this tree and user is, and the files that are locked
/// by its users and while it starts or ends.
fn shared_places() -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::os::unix::fs::MetadataExt;
    let user = std::fs::metadata("/proc/self")?.uid();
    ensure!(user == 0, "a cluster with a node needs root: run these tests as root");
    let mut tree = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut tree);
    let folder = PathBuf::from(format!("/tmp/culvert-shared-{:016x}", tree.finish()));
    let work = workspace().join(".work");
    std::fs::create_dir_all(&work)?;
    Ok((folder, work.join("shared-cluster.held"), work.join("shared-cluster.held.start")))
}

fn lock_file(path: &Path) -> anyhow::Result<File> {
    let opened = File::options().create(true).truncate(false).write(true).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn kit(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kube").join(script)
}

fn script<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    through(&[], kit(name), arguments)
}

/// A command with what has to stand before it.
fn through<A: AsRef<OsStr>>(
    reach: &[String],
    program: PathBuf,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = match reach {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(arguments);
    command
}

async fn output(command: Command) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::from(command);
    Ok(command.stdin(Stdio::null()).kill_on_drop(true).output().await?)
}
