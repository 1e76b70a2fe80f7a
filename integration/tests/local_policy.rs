//! Story: the cluster's owner has the last word, by a file beside the agent, and
//! whoever is stopped reads which rule did it and who can change it.

use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::gateway::Gateway;
use culvert_integration::kube::Namespace;
use culvert_integration::stage::{Enrolled, Ground, Stage, ground};
use culvert_integration::wait;
use http::StatusCode;
use serde_json::{Value, json};

/// The longest until a changed file has taken effect on live streams.
const CUT: Duration = Duration::from_secs(5);

const OWNER: &str = "the platform team (platform@plant.example)";

/// A cluster whose agent has a policy file.
struct Owned {
    stage: Stage,
    site: Enrolled,
    gateway: Gateway,
    space: Namespace,
}

impl Owned {
    async fn with(policy: &str, ground: &Ground) -> anyhow::Result<Self> {
        let stage = Stage::open().await?;
        let space = ground.plane.namespace("policy").await?;
        let (cluster, agent) = stage.newcomer("plant", ground).await?;
        let file = agent.path("policy.yaml");
        std::fs::write(&file, policy)?;
        let file = file.to_str().context("a path that is not text")?.to_owned();
        let site = stage.enrol_as(cluster, agent.flag("--policy", file)).await?;
        let gateway = stage.gateway_as_admin(&site.cluster)?;
        Ok(Self { stage, site, gateway, space })
    }

    /// Puts another policy in place of the present one, whole, as a mounted ConfigMap changes.
    fn change(&self, policy: &str) -> anyhow::Result<()> {
        let (new, file) = (self.site.agent.path("policy.new"), self.site.agent.path("policy.yaml"));
        std::fs::write(&new, policy)?;
        Ok(std::fs::rename(new, file)?)
    }

    fn configmaps(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.space.name())
    }

    /// A refusal that names the rule and who can change it.
    async fn refuses_to_read(&self, path: &str, rule: &str) -> anyhow::Result<()> {
        let answer = self.gateway.get(path).await?;
        explains(answer.status, &answer.body, rule)
    }
}

fn explains(status: StatusCode, body: &Value, rule: &str) -> anyhow::Result<()> {
    ensure!(status == StatusCode::FORBIDDEN && body["kind"] == "Status", "{status}: {body}");
    let message = body["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains(rule) && message.contains(OWNER),
        "{message:?} names neither {rule:?} nor {OWNER:?}"
    );
    Ok(())
}

fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

#[tokio::test]
async fn read_only_is_read_only_even_for_an_administrator() -> anyhow::Result<()> {
    let owned = Owned::with(&format!("owner: {OWNER}\nreadOnly: true\n"), ground().await?).await?;
    owned.gateway.get(&owned.configmaps()).await?.ok()?;
    let answer = owned.gateway.post(&owned.configmaps(), &map("made")).await?;
    explains(answer.status, &answer.body, "readOnly")?;
    // A review makes nothing, and a person may still ask who they are.
    owned.gateway.who().await.context("a review under readOnly")?;
    let exec = format!("/api/v1/namespaces/{}/pods/x/exec?command=sh", owned.space.name());
    owned.refuses_to_read(&exec, "readOnly").await?;

    owned.change(&format!("owner: {OWNER}\n"))?;
    wait::until(Duration::from_secs(10), || async {
        owned.gateway.post(&owned.configmaps(), &map("made")).await?.ok().map(drop)
    })
    .await
}

