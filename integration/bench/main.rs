//! What a user feels, measured on this machine beside direct access; prints Markdown.
//!
//! Nothing here asserts a time: a machine that is busy is slow, and not wrong.
//! `make bench` builds the programs as they are released and runs this.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]

mod latency;
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use culvert_integration::agent::Agent;
use culvert_integration::api::Api;
use culvert_integration::controller::DOMAIN;
use culvert_integration::figures;
use culvert_integration::gateway::person_certificate;
use culvert_integration::kube::ControlPlane;
use culvert_integration::stage::{Enrolled, Stage, agent_kubeconfig, clock};
use culvert_pki::verify::Roots;
use culvert_pki::{key::KeyPair, pem, tls};
use latency::{Target, Times};
use serde_json::Value;
use std::sync::Arc;

/// Small: what a controller or a person asks all day. Large: an answer of some MiB,
/// which the API server has ready.
const SMALL: Load = Load { path: "/api/v1/namespaces/default", rounds: 10, each: 500 };
const LARGE: Load = Load { path: "/openapi/v2", rounds: 10, each: 10 };

/// What is asked, and how often.
struct Load {
    path: &'static str,
    rounds: usize,
    each: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let plane = ControlPlane::start().await?;
    let stage = Stage::open().await?;
    let record = stage.admin.cluster_create("bench").await?;
    let token = stage.admin.join_token(&record).await?;
    let mut agent = Agent::new(&stage.controller, &agent_kubeconfig(&plane).await?, &token)?;
    let began = Instant::now();
    agent.start()?;
    connected(&stage.admin, &record).await?;
    let enrolment = began.elapsed();
    let mut enrolled = Enrolled { cluster: record, agent };

    println!("# Culvert, measured\n\n{}\n", figures::machine());
    for load in [SMALL, LARGE] {
        latencies(&plane, &stage, &enrolled, &load).await?;
    }
    println!("## Under load, ratio to the first\n");
    println!("{}", load::compare(&ways(&plane, &stage, &enrolled).await?).await?);
    connections(stage, &mut enrolled, enrolment).await
}

