//! Story: what happens to data services in a cluster is known at the controller, up to date, without a
//! duplicate, and no agent can tell of another's cluster or fill the controller up.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_controller::domain::ObservedObject;
use culvert_integration::hand::{Hand, refusal};
use culvert_integration::kube::Namespace;
use culvert_integration::stage::{Enrolled, Ground, Stage, ground};
use culvert_integration::wait;
use culvert_pki::token::JoinToken;
use culvert_proto::telemetry::v1::{Key, Object, ReportRequest, Resync};
use serde_json::{Value, json};

/// The longest until a change is known at the controller.
const SOON: Duration = Duration::from_secs(20);

/// A cluster with the kinds of data services, enrolled.
struct Place {
    stage: Stage,
    site: Enrolled,
    space: Namespace,
    ground: &'static Ground,
}

impl Place {
    async fn new() -> anyhow::Result<Self> {
        let (stage, ground) = (Stage::open().await?, ground().await?);
        install(ground).await?;
        let space = ground.plane.namespace("telemetry").await?;
        let site = stage.enrol("plant", ground).await?;
        Ok(Self { stage, site, space, ground })
    }

    async fn apply(&self, name: &str, expires: &str) -> anyhow::Result<()> {
        let backup = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": self.space.name()},
            "spec": {"service": "shop", "target": "s3", "expiresAt": expires}});
        self.ground.plane.apply(&backup.to_string()).await
    }

    /// Lets the agent at one Secret, as the operator does for each target.
    async fn may_touch(&self, secret: &str) -> anyhow::Result<()> {
        let (api, meta) =
            ("rbac.authorization.k8s.io/v1", json!({"name": "one", "namespace": self.space.name()}));
        let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret],
            "verbs": ["get", "create", "patch", "delete"]}]);
        let role = json!({"apiVersion": api, "kind": "Role", "metadata": meta, "rules": rules});
        let agent = json!({"kind": "ServiceAccount", "name": "culvert-agent", "namespace": "culvert-system"});
        let group = "rbac.authorization.k8s.io";
        let binding = json!({"apiVersion": api, "kind": "RoleBinding", "metadata": meta, "subjects": [agent],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "one"}});
        self.ground.plane.apply(&role.to_string()).await?;
        self.ground.plane.apply(&binding.to_string()).await
    }

    async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.ground.plane.get(&["delete", "backup", name, "-n", self.space.name()]).await.map(drop)
    }

    /// What the controller knows of this story's namespace.
    async fn known(&self) -> anyhow::Result<Vec<ObservedObject>> {
        let mut objects = self.stage.controller.mirrored().await?;
        objects.retain(|object| object.told.key.namespace == self.space.name());
        objects.sort_by(|a, b| a.told.key.cmp(&b.told.key));
        Ok(objects)
    }

    /// Waits until the controller knows exactly these backups.
    async fn knows(&self, wanted: &[&str]) -> anyhow::Result<Vec<ObservedObject>> {
        wait::until(SOON, || async {
            let known = self.known().await?;
            let names: Vec<&str> = known.iter().map(|object| object.told.key.name.as_str()).collect();
            ensure!(names == wanted, "known: {names:?}\nthe agent's log:\n{}", self.site.agent.log());
            Ok(known)
        })
        .await
    }
}

/// Installs the kinds, as the operator's chart does.
async fn install(ground: &Ground) -> anyhow::Result<()> {
    let kinds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../resources/crds");
    let kinds = kinds.to_str().context("a path that is not text")?;
    ground.plane.get(&["apply", "--server-side", "-f", kinds]).await?;
    let established = ["wait", "--for=condition=Established", "-f", kinds, "--timeout=30s"];
    ground.plane.get(&established).await.map(drop)
}

