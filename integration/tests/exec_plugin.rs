//! A person's way, with nothing but the command line and kubectl: sign in, connect a
//! cluster and watch it come, get a kubeconfig, use it, sign out.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::Agent;
use culvert_integration::controller::DOMAIN;
use culvert_integration::person::{Person, ended};
use culvert_integration::process::Child;
use culvert_integration::stage::{Ground, Stage, ground, succeeded};
use culvert_integration::wait;
use culvert_pki::name::Identity;
use culvert_pki::pem;
use culvert_pki::verify::verify_peer;
use serde_json::Value;
use time::OffsetDateTime;

/// A controller with a connected cluster `plant`.
async fn connected(ground: &Ground) -> anyhow::Result<(Stage, Agent)> {
    let stage = Stage::open().await?;
    let enrolled = stage.enrol("plant", ground).await?;
    Ok((stage, enrolled.agent))
}

/// The values of a file that helm would be given, as `culvert cluster connect` wrote it.
fn values(file: &Path) -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&std::fs::read_to_string(file)?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_connected_and_used_from_the_command_line_alone() -> anyhow::Result<()> {
    let ground = ground().await?;
    let stage = Stage::open().await?;
    let person = Person::new().await?;
    let wrong = person.login(&stage, "0000-0000-0000").await?;
    ensure!(matches!(wrong.status.code(), Some(3 | 4)), "a wrong code: {wrong:?}");
    person.sign_in(&stage).await?;

    // It prints the helm line, and follows until the agent is there.
    let follow = person.command(&["cluster", "connect", "plant", "-o", "json", "--timeout", "90s"])?;
    let mut follow = Child::spawn("culvert", follow, &person.path("connect.log"))?;
    let line = follow.line("\"values_file\"", Duration::from_secs(20)).await?;
    let file = line.split('"').nth(3).context("no values file")?.to_owned();
    let given = values(Path::new(&file))?;
    let token = given["token"].as_str().context("no token in the values")?;
    ensure!(!follow.output().contains(token), "the token is shown");
    let mut agent = Agent::new(&stage.controller, &ground.kubeconfig, token)?;
    let address = given["controller"]["address"].as_str().context("no address in the values")?;
    agent.dial(address);
    agent.start()?;
    let status = follow.ended(Duration::from_secs(90)).await?;
    ensure!(status.success(), "{status}:\n{}\nthe agent's log:\n{}", follow.output(), agent.log());
    ensure!(follow.output().contains("plant is connected"), "{}", follow.output());
    ensure!(!Path::new(&file).exists(), "the used token still lies about");

    let diagnosis: Value =
        serde_json::from_str(&person.culvert(&["cluster", "diagnose", "plant", "-o", "json"]).await?)?;
    let lights = diagnosis["lights"].as_array().context("no lights")?;
    ensure!(lights.len() == 6 && lights.iter().all(|light| light["state"] == "on"), "{diagnosis:#}");

    person.take_kubeconfig("plant").await?;
    let through = succeeded(&ended(person.kubectl(&["get", "namespaces", "-o", "name"])).await?)?;
    let direct = ground.plane.get(&["get", "namespaces", "-o", "name"]).await?;
    ensure!(through.lines().any(|line| line == "namespace/default"), "{through}");
    ensure!(direct.lines().any(|line| line == "namespace/default"), "{direct}");
    let me = succeeded(
        &ended(person.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])).await?,
    )?;
    ensure!(me == "culvert:admin", "{me}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_enrol_is_diagnosed_with_cause_and_fix() -> anyhow::Result<()> {
    let ground = ground().await?;
    let stage = Stage::open().await?;
    let person = Person::new().await?;
    person.sign_in(&stage).await?;
    person.culvert(&["cluster", "create", "plant"]).await?;
    let token = person.culvert(&["cluster", "token", "create", "plant"]).await?;
    // Somebody else was faster with it.
    let mut first = Agent::new(&stage.controller, &ground.kubeconfig, token.trim())?;
    first.start()?;
    first.connected(&stage.admin, "plant").await?;
    first.stop().await?;
    let mut second = Agent::new(&stage.controller, &ground.kubeconfig, token.trim())?;
    second.start()?;
    second.names_cause("token_used").await?;
    let told = wait::until(Duration::from_secs(20), || async {
        let told = ended(person.command(&["cluster", "diagnose", "plant"])?).await?;
        let page = String::from_utf8_lossy(&told.stdout).into_owned();
        ensure!(page.contains("token_used"), "{page}");
        Ok((told.status.code(), page))
    })
    .await?;
    ensure!(told.0 == Some(9) && told.1.contains("cause ") && told.1.contains("fix "), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_lives_an_hour_and_many_kubectl_share_one() -> anyhow::Result<()> {
    let (stage, _agent) = connected(ground().await?).await?;
    let person = Person::new().await?;
    person.sign_in(&stage).await?;
    person.take_kubeconfig("plant").await?;
    let many = (0..8).map(|_| ended(person.kubectl(&["get", "--raw", "/version"])));
    for output in futures::future::join_all(many).await {
        succeeded(&output?)?;
    }
    let audit = std::fs::read_to_string(stage.controller.path("audit/gateway.jsonl"))?;
    let lines = audit.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let passed: Vec<&Value> = lines.iter().filter(|line| line["stage"] == "complete").collect();
    let used: BTreeSet<&str> = passed.iter().filter_map(|line| line["credential_id"].as_str()).collect();
    ensure!(passed.len() == 8 && used.len() == 1, "{} requests by {used:?}", passed.len());

    let context = person.culvert(&["context", "list", "-o", "name"]).await?;
    let credential = person.culvert(&["kube", "credential", "--context", context.trim()]).await?;
    let credential: Value = serde_json::from_str(&credential)?;
    let chain = credential["status"]["clientCertificateData"].as_str().context("no certificate")?;
    let chain = pem::certificates_from_pem(chain)?;
    let now = OffsetDateTime::now_utc();
    let peer = verify_peer(&chain, &stage.admin.roots()?, &DOMAIN.parse()?, now)?;
    ensure!(matches!(peer.identity, Identity::User { .. }), "{:?}", peer.identity);
    let left = peer.not_after - now;
    ensure!(left <= time::Duration::HOUR && left > time::Duration::minutes(50), "it lives for {left}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_signing_out_kubectl_says_so_in_one_line() -> anyhow::Result<()> {
    let (stage, _agent) = connected(ground().await?).await?;
    let person = Person::new().await?;
    person.sign_in(&stage).await?;
    person.take_kubeconfig("plant").await?;
    succeeded(&ended(person.kubectl(&["get", "namespaces"])).await?)?;
    person.culvert(&["logout"]).await?;
    let refused = ended(person.kubectl(&["get", "namespaces"])).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("your sign-in has ended")).collect();
    ensure!(refused.status.code() == Some(1) && ours.len() == 1, "{refused:?}");
    ensure!(ours.iter().all(|line| line.contains("culvert login --context ")), "{said}");
    ensure!(said.lines().count() <= 2, "more than that and kubectl's own line:\n{said}");
    Ok(())
}
