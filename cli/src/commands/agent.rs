//! Agents: list, get.

use clap::{Args, Subcommand};

use crate::client::model::{Agent as Model, Page};
use crate::client::pages::{Part, gather};
use crate::commands::cluster::milliseconds;
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Table};

/// The processes that connect clusters
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  culvert agent list\n  culvert agent get agt_…")]
pub(crate) enum Agent {
    List(List),
    Get(Get),
}

/// List the agents
#[derive(Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  culvert agent list\n  culvert agent list -o wide")]
pub(crate) struct List {}

/// Show an agent
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert agent get agt_…\n  culvert agent get agt_… -o yaml")]
pub(crate) struct Get {
    /// Id of the agent
    agent: String,
}

pub(crate) async fn run(run: &Invocation, command: Agent) -> Result<(), Failure> {
    match command {
        Agent::List(_) => list(run).await,
        Agent::Get(args) => get(run, &args.agent).await,
    }
}

async fn list(run: &Invocation) -> Result<(), Failure> {
    let tree = gather(&run.client().await?, &["agents"], &[], &Part::default()).await?;
    let page: Page<Model> = tree.read().map_err(|error| {
        Failure::new(Exit::Failed, "the controller's list is not understood").because(error)
    })?;
    if page.items.is_empty() && run.out.for_people() {
        run.out.note("no agent yet; next: culvert cluster connect NAME");
        return Ok(());
    }
    let time = |at: &Option<String>| Cell::from(at.as_deref().map(|at| run.out.clock.show(at)));
    let mut table = Table::new(
        &["ID", "STATE", "VERSION", "LAST SEEN"],
        &["CLUSTER", "SOURCE", "CONNECTED SINCE", "CERTIFICATE UNTIL", "RTT", "REFUSED"],
    );
    for agent in &page.items {
        table.row([
            Cell::new(&agent.id),
            Cell::state(&agent.state),
            Cell::from(agent.version.as_ref()),
            time(&agent.last_seen_at),
            Cell::from(agent.cluster_id.as_ref()),
            Cell::from(agent.source.as_ref()),
            time(&agent.connected_since),
            time(&agent.certificate_not_after),
            Cell::from(agent.rtt_us.map(milliseconds)),
            Cell::from(agent.last_refusal.as_ref().map(|refusal| &refusal.code)),
        ]);
    }
    let names: Vec<String> = page.items.iter().map(|agent| agent.id.clone()).collect();
    run.out.answer(&tree, &table, &names)
}

async fn get(run: &Invocation, id: &str) -> Result<(), Failure> {
    let answer = run.client().await?.get(&["agents", id]).await.map_err(|mut failure| {
        if failure.exit == Exit::NotFound {
            failure.what = format!("there is no agent \"{id}\" that you may see");
            failure.next.get_or_insert_with(|| "culvert agent list".to_owned());
        }
        failure
    })?;
    let agent: Model = answer.read()?;
    let mut table = Table::facts();
    facts(run, &mut table, &agent);
    table.fact("cluster", Cell::from(agent.cluster_id.as_ref()));
    run.out.answer(&answer.tree()?, &table, &[agent.id])
}

/// What there is to know about an agent, also inside a cluster's page.
pub(crate) fn facts(run: &Invocation, table: &mut Table, agent: &Model) {
    let time = |at: &Option<String>| Cell::from(at.as_deref().map(|at| run.out.clock.show(at)));
    table.fact("agent", Cell::new(&agent.id));
    table.fact("agent state", Cell::state(&agent.state));
    table.fact("agent version", Cell::from(agent.version.as_ref()));
    table.fact("source", Cell::from(agent.source.as_ref()));
    table.fact("enrolled", time(&agent.enrolled_at));
    table.fact("connected since", time(&agent.connected_since));
    table.fact("last seen", time(&agent.last_seen_at));
    table.fact("certificate until", time(&agent.certificate_not_after));
    table.fact("round trip", Cell::from(agent.rtt_us.map(milliseconds)));
    table.fact("clock skew", Cell::from(agent.clock_skew_ms.map(|skew| format!("{skew} ms"))));
    if let Some(refusal) = &agent.last_refusal {
        let at = refusal.at.as_deref().map(|at| run.out.clock.show(at)).unwrap_or_default();
        table.fact("last refusal", Cell::new(format!("{} {at}", refusal.code).trim_end()));
        table.fact("cause", Cell::from(refusal.detail.as_ref()));
        table.fact("fix", Cell::from(refusal.fix.as_ref()));
    }
}