fn expiry(object: &ObservedObject) -> &str {
    object.told.object["spec"]["expiresAt"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn changes_are_known_while_the_tunnel_is_up_and_caught_up_with_when_it_was_down() -> anyhow::Result<()>
{
    let mut place = Place::new().await?;
    place.apply("one", "2030-01-01T00:00:00Z").await?;
    place.apply("two", "2030-01-01T00:00:00Z").await?;
    let before = place.knows(&["one", "two"]).await?;
    let one = before.first().context("one")?;
    ensure!(one.told.object["metadata"].get("managedFields").is_none(), "{}", one.told.object);

    place.apply("one", "2031-01-01T00:00:00Z").await?;
    wait::until(SOON, || async {
        let known = place.known().await?;
        ensure!(known.first().is_some_and(|one| expiry(one).starts_with("2031")), "{known:?}");
        Ok(())
    })
    .await?;
    place.delete("two").await?;
    place.knows(&["one"]).await?;

    // The agent is away: what happens meanwhile is known once it is back, and nothing twice.
    place.site.agent.kill().await?;
    place.apply("three", "2030-01-01T00:00:00Z").await?;
    place.delete("one").await?;
    place.site.agent.start()?;
    let after = place.knows(&["three"]).await?;

    // So it is when the controller was away; what did not change was not written again.
    place.stage.controller.kill().await?;
    place.apply("four", "2030-01-01T00:00:00Z").await?;
    place.stage.controller.resume().await?;
    let last = place.knows(&["four", "three"]).await?;
    ensure!(last.last().map(|three| three.observed_at) == after.first().map(|three| three.observed_at));
    place.site.agent.stop().await
}

#[tokio::test]
async fn an_agent_waits_quietly_for_kinds_that_are_not_installed() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let plane = culvert_integration::kube::ControlPlane::start().await?;
    let kubeconfig = culvert_integration::stage::agent_kubeconfig(&plane).await?;
    let ground = Ground { plane, kubeconfig };
    let site = stage.enrol("plant", &ground).await?;
    install(&ground).await?;
    let plane = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataPlane",
        "metadata": {"name": "default"}, "spec": {}});
    ground.plane.apply(&plane.to_string()).await?;
    wait::until(Duration::from_secs(40), || async {
        let known = stage.controller.mirrored().await?;
        ensure!(known.iter().any(|object| object.told.key.name == "default"), "known: {known:?}");
        Ok(())
    })
    .await
    .with_context(|| site.agent.log())?;
    let log = site.agent.log();
    ensure!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    Ok(())
}

/// A Backup as an agent tells it.
fn told(name: &str, pad: usize) -> Object {
    let uid = uuid::Uuid::new_v4().to_string();
    let json = json!({"kind": "Backup", "metadata": {"namespace": "data", "name": name, "uid": uid},
        "spec": {"pad": "x".repeat(pad)}});
    let key = Key { kind: "Backup".to_owned(), namespace: "data".to_owned(), name: name.to_owned() };
    Object { key: Some(key), uid, generation: 1, json: json.to_string().into(), cut: false }
}

