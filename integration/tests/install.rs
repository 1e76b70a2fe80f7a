//! helm install of both charts into a real cluster, with images built from this
//! tree: the agent joins a controller outside, and one inside.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::cluster_in;
use culvert_integration::api::Api;
use culvert_integration::controller::{Controller, DOMAIN};
use culvert_integration::gateway::Gateway;
use culvert_integration::kube::{Cluster, Image};
use culvert_integration::{process, wait};
use http::StatusCode;
use serde_json::json;

fn chart(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm").join(name).display().to_string()
}

/// An image of one of our programs, in the cluster; gives the chart's flags that name it by digest.
async fn image(cluster: &Cluster, program: &str) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let image = Image::of_program(program, folder.path()).await?;
    cluster.load(&image).await?;
    Ok(vec![
        "--set".to_owned(),
        format!("image.repository={},image.digest={}", image.repository, image.digest),
    ])
}

/// helm to its end, as the cluster's owner; what is wrong with the pods comes with its failure.
async fn helm(cluster: &Cluster, namespace: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut all = arguments.to_vec();
    all.extend(["--namespace", namespace]);
    let done = process::run(cluster.client("helm", &cluster.admin(), &all).await?).await;
    match done {
        Ok(said) => Ok(said),
        Err(error) => {
            let pods = cluster.get(&["-n", namespace, "describe", "pods"]).await.unwrap_or_default();
            let logs = cluster
                .get(&[
                    "-n",
                    namespace,
                    "logs",
                    "--prefix",
                    "--all-containers",
                    "-l",
                    "app.kubernetes.io/part-of=culvert",
                ])
                .await
                .unwrap_or_default();
            Err(error.context(format!("{pods}\n{logs}")))
        }
    }
}

/// Installs the agent's chart with a token of `api`, and waits until the controller calls it connected.
async fn install_agent(
    cluster: &Cluster,
    namespace: &str,
    api: &Api,
    record: &str,
    address: &str,
) -> anyhow::Result<()> {
    let token = tempfile::NamedTempFile::new()?;
    std::fs::write(token.path(), api.join_token(record).await?)?;
    let token = format!("token={}", token.path().display());
    let address = format!("controller.address={address}");
    let chart = chart("agent");
    // The story's other agents keep their own bindings.
    let flags = image(cluster, "culvert-agent").await?;
    let mut arguments = vec!["install", "agent", &chart, "--wait", "--timeout", "90s"];
    arguments.extend(["--set-file", &token, "--set", &address]);
    arguments.extend(flags.iter().map(String::as_str));
    helm(cluster, namespace, &arguments).await?;
    wait::until(Duration::from_secs(30), || cluster_in(api, record, "connected")).await.map(drop)
}

