//! The operator against a real API server without nodes: the chain of objects, hand edits, deletion, causes.
//!
//! It runs with the rights that its chart gives it, and no others. Pods never start here, so what needs an
//! engine is told elsewhere; everything before that must not need one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use culvert_integration::kube::ControlPlane;
use culvert_integration::process::{self, Child, Signal};
use culvert_integration::wait;
use serde_json::{Value, json};

/// A round of the operator and a little more, on a busy machine.
const ROUND: Duration = Duration::from_secs(60);

/// A cluster with the chart installed, and the operator's program beside it.
struct World {
    plane: ControlPlane,
    account: PathBuf,
    folder: tempfile::TempDir,
}

impl World {
    async fn open() -> Result<Self> {
        let plane = ControlPlane::start().await?;
        let folder = tempfile::tempdir()?;
        install(&plane, "localhost/culvert-runner:1", folder.path()).await?;
        plane.apply(CLASS).await?;
        plane.get(&["create", "namespace", "shop"]).await?;
        let account = plane.service_account_kubeconfig("culvert-operator", "culvert-operator").await?;
        Ok(Self { plane, account, folder })
    }

    /// Starts an operator with the chart's rights.
    fn operator(&self, identity: &str) -> Result<Child> {
        let mut operator = Command::new(process::program("culvert-operator")?);
        operator.arg("--kubeconfig").arg(&self.account);
        operator.args(["--namespace", "culvert-operator", "--lease-seconds", "3", "--identity", identity]);
        operator.args(["--listen", &process::free_address("127.0.0.1")?.to_string()]);
        operator.arg("--data-plane").arg(self.folder.path().join(DATA_PLANE));
        Child::spawn(identity, operator, &self.folder.path().join(format!("{identity}.log")))
    }

    async fn service(&self, name: &str, spec: Value) -> Result<()> {
        let mut whole = json!({"engine": "postgresql", "version": "15.18"});
        let fields = spec.as_object().context("a spec is a map")?.clone();
        whole.as_object_mut().context("a map")?.extend(fields);
        let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
            "metadata": {"name": name, "namespace": "shop"}, "spec": whole});
        self.plane.apply(&object.to_string()).await
    }

    async fn object(&self, what: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.plane.get(&["-n", "shop", "get", what, "-o", "json"]).await?)?)
    }

    /// Waits until `look` finds in an object what it looks for.
    async fn until<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let round = || async {
            let object = self.object(what).await?;
            look(&object).with_context(|| format!("{what}: {object}"))
        };
        wait::until(ROUND, round).await
    }

    async fn cause(&self, service: &str, code: &str) -> Result<Value> {
        let what = format!("dataservice/{service}");
        self.until(&what, |object| {
            let why = &object["status"]["why"];
            (why["code"] == code).then(|| why.clone())
        })
        .await
    }

    async fn gone(&self, what: &str) -> Result<()> {
        let round = || async {
            let found =
                self.plane.get(&["-n", "shop", "get", what, "--ignore-not-found", "-o", "yaml"]).await?;
            ensure!(found.trim().is_empty(), "{what} is still there: {found}");
            Ok(())
        };
        wait::until(ROUND, round).await
    }

    async fn patch(&self, what: &str, patch: Value) -> Result<()> {
        let patch = patch.to_string();
        self.plane.get(&["-n", "shop", "patch", what, "--type=merge", "-p", &patch]).await.map(drop)
    }

    /// What the API server says to an object that it refuses.
    async fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.plane.kubectl(arguments).await?;
        ensure!(!output.status.success(), "{arguments:?} was taken");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A class whose volumes never come: nothing here needs one.
const CLASS: &str = r#"{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
    "metadata": {"name": "never", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "example.com/never", "allowVolumeExpansion": true}"#;

/// The file that the chart mounts into the operator's pod.
const DATA_PLANE: &str = "data-plane.yaml";

