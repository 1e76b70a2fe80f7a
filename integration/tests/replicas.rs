//! Story: two controllers on one PostgreSQL, and agents that are connected to one of
//! them; whoever comes in at the other notices nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use culvert_integration::agent::{Agent, cluster_in};
use culvert_integration::api::Api;
use culvert_integration::controller::Controller;
use culvert_integration::gateway::Gateway;
use culvert_integration::postgres::Postgres;
use culvert_integration::relay::Relay;
use culvert_integration::stage::{ground, succeeded};
use culvert_integration::wait;
use http::StatusCode;
use serde_json::{Value, json};

/// What a watch of the shared cluster always has something to say about.
const WATCH: &str = "/api/v1/namespaces/kube-system/configmaps?watch=1";

/// Within this a lock or a revocation at one replica ends a stream at another.
const CUT: Duration = Duration::from_secs(10);

/// Within this an agent is back after its replica was killed.
const BACK: Duration = Duration::from_secs(30);

/// Two replicas, `a` and `b`, and who is signed in at both.
struct Pair {
    postgres: Postgres,
    a: Controller,
    b: Controller,
    at_a: Api,
    at_b: Api,
}

/// A cluster whose agent dials through a balancer.
struct Site {
    cluster: String,
    agent: Agent,
    _balancer: Relay,
}

impl Pair {
    async fn open() -> anyhow::Result<Self> {
        let postgres = Postgres::start().await?;
        let url = postgres.database().await?;
        let mut a = Controller::unstarted("127.0.0.1", "")?;
        let mut b = Controller::unstarted("127.0.0.1", "")?;
        let kek = a.path("kek");
        for replica in [&mut a, &mut b] {
            let (peer, kek) = (replica.address(), kek.display());
            replica.reconfigure(&format!(
                "[database]\nurl = \"{url}\"\n[peer]\naddress = \"{peer}\"\n[keys]\nkek_file = \"{kek}\"\n"
            ));
        }
        a.resume().await?;
        let at_a = a.admin().await?;
        b.resume().await?;
        let at_b = b.api().await?.with_bearer(at_a.bearer());
        Ok(Self { postgres, a, b, at_a, at_b })
    }

    /// A cluster whose agent goes to `a` while that can be reached, and to `b` then.
    async fn enrol(&self, name: &str) -> anyhow::Result<Site> {
        let cluster = self.at_b.cluster_create(name).await?;
        // Made at one replica, redeemed at the other.
        let token = self.at_b.join_token(&cluster).await?;
        let balancer = Relay::before(vec![self.a.address(), self.b.address()]).await?;
        let kubeconfig = &ground().await?.kubeconfig;
        let agent = Agent::new(&self.a, kubeconfig, &token)?.dialling(balancer.address().to_string());
        let mut site = Site { cluster, agent, _balancer: balancer };
        site.agent.start()?;
        site.agent.connected(&self.at_a, &site.cluster).await.with_context(|| self.logs())?;
        Ok(site)
    }

    fn gateway_a(&self, site: &Site) -> anyhow::Result<Gateway> {
        Gateway::bearer(self.a.address(), &self.at_a, &site.cluster, self.at_a.bearer())
    }

    fn gateway_b(&self, site: &Site) -> anyhow::Result<Gateway> {
        Gateway::bearer(self.b.address(), &self.at_b, &site.cluster, self.at_a.bearer())
    }

    fn logs(&self) -> String {
        format!("a's log:\n{}\nb's log:\n{}", self.a.log(), self.b.log())
    }
}

async fn epoch(api: &Api, site: &Site) -> anyhow::Result<u64> {
    let agent = api.agent_of(&site.cluster).await?;
    agent["epoch"].as_u64().with_context(|| format!("no epoch: {agent}"))
}

/// Makes something happen that [`WATCH`] tells of.
async fn happen(name: &str) -> anyhow::Result<()> {
    let plane = &ground().await?.plane;
    let made = plane.kubectl(&["create", "configmap", "-n", "kube-system", name]).await?;
    succeeded(&made).map(drop)
}