#[tokio::test]
async fn a_hostile_agent_reaches_its_own_mirror_and_no_more_of_it_than_is_allowed() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let hand = Hand::new(&stage.controller)?;
    let mut reached = Vec::new();
    for name in ["honest", "hostile"] {
        let cluster = stage.admin.cluster_create(name).await?;
        let held = hand.enrol(&JoinToken::parse(&stage.admin.join_token(&cluster).await?)?).await?;
        reached.push((cluster, hand.reach_as(&held, true).await?));
    }
    let [(honest, first), (hostile, second)] = reached.as_slice() else { anyhow::bail!("two clusters") };
    let whole = |objects| {
        let resync = Some(Resync { id: 1, first: true, last: true, partial: false });
        ReportRequest { resync, objects, deleted: Vec::new() }
    };
    first.report(whole(vec![told("mine", 1)])).await?;

    // The same name, a deletion, an empty full telling: all of it is the hostile one's own cluster.
    second.report(whole(vec![told("mine", 1)])).await?;
    let key = told("mine", 1).key.context("a key")?;
    second.report(ReportRequest { deleted: vec![key], ..ReportRequest::default() }).await?;
    second.report(whole(Vec::new())).await?;
    let known = stage.controller.mirrored().await?;
    let clusters: Vec<String> = known.iter().map(|object| object.cluster.to_string()).collect();
    ensure!(clusters == [honest.clone()], "{clusters:?}, the hostile one is {hostile}");

    // Too large, of a foreign kind, not JSON: named and left out.
    let mut foreign = told("secret", 1);
    foreign.key = Some(Key { kind: "Secret".to_owned(), ..foreign.key.unwrap_or_default() });
    let broken = Object { json: b"{".as_slice().into(), ..told("broken", 1) };
    let odd = vec![told("large", 70_000), foreign, broken, told("good", 1)];
    let answer = second.report(ReportRequest { objects: odd, ..ReportRequest::default() }).await?;
    ensure!(answer.refused.len() == 3, "{answer:?}");

    // More than is taken at once, and more often.
    let many = (0..600).map(|n| told(&format!("b{n}"), 1)).collect();
    let Err(status) = second.report(ReportRequest { objects: many, ..ReportRequest::default() }).await else {
        anyhow::bail!("600 objects at once were taken");
    };
    ensure!(refusal(&status) == "rate_limited", "{status:?}");
    let huge = (0..100).map(|n| told(&format!("b{n}"), 60_000)).collect();
    ensure!(second.report(ReportRequest { objects: huge, ..ReportRequest::default() }).await.is_err());
    let mut answer = second.report(ReportRequest::default()).await;
    for _ in 0..2000 {
        if answer.is_err() {
            break;
        }
        answer = second.report(ReportRequest::default()).await;
    }
    let status = answer.err().context("2000 reports in a row were all taken")?;
    ensure!(refusal(&status) == "rate_limited", "{status:?}");
    // Nobody else notices.
    first.report(ReportRequest { objects: vec![told("other", 1)], ..ReportRequest::default() }).await?;

    // And who shows no certificate tells nothing.
    let cluster = stage.admin.cluster_create("third").await?;
    let token = JoinToken::parse(&stage.admin.join_token(&cluster).await?)?;
    let Err(status) = hand.reach(&token).await?.report(ReportRequest::default()).await else {
        anyhow::bail!("a report of nobody was taken");
    };
    ensure!(refusal(&status) == "unauthenticated", "{status:?}");
    Ok(())
}

#[tokio::test]
async fn credentials_in_an_object_stay_in_the_cluster() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let target: Value = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupTarget",
        "metadata": {"name": "s3", "namespace": place.space.name()},
        "spec": {"s3": {"bucket": "b"}, "secret": {"name": "s3"},
            "sealed": {"generation": 1, "keyId": "0123456789abcdef", "ciphertext": "bm90LWZvci15b3U="}}});
    place.may_touch("s3").await?;
    place.ground.plane.apply(&target.to_string()).await?;
    let known = place.knows(&["s3"]).await?;
    let sealed = &known.first().context("the target")?.told.object["spec"]["sealed"];
    ensure!(sealed == &json!({"generation": 1, "keyId": "0123456789abcdef"}), "{sealed}");
    // It was sealed to a key that this agent does not have, and the agent says so.
    wait::until(SOON, || async {
        let known = place.known().await?;
        let status = &known.first().context("the target")?.told.object["status"];
        let error = status["credentialError"].as_str().unwrap_or_default();
        ensure!(error.contains("seal anew"), "{status}\n{}", place.site.agent.log());
        Ok(())
    })
    .await
}