/// Installs the chart, and brings the file that it mounts to `folder`: there is no node for its pod.
async fn install(plane: &ControlPlane, runner: &str, folder: &Path) -> Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/operator");
    let (repository, tag) = runner.rsplit_once(':').context("an image with its tag")?;
    let images = json!({"15.18": "localhost/postgresql:15.18", "15.20": "localhost/postgresql:15.20"});
    let values = json!({
        "runner": {"image": {"repository": repository, "tag": tag}},
        "engines": {"postgresql": {"images": images}, "valkey": {"images": {"8.1.1": "localhost/valkey:8.1.1"}}},
    });
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), values.to_string())?;
    let (chart, file) = (chart.to_str().context("text")?, file.path().to_str().context("text")?);
    let release = ["upgrade", "--install", "culvert-operator", chart, "--values", file];
    let place = ["--namespace", "culvert-operator", "--create-namespace"];
    let output = plane.helm(&[release.as_slice(), &place].concat()).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = r"jsonpath={.data.data-plane\.yaml}";
    let map = ["-n", "culvert-operator", "get", "configmap", "culvert-operator", "-o", path];
    std::fs::write(folder.join(DATA_PLANE), plane.get(&map).await?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_becomes_its_objects_and_hand_edits_are_undone() -> Result<()> {
    let world = World::open().await?;
    let _operator = world.operator("one")?;
    world.service("orders", json!({"topology": {"replicas": 2}})).await?;
    for what in [
        "database/orders",
        "statefulset/orders",
        "service/orders",
        "service/orders-ro",
        "service/orders-pods",
        "serviceaccount/orders-instance",
        "role/orders-instance",
        "rolebinding/orders-instance",
        "configmap/orders-instance",
        "secret/orders-owner",
        "secret/orders-tls",
        "poddisruptionbudget/orders",
        "networkpolicy/orders",
        "lease/orders-primary",
        "pod/orders-1",
    ] {
        world
            .until(what, |object| {
                (object["metadata"]["labels"]["data.culvert.dev/service"] == "orders").then_some(())
            })
            .await?;
    }
    let status = world.until("dataservice/orders", |object| {
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        (current && object["status"]["secrets"].is_object()).then(|| object["status"].clone())
    });
    assert_eq!(status.await?["phase"], "Progressing");
    undone(&world).await?;
    secrets(&world).await?;
    refusals(&world).await
}

/// What somebody changes by hand is as it was a round later.
async fn undone(world: &World) -> Result<()> {
    world
        .patch("service/orders", json!({"spec": {"selector": {"data.culvert.dev/role": "replica"}}}))
        .await?;
    world
        .until("service/orders", |object| {
            (object["spec"]["selector"]["data.culvert.dev/role"] == "primary").then_some(())
        })
        .await?;
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "engine", "image": "evil"}]}}}})
            .to_string();
    world.plane.get(&["-n", "shop", "patch", "statefulset/orders", "-p", &image]).await?;
    world.patch("statefulset/orders", json!({"spec": {"replicas": 5}})).await?;
    world
        .until("statefulset/orders", |object| {
            let container = &object["spec"]["template"]["spec"]["containers"][0]["image"];
            (object["spec"]["replicas"] == 2 && container == "localhost/postgresql:15.18").then_some(())
        })
        .await?;
    world.patch("database/orders", json!({"spec": {"version": "15.20"}})).await?;
    world.until("database/orders", |object| (object["spec"]["version"] == "15.18").then_some(())).await?;
    world
        .plane
        .get(&["-n", "shop", "delete", "service/orders", "networkpolicy/orders", "database/orders"])
        .await?;
    for what in ["service/orders", "networkpolicy/orders", "statefulset/orders"] {
        world.until(what, |object| object["metadata"]["deletionTimestamp"].is_null().then_some(())).await?;
    }
    Ok(())
}

/// A Secret that was deleted comes back with new passwords, in every Secret that shows them; nothing else makes new
/// ones but the wish for them.
async fn secrets(world: &World) -> Result<()> {
    let password = |secret: &Value, key: &str| secret["data"][key].as_str().map(str::to_owned);
    let before =
        world.until("secret/orders-credentials", |secret| password(secret, "owner-password")).await?;
    world.plane.get(&["-n", "shop", "delete", "secret", "orders-credentials"]).await?;
    let after = world
        .until("secret/orders-credentials", |secret| {
            password(secret, "owner-password").filter(|password| *password != before)
        })
        .await?;
    world
        .until("secret/orders-owner", |secret| {
            (password(secret, "password").as_ref() == Some(&after)).then_some(())
        })
        .await?;
    world.patch("dataservice/orders", json!({"spec": {"parameters": {"work_mem": "8MB"}}})).await?;
    world
        .until("configmap/orders-instance", |map| {
            map["data"]["instance.json"].as_str().is_some_and(|text| text.contains("8MB")).then_some(())
        })
        .await?;
    let kept = world.object("secret/orders-credentials").await?;
    assert_eq!(
        password(&kept, "owner-password").as_ref(),
        Some(&after),
        "a change of a parameter made new passwords"
    );
    let asked = json!({"spec": {"credentialsRotatedAt": "2026-11-25T12:00:00Z"}});
    world.patch("dataservice/orders", asked).await?;
    world
        .until("secret/orders-credentials", |secret| {
            password(secret, "owner-password").filter(|password| *password != after)
        })
        .await
        .map(drop)
}

