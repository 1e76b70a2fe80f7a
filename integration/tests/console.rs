//! Story: somebody who has never seen Culvert signs in to the console with a browser, connects
//! a cluster, asks for a database in it, and looks at every screen.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::Agent;
use culvert_integration::controller::Controller;
use culvert_integration::process::Child;
use culvert_integration::stage::ground;
use culvert_integration::wait;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

/// Time for the whole visit on a busy machine.
const VISIT: Duration = Duration::from_secs(240);

fn console() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../console")
}

#[tokio::test]
async fn a_browser_connects_a_cluster() -> anyhow::Result<()> {
    let (controller, ground) = (Controller::start().await?, ground().await?);
    ground.offer_postgresql().await?;
    let folder = tempfile::tempdir()?;
    std::fs::copy(controller.path("first-code"), folder.path().join("code"))?;
    let mut visit = visit(&controller, folder.path())?;
    let token = token_from(&mut visit, folder.path()).await?;
    let mut agent = Agent::new(&controller, &ground.kubeconfig, token.trim())?;
    agent.start()?;
    let status = visit.ended(VISIT).await;
    let said = visit.output();
    let status = status.with_context(|| format!("the visit said:\n{said}"))?;
    ensure!(status.success(), "{status}, the visit said:\n{said}\nthe agent's log:\n{}", agent.log());
    Ok(())
}

fn visit(controller: &Controller, folder: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new("node");
    command.arg(console().join("browser/journey.mjs")).arg(controller.address().to_string()).arg(folder);
    Child::spawn("visit", command, &folder.join("visit.log"))
}

/// The join token that the page shows, once the visit has read it.
async fn token_from(visit: &mut Child, folder: &Path) -> anyhow::Result<String> {
    let file = folder.join("token");
    let running = std::cell::RefCell::new(visit);
    wait::until(VISIT, || async {
        let mut visit = running.borrow_mut();
        let token = std::fs::read_to_string(&file);
        // A visit that has ended brings no token any more: its words say why.
        let over = !visit.is_running()?;
        token.map_err(|error| anyhow::anyhow!("{error}; over: {over}; {}", visit.output()))
    })
    .await
}

#[tokio::test]
async fn pages_and_api_share_a_port_and_are_not_mixed_up() -> anyhow::Result<()> {
    let controller = Controller::start().await?;
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build()?;
    for (path, status, kind) in [
        ("/", 200, "text/html"),
        ("/clusters/factory-7/connect", 200, "text/html"),
        ("/theme.js", 200, "text/javascript"),
        ("/assets/gone.js", 404, "text/plain"),
        ("/api/v1/nothing", 404, "application/problem+json"),
        ("/api", 404, "application/problem+json"),
    ] {
        let address = controller.address();
        let answer = http.get(format!("https://{address}{path}")).send().await?;
        let headers = answer.headers().clone();
        let found = headers[CONTENT_TYPE].to_str()?.to_owned();
        ensure!(answer.status() == status && found.starts_with(kind), "{path}: {} {found}", answer.status());
        let page = found.starts_with("text/html");
        let policy = headers.get(CONTENT_SECURITY_POLICY).map(|value| value.to_str()).transpose()?;
        ensure!(!page || policy.is_some_and(|policy| policy.contains("'nonce-")), "{path}: {policy:?}");
    }
    Ok(())
}
