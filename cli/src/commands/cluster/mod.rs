//! Clusters: their records, their agents' state, and the way to connect one.
//!
//! The verbs that change a record are here; what is longer has a file of its own.

mod connect;
mod diagnose;
pub(crate) mod kubeconfig;
mod show;
pub(crate) use show::milliseconds;
pub(crate) mod token;
mod watch;

use clap::{Args, Subcommand};
use http::Method;

use crate::args::pair;
use crate::client::Client;
use crate::client::model::Cluster as Model;
use crate::client::pages::{Part, gather};
use crate::commands::figures;
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;

/// Clusters and how they are connected
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert cluster connect edge-1
  culvert cluster list
  culvert cluster diagnose edge-1")]
pub(crate) enum Cluster {
    Connect(connect::Connect),
    Create(Create),
    List(List),
    Get(Get),
    Watch(watch::Watch),
    Diagnose(diagnose::Diagnose),
    Metrics(Metrics),
    Kubeconfig(kubeconfig::Kubeconfig),
    #[command(subcommand)]
    Token(token::Token),
    Lock(Lock),
    Unlock(Unlock),
    Delete(Delete),
}

/// Create a cluster's record; it stays pending until its agent connects
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert cluster create edge-1\n  culvert cluster create edge-1 --label site=graz"
)]
pub(crate) struct Create {
    /// The name: lower-case letters, digits and dashes
    name: String,
    /// A label; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
}

/// List the clusters
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert cluster list\n  culvert cluster list --state disconnected -o name"
)]
pub(crate) struct List {
    /// Only this state
    #[arg(long, value_parser = ["pending", "connected", "disconnected", "locked"])]
    state: Option<String>,
    /// Only names that contain this
    #[arg(long)]
    name: Option<String>,
    /// At most this many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on after the cursor of an earlier list
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

/// Show a cluster
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert cluster get edge-1\n  culvert cluster get edge-1 -o json")]
pub(crate) struct Get {
    /// Name or id of the cluster
    cluster: String,
}

/// Show recent figures of the operator that runs a cluster's data services
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert cluster metrics edge-1\n  culvert cluster metrics edge-1 --since 15m -o json"
)]
pub(crate) struct Metrics {
    /// Name or id of the cluster
    cluster: String,
    /// How far back, at most an hour
    #[arg(long, default_value = "5m", value_parser = crate::args::duration)]
    since: std::time::Duration,
}

/// Lock a cluster: nobody passes, and what runs through the tunnel is cut
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert cluster lock edge-1 --message 'incident 4711'")]
pub(crate) struct Lock {
    /// Name or id of the cluster
    cluster: String,
    /// What those who are refused are told
    #[arg(short, long)]
    message: String,
}

/// Unlock a cluster
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert cluster unlock edge-1")]
pub(crate) struct Unlock {
    /// Name or id of the cluster
    cluster: String,
}

/// Delete a cluster's record and revoke its agent; nothing in the cluster stops
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert cluster delete edge-1\n  culvert cluster delete edge-1 --yes")]
pub(crate) struct Delete {
    /// Name or id of the cluster
    cluster: String,
}

pub(crate) async fn run(run: &Invocation, command: Cluster) -> Result<(), Failure> {
    match command {
        Cluster::Connect(args) => Box::pin(connect::run(run, args)).await,
        Cluster::Create(args) => create(run, args).await,
        Cluster::List(args) => list(run, args).await,
        Cluster::Get(args) => get(run, &args.cluster).await,
        Cluster::Watch(args) => Box::pin(watch::run(run, args)).await,
        Cluster::Diagnose(args) => diagnose::run(run, &args).await,
        Cluster::Metrics(args) => metrics(run, &args).await,
        Cluster::Kubeconfig(args) => kubeconfig::run(run, args).await,
        Cluster::Token(args) => token::run(run, args).await,
        Cluster::Lock(args) => lock(run, &args).await,
        Cluster::Unlock(args) => unlock(run, &args.cluster).await,
        Cluster::Delete(args) => delete(run, &args.cluster).await,
    }
}

