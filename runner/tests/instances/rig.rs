//! Instances of a database as folders and processes: each in a PID namespace of its own, so that it ends as a pod does.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use culvert_resources::TlsMode;
use culvert_resources::instance::{InstanceConfig, InstanceStatus};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::OnceCell;

/// Whose process an instance is.
const NOBODY: u32 = 65534;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server that the tests of this program share.
struct ApiServer {
    kubeconfig: PathBuf,
    _held: File,
    _folder: tempfile::TempDir,
}

async fn api_server() -> &'static ApiServer {
    static SHARED: OnceCell<ApiServer> = OnceCell::const_new();
    SHARED.get_or_init(|| async { tokio::task::spawn_blocking(start_api_server).await.unwrap() }).await
}

fn start_api_server() -> ApiServer {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::Builder::new().prefix("culvert-runner-").tempdir_in("/tmp").unwrap();
    let (held, cluster) = (folder.path().join("held"), folder.path().join("kube"));
    let file = File::create(&held).unwrap();
    file.lock_shared().unwrap();
    let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/kube/up");
    let up = Command::new(kit).arg(&cluster).arg("--while-held").arg(&held).output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    open_to_all(folder.path());
    // The instances are other users' processes.
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::copy(cluster.join("admin.kubeconfig"), &kubeconfig).unwrap();
    std::fs::set_permissions(&kubeconfig, std::fs::Permissions::from_mode(0o644)).unwrap();
    ApiServer { kubeconfig, _held: file, _folder: folder }
}

/// The instances are other users' processes, which only root can start.
pub(crate) fn needs_root() {
    assert!(rustix::process::geteuid().is_root(), "this story needs root, as the others of `make test` do");
}

/// A database: the folders of its instances, and what they share.
pub(crate) struct Database {
    folder: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    kubeconfig: PathBuf,
    pub(crate) config: InstanceConfig,
    pods: Vec<Pod>,
    authority: Authority,
}

struct Authority {
    certificate: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// One instance.
pub(crate) struct Pod {
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) port: u16,
    runner_port: u16,
    child: Mutex<Option<Child>>,
    life: AtomicU32,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Pod {
    /// Ends all of it at once, as the loss of its node would.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            if let Some(first) = first_process(&child) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(first, rustix::process::Signal::KILL);
            }
            child.wait().unwrap();
        }
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder("log")).unwrap_or_default()
    }
}

impl Database {
    /// The folders of a database that has never run.
    pub(crate) async fn new(replicas: i32, synchronous: bool) -> Self {
        let kubeconfig = api_server().await.kubeconfig.clone();
        let client = client(&kubeconfig).await;
        let folder = tempfile::Builder::new().prefix("culvert-db-").tempdir_in("/tmp").unwrap();
        open_to_all(folder.path());
        let namespace = namespace(&client).await;
        let config = InstanceConfig {
            engine: "postgresql".into(),
            driver: "postgresql".into(),
            version: "15".into(),
            namespace: namespace.clone(),
            database: "db".into(),
            uid: "u".into(),
            port: 0,
            replicas,
            synchronous,
            owner: "app".into(),
            parameters: [("shared_buffers".to_owned(), "16MB".to_owned())].into(),
            tls: TlsMode::Required,
            archive: None,
            source: None,
            lease_seconds: 4,
            volume_bytes: None,
        };
        let mut database =
            Self { folder, client, namespace, kubeconfig, config, pods: Vec::new(), authority: authority() };
        for ordinal in 0..replicas {
            let pod = database.make_pod(ordinal);
            database.pods.push(pod);
        }
        database.configure();
        database
    }

    fn make_pod(&self, ordinal: i32) -> Pod {
        let name = format!("db-{ordinal}");
        let folder = self.folder.path().join(&name);
        for below in ["config", "credentials", "tls", "volume", "run", "bin"] {
            std::fs::create_dir_all(folder.join(below)).unwrap();
        }
        let pod = Pod {
            name,
            folder,
            port: port(),
            runner_port: port(),
            child: Mutex::new(None),
            life: AtomicU32::new(0),
        };
        self.give_passwords(&pod, "first");
        self.give_certificate(&pod);
        // The engine calls it back.
        let program = pod.folder("bin/culvert-runner");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_culvert-runner"), program).unwrap();
        own(&pod.folder);
        pod
    }

    /// Writes the passwords `<user>-<which>`.
    pub(crate) fn give_passwords(&self, pod: &Pod, which: &str) {
        for user in ["admin", "owner", "replication", "monitor"] {
            let path = pod.folder(&format!("credentials/{user}-password"));
            std::fs::write(path, format!("{user}-{which}")).unwrap();
        }
        own(&pod.folder("credentials"));
    }

