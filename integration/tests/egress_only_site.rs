//! The place that Culvert is for: a network that lets nothing in, and out one port
//! or one proxy. The agent enrols from inside and kubectl works from outside.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use culvert_integration::agent::{Agent, Wrapper};
use culvert_integration::controller::Controller;
use culvert_integration::kube::{self, ControlPlane};
use culvert_integration::process;
use culvert_integration::proxy::{ConnectProxy, INSPECTOR, Interceptor};
use culvert_integration::site::Site;
use culvert_integration::stage::{Stage, agent_kubeconfig};

/// Runs a command in the site, for as long as the site lives.
fn inside(site: &Site) -> Wrapper {
    let entrance = site.entrance();
    Box::new(move |command: Command| {
        let mut wrapped = Command::new(&entrance[0]);
        wrapped.args(&entrance[1..]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    })
}

/// A controller at the site's side of the world, on `port`.
async fn stage(site: &Site, port: u16) -> anyhow::Result<Stage> {
    let mut controller = Controller::unstarted(&site.gateway().to_string(), "")?.at_port(port);
    controller.resume().await?;
    let admin = controller.admin().await?;
    Ok(Stage { controller, admin })
}

/// kubectl outside the site, whose own API server it cannot dial.
async fn outside(kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut kubectl = Command::new(kube::programs().await?.join("kubectl"));
    kubectl.args(arguments).env("KUBECONFIG", kubeconfig).env("HOME", kubeconfig.with_extension("home"));
    for from_the_runner in ["HTTPS_PROXY", "https_proxy", "KUBECACHEDIR"] {
        kubectl.env_remove(from_the_runner);
    }
    process::run(kubectl).await
}

/// What a person does from outside gives what the site's owner sees inside.
async fn kubectl_works(stage: &Stage, plane: &ControlPlane, cluster: &str) -> anyhow::Result<()> {
    let kubeconfig = stage.person_kubeconfig(cluster, &stage.admin).await?;
    let list = ["get", "namespaces", "-o", "name"];
    ensure!(outside(&plane.admin(), &list).await.is_err(), "the API server is reached from outside");
    outside(&kubeconfig, &["create", "namespace", "from-outside"]).await?;
    let (direct, through) = (plane.get(&list).await?, outside(&kubeconfig, &list).await?);
    ensure!(direct == through && through.contains("from-outside"), "{direct} {through}");
    Ok(())
}

/// Nothing that the site's owner did not allow leaves or enters it.
async fn site_is_shut(site: &Site, stage: &Stage) -> anyhow::Result<()> {
    let other = process::free_address(&site.gateway().to_string())?;
    let _listener = tokio::net::TcpListener::bind(other).await?;
    let mut dial = site.command("timeout");
    dial.args(["2", "bash", "-c", &format!("exec 3<>/dev/tcp/{}/{}", other.ip(), other.port())]);
    ensure!(process::run(dial).await.is_err(), "another port of the outside was reached");
    let mut enter = Command::new("timeout");
    enter.args(["2", "bash", "-c", &format!("exec 3<>/dev/tcp/{}/6443", site.address())]);
    ensure!(process::run(enter).await.is_err(), "the site was entered");
    let (out, r#in) = site.refused().await?;
    ensure!(out > 0 && r#in > 0, "the firewall refused {out} packets out and {in} in", in = r#in);
    ensure!(stage.controller.address().ip() == site.gateway(), "the controller is outside");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn port_443_alone_is_enough() -> anyhow::Result<()> {
    let site = Site::start(&[443]).await?;
    let plane = ControlPlane::start_in(&site).await?;
    let stage = stage(&site, 443).await?;
    let record = stage.admin.cluster_create("behind-a-wall").await?;
    let token = stage.admin.join_token(&record).await?;
    let agent =
        Agent::new(&stage.controller, &agent_kubeconfig(&plane).await?, &token)?.wrapped(inside(&site));
    let enrolled = stage.enrol_as(record, agent).await?;
    kubectl_works(&stage, &plane, &enrolled.cluster).await?;
    site_is_shut(&site, &stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_a_password_is_enough() -> anyhow::Result<()> {
    let site = Site::start(&[]).await?;
    let plane = ControlPlane::start_in(&site).await?;
    let mut controller = Controller::unstarted(&site.gateway().to_string(), "")?;
    controller.resume().await?;
    let proxy = ConnectProxy::start(site.gateway(), &[controller.address().port()]).await?;
    site.allow(proxy.address().port()).await?;
    let stage = Stage { admin: controller.admin().await?, controller };
    let (record, kubeconfig) =
        (stage.admin.cluster_create("behind-a-proxy").await?, agent_kubeconfig(&plane).await?);

    // The wrong password first: the cause is named, and nothing is lost.
    let token = stage.admin.join_token(&record).await?;
    let mut agent = Agent::new(&stage.controller, &kubeconfig, &token)?.wrapped(inside(&site));
    let credentials = agent.path("proxy-credentials");
    std::fs::write(&credentials, format!("{}:wrong", ConnectProxy::USER))?;
    agent = agent
        .flag("--proxy", format!("http://{}", proxy.address()))
        .flag("--proxy-credentials-file", credentials.to_string_lossy());
    agent.start()?;
    agent.names_cause("proxy_auth").await?;
    agent.stop().await?;

    std::fs::write(&credentials, format!("{}:{}", ConnectProxy::USER, proxy.password()))?;
    let enrolled = stage.enrol_as(record, agent).await?;
    ensure!(!enrolled.agent.log().contains(proxy.password()), "the password is in the log");
    kubectl_works(&stage, &plane, &enrolled.cluster).await?;
    site_is_shut(&site, &stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inspecting_box_is_named_and_gets_nothing() -> anyhow::Result<()> {
    let site = Site::start(&[]).await?;
    let plane = ControlPlane::start_in(&site).await?;
    let mut controller = Controller::unstarted(&site.gateway().to_string(), "")?;
    controller.resume().await?;
    let inspector = Interceptor::start(site.gateway(), controller.address()).await?;
    site.allow(inspector.address().port()).await?;
    let stage = Stage { admin: controller.admin().await?, controller };
    let record = stage.admin.cluster_create("inspected").await?;
    let token = stage.admin.join_token(&record).await?;
    let mut agent = Agent::new(&stage.controller, &agent_kubeconfig(&plane).await?, &token)?
        .wrapped(inside(&site))
        .flag("--carrier", "direct")
        .dialling(inspector.address().to_string());
    agent.start()?;
    agent.says(INSPECTOR, Duration::from_secs(20)).await?;
    let cluster = stage.admin.get(&format!("/clusters/{record}")).await?.ok()?;
    ensure!(cluster["state"] == "pending", "{cluster}");
    // The token never left the site: it still enrols, once the way is clear.
    site.allow(stage.controller.address().port()).await?;
    agent.stop().await?;
    let agent = agent.dialling(stage.controller.address().to_string());
    stage.enrol_as(record, agent).await.map(drop)
}
