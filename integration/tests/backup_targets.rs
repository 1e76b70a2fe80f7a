//! Story: credentials of a backup target reach the one Secret in the cluster that needs them, and nothing
//! on the way can read them. They are rotated, cannot be brought back, and go with the target.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use culvert_integration::kube::Namespace;
use culvert_integration::stage::{Enrolled, Ground, Stage, ground, succeeded};
use culvert_integration::wait;
use http::Method;
use serde_json::{Value, json};

/// The longest until something has reached the cluster, or is known at the controller.
const SOON: Duration = Duration::from_secs(40);

/// The Secret that the credentials of the target `main` end in.
const SECRET: &str = "backup-target-main";

const FIRST: &str = "the-first-key-of-the-bucket";
const SECOND: &str = "the-second-key-of-the-bucket";

/// A cluster with a target that a data service in it uses.
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
        let space = ground.plane.namespace("targets").await?;
        let site = stage.enrol("plant", ground).await?;
        let place = Self { stage, site, space, ground };
        let target = json!({"name": "main", "spec": {"s3": {"bucket": "b"}}, "credentials": keys(FIRST)});
        place.stage.admin.post("/backup-targets", &target).await?.ok()?;
        Ok(place)
    }

    /// Has a data service in this story's namespace use the target.
    async fn use_it(&self) -> anyhow::Result<String> {
        let spec = json!({"engine": "postgresql", "version": "17", "backup": {"target": "main"}});
        let service = json!({"name": "shop", "cluster": self.site.cluster, "namespace": self.space.name(), "spec": spec});
        let begun = self.stage.admin.post("/data-services", &service).await?.ok()?;
        Ok(begun["data_service"]["id"].as_str().context("no id")?.to_owned())
    }

    /// Lets the agent at the target's Secret, as the operator does.
    async fn grant(&self) -> anyhow::Result<()> {
        let name = json!({"name": "main-sealed", "namespace": self.space.name()});
        let group = "rbac.authorization.k8s.io";
        let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": name, "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET],
                "verbs": ["get", "create", "patch", "delete"]}]});
        let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": name,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "main-sealed"},
            "subjects": [{"kind": "ServiceAccount", "name": "culvert-agent", "namespace": "culvert-system"}]});
        self.ground.plane.apply(&role.to_string()).await?;
        self.ground.plane.apply(&binding.to_string()).await
    }

    async fn object(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        let arguments = ["get", kind, name, "-n", self.space.name(), "-o", "json", "--show-managed-fields"];
        Ok(serde_json::from_str(&self.ground.plane.get(&arguments).await?)?)
    }

    async fn is_gone(&self, kind: &str, name: &str) -> anyhow::Result<()> {
        let arguments = ["get", kind, name, "-n", self.space.name(), "--ignore-not-found", "-o", "name"];
        let left = self.ground.plane.get(&arguments).await?;
        ensure!(left.trim().is_empty(), "{left} is there still\n{}", self.logs());
        Ok(())
    }

    /// The target's one placement, once it is `so`.
    async fn placed(&self, so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        wait::until(SOON, || async {
            let target = self.stage.admin.get("/backup-targets/main").await?.ok()?;
            let placement = &target["placements"][0];
            ensure!(so(placement), "{target:#}\n{}", self.logs());
            Ok(placement.clone())
        })
        .await
    }

    /// Waits until the Secret holds this key, and the controller knows that it does.
    async fn applied(&self, key: &str, generation: u64) -> anyhow::Result<Value> {
        self.placed(|placement| placement["applied_generation"] == generation).await?;
        let secret = self.object("secret", SECRET).await?;
        ensure!(value(&secret, "secret-access-key")? == key, "another key");
        ensure!(
            secret["metadata"]["annotations"]["data.culvert.dev/credential-generation"]
                == generation.to_string()
        );
        Ok(secret)
    }

    fn logs(&self) -> String {
        format!("agent:\n{}\ncontroller:\n{}", self.site.agent.log(), self.stage.controller.log())
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

fn keys(secret: &str) -> Value {
    json!({"access-key-id": "id", "secret-access-key": secret})
}

fn value(secret: &Value, key: &str) -> anyhow::Result<String> {
    let encoded = secret["data"][key].as_str().with_context(|| format!("no {key}"))?;
    Ok(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?)
}

/// Whether a text holds any of these, plain or in base64.
fn holds(text: &[u8], secrets: &[&str]) -> bool {
    let has = |needle: &[u8]| text.windows(needle.len()).any(|window| window == needle);
    secrets.iter().any(|secret| has(secret.as_bytes()) || has(BASE64_STANDARD.encode(secret).as_bytes()))
}

#[tokio::test]
async fn credentials_reach_the_secret_and_nothing_else_and_are_rotated_and_wiped() -> anyhow::Result<()> {
    let mut place = Place::new().await?;
    place.grant().await?;
    let service = place.use_it().await?;
    let secret = place.applied(FIRST, 1).await?;
    let encryption_key = value(&secret, "encryption-key")?;
    ensure!(BASE64_STANDARD.decode(&encryption_key)?.len() == 32, "no key of 32 bytes");
    let owner = &secret["metadata"]["ownerReferences"][0];
    ensure!(owner["kind"] == "BackupTarget", "the Secret would outlive its target: {owner}");

    // Rotated: the cluster gets the new key, and the old one cannot be brought back.
    let before = place.object("backuptarget", "main").await?["spec"]["sealed"].clone();
    let rotated = json!({"credentials": keys(SECOND)});
    place.stage.admin.put("/backup-targets/main/credentials", &rotated).await?.ok()?;
    let secret = place.applied(SECOND, 2).await?;
    ensure!(value(&secret, "encryption-key")? == encryption_key, "older backups could not be read any more");
    let replay = json!({"spec": {"sealed": before}}).to_string();
    let name = place.space.name().to_owned();
    let patch = ["patch", "backuptarget", "main", "-n", &name, "--type=merge", "-p", &replay];
    place.ground.plane.get(&patch).await?;
    place.placed(|placement| placement["trouble"].as_str().is_some_and(|why| why.contains("older"))).await?;
    ensure!(value(&place.object("secret", SECRET).await?, "secret-access-key")? == SECOND);

    // Nothing else holds them: not the database, no log, no object, nothing that was told.
    let secrets = [FIRST, SECOND, encryption_key.as_str()];
    for entry in std::fs::read_dir(place.stage.controller.folder())? {
        let path = entry?.path();
        if path.is_file() && holds(&std::fs::read(&path)?, &secrets) {
            anyhow::bail!("{} holds a secret", path.display());
        }
    }
    let object = place.object("backuptarget", "main").await?.to_string();
    let told = format!("{:?}", place.stage.controller.mirrored().await?);
    let shown = place.stage.admin.get("/backup-targets/main").await?.ok()?.to_string();
    for text in [place.logs(), object, told, shown] {
        ensure!(!holds(text.as_bytes(), &secrets), "it holds a secret: {text}");
    }

    // The agent lost its key: what is sealed is sealed anew, to the one it made.
    let old = place.object("backuptarget", "main").await?["spec"]["sealed"]["keyId"].clone();
    place.site.agent.stop().await?;
    let state = place.site.agent.path("state/identity.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&state)?)?;
    kept.as_object_mut().and_then(|kept| kept.remove("sealing")).context("no key in the state")?;
    std::fs::write(&state, kept.to_string())?;
    place.site.agent.start()?;
    wait::until(SOON, || async {
        let target = place.object("backuptarget", "main").await?;
        ensure!(target["spec"]["sealed"]["keyId"] != old, "sealed to the old key still\n{}", place.logs());
        ensure!(target["status"]["credentialError"].is_null(), "{}", target["status"]);
        Ok(())
    })
    .await?;
    place.applied(SECOND, 2).await?;

    // Deleted: nothing of it stays.
    let change = place.stage.admin.request(Method::PATCH, &format!("/data-services/{service}"));
    change.json(&json!({"spec": {"backup": null}})).send().await?.error_for_status()?;
    // The other story of this cluster may use a target of the same name for a moment more.
    wait::until(SOON, || async { place.stage.admin.delete("/backup-targets/main").await?.ok().map(drop) })
        .await?;
    wait::until(SOON, || place.is_gone("secret", SECRET)).await?;
    wait::until(SOON, || place.is_gone("backuptarget", "main")).await?;
    wait::until(SOON, || async {
        let answer = place.stage.admin.get("/backup-targets/main").await?;
        ensure!(answer.status == 404, "the record is there still: {:?}", answer.ok());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_secret_of_somebody_else_stays_as_it_is() -> anyhow::Result<()> {
    let place = Place::new().await?;
    place.grant().await?;
    let name = place.space.name();
    let make = ["create", "secret", "generic", SECRET, "-n", name, "--from-literal=secret-access-key=mine"];
    succeeded(&place.ground.plane.kubectl(&make).await?)?;
    place.use_it().await?;
    let why = "was not made for this target";
    place.placed(|placement| placement["trouble"].as_str().is_some_and(|said| said.contains(why))).await?;
    ensure!(value(&place.object("secret", SECRET).await?, "secret-access-key")? == "mine");

    // Its owner takes it away, and the credentials come.
    place.ground.plane.get(&["delete", "secret", SECRET, "-n", name]).await?;
    let touch = ["annotate", "backuptarget", "main", "-n", name, "touched=1"];
    place.ground.plane.get(&touch).await?;
    place.applied(FIRST, 1).await?;
    Ok(())
}