async fn create(run: &Invocation, args: Create) -> Result<(), Failure> {
    let client = run.client().await?;
    let name = args.name.clone();
    let answer = client.send(creation(&client, &name, &args.labels)?).await.map_err(|failure| {
        let taken = failure.exit == Exit::Conflict && failure.next.is_none();
        if taken { failure.next(format!("culvert cluster get {name}")) } else { failure }
    })?;
    let cluster: Model = answer.read()?;
    run.out.note(&format!("created; next: culvert cluster connect {}", cluster.name));
    show::one(run, &answer.tree()?, &cluster)
}

/// The request that creates a record.
fn creation(client: &Client, name: &str, labels: &[(String, String)]) -> Result<crate::client::Ask, Failure> {
    let labels: std::collections::BTreeMap<_, _> = labels.iter().cloned().collect();
    client.ask(Method::POST, &["clusters"]).json(&serde_json::json!({ "name": name, "labels": labels }))
}

async fn list(run: &Invocation, args: List) -> Result<(), Failure> {
    let client = run.client().await?;
    let part = Part { limit: args.limit.map(|n| n as usize), after: args.after };
    let filters = [("state", args.state.as_deref()), ("name", args.name.as_deref())];
    let filtered = filters.iter().any(|(_, value)| value.is_some());
    let tree = gather(&client, &["clusters"], &filters, &part).await?;
    show::many(run, &tree, filtered)
}

async fn get(run: &Invocation, cluster: &str) -> Result<(), Failure> {
    let answer = run.client().await?.get(&["clusters", cluster]).await.map_err(|f| missing(f, cluster))?;
    show::one(run, &answer.tree()?, &answer.read()?)
}

async fn metrics(run: &Invocation, args: &Metrics) -> Result<(), Failure> {
    let client = run.client().await?;
    let cluster = find(&client, &args.cluster).await?;
    figures::show(run, &client, client.ask(Method::GET, &["clusters", &cluster.id, "metrics"]), args.since)
        .await
}

async fn lock(run: &Invocation, args: &Lock) -> Result<(), Failure> {
    let client = run.client().await?;
    let cluster = find(&client, &args.cluster).await?;
    let ask = client.ask(Method::PUT, &["clusters", &cluster.id, "lock"]);
    client.send(ask.json(&serde_json::json!({ "message": args.message }))?).await?;
    run.out.note(&format!("{} is locked; to undo: culvert cluster unlock {}", cluster.name, cluster.name));
    Ok(())
}

async fn unlock(run: &Invocation, cluster: &str) -> Result<(), Failure> {
    let client = run.client().await?;
    let cluster = find(&client, cluster).await?;
    client.send(client.ask(Method::DELETE, &["clusters", &cluster.id, "lock"])).await?;
    run.out.note(&format!("{} is unlocked", cluster.name));
    Ok(())
}

async fn delete(run: &Invocation, cluster: &str) -> Result<(), Failure> {
    let client = run.client().await?;
    let cluster = find(&client, cluster).await?;
    let question = format!(
        "{} ({}) loses its record, its agent's identity is revoked, and every session through it is cut.\n\
         What runs in the cluster goes on.",
        cluster.name, cluster.state
    );
    run.confirm_name(&question, &cluster.name).await?;
    client.send(client.ask(Method::DELETE, &["clusters", &cluster.id])).await?;
    run.out.note(&format!("deleted {}; in the cluster: helm uninstall culvert-agent", cluster.name));
    Ok(())
}

/// The record by name or id.
async fn find(client: &Client, cluster: &str) -> Result<Model, Failure> {
    client.get(&["clusters", cluster]).await.map_err(|f| missing(f, cluster))?.read()
}

/// Names what was not found, and where to look.
fn missing(mut failure: Failure, cluster: &str) -> Failure {
    if failure.exit == Exit::NotFound {
        failure.what = format!("there is no cluster \"{cluster}\" that you may see");
        failure.next.get_or_insert_with(|| "culvert cluster list".to_owned());
    }
    failure
}