/// What the API server itself refuses.
async fn refusals(world: &World) -> Result<()> {
    let patch = |spec: Value| json!({"spec": spec}).to_string();
    for (change, words) in [
        (json!({"engine": "valkey"}), "the engine of a data service cannot be changed"),
        (json!({"storage": {"size": "512Mi"}}), "a volume cannot shrink"),
        (json!({"topology": {"replicas": 1, "synchronous": true}}), "needs at least 2 instances"),
        (json!({"topology": {"replicas": 9}}), "less than or equal to 5"),
        (json!({"version": "latest"}), "a version is numbers with dots"),
    ] {
        let patch = patch(change);
        let said = world
            .refused(&["-n", "shop", "patch", "dataservice/orders", "--type=merge", "-p", &patch])
            .await?;
        assert!(said.contains(words), "{said}");
    }
    // Of two who read the same version, the second to write is told.
    let read = world.object("dataservice/orders").await?;
    world.patch("dataservice/orders", json!({"spec": {"parameters": {"work_mem": "16MB"}}})).await?;
    let mut late = read;
    late["spec"]["parameters"]["work_mem"] = json!("4MB");
    let file = world.folder.path().join("late.json");
    std::fs::write(&file, late.to_string())?;
    let said = world.refused(&["replace", "-f", file.to_str().context("text")?]).await?;
    assert!(said.contains("the object has been modified"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_an_upgrade_nor_the_loss_of_the_leader_touches_a_template() -> Result<()> {
    let world = World::open().await?;
    let first = world.operator("one")?;
    world.service("orders", json!({})).await?;
    let template = |set: &Value| (set["metadata"]["generation"].clone(), set["spec"]["template"].clone());
    let before = world.until("statefulset/orders", |set| Some(template(set))).await?;
    // The way of an upgrade: the chart names a new runner, and another operator takes over.
    install(&world.plane, "localhost/culvert-runner:2", world.folder.path()).await?;
    let mut second = world.operator("two")?;
    first.kill().await?;
    second.line("leading", ROUND).await?;
    let planes = world.until("dataplane/default", |plane| {
        (plane["spec"]["runnerImage"] == "localhost/culvert-runner:2").then_some(())
    });
    planes.await?;
    world.service("later", json!({})).await?;
    let image = |set: &Value| set["spec"]["template"]["spec"]["initContainers"][0]["image"].clone();
    let fresh = world.until("statefulset/later", |set| Some(image(set))).await?;
    assert_eq!(fresh, "localhost/culvert-runner:2");
    // The new leader has been over the old database when a hand edit of it is undone.
    world.patch("service/orders", json!({"spec": {"selector": {"data.culvert.dev/role": "x"}}})).await?;
    world
        .until("service/orders", |object| {
            (object["spec"]["selector"]["data.culvert.dev/role"] == "primary").then_some(())
        })
        .await?;
    assert_eq!(template(&world.object("statefulset/orders").await?), before);
    // Whoever is asked to stop gives the Lease up, so that the next need not wait for its end.
    assert!(second.terminate(Duration::from_secs(20)).await?.success());
    let mut third = world.operator("three")?;
    third.line("leading", Duration::from_secs(20)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_keeps_what_it_should_and_hangs_nowhere() -> Result<()> {
    let world = World::open().await?;
    let mut operator = world.operator("one")?;
    world.service("orders", json!({"deletion": {"protection": true}})).await?;
    world.until("persistentvolumeclaim/data-orders-0", |_| Some(())).await?;
    world.plane.get(&["-n", "shop", "delete", "dataservice/orders", "--wait=false"]).await?;
    world.cause("orders", "deletion_protected").await?;
    world.object("statefulset/orders").await?;
    world
        .patch(
            "dataservice/orders",
            json!({"metadata": {"annotations": {"data.culvert.dev/delete-confirmed": "yes"}}}),
        )
        .await?;
    for what in ["dataservice/orders", "database/orders", "statefulset/orders", "secret/orders-credentials"] {
        world.gone(what).await?;
    }
    let purge = |claim: &Value| {
        claim["metadata"]["annotations"]["data.culvert.dev/purge-after"].as_str().map(str::to_owned)
    };
    world.until("persistentvolumeclaim/data-orders-0", &purge).await?;

    // Another engine does not take the volume over; the same one does.
    world.service("orders", json!({"engine": "valkey", "version": "8"})).await?;
    world.cause("orders", "volume_of_another_engine").await?;
    assert!(world.object("statefulset/orders").await.is_err(), "nothing may run on it");
    world.plane.get(&["-n", "shop", "delete", "dataservice/orders"]).await?;
    world.service("orders", json!({"deletion": {"strategy": "Delete"}})).await?;
    world.until("statefulset/orders", |_| Some(())).await?;
    world.until("persistentvolumeclaim/data-orders-0", |claim| purge(claim).is_none().then_some(())).await?;
    world.plane.get(&["-n", "shop", "delete", "dataservice/orders"]).await?;
    world.gone("persistentvolumeclaim/data-orders-0").await?;

    // A last backup that could never be made does not hold up a namespace.
    world.service("last", json!({"deletion": {"strategy": "FinalBackup", "protection": true}})).await?;
    world.until("statefulset/last", |_| Some(())).await?;
    world.plane.get(&["delete", "namespace", "shop", "--timeout=90s"]).await?;
    operator.signal(Signal::Term)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told_with_its_deepest_cause() -> Result<()> {
    let world = World::open().await?;
    let _operator = world.operator("one")?;
    world.service("version", json!({"version": "17"})).await?;
    let why = world.cause("version", "version_unavailable").await?;
    assert_eq!(why["who"], "developer");
    world.service("parameter", json!({"parameters": {"no_such_parameter": "1"}})).await?;
    let phase = world.until("dataservice/parameter", |object| {
        let accepted =
            object["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == "Accepted")?;
        (accepted["status"] == "False").then(|| object["status"]["phase"].clone())
    });
    assert_eq!(phase.await?, "Pending");
    world.service("class", json!({"storage": {"class": "missing"}})).await?;
    world.cause("class", "no_storage_class").await?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": "shop"},
        "spec": {"hard": {"requests.memory": "600Mi"}}});
    world.plane.apply(&quota.to_string()).await?;
    world.until("resourcequota/small", |quota| quota["status"]["hard"].is_object().then_some(())).await?;
    world.service("quota", json!({"topology": {"replicas": 3}})).await?;
    let why = world.cause("quota", "quota").await?;
    assert!(why["message"].as_str().is_some_and(|text| text.contains("small")), "{why}");
    // When the cause is gone, it goes on by itself.
    world.plane.get(&["-n", "shop", "delete", "resourcequota", "small"]).await?;
    world.until("statefulset/quota", |_| Some(())).await?;
    policy(&world).await
}

/// A policy of the cluster that denies the pods.
async fn policy(world: &World) -> Result<()> {
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "no-pods"}, "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
            "validations": [{"expression": "false", "message": "not on a Sunday"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "all"}, "spec": {"policyName": "no-pods", "validationActions": ["Deny"]}});
    world.plane.apply(&policy.to_string()).await?;
    world.plane.apply(&binding.to_string()).await?;
    let denied = || async {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "try-", "namespace": "shop"},
            "spec": {"containers": [{"name": "a", "image": "b"}]}});
        let file = world.folder.path().join("pod.json");
        std::fs::write(&file, pod.to_string())?;
        world.refused(&["create", "-f", file.to_str().context("text")?]).await.map(drop)
    };
    wait::until(ROUND, denied).await?;
    world.service("denied", json!({})).await?;
    let why = world.cause("denied", "denied_by_policy").await?;
    assert!(why["message"].as_str().is_some_and(|text| text.contains("not on a Sunday")), "{why}");
    assert_eq!(why["object"], "StatefulSet/denied");
    Ok(())
}
