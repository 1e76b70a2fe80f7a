//! The fixtures themselves: that they are the real thing, that several live side by
//! side, and that nothing of them stays.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use culvert_integration::kube::{Cluster, ControlPlane, Image};
use culvert_integration::postgres::Postgres;
use culvert_integration::proxy::{ConnectProxy, INSPECTOR, Interceptor};
use culvert_integration::site::Site;
use culvert_integration::{process, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What counts as soon on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(30);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "it went through: {}", text(&output.stdout));
    text(&output.stderr)
}

// --- control planes ----------------------------------------------------------

#[tokio::test]
async fn a_control_plane_serves_its_users_as_rbac_says() {
    let plane = ControlPlane::start().await.unwrap();
    let version = plane.get(&["version", "-o", "json"]).await.unwrap();
    assert!(version.contains("\"gitVersion\": \"v1.35.4\""), "{version}");

    let space = plane.namespace("users").await.unwrap();
    let make = ["-n", space.name(), "create", "configmap", "made", "--from-literal=a=b"];
    let denied = refused(&plane.kubectl_as(&plane.viewer(), &make).await.unwrap());
    assert!(denied.contains("User \"viewer\" cannot create resource \"configmaps\""), "{denied}");
    plane.get(&make).await.unwrap();
    let read = ["-n", space.name(), "get", "configmap", "made", "-o", "jsonpath={.data.a}"];
    assert_eq!(text(&plane.kubectl_as(&plane.viewer(), &read).await.unwrap().stdout), "b");

    // The administrator is one by RBAC, and not because nobody asks.
    let me = plane.get(&["auth", "whoami", "-o", "jsonpath={.status.userInfo}"]).await.unwrap();
    assert!(me.contains("fixture:admins") && !me.contains("system:masters"), "{me}");

    let account = plane.service_account_kubeconfig(space.name(), "robot").await.unwrap();
    let me =
        plane.kubectl_as(&account, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await;
    assert_eq!(text(&me.unwrap().stdout), format!("system:serviceaccount:{}:robot", space.name()));
    let person = plane.user("grace", &["team:ships"]).await.unwrap();
    let me =
        plane.kubectl_as(&person, &["auth", "whoami", "-o", "jsonpath={.status.userInfo}"]).await.unwrap();
    assert!(text(&me.stdout).contains("team:ships"), "{}", text(&me.stdout));
    refused(&plane.kubectl_as(&person, &read).await.unwrap());
}

#[tokio::test]
async fn two_control_planes_live_side_by_side_and_leave_nothing() {
    let (one, two) = tokio::try_join!(ControlPlane::start(), ControlPlane::start()).unwrap();
    assert_ne!(one.url(), two.url());
    one.get(&["create", "namespace", "only-in-one"]).await.unwrap();
    refused(&two.kubectl(&["get", "namespace", "only-in-one"]).await.unwrap());
    refused(&two.kubectl_as(&one.admin(), &["get", "namespaces", "--server", &two.url()]).await.unwrap());

    let folder = one.folder().to_owned();
    one.stop().await.unwrap();
    assert_eq!(remains(&folder), Vec::<String>::new());
    two.get(&["get", "namespaces"]).await.unwrap();
    let folder = two.folder().to_owned();
    drop(two);
    assert_eq!(remains(&folder), Vec::<String>::new());
}

/// What of a cluster in this folder is still there: files, processes, mounts.
fn remains(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if folder.parent().is_some_and(Path::exists) {
        found.push(folder.display().to_string());
    }
    let name = folder.to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = text(&words).replace('\0', " ");
        if line.contains(name) {
            found.push(line);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    found
}

/// A test run that is killed drops nothing; what it held is let go of by the kernel.
#[tokio::test]
async fn a_control_plane_is_purged_when_its_holder_is_killed() {
    let folder = tempfile::Builder::new().prefix("culvert-").tempdir_in("/tmp").unwrap();
    let (held, plane) = (folder.path().join("held"), folder.path().join("kube"));
    std::fs::write(&held, "").unwrap();
    let mut holder = Command::new("flock");
    holder.arg("--shared").arg(&held).args(["sh", "-c", "echo holding; exec sleep 600"]);
    let mut holder = process::Child::spawn("holder", holder, &folder.path().join("log")).unwrap();
    holder.line("holding", SOON).await.unwrap();
    let sleeper = only_child(holder.pid());

    let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("kube");
    let mut up = Command::new(kit.join("up"));
    up.arg(&plane).arg("--while-held").arg(&held);
    process::run(up).await.unwrap();
    let mut status = Command::new(kit.join("status"));
    status.arg(&plane);
    process::run(status).await.unwrap();

    // flock forked; both have the file open.
    process::run({
        let mut kill = Command::new("kill");
        kill.args(["-KILL", &sleeper.to_string()]);
        kill
    })
    .await
    .unwrap();
    holder.kill().await.unwrap();
    wait::until(SOON, || async {
        anyhow::ensure!(!plane.exists(), "{} is still there", plane.display());
        Ok(())
    })
    .await
    .unwrap();
}

fn only_child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

// --- a cluster with a node ---------------------------------------------------

const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: localhost/busybox:1
    command: [sh, -c, 'echo started; exec httpd -f -p 8080 -h /etc']
    readinessProbe: {httpGet: {path: /passwd, port: 8080}, periodSeconds: 1}
"#;

#[tokio::test]
async fn a_pod_runs_is_read_and_is_entered() {
    let cluster = Cluster::shared().await.unwrap();
    let space = cluster.namespace("pod").await.unwrap();
    let file = write(WEB);
    let path = file.path().to_str().unwrap();
    cluster.get(&["-n", space.name(), "apply", "-f", path]).await.unwrap();
    cluster
        .get(&["-n", space.name(), "wait", "--for=condition=Ready", "--timeout=60s", "pod/web"])
        .await
        .unwrap();
    assert_eq!(cluster.get(&["-n", space.name(), "logs", "web"]).await.unwrap(), "started\n");
    let inside = cluster.get(&["-n", space.name(), "exec", "web", "--", "cat", "/etc/group"]).await.unwrap();
    assert!(inside.contains("nogroup:x:65534:"), "{inside}");
    let exit =
        cluster.kubectl(&["-n", space.name(), "exec", "web", "--", "sh", "-c", "exit 42"]).await.unwrap();
    assert_eq!(exit.status.code(), Some(42));
}

fn write(manifest: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest).unwrap();
    file
}

#[tokio::test]
async fn a_pod_reaches_this_machine_through_an_open_door_only() {
    let cluster = Cluster::shared().await.unwrap();
    let server = greeter(cluster.address()).await;
    let space = cluster.namespace("door").await.unwrap();
    let file = write(WEB);
    let path = file.path().to_str().unwrap();
    cluster.get(&["-n", space.name(), "apply", "-f", path]).await.unwrap();
    cluster
        .get(&["-n", space.name(), "wait", "--for=condition=Ready", "--timeout=60s", "pod/web"])
        .await
        .unwrap();
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let dial = ["-n", space.name(), "exec", "web", "--", "timeout", "3", "nc", &host, &port];

    refused(&cluster.kubectl(&dial).await.unwrap());
    cluster.open(server.port()).await.unwrap();
    assert_eq!(cluster.get(&dial).await.unwrap(), "hello");
    cluster.close(server.port()).await.unwrap();
    refused(&cluster.kubectl(&dial).await.unwrap());
}

/// Greets everybody who connects, and hangs up.
async fn greeter(host: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            client.write_all(b"hello").await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn an_image_is_found_by_its_digest() {
    let cluster = Cluster::shared().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Any static program will do: it only has to be found and started.
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::copy("/bin/busybox", root.join("busybox")).unwrap();
    let archive = folder.path().join("image.tar");
    let mut pack = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/pack"));
    pack.arg("localhost/digested:1").arg(&root).arg(&archive);
    pack.arg(r#"{"Entrypoint":["/busybox"],"User":"65532:65532"}"#);
    let digest = process::run(pack).await.unwrap().trim_end().to_owned();
    let image = Image { repository: "localhost/digested".into(), tag: "1".into(), digest, archive };
    cluster.load(&image).await.unwrap();

    let space = cluster.namespace("digest").await.unwrap();
    let reference = format!("{}@{}", image.repository, image.digest);
    let run = ["-n", space.name(), "run", "who", "--restart=Never", "--image", &reference, "--", "id", "-u"];
    cluster.get(&run).await.unwrap();
    let phase = "jsonpath={.status.phase} {.status.containerStatuses[0].state.waiting.message}";
    wait::until(SOON, || async {
        let seen = cluster.get(&["-n", space.name(), "get", "pod", "who", "-o", phase]).await?;
        anyhow::ensure!(seen.starts_with("Succeeded"), "{seen}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(cluster.get(&["-n", space.name(), "logs", "who"]).await.unwrap(), "65532\n");
}

#[tokio::test]
async fn a_cluster_starts_again_with_its_data_and_then_leaves_nothing() {
    // The folders that kubelet, CNI and containerd would make on the machine.
    let strays =
        ["/var/lib/kubelet", "/var/lib/cni", "/opt/containerd", "/run/containerd"].map(PathBuf::from);
    let strays_before: Vec<bool> = strays.iter().map(|path| path.exists()).collect();
    let cluster = Cluster::start(1).await.unwrap();
    let folder = cluster.folder().to_owned();
    let file = write(WEB);
    cluster.get(&["apply", "-f", file.path().to_str().unwrap()]).await.unwrap();
    cluster.get(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/web"]).await.unwrap();

    let kit = |script: &str| Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("kube").join(script));
    let mut down = kit("down");
    down.arg(&folder);
    process::run(down).await.unwrap();
    let mut up = kit("up");
    up.arg(&folder);
    process::run(up).await.unwrap();
    // Nothing is ready by the status of last time: what is told now is so, and a container can be entered.
    cluster.get(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/web"]).await.unwrap();
    let inside = cluster.get(&["exec", "web", "--", "echo", "again"]).await.unwrap();
    assert_eq!(inside, "again\n");

    let slot = std::fs::read_to_string(folder.join("settings")).unwrap();
    let slot = slot.lines().find_map(|line| line.strip_prefix("SLOT=")).unwrap().to_owned();
    let before = kernel_parts(&slot);
    assert!(before.len() > 2, "{before:?}");
    cluster.stop().await.unwrap();
    assert_eq!(remains(&folder), Vec::<String>::new());
    // By number: somebody else may have taken the names already.
    let left: Vec<_> = kernel_parts(&slot).into_iter().filter(|part| before.contains(part)).collect();
    assert_eq!(left, []);
    let after: Vec<bool> = strays.iter().map(|path| path.exists()).collect();
    assert_eq!(after, strays_before, "{strays:?}");
}

/// Links and cgroups with the names of a cluster in this slot, each with the kernel's
/// number for it. Routes go with their link.
fn kernel_parts(slot: &str) -> Vec<(PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut parts = Vec::new();
    let mut add = |folder: &Path, prefix: &str| {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
            if let (true, Ok(of)) = (named, entry.metadata()) {
                parts.push((entry.path(), of.ino()));
            }
        }
    };
    add(Path::new("/sys/class/net"), &format!("cvt{slot}n"));
    add(Path::new("/sys/fs/cgroup"), &format!("culvert-{slot}-"));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        add(&hierarchy.path(), &format!("culvert-{slot}-"));
    }
    parts
}

// --- a site ------------------------------------------------------------------

/// Whether a TCP connection from inside the site is made; `nc` says so by its status.
async fn dials(site: &Site, address: SocketAddr) -> bool {
    let mut nc = site.command("busybox");
    nc.args(["timeout", "2", "busybox", "nc", &address.ip().to_string(), &address.port().to_string()]);
    process::run(nc).await.is_ok_and(|said| said == "hello")
}

#[tokio::test]
async fn a_site_lets_one_port_out_and_nothing_in() {
    let site = Site::start(&[]).await.unwrap();
    let (allowed, other) = (greeter(site.gateway()).await, greeter(site.gateway()).await);
    assert!(!dials(&site, allowed).await);
    site.allow(allowed.port()).await.unwrap();
    assert!(dials(&site, allowed).await);
    assert!(!dials(&site, other).await);
    // The port alone does not do: the machine's other addresses stay out of reach.
    let elsewhere = greeter(Ipv4Addr::LOCALHOST.into()).await;
    assert!(!dials(&site, elsewhere).await);

    // Into it: something listens, is reached from inside, and is not from outside.
    let folder = tempfile::tempdir().unwrap();
    let mut listen = site.command("busybox");
    listen.args(["nc", "-ll", "-p", "4433", "-e", "/bin/echo", "-n", "hello"]);
    let _listener = process::Child::spawn("listener", listen, &folder.path().join("log")).unwrap();
    wait::until(SOON, || async {
        anyhow::ensure!(dials(&site, "127.0.0.1:4433".parse()?).await, "not reached from inside");
        Ok(())
    })
    .await
    .unwrap();
    let from_outside = TcpStream::connect((site.address(), 4433));
    assert!(tokio::time::timeout(Duration::from_secs(2), from_outside).await.is_err());
    // Not even from the allowed port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    let bound = socket.bind(SocketAddr::new(site.gateway(), 0));
    bound.unwrap();
    let port = socket.local_addr().unwrap().port();
    site.allow(port).await.unwrap();
    let from_allowed = socket.connect(SocketAddr::new(site.address(), 4433));
    assert!(tokio::time::timeout(Duration::from_secs(2), from_allowed).await.is_err());
    let (out, into) = site.refused().await.unwrap();
    assert!(out > 0 && into > 0, "counted {out} out and {into} in");
    let IpAddr::V4(address) = site.address() else { panic!("not IPv4") };
    let link = format!("/sys/class/net/cvs{}/ifindex", address.octets()[2]);
    let number = std::fs::read_to_string(&link).unwrap();
    drop(site);
    // Another site may have taken the name already.
    assert_ne!(std::fs::read_to_string(&link).ok(), Some(number));
}

#[tokio::test]
async fn a_site_knows_only_the_names_it_was_given() {
    let site = Site::start(&[]).await.unwrap();
    let server = greeter(site.gateway()).await;
    site.allow(server.port()).await.unwrap();
    let port = server.port().to_string();
    let ask = || {
        let mut nc = site.command("busybox");
        nc.args(["timeout", "2", "busybox", "nc", "controller.test", &port]);
        process::run(nc)
    };
    let unknown = ask().await.unwrap_err().to_string();
    assert!(unknown.contains("bad address"), "{unknown}");
    site.name("controller.test", site.gateway()).unwrap();
    assert_eq!(ask().await.unwrap(), "hello");
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("controller.test"));
}

#[tokio::test]
async fn a_forbidden_port_ends_what_goes_through_it() {
    let site = Site::start(&[]).await.unwrap();
    let listener = TcpListener::bind((site.gateway(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    site.allow(address.port()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut talk = site.command("sh");
    talk.arg("-c").arg(format!(
        "while echo x; do sleep 0.05; done | busybox nc {} {}",
        address.ip(),
        address.port()
    ));
    let _talker = process::Child::spawn("talker", talk, &folder.path().join("log")).unwrap();
    let (mut stream, _) = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut byte = [0; 2];
    stream.read_exact(&mut byte).await.unwrap();
    site.forbid(address.port()).await.unwrap();
    // Whatever was on its way arrives, and then nothing does.
    let silent = wait::until(SOON, || async {
        let mut rest = [0; 1024];
        let quiet = Duration::from_millis(500);
        let readable = tokio::time::timeout(quiet, stream.readable()).await.is_ok();
        let got = readable.then(|| stream.try_read(&mut rest));
        anyhow::ensure!(got.is_none(), "still got {got:?}");
        Ok(())
    })
    .await;
    silent.unwrap();
}

#[tokio::test]
async fn a_control_plane_inside_a_site_is_out_of_reach_from_outside() {
    let site = Site::start(&[]).await.unwrap();
    let plane = ControlPlane::start_in(&site).await.unwrap();
    let namespaces = plane.get(&["get", "namespaces", "-o", "name"]).await.unwrap();
    assert!(namespaces.contains("namespace/kube-system"), "{namespaces}");
    let address: SocketAddr = plane.url().trim_start_matches("https://").parse().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    plane.stop().await.unwrap();
}

// --- what else stands in the way ---------------------------------------------

async fn connect_through(
    proxy: &ConnectProxy,
    target: SocketAddr,
    credentials: Option<&str>,
) -> (u16, TcpStream) {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let credentials = credentials.map_or_else(String::new, |text| {
        format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(text))
    });
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (text(&head).split(' ').nth(1).unwrap().parse().unwrap(), stream)
}

#[tokio::test]
async fn the_proxy_asks_for_a_password_and_carries_to_its_ports_only() {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let (server, other) = (greeter(loopback).await, greeter(loopback).await);
    let proxy = ConnectProxy::start(loopback, &[server.port()]).await.unwrap();
    let right = format!("{}:{}", ConnectProxy::USER, proxy.password());
    assert_eq!(connect_through(&proxy, server, None).await.0, 407);
    assert_eq!(connect_through(&proxy, server, Some("site:wrong")).await.0, 401);
    assert_eq!(connect_through(&proxy, other, Some(&right)).await.0, 403);
    let (status, mut stream) = connect_through(&proxy, server, Some(&right)).await;
    assert_eq!(status, 200);
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");
}

#[tokio::test]
async fn the_interceptor_shows_its_own_certificate_and_passes_the_rest() {
    let plane = ControlPlane::start().await.unwrap();
    let upstream: SocketAddr = plane.url().trim_start_matches("https://").parse().unwrap();
    let box_in_between = Interceptor::start(Ipv4Addr::LOCALHOST.into(), upstream).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, box_in_between.ca()).unwrap();
    let url = format!("https://localhost:{}/version", box_in_between.address().port());
    let curl = |ca: &Path| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-v", "-m", "10", "--noproxy", "*", "--cacert"]).arg(ca).arg(&url);
        tokio::process::Command::from(curl).output()
    };
    let trusting = curl(&ca).await.unwrap();
    let (out, err) = (text(&trusting.stdout), text(&trusting.stderr));
    assert!(out.contains("\"gitVersion\": \"v1.35.4\""), "{out}{err}");
    assert!(err.contains(&format!("issuer: CN={INSPECTOR}")), "{err}");
    let careful = curl(&plane.folder().join("pki/ca.crt")).await.unwrap();
    refused(&careful);
}

#[tokio::test]
async fn postgres_starts_takes_data_and_ends() {
    let began = Instant::now();
    let mut postgres = Postgres::start().await.unwrap();
    let pid = postgres.server().pid();
    let url = postgres.database().await.unwrap();
    let mut psql = Command::new("psql");
    psql.args([&url, "-Atqc", "create table t as select generate_series(1, 1000) a; select count(*) from t"]);
    assert_eq!(process::run(psql).await.unwrap().trim(), "1000");
    let version = postgres.query("postgres", "show server_version_num").await.unwrap();
    assert!(version.starts_with("15"), "{version}");
    // A password is asked for.
    let (_, place) = url.split_once('@').unwrap();
    let mut stranger = Command::new("psql");
    stranger.args(["-w", &format!("postgres://postgres:wrong@{place}"), "-c", "select 1"]);
    let denied = process::run(stranger).await.unwrap_err().to_string();
    assert!(denied.contains("password authentication failed"), "{denied}");
    drop(postgres);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(began.elapsed() < Duration::from_secs(60));
}
