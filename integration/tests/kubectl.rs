//! kubectl and helm through gateway, tunnel and agent, on a real node: what people
//! type works, and reads give the same bytes and exit codes as direct access.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::Agent;
use culvert_integration::kube::{Cluster, Namespace};
use culvert_integration::process::{self, Child, Signal};
use culvert_integration::stage::{Enrolled, Stage, agent_kubeconfig, succeeded};
use culvert_integration::wait;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// What the stories here share, with the runtime that it lives on.
struct Scene {
    cluster: &'static Cluster,
    stage: Stage,
    enrolled: Enrolled,
    /// The administrator through the gateway, by a person's certificate.
    kubeconfig: PathBuf,
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static SCENE: OnceCell<Scene> = OnceCell::const_new();

async fn scene() -> anyhow::Result<&'static Scene> {
    SCENE
        .get_or_try_init(|| async {
            let cluster = Cluster::shared().await?;
            let stage = Stage::open().await?;
            let record = stage.admin.cluster_create("with-a-node").await?;
            let token = stage.admin.join_token(&record).await?;
            let agent = Agent::new(&stage.controller, &agent_kubeconfig(cluster).await?, &token)?;
            let enrolled = stage.enrol_as(record, agent).await?;
            let kubeconfig = stage.person_kubeconfig(&enrolled.cluster, &stage.admin).await?;
            anyhow::Ok(Scene { cluster, stage, enrolled, kubeconfig })
        })
        .await
}

/// Runs a story on the runtime that the shared scene lives on.
fn story(story: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = RUNTIME.block_on(story) {
        panic!("{error:?}");
    }
}

impl Scene {
    /// kubectl through the tunnel, not started.
    async fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        self.cluster.client("kubectl", &self.kubeconfig, arguments).await
    }

    /// kubectl through the tunnel, to its end.
    async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.cluster.kubectl_as(&self.kubeconfig, arguments).await
    }

    /// kubectl through the tunnel; gives its output, fails when it fails.
    async fn get(&self, arguments: &[&str]) -> anyhow::Result<String> {
        succeeded(&self.kubectl(arguments).await?)
            .with_context(|| format!("kubectl {arguments:?}\nagent:\n{}", self.enrolled.agent.log()))
    }

    /// Waits until the audit tells of a stream to a pod of `namespace` that was carried in
    /// this form: kubectl would fall back from WebSocket to SPDY without a word.
    async fn carried(&self, namespace: &str, subresource: &str, websocket: bool) -> anyhow::Result<()> {
        let method = if websocket { "GET" } else { "POST" };
        wait::until(Duration::from_secs(10), || async {
            let audit = std::fs::read_to_string(self.stage.controller.path("audit/gateway.jsonl"))?;
            let lines = audit.lines().map(serde_json::from_str::<serde_json::Value>);
            let lines: Vec<_> = lines.filter_map(Result::ok).collect();
            let ours = |line: &&serde_json::Value| {
                line["namespace"] == namespace && line["subresource"] == subresource
            };
            let seen: Vec<_> = lines.iter().filter(ours).collect();
            let found = seen.iter().any(|line| line["method"] == method && line["status"] == 101);
            ensure!(found, "no {method} of {subresource} with 101 among {seen:?}");
            Ok(())
        })
        .await
    }

    /// A namespace with a pod `box` that runs and has written one line.
    async fn with_pod(&self, name: &str) -> anyhow::Result<Namespace> {
        let namespace = self.cluster.namespace(name).await?;
        self.cluster.apply(&pod(namespace.name())).await?;
        let n = namespace.name();
        self.get(&["-n", n, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s"]).await?;
        Ok(namespace)
    }
}

fn pod(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: box, namespace: {namespace}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: box
    image: localhost/busybox:1
    imagePullPolicy: IfNotPresent
    stdin: true
    command: [sh, -c, 'mkdir -p /data/w; echo hello >/data/w/index.html; httpd -p 8080 -h /data/w; echo started; exec cat']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, emptyDir: {{}}}}]
"#
    )
}

/// Runs a command to its end with `input`, in both forms of kubectl's streams.
async fn with_input(mut command: Command, input: &[u8], websocket: bool) -> anyhow::Result<Output> {
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket.to_string());
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_vec();
    let feed = async move {
        use tokio::io::AsyncWriteExt as _;
        let _ = stdin.write_all(&input).await;
        drop(stdin);
    };
    let end = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
    let (output, ()) = tokio::join!(end, feed);
    Ok(output.context("kubectl did not end")??)
}