/// Reads a watch until it tells of an object.
async fn until_told(watch: &mut culvert_integration::gateway::Watch, name: &str) -> anyhow::Result<()> {
    let telling = async {
        loop {
            let event = watch.event().await?;
            if event["object"]["metadata"]["name"] == name {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), telling)
        .await
        .with_context(|| format!("no word of {name}"))?
}

#[tokio::test]
async fn a_caller_at_one_replica_reaches_the_agent_at_the_other() -> anyhow::Result<()> {
    let pair = Pair::open().await?;
    let site = pair.enrol("plant").await?;
    wait::until(Duration::from_secs(15), || cluster_in(&pair.at_b, &site.cluster, "connected"))
        .await
        .with_context(|| pair.logs())?;
    let b = pair.gateway_b(&site)?;
    ensure!(b.get("/version").await.with_context(|| pair.logs())?.ok()?["major"].is_string());
    let (here, there) = (pair.gateway_a(&site)?.who().await?, b.who().await?);
    for part in ["username", "groups"] {
        ensure!(here[part] == there[part], "another name at the other replica: {there}");
    }
    let mut watch = b.watch(WATCH).await?;
    happen("told-across-replicas").await?;
    until_told(&mut watch, "told-across-replicas").await?;
    ensure!(pair.b.log().contains("connected to another replica"), "not across:\n{}", pair.b.log());
    // A refusal reads as it does where the agent is.
    let missing = "/api/v1/namespaces/kube-system/configmaps/none";
    let (here, there) = (pair.gateway_a(&site)?.get(missing).await?, b.get(missing).await?);
    ensure!(here.status == StatusCode::NOT_FOUND && here.body == there.body, "{here:?} is not {there:?}");

    // A token that is taken back at one replica ends its streams at the other.
    let (id, token) = pair.at_a.api_token("ci", "admin").await?;
    let ci = Gateway::bearer(pair.b.address(), &pair.at_b, &site.cluster, &token)?;
    let stream = ci.watch(WATCH).await?;
    pair.at_a.delete(&format!("/api-tokens/{id}")).await?.ok()?;
    stream.cut(CUT).await.context("a token taken back at a, a stream at b")?;
    ensure!(ci.get("/version").await?.status == StatusCode::UNAUTHORIZED);

    // And a lock at the replica that does not hold the agent.
    let (here, there) = (pair.gateway_a(&site)?.watch(WATCH).await?, b.watch(WATCH).await?);
    pair.at_b.put(&format!("/clusters/{}/lock", site.cluster), &json!({ "message": "stop" })).await?.ok()?;
    here.cut(CUT).await.context("a lock at b, a stream at a")?;
    there.cut(CUT).await.context("a lock at b, a stream at b")?;
    ensure!(pair.gateway_a(&site)?.get("/version").await?.status == StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test]
async fn a_killed_replica_costs_seconds() -> anyhow::Result<()> {
    let mut pair = Pair::open().await?;
    let site = pair.enrol("plant").await?;
    let b = pair.gateway_b(&site)?;
    b.get("/version").await?.ok()?;
    let watch = b.watch(WATCH).await?;
    let before = epoch(&pair.at_b, &site).await?;
    let killed = Instant::now();
    pair.a.kill().await?;
    watch.cut(BACK).await.context("a stream through the replica that was killed")?;
    // Calls meanwhile wait, or are told to come again; none hangs.
    let answered = wait::until(BACK, || async {
        let answer = b.get("/version").await?;
        let again = answer.body["details"]["retryAfterSeconds"].is_u64();
        ensure!(answer.status == 200 || (answer.status == 503 && again), "FATAL {answer:?}");
        answer.ok()
    });
    answered.await.with_context(|| format!("{}\nagent:\n{}", pair.logs(), site.agent.log()))?;
    println!("back after {:?}", killed.elapsed());
    cluster_in(&pair.at_b, &site.cluster, "connected").await?;
    let after = epoch(&pair.at_b, &site).await?;
    ensure!(after > before, "epoch {after} is not above {before}");

    // It comes back empty, and finds the agent where it is now.
    pair.a.resume().await?;
    pair.gateway_a(&site)?.get("/version").await.with_context(|| pair.logs())?.ok()?;
    Ok(())
}

#[tokio::test]
async fn of_two_holders_of_an_identity_the_newest_wins_at_whichever_replica() -> anyhow::Result<()> {
    let pair = Pair::open().await?;
    let site = pair.enrol("plant").await?;
    let before = epoch(&pair.at_a, &site).await?;
    let mut other = site.agent.copy()?;
    other.dial(pair.b.address().to_string());
    other.start()?;
    // The first, at the other replica, is told, and then waits in reserve.
    let told = site.agent.says("another agent took over", Duration::from_secs(30)).await;
    told.with_context(|| pair.logs())?;
    let after = epoch(&pair.at_b, &site).await?;
    ensure!(after > before, "epoch {after} is not above {before}");
    pair.gateway_a(&site)?.get("/version").await.with_context(|| pair.logs())?.ok()?;
    site.agent.names_cause("standby").await.with_context(|| pair.logs())?;
    ensure!(epoch(&pair.at_a, &site).await? == after, "the one in reserve took over");
    Ok(())
}

#[tokio::test]
async fn live_calls_do_not_notice_that_the_database_restarts() -> anyhow::Result<()> {
    let mut pair = Pair::open().await?;
    let site = pair.enrol("plant").await?;
    let b = pair.gateway_b(&site)?;
    let mut watch = b.watch(WATCH).await?;
    let before = epoch(&pair.at_b, &site).await?;
    pair.postgres.stop().await?;
    happen("told-without-a-database").await?;
    until_told(&mut watch, "told-without-a-database").await?;
    let refused = pair.at_b.post("/clusters", &json!({ "name": "late" })).await?;
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    pair.postgres.resume().await?;
    let asked: Value = wait::until(Duration::from_secs(30), || async { b.get("/version").await?.ok() })
        .await
        .with_context(|| pair.logs())?;
    ensure!(asked["major"].is_string(), "{asked}");
    happen("told-with-a-database-again").await?;
    until_told(&mut watch, "told-with-a-database-again").await?;
    ensure!(epoch(&pair.at_b, &site).await? == before, "the agent connected anew");
    pair.at_b.cluster_create("late").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn much_news_at_once_makes_nobody_seem_gone() -> anyhow::Result<()> {
    let pair = Pair::open().await?;
    let site = pair.enrol("busy").await?;
    // Each is news for the other, and many come between two beats of its.
    let began = Instant::now();
    for number in 0..2000 {
        if began.elapsed() > Duration::from_secs(3) {
            break;
        }
        pair.at_b.cluster_create(&format!("burst-{number}")).await?;
    }
    ensure!(!pair.b.log().contains("another replica is gone"), "{}", pair.logs());
    pair.gateway_b(&site)?.get("/version").await?.ok().map(drop)
}