/// Straight and through, each for small and for large answers.
async fn ways(
    plane: &ControlPlane,
    stage: &Stage,
    enrolled: &Enrolled,
) -> anyhow::Result<[(&'static str, Target, Target); 2]> {
    let admin = plane.admin();
    Ok([
        ("mTLS straight", direct(&admin, SMALL.path)?, direct(&admin, LARGE.path)?),
        (
            "gateway, tunnel, agent",
            through(stage, enrolled, SMALL.path).await?,
            through(stage, enrolled, LARGE.path).await?,
        ),
    ])
}

async fn latencies(
    plane: &ControlPlane,
    stage: &Stage,
    enrolled: &Enrolled,
    load: &Load,
) -> anyhow::Result<()> {
    let targets = [direct(&plane.admin(), load.path)?, through(stage, enrolled, load.path).await?];
    let mut times = latency::compare(&targets, load.rounds, load.each).await?;
    let [direct, through] = times.as_mut_slice() else { anyhow::bail!("two targets were measured") };
    let bytes = direct.answer();
    println!("## Latency of `GET {}` ({bytes} bytes), one kept-alive connection, microseconds\n", load.path);
    println!("| way | requests | p50 | p90 | p99 |\n| --- | ---: | ---: | ---: | ---: |");
    for (target, times) in targets.iter().zip([&mut *direct, &mut *through]) {
        let (p50, p90, p99) = (times.quantile(0.5), times.quantile(0.9), times.quantile(0.99));
        println!("| {} | {} | {p50} | {p90} | {p99} |", target.name, times.len());
    }
    let ratio =
        |share: f64, a: &mut Times, b: &mut Times| a.quantile(share) as f64 / b.quantile(share).max(1) as f64;
    println!(
        "| ratio | | {:.2} | {:.2} | {:.2} |\n| added | | {} | {} | {} |\n",
        ratio(0.5, through, direct),
        ratio(0.9, through, direct),
        ratio(0.99, through, direct),
        through.quantile(0.5).saturating_sub(direct.quantile(0.5)),
        through.quantile(0.9).saturating_sub(direct.quantile(0.9)),
        through.quantile(0.99).saturating_sub(direct.quantile(0.99)),
    );
    Ok(())
}

/// Times until the controller itself calls the cluster connected.
async fn connections(mut stage: Stage, enrolled: &mut Enrolled, enrolment: Duration) -> anyhow::Result<()> {
    let mut restarts = Vec::new();
    for _ in 0..5 {
        enrolled.agent.stop().await?;
        let began = Instant::now();
        enrolled.agent.start()?;
        connected(&stage.admin, &enrolled.cluster).await?;
        restarts.push(began.elapsed());
    }
    let mut reconnects = Vec::new();
    for _ in 0..5 {
        // A process of its own each time: the waits of one that lost its controller a
        // moment ago have grown already, and those of one that was connected for a
        // minute have not.
        enrolled.agent.stop().await?;
        enrolled.agent.start()?;
        connected(&stage.admin, &enrolled.cluster).await?;
        stage.controller.stop().await?;
        let began = Instant::now();
        stage.controller.launch()?;
        while connected(&stage.admin, &enrolled.cluster).await.is_err() {}
        reconnects.push(began.elapsed());
    }
    restarts.sort_unstable();
    reconnects.sort_unstable();
    println!("## From start to connected, seconds\n");
    println!("| what | runs | median | worst |\n| --- | ---: | ---: | ---: |");
    println!("| agent with a join token, from its start | 1 | {0:.2} | {0:.2} |", enrolment.as_secs_f64());
    for (what, times) in [
        ("agent with its certificate, from its start", &restarts),
        ("agent after a restart of the controller, from the controller's start", &reconnects),
    ] {
        let middle = times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64();
        let worst = times.last().copied().unwrap_or_default().as_secs_f64();
        println!("| {what} | {} | {middle:.2} | {worst:.2} |", times.len());
    }
    Ok(())
}

/// Looks every few milliseconds; an answer that does not come is an error.
async fn connected(api: &Api, cluster: &str) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let state = match tokio::time::timeout(
            Duration::from_secs(2),
            api.get(&format!("/clusters/{cluster}")),
        )
        .await
        {
            Ok(Ok(answer)) => answer.ok()?["state"].clone(),
            _ => Value::Null,
        };
        if state == "connected" {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "still {state}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The API server itself, by the client certificate of a kubeconfig.
fn direct(kubeconfig: &Path, path: &str) -> anyhow::Result<Target> {
    let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    let decoded = |at: &Value| -> anyhow::Result<String> {
        Ok(String::from_utf8(BASE64_STANDARD.decode(at.as_str().context("not inlined")?)?)?)
    };
    let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
    let address =
        cluster["server"].as_str().and_then(|url| url.strip_prefix("https://")).context("server")?;
    let mut roots = rustls::RootCertStore::empty();
    for root in pem::certificates_from_pem(&decoded(&cluster["certificate-authority-data"])?)? {
        roots.add(root)?;
    }
    let chain = pem::certificates_from_pem(&decoded(&user["client-certificate-data"])?)?;
    let key =
        rustls::pki_types::pem::PemObject::from_pem_slice(decoded(&user["client-key-data"])?.as_bytes())?;
    let tls =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    Ok(Target {
        name: "mTLS straight to the API server",
        address: address.to_owned(),
        server_name: "localhost".to_owned(),
        path: path.to_owned(),
        tls: Arc::new(tls),
    })
}

/// The gateway, by a person's certificate.
async fn through(stage: &Stage, enrolled: &Enrolled, path: &str) -> anyhow::Result<Target> {
    let (certificate, key) = person_certificate(&stage.admin, 3600).await?;
    let chain = pem::certificates_from_pem(&certificate)?;
    let key = KeyPair::from_pem(&key)?;
    let root = stage.admin.info["ca"]["pem"].as_str().context("no CA")?;
    let roots = Roots::new(pem::certificates_from_pem(root)?)?;
    let identity = tls::ClientIdentity { chain: &chain, key: &key };
    let tls = tls::trusted_client(&roots, Some(identity), &[b"http/1.1"], clock())?;
    Ok(Target {
        name: "gateway, tunnel, agent",
        address: stage.controller.address().to_string(),
        server_name: format!("kube.{DOMAIN}"),
        path: format!("/clusters/{}{path}", enrolled.cluster),
        tls: Arc::new(tls),
    })
}
