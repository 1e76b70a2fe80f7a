//! What the stories share: a controller, an origin, and agents with a line of their own.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::{Agent, cluster_in};
use culvert_integration::api::Answer;
use culvert_integration::faults::FaultProxy;
use culvert_integration::gateway::{Exchange, Gateway, no_body};
use culvert_integration::origin::Origin;
use culvert_integration::stage::Stage;
use culvert_integration::wait;
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// The longest that a small call may take beside whatever else goes on.
pub(crate) const PROMPT: Duration = Duration::from_secs(10);

/// The longest until either end notices that a line is dead, tells its calls, and is back.
pub(crate) const RECOVERY: Duration = Duration::from_secs(120);

/// Settings of a controller that all callers reach from one address.
pub(crate) const CROWDED: &str = "[limits]\nconnections_per_address = 4000\n";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// A controller and what agents reach.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) origin: Origin,
}

/// An agent behind a line that can fail.
pub(crate) struct Site {
    pub(crate) cluster: String,
    pub(crate) agent: Agent,
    pub(crate) line: FaultProxy,
    pub(crate) gateway: Gateway,
}

/// Runs a story on the runtime that the shared scene lives on.
pub(crate) fn story(story: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = RUNTIME.block_on(story) {
        panic!("{error:?}");
    }
}

/// The scene of stories that leave the controller alone.
pub(crate) async fn shared() -> anyhow::Result<&'static Scene> {
    static SCENE: OnceCell<Scene> = OnceCell::const_new();
    SCENE.get_or_try_init(|| Scene::open(CROWDED)).await
}

impl Scene {
    /// A scene of one's own.
    pub(crate) async fn open(settings: &str) -> anyhow::Result<Self> {
        Ok(Self { stage: Stage::open_with(settings).await?, origin: Origin::start().await? })
    }

    /// Enrols a cluster behind a line of its own.
    pub(crate) async fn site(&self, name: &str) -> anyhow::Result<Site> {
        let line = FaultProxy::start(self.stage.controller.address()).await?;
        self.site_by(name, line, |agent| agent).await
    }

    /// The same, with another line or another agent.
    pub(crate) async fn site_by(
        &self,
        name: &str,
        line: FaultProxy,
        change: impl FnOnce(Agent) -> Agent,
    ) -> anyhow::Result<Site> {
        let cluster = self.stage.admin.cluster_create(name).await?;
        let token = self.stage.admin.join_token(&cluster).await?;
        let agent = Agent::new(&self.stage.controller, self.origin.kubeconfig(), &token)?;
        let agent = agent.flag("--data-services", "false").dialling(line.address().to_string());
        let enrolled = self.stage.enrol_as(cluster, change(agent)).await?;
        let gateway = self.stage.gateway_as_admin(&enrolled.cluster)?;
        let site = Site { cluster: enrolled.cluster, agent: enrolled.agent, line, gateway };
        site.works().await?;
        Ok(site)
    }

    /// The number of the site's session.
    pub(crate) async fn epoch(&self, site: &Site) -> anyhow::Result<u64> {
        let agent = self.stage.admin.agent_of(&site.cluster).await?;
        agent["epoch"].as_u64().with_context(|| format!("no epoch: {agent}"))
    }

    /// Waits for a session of the site that is newer than `before` and works.
    pub(crate) async fn back(&self, site: &Site, before: u64) -> anyhow::Result<()> {
        wait::until(RECOVERY, || async {
            let agent = self.stage.admin.agent_of(&site.cluster).await?;
            let newer = agent["epoch"].as_u64() > Some(before) && agent["state"] == "connected";
            ensure!(newer, "no session after {before}: {agent}");
            Ok(())
        })
        .await
        .with_context(|| format!("the agent's log:\n{}", site.agent.log()))?;
        site.works().await
    }

    /// Waits until the controller knows that the site is gone.
    pub(crate) async fn gone(&self, site: &Site) -> anyhow::Result<Value> {
        wait::until(RECOVERY, || cluster_in(&self.stage.admin, &site.cluster, "disconnected")).await
    }

    /// Waits until the origin answers no request with this mark any more.
    pub(crate) async fn freed(&self, mark: &str) -> anyhow::Result<()> {
        wait::until(RECOVERY, || async {
            let open = self.origin.open(mark);
            ensure!(open == 0, "{open} requests of {mark:?} are still open at the origin");
            Ok(())
        })
        .await
    }

    /// Waits until the origin has a request with this mark.
    pub(crate) async fn came(&self, mark: &str) -> anyhow::Result<()> {
        wait::until(PROMPT, || async {
            ensure!(self.origin.came(mark) > 0, "nothing of {mark:?} came to the origin");
            Ok(())
        })
        .await
    }
}

impl Site {
    /// A small call is answered promptly.
    pub(crate) async fn works(&self) -> anyhow::Result<()> {
        let answer = tokio::time::timeout(PROMPT, self.gateway.get("/version")).await;
        answer.context("a small call hangs")??.ok().map(drop)
    }

    /// A `GET` with a mark, once its head has come.
    pub(crate) async fn begun(&self, path: &str, mark: &str) -> anyhow::Result<Exchange> {
        let begun = self.gateway.exchange(Method::GET, &marked(path, mark), &[], no_body()).await?;
        ensure!(begun.answer.status() == 200, "{path}: {}", begun.answer.status());
        Ok(begun)
    }

    /// A call that its cluster never answers, to be waited for as the story goes on.
    pub(crate) fn unanswered(&self, mark: &'static str) -> tokio::task::JoinHandle<anyhow::Result<Answer>> {
        let gateway = self.gateway.clone();
        tokio::spawn(async move { gateway.get(&marked("/hang", mark)).await })
    }
}

/// A path by which the origin knows the request.
pub(crate) fn marked(path: &str, mark: &str) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    format!("{path}{sign}mark={mark}")
}

/// The call was told in time that it failed, and why.
pub(crate) async fn told(
    call: tokio::task::JoinHandle<anyhow::Result<Answer>>,
    why: &[&str],
) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(RECOVERY, call).await.context("a call hangs")???;
    let text = answer.body.to_string();
    ensure!(answer.status.is_server_error(), "{answer:?}");
    ensure!(why.iter().any(|why| text.contains(why)), "none of {why:?} in {text}");
    Ok(())
}

/// The rest of an answer ends in time, and not as if it were whole.
pub(crate) async fn cut(mut exchange: Exchange) -> anyhow::Result<()> {
    let ended = async {
        loop {
            match exchange.answer.body_mut().frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return Ok(()),
                None => anyhow::bail!("an answer that was cut ended as a whole one"),
            }
        }
    };
    tokio::time::timeout(RECOVERY, ended).await.context("an answer hangs")?
}