#[test]
fn reads_give_the_same_bytes_and_exit_codes_as_direct_access() {
    story(async {
        let scene = scene().await?;
        let namespace = scene.cluster.namespace("reads").await?;
        let n = namespace.name();
        scene.cluster.get(&["-n", n, "create", "configmap", "a", "--from-literal=k=v"]).await?;
        let reads: &[&[&str]] = &[
            &["version", "-o", "json"],
            &["api-resources"],
            &["api-versions"],
            &["explain", "pods.spec.containers"],
            &["-n", n, "get", "configmap", "a", "-o", "yaml"],
            &["-n", n, "get", "configmap", "a", "-o", "json"],
            &["-n", n, "get", "configmaps"],
            &["-n", n, "describe", "configmap", "a"],
            &["-n", n, "get", "configmap", "absent"],
            &["-n", n, "get", "unknown-things"],
            &["-n", n, "get", "pods"],
            &["get", "clusterroles", "-o", "yaml"],
            &["get", "clusterroles", "--chunk-size=5"],
            &["get", "nodes", "-o", "name"],
            &["get", "--raw", "/openapi/v2"],
            &["get", "--raw", "/readyz?verbose"],
            &["get", "--raw", "/nothing/here"],
            &["-n", n, "auth", "can-i", "create", "pods"],
            &["-n", n, "logs", "absent"],
            &["top", "nodes"],
            &["top", "pods", "-n", n],
        ];
        for read in reads {
            // Again when they differ: a table tells ages, and a second may begin between the two.
            wait::until(Duration::from_secs(10), || async {
                let direct = scene.cluster.kubectl(read).await?;
                let through = scene.kubectl(read).await?;
                ensure!(direct.status.code() == through.status.code(), "{read:?}: {direct:?}, {through:?}");
                ensure!(
                    direct.stdout == through.stdout && direct.stderr == through.stderr,
                    "{read:?}:\n{}{}\n---\n{}{}",
                    String::from_utf8_lossy(&direct.stdout),
                    String::from_utf8_lossy(&direct.stderr),
                    String::from_utf8_lossy(&through.stdout),
                    String::from_utf8_lossy(&through.stderr),
                );
                Ok(())
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
fn a_person_acts_under_their_own_name() {
    story(async {
        let scene = scene().await?;
        let me = scene.get(&["auth", "whoami", "-o", "json"]).await?;
        let me: serde_json::Value = serde_json::from_str(&me)?;
        let user = &me["status"]["userInfo"];
        ensure!(user["username"] == "culvert:admin", "{user}");
        let groups = user["groups"].to_string();
        ensure!(groups.contains("culvert:admins") && !groups.contains("system:masters"), "{groups}");
        Ok(())
    });
}

#[test]
fn objects_are_applied_patched_and_deleted() {
    story(async {
        let scene = scene().await?;
        let namespace = scene.cluster.namespace("writes").await?;
        let n = namespace.name();
        let manifest = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"a\",\"namespace\":\"{n}\"}},\"data\":{{\"k\":\"1\"}}}}"
        );
        let apply = scene.command(&["apply", "-f", "-"]).await?;
        let said = succeeded(&with_input(apply, manifest.as_bytes(), true).await?)?;
        ensure!(said == "configmap/a created\n", "{said}");
        let apply = scene.command(&["apply", "--server-side", "--field-manager=story", "-f", "-"]).await?;
        let other = manifest.replace("\"k\":\"1\"", "\"other\":\"2\"");
        let said = succeeded(&with_input(apply, other.as_bytes(), true).await?)?;
        ensure!(said == "configmap/a serverside-applied\n", "{said}");
        scene.get(&["-n", n, "patch", "configmap", "a", "-p", r#"{"data":{"k":"3"}}"#]).await?;
        let data = scene.get(&["-n", n, "get", "configmap", "a", "-o", "jsonpath={.data}"]).await?;
        ensure!(data == r#"{"k":"3","other":"2"}"#, "{data}");
        // A body well beyond what rides in the opening message.
        let large = "x".repeat(900_000);
        let large = manifest
            .replace("\"name\":\"a\"", "\"name\":\"large\"")
            .replace("\"1\"", &format!("\"{large}\""));
        let create = scene.command(&["create", "-f", "-"]).await?;
        succeeded(&with_input(create, large.as_bytes(), true).await?)?;
        let back = scene.get(&["-n", n, "get", "configmap", "large", "-o", "jsonpath={.data.k}"]).await?;
        ensure!(back.len() == 900_000, "{}", back.len());
        scene.get(&["-n", n, "delete", "configmap", "a", "large"]).await?;
        let gone = scene.kubectl(&["-n", n, "get", "configmap", "a"]).await?;
        ensure!(gone.status.code() == Some(1), "{gone:?}");
        Ok(())
    });
}

#[test]
fn a_watch_tells_of_changes_as_they_come() {
    story(async {
        let scene = scene().await?;
        let namespace = scene.cluster.namespace("watch").await?;
        let n = namespace.name();
        let watch = scene.command(&["-n", n, "get", "configmaps", "--watch", "-o", "name"]).await?;
        let folder = tempfile::tempdir()?;
        let mut watch = Child::spawn("kubectl", watch, &folder.path().join("watch"))?;
        // Every namespace has this one from the start, or soon after.
        watch.line("kube-root-ca.crt", Duration::from_secs(20)).await?;
        for name in ["first", "second"] {
            scene.get(&["-n", n, "create", "configmap", name]).await?;
            watch.line(&format!("configmap/{name}"), Duration::from_secs(10)).await?;
        }
        Ok(())
    });
}

#[test]
fn commands_run_in_a_container_over_websocket_and_spdy() {
    story(async {
        let scene = scene().await?;
        let namespace = scene.with_pod("exec").await?;
        let n = namespace.name();
        for websocket in [true, false] {
            let exec = scene
                .command(&["-n", n, "exec", "-i", "box", "--", "sh", "-c", "cat; echo err >&2; exit 7"])
                .await?;
            // More than one frame, with every byte value.
            let input: Vec<u8> = (0..300_000u32).map(|i| (i % 256) as u8).collect();
            let output = with_input(exec, &input, websocket).await?;
            ensure!(output.status.code() == Some(7), "websocket {websocket}: {output:?}");
            ensure!(output.stdout == input, "websocket {websocket}: {} bytes came back", output.stdout.len());
            ensure!(output.stderr.starts_with(b"err\n"), "{:?}", String::from_utf8_lossy(&output.stderr));

            scene.carried(n, "exec", websocket).await?;

            // A terminal: `script` gives kubectl one, and the container sees it.
            let exec =
                scene.command(&["-n", n, "exec", "-it", "box", "--", "sh", "-c", "tty; stty size"]).await?;
            let output = on_a_terminal(&exec, websocket).await?;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(
                output.status.success() && said.contains("/dev/pts/"),
                "websocket {websocket}: {output:?}"
            );
        }
        Ok(())
    });
}

/// Runs a command with a pseudo-terminal as its input and output.
async fn on_a_terminal(command: &Command, websocket: bool) -> anyhow::Result<Output> {
    let mut line = vec![command.get_program().to_string_lossy().into_owned()];
    line.extend(command.get_args().map(|a| format!("'{}'", a.to_string_lossy())));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    with_input(script, b"", websocket).await
}

#[test]
fn logs_follow_and_attach_reaches_the_process() {
    story(async {
        let scene = scene().await?;
        for websocket in [true, false] {
            let namespace = scene.with_pod("logs").await?;
            let n = namespace.name();
            let folder = tempfile::tempdir()?;
            let logs = scene.command(&["-n", n, "logs", "-f", "box"]).await?;
            let mut logs = Child::spawn("kubectl", logs, &folder.path().join("logs"))?;
            logs.line("started", Duration::from_secs(10)).await?;
            let attach = scene.command(&["-n", n, "attach", "-i", "box"]).await?;
            let said = with_input(attach, b"typed by a person\n", websocket).await?;
            ensure!(said.status.success(), "websocket {websocket}: {said:?}");
            logs.line("typed by a person", Duration::from_secs(10)).await?;
            scene.carried(n, "attach", websocket).await?;
        }
        Ok(())
    });
}

#[test]
fn a_gigabyte_is_copied_in_and_out_unharmed() {
    story(async {
        let scene = scene().await?;
        let namespace = scene.with_pod("copy").await?;
        let n = namespace.name();
        let folder = tempfile::tempdir()?;
        let (there, back) = (folder.path().join("there"), folder.path().join("back"));
        let (there, back) = (there.to_str().context("path")?, back.to_str().context("path")?);
        let sum = |file: &str| {
            let mut command = Command::new("sha256sum");
            command.arg(file);
            process::run(command)
        };
        process::run({
            let mut make = Command::new("sh");
            make.args(["-c", "openssl enc -aes-256-ctr -pass pass:story -nosalt -pbkdf2 </dev/zero 2>/dev/null | head -c 1073741824 >\"$0\"", there]);
            make
        })
        .await?;
        scene.get(&["cp", "--retries=0", there, &format!("{n}/box:/data/copy")]).await?;
        let inside = scene.get(&["-n", n, "exec", "box", "--", "sha256sum", "/data/copy"]).await?;
        let want = sum(there).await?;
        // Two gigabytes at a time are enough for a small disk.
        std::fs::remove_file(there)?;
        ensure!(inside.split(' ').next() == want.split(' ').next(), "in: {inside} {want}");
        scene.get(&["cp", "--retries=0", &format!("{n}/box:/data/copy"), back]).await?;
        let have = sum(back).await?;
        ensure!(have.split(' ').next() == want.split(' ').next(), "out: {have} {want}");
        Ok(())
    });
}

#[test]
fn a_port_is_forwarded_over_websocket_and_spdy() {
    story(async {
        let scene = scene().await?;
        let namespace = scene.with_pod("forward").await?;
        let n = namespace.name();
        let folder = tempfile::tempdir()?;
        for websocket in ["true", "false"] {
            let mut forward = scene.command(&["-n", n, "port-forward", "pod/box", ":8080"]).await?;
            forward.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket);
            let log = folder.path().join(websocket);
            let mut forward = Child::spawn_ending_by(Signal::Term, "kubectl", forward, &log)?;
            let line = forward.line("Forwarding from 127.0.0.1:", Duration::from_secs(20)).await?;
            let port: u16 =
                line.split([':', ' ']).nth(3).context("no port")?.parse().with_context(|| line.clone())?;
            for _ in 0..10 {
                let page =
                    reqwest::Client::builder().no_proxy().build()?.get(format!("http://127.0.0.1:{port}/"));
                let page = page.send().await?.text().await?;
                ensure!(page == "hello\n", "{page}");
            }
            let status = forward.terminate(Duration::from_secs(10)).await;
            ensure!(status.is_ok(), "{status:?}");
            scene.carried(n, "portforward", websocket == "true").await?;
        }
        Ok(())
    });
}

#[test]
fn helm_installs_and_upgrades_a_release() {
    story(async {
        let scene = scene().await?;
        let namespace = scene.cluster.namespace("helm").await?;
        let n = namespace.name();
        let chart = tempfile::tempdir()?;
        std::fs::create_dir(chart.path().join("templates"))?;
        std::fs::write(chart.path().join("Chart.yaml"), "apiVersion: v2\nname: trivial\nversion: 0.1.0\n")?;
        std::fs::write(
            chart.path().join("templates/a.yaml"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {a: {{ .Values.a | quote }}}\n",
        )?;
        let path = chart.path().to_str().context("path")?;
        for (verb, value) in [("install", "1"), ("upgrade", "2")] {
            let set = format!("a={value}");
            let arguments = [verb, "trivial", path, "-n", n, "--wait", "--set", &set];
            process::run(scene.cluster.client("helm", &scene.kubeconfig, &arguments).await?).await?;
            let got =
                scene.get(&["-n", n, "get", "configmap", "trivial", "-o", "jsonpath={.data.a}"]).await?;
            ensure!(got == value, "{verb}: {got}");
        }
        process::run(
            scene.cluster.client("helm", &scene.kubeconfig, &["uninstall", "trivial", "-n", n]).await?,
        )
        .await?;
        Ok(())
    });
}

#[test]
fn a_token_serves_a_machine_and_a_reader_may_only_read() {
    story(async {
        let scene = scene().await?;
        let made = scene
            .stage
            .admin
            .post(
                "/api-tokens",
                &serde_json::json!({"name": "pipeline", "role": "reader", "ttl_seconds": 600}),
            )
            .await?
            .ok()?;
        let token = made["token"].as_str().context("no token")?;
        let kubeconfig = scene.stage.bearer_kubeconfig(&scene.enrolled.cluster, token)?;
        let nodes = scene.cluster.kubectl_as(&kubeconfig, &["get", "pods", "-n", "default"]).await?;
        succeeded(&nodes)?;
        let refused =
            scene.cluster.kubectl_as(&kubeconfig, &["create", "namespace", "not-for-readers"]).await?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(1) && said.contains("culvert:token:pipeline"), "{said}");
        Ok(())
    });
}