/// The one-time token does not lie about once it is used.
async fn token_is_gone(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    wait::until(Duration::from_secs(20), || async {
        let secrets = cluster.get(&["-n", namespace, "get", "secrets", "-o", "name"]).await?;
        ensure!(!secrets.contains("token"), "{secrets}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_chart_joins_a_controller_outside() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let controller = Controller::start_with(&cluster.address().to_string(), "").await?;
    cluster.open(controller.address().port()).await?;
    let admin = controller.admin().await?;
    let record = admin.cluster_create("by-chart").await?;
    let namespace = cluster.namespace("chart").await?;
    let n = namespace.name();
    install_agent(cluster, n, &admin, &record, &controller.address().to_string()).await?;

    token_is_gone(cluster, n).await?;
    let before = admin.agent_of(&record).await?;
    let state = cluster.get(&["-n", n, "get", "secrets", "-o", "name"]).await?;
    let state = state.lines().find(|name| name.ends_with("-state")).context("no state is kept")?.to_owned();
    // No port, and the person's own name at the other end.
    let pod = cluster.get(&["-n", n, "get", "pods", "-o", "json"]).await?;
    ensure!(!pod.contains("containerPort"), "{pod}");
    let gateway = Gateway::bearer(controller.address(), &admin, &record, admin.bearer())?;
    let nodes = gateway.get("/api/v1/nodes").await?.ok()?;
    ensure!(nodes["items"].as_array().is_some_and(|items| items.len() == 1), "{nodes}");

    // A new pod takes over the identity from the Secret.
    cluster.get(&["-n", n, "rollout", "restart", "deployment"]).await?;
    cluster.get(&["-n", n, "rollout", "status", "deployment", "--timeout=60s"]).await?;
    wait::until(Duration::from_secs(20), || async {
        let now = admin.agent_of(&record).await?;
        ensure!(now["connected_since"] != before["connected_since"], "still the old pod: {now}");
        gateway.get("/api/v1/namespaces/default").await?.ok()?;
        ensure!(now["id"] == before["id"], "{now} is not {before}");
        Ok(())
    })
    .await?;

    // An upgrade brings the used token back, and the agent removes it again. The owner's
    // policy wins over what the controller lets through.
    let (chart, read_only) = (chart("agent"), "policy.readOnly=true");
    let arguments = ["upgrade", "agent", &chart, "--reuse-values", "--wait", "--timeout", "90s"];
    helm(cluster, n, &[&arguments[..], &["--set", read_only]].concat()).await?;
    wait::until(Duration::from_secs(30), || async {
        let map = json!({ "metadata": { "name": "from-outside" } });
        let refused = gateway.post(&format!("/api/v1/namespaces/{n}/configmaps?dryRun=All"), &map).await?;
        ensure!(refused.status == StatusCode::FORBIDDEN, "{refused:?}");
        gateway.get("/api/v1/namespaces/default").await?.ok().map(drop)
    })
    .await?;
    token_is_gone(cluster, n).await?;

    // The cluster's owner cuts the link, and nothing that could speak for it stays.
    helm(cluster, n, &["uninstall", "agent", "--wait"]).await?;
    wait::until(Duration::from_secs(60), || cluster_in(&admin, &record, "disconnected")).await?;
    let left = cluster.get(&["-n", n, "get", "secrets", "-o", "name"]).await?;
    ensure!(!left.contains(&state), "{left}");
    cluster.close(controller.address().port()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_chart_serves_an_agent_inside() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    cluster.add("dns").await?;
    cluster.add("storage").await?;
    let namespace = cluster.namespace("control").await?;
    let n = namespace.name();
    let flags = image(cluster, "culvert-controller").await?;
    let (chart, service) = (chart("controller"), format!("controller-culvert-controller.{n}.svc"));
    let public = format!("publicAddress={service}:443");
    let mut arguments =
        vec!["install", "controller", &chart, "--wait", "--timeout", "120s", "--set", &public];
    arguments.extend(["--set", "persistence.size=1Gi,persistence.keep=false"]);
    arguments.extend(flags.iter().map(String::as_str));
    helm(cluster, n, &arguments).await?;

    // The code of the first start is in the log, as the notes of the chart say; a new
    // one is made in the pod.
    let code = cluster
        .get(&[
            "-n",
            n,
            "exec",
            "deployment/controller-culvert-controller",
            "--",
            "/culvert-controller",
            "sign-in-code",
            "--config",
            "/etc/culvert/controller.toml",
        ])
        .await?;
    let ip = cluster.get(&["-n", n, "get", "service", "-o", "jsonpath={.items[0].spec.clusterIP}"]).await?;
    let address = format!("{ip}:443").parse().context("the service's address")?;
    let admin = Api::reach(address).await?.sign_in(code.trim()).await?;
    ensure!(admin.info["domain"] == DOMAIN, "{}", admin.info);
    let record = admin.cluster_create("home").await?;
    install_agent(cluster, n, &admin, &record, &format!("{service}:443")).await?;
    let gateway = Gateway::bearer(address, &admin, &record, admin.bearer())?;
    gateway.get("/api/v1/nodes").await?.ok()?;

    // The volume outlives the pod: the same controller comes back.
    process::run(
        cluster
            .client(
                "kubectl",
                &cluster.admin(),
                &["-n", n, "delete", "pod", "-l", "app.kubernetes.io/name=culvert-controller"],
            )
            .await?,
    )
    .await?;
    cluster
        .get(&["-n", n, "rollout", "status", "deployment/controller-culvert-controller", "--timeout=60s"])
        .await?;
    wait::until(Duration::from_secs(40), || cluster_in(&admin, &record, "connected")).await?;
    helm(cluster, n, &["uninstall", "agent", "--wait"]).await?;
    helm(cluster, n, &["uninstall", "controller", "--wait"]).await?;
    Ok(())
}

#[tokio::test]
async fn both_charts_pass_helms_own_lint() -> anyhow::Result<()> {
    let programs = culvert_integration::kube::programs().await?;
    for (name, value) in
        [("agent", "controller.address=a.example:443"), ("controller", "publicAddress=a.example:443")]
    {
        let mut lint = Command::new(programs.join("helm"));
        lint.args(["lint", "--strict", &chart(name), "--set", value]);
        process::run(lint).await?;
    }
    Ok(())
}