#[tokio::test]
async fn a_pause_cuts_what_runs_and_its_end_lets_in_again() -> anyhow::Result<()> {
    let owned = Owned::with(&format!("owner: {OWNER}\n"), ground().await?).await?;
    owned.gateway.post(&owned.configmaps(), &map("made")).await?.ok()?;
    let watch = owned.gateway.watch(&format!("{}?watch=1", owned.configmaps())).await?;
    owned.change(&format!("owner: {OWNER}\npause: true\n"))?;
    watch.cut(CUT).await?;
    owned.refuses_to_read(&owned.configmaps(), "pause").await?;
    // The control plane knows, and still calls the cluster connected.
    wait::until(Duration::from_secs(15), || async {
        let cluster = owned.stage.admin.get(&format!("/clusters/{}", owned.site.cluster)).await?.ok()?;
        let policy = cluster["facts"]["policy"].as_str().unwrap_or_default();
        ensure!(cluster["state"] == "connected" && policy.contains("paused"), "{cluster}");
        Ok(())
    })
    .await?;
    owned.change(&format!("owner: {OWNER}\n"))?;
    wait::until(Duration::from_secs(10), || async {
        owned.gateway.get(&owned.configmaps()).await?.ok().map(drop)
    })
    .await
}

#[tokio::test]
async fn rules_name_themselves_and_cut_only_what_they_forbid() -> anyhow::Result<()> {
    let owned = Owned::with(&format!("owner: {OWNER}\n"), ground().await?).await?;
    owned.gateway.post(&owned.configmaps(), &map("made")).await?.ok()?;
    let inside = owned.gateway.watch(&format!("{}?watch=1", owned.configmaps())).await?;
    let outside = owned.gateway.watch("/api/v1/namespaces/kube-system/configmaps?watch=1").await?;
    let space = owned.space.name();
    owned.change(&format!(
        "owner: {OWNER}\ndeny:\n- name: payroll stays here\n  namespaces: [\"{space}\"]\n- resources: [secrets]\n"
    ))?;
    inside.cut(CUT).await?;
    ensure!(outside.cut(Duration::from_millis(300)).await.is_err(), "a watch elsewhere was cut as well");
    owned.refuses_to_read(&owned.configmaps(), "payroll stays here").await?;
    owned.refuses_to_read("/api/v1/configmaps", "payroll stays here").await?;
    owned.refuses_to_read("/api/v1/namespaces/kube-system/secrets", "`deny` rule 2").await?;
    owned.gateway.get("/api/v1/namespaces/kube-system/configmaps").await?.ok()?;

    owned.change(&format!(
        "owner: {OWNER}\nallow:\n- verbs: [get, list]\n  resources: [configmaps]\n  namespaces: [\"{space}\"]\n"
    ))?;
    wait::until(Duration::from_secs(10), || async {
        owned.gateway.get(&owned.configmaps()).await?.ok().map(drop)
    })
    .await?;
    owned.refuses_to_read("/api/v1/namespaces/kube-system/configmaps", "allow").await?;
    // What describes the API stays open, or no client could say anything at all.
    owned.gateway.get("/apis").await?.ok().map(drop)
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_reported() -> anyhow::Result<()> {
    let owned =
        Owned::with(&format!("owner: {OWNER}\ndeny: [{{resources: [secrets]}}]\n"), ground().await?).await?;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    owned.refuses_to_read(secrets, "`deny` rule 1").await?;
    for broken in
        ["dney: []\n", "deny: [{verbs: [eat]}]\n", "{\n", &format!("owner: {}\n", "x".repeat(2 << 20))]
    {
        owned.change(broken)?;
        let before = owned.site.agent.log().len();
        wait::until(Duration::from_secs(10), || async {
            let log = owned.site.agent.log();
            let news = log.get(before..).unwrap_or_default();
            ensure!(news.contains("new policy file is refused"), "{broken:.40}: not reported:\n{log}");
            Ok(())
        })
        .await?;
        owned.refuses_to_read(secrets, "`deny` rule 1").await?;
    }
    // One that begins with a broken file does not begin.
    let mut agent = owned.site.agent;
    agent.stop().await?;
    std::fs::write(agent.path("policy.yaml"), "dney: []\n")?;
    agent.start()?;
    ensure!(!agent.ended().await?.success(), "an agent started under a policy that it cannot read");
    ensure!(agent.log().contains("dney"), "{}", agent.log());
    Ok(())
}
