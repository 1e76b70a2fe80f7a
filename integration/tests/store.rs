//! Story: the power fails, again and again, and nothing that was promised is lost; a
//! key that does not fit is told apart from a database that is broken.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::api::Api;
use culvert_integration::controller::Controller;
use culvert_integration::postgres::Postgres;
use culvert_integration::stage::{Stage, ground};
use futures::future::join_all;
use serde_json::{Value, json};

/// A moment between nothing and `most`, other each time.
fn moment(most: Duration) -> Duration {
    let [share, ..] = *uuid::Uuid::new_v4().as_bytes();
    most.mul_f64(f64::from(share) / 255.0)
}

/// Everything that the API said was done.
#[derive(Default)]
struct Promised {
    clusters: BTreeSet<String>,
    tokens: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

impl Promised {
    /// Changes as fast as they are taken, until the controller is gone.
    async fn burst(&mut self, admin: &Api, round: usize) {
        let workers = join_all((0..4).map(|worker| work(admin.clone(), format!("r{round}w{worker}")))).await;
        for done in workers {
            self.clusters.extend(done.clusters);
            self.tokens.extend(done.tokens);
            self.deleted.extend(done.deleted);
        }
    }

    /// All of it is there.
    async fn is_kept(&self, admin: &Api) -> anyhow::Result<()> {
        let ids = |items: Vec<Value>| {
            items.iter().filter_map(|item| item["id"].as_str()).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let clusters = ids(all(admin, "/clusters").await?);
        let lost: Vec<_> =
            self.clusters.difference(&clusters).filter(|id| !self.deleted.contains(*id)).collect();
        ensure!(lost.is_empty(), "clusters lost: {lost:?}");
        let back: Vec<_> = self.deleted.intersection(&clusters).collect();
        ensure!(back.is_empty(), "clusters back from the dead: {back:?}");
        let tokens = ids(all(admin, "/api-tokens").await?);
        ensure!(self.tokens.is_subset(&tokens), "tokens lost: {:?}", self.tokens.difference(&tokens));
        Ok(())
    }
}

/// One after the other: a cluster, a join token for it, an API token, and every third
/// cluster's end. Ends with the first request that is not answered.
async fn work(admin: Api, name: String) -> Promised {
    let mut done = Promised::default();
    for number in 0.. {
        let name = format!("{name}n{number}");
        let Ok(cluster) = admin.cluster_create(&name).await else { return done };
        done.clusters.insert(cluster.clone());
        let Ok(_) = admin.join_token(&cluster).await else { return done };
        let Ok((token, _)) = admin.api_token(&name, "reader").await else { return done };
        done.tokens.insert(token);
        if number % 3 == 0 {
            // Between asking and hearing it may be either.
            done.clusters.remove(&cluster);
            let Ok(answer) = admin.delete(&format!("/clusters/{cluster}")).await else { return done };
            if answer.status.is_success() {
                done.deleted.insert(cluster);
            }
        }
    }
    done
}

/// Every page of a list.
async fn all(admin: &Api, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut next = Some(format!("{path}?limit=200"));
    while let Some(page) = next {
        let answer = admin.get(&page).await?.ok()?;
        items.extend(answer["items"].as_array().context("a list has items")?.iter().cloned());
        next = answer["next"].as_str().map(|after| format!("{path}?limit=200&after={after}"));
    }
    Ok(items)
}

async fn survives(stage: &mut Stage, rounds: usize) -> anyhow::Result<()> {
    let mut promised = Promised::default();
    for round in 0..rounds {
        let admin = stage.admin.clone();
        let burst = promised.burst(&admin, round);
        let controller = &mut stage.controller;
        let kill = async {
            tokio::time::sleep(moment(Duration::from_millis(600))).await;
            controller.kill().await
        };
        let ((), killed) = tokio::join!(burst, kill);
        killed?;
        stage.controller.resume().await.with_context(|| format!("start {round}"))?;
        promised.is_kept(&stage.admin).await.with_context(|| format!("after kill {round}"))?;
    }
    ensure!(promised.clusters.len() + promised.deleted.len() > rounds, "hardly anything was done");
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_survives_twenty_kills() -> anyhow::Result<()> {
    survives(&mut Stage::open().await?, 20).await
}

#[tokio::test]
async fn on_postgresql_it_survives_as_well() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let settings = format!("[database]\nurl = \"{}\"\n", postgres.url());
    survives(&mut Stage::open_with(&settings).await?, 5).await
}

#[tokio::test]
async fn a_first_start_that_was_killed_is_finished_by_the_next() -> anyhow::Result<()> {
    join_all((0..10).map(|_| first_start_killed(String::new()))).await.into_iter().collect()
}

#[tokio::test]
async fn on_postgresql_a_killed_first_start_is_finished_as_well() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    for _ in 0..4 {
        first_start_killed(format!("[database]\nurl = \"{}\"\n", postgres.database().await?)).await?;
    }
    Ok(())
}

async fn first_start_killed(settings: String) -> anyhow::Result<()> {
    let mut controller = Controller::unstarted("127.0.0.1", &settings)?;
    let lived = moment(Duration::from_millis(500));
    for _ in 0..2 {
        controller.launch()?;
        tokio::time::sleep(lived).await;
        controller.kill().await?;
    }
    controller.resume().await.with_context(|| format!("after a life of {lived:?}"))?;
    let admin = controller.admin().await.with_context(|| format!("after a life of {lived:?}"))?;
    let me = admin.get("/me").await?.ok()?;
    ensure!(me["user"]["role"] == "admin", "{me}");
    let cluster = admin.cluster_create("plant").await?;
    admin.join_token(&cluster).await.map(drop)
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_told_and_harms_nothing() -> anyhow::Result<()> {
    let (mut stage, other) = (Stage::open().await?, Stage::open().await?);
    let mut site = stage.enrol("plant", ground().await?).await?;
    stage.controller.stop().await?;
    let file = stage.controller.path("kek");
    let (right, wrong) = (std::fs::read(&file)?, std::fs::read(other.controller.path("kek"))?);
    ensure!(right != wrong);
    let half = right.get(..right.len() / 2).unwrap_or_default().to_vec();
    let rows = std::fs::read(stage.controller.path("culvert.db"))?;

    for (what, key) in [("another key", Some(wrong)), ("half a key", Some(half)), ("no key", None)] {
        match &key {
            Some(key) => std::fs::write(&file, key)?,
            None => std::fs::remove_file(&file)?,
        }
        stage.controller.launch()?;
        let status = stage.controller.ended().await.with_context(|| what.to_owned())?;
        let log = stage.controller.log();
        ensure!(!status.success(), "it started with {what}");
        ensure!(log.contains(file.to_str().unwrap_or_default()), "with {what} the file is not named:\n{log}");
        ensure!(file.exists() == key.is_some(), "with {what} a key was made:\n{log}");
        ensure!(std::fs::read(stage.controller.path("culvert.db"))?.len() >= rows.len());
    }
    std::fs::write(&file, right)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    stage.controller.resume().await?;
    site.agent.connected(&stage.admin, &site.cluster).await?;
    site.agent.stop().await
}

/// Of tokens and codes only hashes lie there, of keys only sealed ones, and for the owner alone.
#[tokio::test]
async fn secrets_are_not_readable_where_they_lie() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let cluster = stage.admin.cluster_create("plant").await?;
    let join = stage.admin.join_token(&cluster).await?;
    let (_, api) = stage.admin.api_token("ci", "reader").await?;
    let session = stage.admin.bearer().to_owned();
    let made = stage.admin.post("/sign-in-codes", &json!({})).await?.ok()?;
    let code = made["code"].as_str().context("a code")?.to_owned();
    for entry in std::fs::read_dir(stage.controller.folder())? {
        let path = entry?.path();
        if !path.is_file() || path.extension().is_some_and(|extension| extension == "toml") {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        for secret in [&join, &api, &session, &code] {
            let secret =
                secret.split('.').nth(if secret.starts_with("cvj1") { 2 } else { 1 }).unwrap_or(secret);
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "{} holds a secret in the clear", path.display());
        }
        ensure!(!bytes.windows(11).any(|window| window == b"PRIVATE KEY"), "{} holds a key", path.display());
        let log = path.extension().is_some_and(|extension| extension == "log");
        let mode = path.metadata()?.permissions().mode() & 0o077;
        ensure!(log || mode == 0, "{} is open to others: {mode:o}", path.display());
    }
    Ok(())
}