/// Answers every request on a port of this machine as a runner answers `/metrics`, with a number that
/// grows; a request for another instance than `figures-0` is answered 503.
async fn runner() -> anyhow::Result<(std::net::SocketAddr, tokio::task::JoinHandle<()>)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answering = tokio::spawn(async move {
        let mut asked = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 2048];
            let Ok(read) = stream.read(&mut request).await else { continue };
            let line = String::from_utf8_lossy(request.get(..read).unwrap_or_default()).into_owned();
            asked += 1;
            let page = format!(
                "# TYPE culvert_postgresql_data_bytes gauge\nculvert_postgresql_data_bytes {asked}\n\
                 culvert_postgresql_deadlocks_total{{kind=\"any\"}} 3\nprocess_threads 9\n"
            );
            let answer = if line.contains("/figures-0 ") {
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len())
            } else {
                "HTTP/1.1 503 Not here\r\ncontent-length: 0\r\n\r\n".to_owned()
            };
            // The agent may have gone; then there is nobody to answer.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok((address, answering))
}

#[tokio::test]
async fn figures_of_instances_arrive_through_the_tunnel() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    install(ground).await?;
    let space = ground.plane.namespace("figures").await?;
    let name = space.name();
    let (runner, answering) = runner().await?;
    let (cluster, agent) = stage.newcomer("plant", ground).await?;
    let address = format!("http://{runner}/{{namespace}}/{{database}}/{{pod}}");
    let site = stage.enrol_as(cluster, agent.flag("--instance-metrics", address)).await?;

    let meta = json!({"name": "figures", "namespace": name});
    let api = "data.culvert.dev/v1alpha1";
    let service = json!({"apiVersion": api, "kind": "DataService", "metadata": meta,
        "spec": {"engine": "postgresql", "version": "17"}});
    ground.plane.apply(&service.to_string()).await?;
    let database = json!({"apiVersion": api, "kind": "Database", "metadata": meta, "spec": {
        "engine": "postgresql", "driver": "postgresql", "version": "17.5",
        "image": {"engine": "e", "runner": "r"}, "resources": {"cpu": "1", "memory": "1Gi"},
        "storage": {"size": "1Gi"}, "topology": {"replicas": 2}}});
    ground.plane.apply(&database.to_string()).await?;
    let member = |pod: &str| json!({"pod": pod, "ready": true});
    let members = ["figures-0", "figures-1", "elsewhere.example"].map(member);
    let status = json!({"status": {"members": members}}).to_string();
    let patch =
        ["patch", "database", "figures", "-n", name, "--subresource=status", "--type=merge", "-p", &status];
    ground.plane.get(&patch).await?;

    let figures = wait::until(Duration::from_secs(60), || async {
        let told = stage.admin.get("/data-services/figures/metrics?since=10m").await?.ok()?;
        let samples = told["series"][0]["samples"].as_array().map_or(0, Vec::len);
        ensure!(samples >= 2, "{told:#}\n{}", site.agent.log());
        Ok(told)
    })
    .await?;
    let series = &figures["series"][0];
    ensure!(series["name"] == "culvert_postgresql_data_bytes" && series["unit"] == "bytes", "{figures:#}");
    ensure!(series["labels"] == json!({"instance": "figures-0"}), "{figures:#}");
    let (first, second) = (&series["samples"][0]["value"], &series["samples"][1]["value"]);
    ensure!(first.as_f64() < second.as_f64(), "{figures:#}");
    let names: Vec<&Value> =
        figures["series"].as_array().context("series")?.iter().map(|series| &series["name"]).collect();
    ensure!(names == ["culvert_postgresql_data_bytes", "culvert_postgresql_deadlocks_total"], "{names:?}");
    // Who does not answer is named, with the cause; who is no instance was never asked.
    let problems = figures["problems"].as_array().context("problems")?;
    ensure!(problems.len() == 1 && problems[0]["instance"] == "figures-1", "{figures:#}");
    ensure!(problems[0]["problem"].as_str().is_some_and(|why| why.contains("503")), "{figures:#}");
    answering.abort();
    Ok(())
}