    /// Issues a certificate.
    pub(crate) fn give_certificate(&self, pod: &Pod) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority.issuer).unwrap();
        std::fs::write(pod.folder("tls/ca.crt"), &self.authority.certificate).unwrap();
        std::fs::write(pod.folder("tls/tls.crt"), certificate.pem()).unwrap();
        std::fs::write(pod.folder("tls/tls.key"), key.serialize_pem()).unwrap();
        own(&pod.folder("tls"));
    }

    /// Writes the configuration for all.
    pub(crate) fn configure(&self) {
        for pod in &self.pods {
            let config = InstanceConfig { port: pod.port, ..self.config.clone() };
            let text = serde_json::to_vec(&config).unwrap();
            std::fs::write(pod.folder("config/instance.json"), text).unwrap();
            own(&pod.folder("config"));
        }
    }

    pub(crate) fn pod(&self, ordinal: usize) -> &Pod {
        &self.pods[ordinal]
    }

    pub(crate) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Starts all.
    pub(crate) fn start_all(&self) {
        for ordinal in 0..self.pods.len() {
            self.start(ordinal);
        }
    }

    /// Starts an instance, as a new pod of the same name and volume.
    pub(crate) fn start(&self, ordinal: usize) {
        self.pods[ordinal].life.fetch_add(1, Ordering::Relaxed);
        self.start_container(ordinal);
    }

    /// Starts it again in the same pod, as the kubelet does with a container that ended.
    pub(crate) fn start_container(&self, ordinal: usize) {
        let peers: Vec<String> = self
            .pods
            .iter()
            .map(|pod| format!("--peer={}=127.0.0.1:{}:{}", pod.name, pod.port, pod.runner_port))
            .collect();
        let pod = &self.pods[ordinal];
        let log = File::options().create(true).append(true).open(pod.folder("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "setpriv", "--reuid=65534"]);
        command.args(["--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_culvert-runner"), "run"]);
        for name in ["config", "credentials", "tls", "volume", "run", "bin"] {
            command.arg(format!("--{name}")).arg(pod.folder(name));
        }
        command.args([
            "--pod-name",
            &pod.name,
            "--pod-uid",
            &format!("{}-{}", pod.name, pod.life.load(Ordering::Relaxed)),
        ]);
        command.arg("--listen").arg(format!("127.0.0.1:{}", pod.runner_port)).args(peers);
        command.arg("--kubeconfig").arg(&self.kubeconfig).env("CULVERT_LOG", "info,culvert_runner=debug");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *pod.child.lock().unwrap() = Some(command.spawn().unwrap());
    }

    /// Where all its folders are.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Asks an instance to end, and waits until it has.
    pub(crate) async fn stop(&self, ordinal: usize) {
        let pod = &self.pods[ordinal];
        let mut child = pod.child.lock().unwrap().take().expect("it runs");
        let first = first_process(&child).expect("it runs");
        rustix::process::kill_process(first, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait());
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        let status = ended.unwrap_or_else(|_| panic!("it does not end: {}", pod.log())).unwrap().unwrap();
        assert!(status.success(), "{status}: {}", pod.log());
    }

    pub(crate) async fn status(&self, ordinal: usize) -> Option<InstanceStatus> {
        let pod = &self.pods[ordinal];
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
        let answer = http.get(format!("http://127.0.0.1:{}/status", pod.runner_port)).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    /// The answer to a path of an instance's HTTP: code and text.
    pub(crate) async fn http(&self, ordinal: usize, path: &str) -> (u16, String) {
        let pod = &self.pods[ordinal];
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.get(format!("http://127.0.0.1:{}/{path}", pod.runner_port)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Waits until an instance's status is as wished.
    pub(crate) async fn until(
        &self,
        ordinal: usize,
        what: &str,
        wished: impl Fn(&InstanceStatus) -> bool,
    ) -> InstanceStatus {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < PATIENCE {
            last = self.status(ordinal).await.or(last);
            if let Some(status) = last.as_ref().filter(|status| wished(status)) {
                return status.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = self.pods[ordinal].log();
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!("db-{ordinal} is not {what}: {last:#?}\n{}", tail.join("\n"));
    }

    pub(crate) async fn until_primary(&self, ordinal: usize) -> InstanceStatus {
        self.until(ordinal, "a healthy primary", |status| status.role == "primary" && status.healthy).await
    }

    pub(crate) async fn until_follows(&self, ordinal: usize) -> InstanceStatus {
        let follows = |status: &InstanceStatus| {
            status.role == "replica"
                && status.healthy
                && status.doing == "following"
                && status.lag_bytes.is_some()
        };
        self.until(ordinal, "a healthy replica", follows).await
    }

    pub(crate) async fn until_synchronous(&self, ordinal: usize) -> InstanceStatus {
        self.until(ordinal, "synchronous", |status| status.synchronous && status.healthy).await
    }

    pub(crate) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn lease(&self) -> Lease {
        self.leases().get("db-primary").await.unwrap()
    }

    pub(crate) async fn annotate_lease(&self, key: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        self.leases().patch("db-primary", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Logs in over the network, with TLS.
    pub(crate) async fn connect(
        &self,
        ordinal: usize,
        user: &str,
        password: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").hostaddr([127, 0, 0, 1].into()).port(self.pods[ordinal].port).user(user);
        config.password(password).connect_timeout(Duration::from_secs(3));
        config.dbname(if user == "app" { "app" } else { "postgres" });
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let (client, connection) = config.connect(self.tls()).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) async fn owner(&self, ordinal: usize) -> tokio_postgres::Client {
        self.connect(ordinal, "app", "owner-first").await.unwrap()
    }

    fn tls(&self) -> tokio_postgres_rustls::MakeRustlsConnect {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tokio_postgres_rustls::MakeRustlsConnect::new(config)
    }
}

/// The first process of a namespace: the child of `unshare`, who passes nothing on.
fn first_process(unshare: &Child) -> Option<rustix::process::Pid> {
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    let first = std::fs::read_to_string(children).ok()?.trim().parse().ok()?;
    rustix::process::Pid::from_raw(first)
}

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn namespace(client: &Client) -> String {
    let name = format!("t{}", uuid::Uuid::new_v4().simple());
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
    name
}

fn authority() -> Authority {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
    let certificate = params.self_signed(&key).unwrap().pem();
    Authority { certificate, issuer: rcgen::Issuer::new(params, key) }
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Gives a folder and what is in it to the instance's user.
pub(crate) fn own(folder: &Path) {
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            own(&path);
        } else {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}
