//! Looking at data services: lists, logs, events, differences, figures.

use std::io::Write as _;

use clap::Args;
use http::Method;

use super::NOUN;
use crate::commands::figures;
use crate::commands::view::{Extent, plain, text_at};
use crate::failure::{Exit, Failure};
use crate::invocation::{Invocation, interrupted};
use crate::output::{Cell, Format, Table, Tone, Tree};

/// List the data services
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert data-service list\n  culvert data-service list --cluster edge-1 -o wide\n  culvert data-service list --deleted"
)]
pub(crate) struct List {
    /// Only in this project
    #[arg(long)]
    project: Option<String>,
    /// Only in this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Only this engine
    #[arg(long)]
    engine: Option<String>,
    /// Only this state
    #[arg(long, value_parser = ["pending", "progressing", "ready", "degraded", "unavailable", "stopped", "deleting", "unknown"])]
    state: Option<String>,
    /// Only names that contain this
    #[arg(long)]
    name: Option<String>,
    /// Those that were deleted and can still be had back
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    extent: Extent,
}

/// Show a data service: state, why, where to connect, what can be recovered
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert data-service get orders\n  culvert data-service get orders -o yaml"
)]
pub(crate) struct Get {
    /// Name or id of the data service
    data_service: String,
}

/// Show the log of its instances, carried through the tunnel
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert data-service logs orders\n  culvert data-service logs orders --follow --tail 20\n  culvert data-service logs orders --instance orders-1"
)]
pub(crate) struct Logs {
    /// Name or id of the data service
    data_service: String,
    /// Only this instance; the primary when left out
    #[arg(long)]
    instance: Option<String>,
    /// Begin with so many of the last lines
    #[arg(long, value_name = "LINES", default_value_t = 200)]
    tail: u32,
    /// Go on as lines are written
    #[arg(short, long)]
    follow: bool,
}

/// Show what happened to it: events of the cluster and operations
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert data-service events orders\n  culvert data-service events orders -o json"
)]
pub(crate) struct Events {
    /// Name or id of the data service
    data_service: String,
}

/// Show where the cluster differs from what is recorded here, hand edits included
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert data-service diff orders\n  culvert data-service diff orders -o json"
)]
pub(crate) struct Diff {
    /// Name or id of the data service
    data_service: String,
}

/// Show its recent figures
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert data-service metrics orders\n  culvert data-service metrics orders --since 15m -o json"
)]
pub(crate) struct Metrics {
    /// Name or id of the data service
    data_service: String,
    /// How far back, at most an hour
    #[arg(long, default_value = "5m", value_parser = crate::args::duration)]
    since: std::time::Duration,
}

/// Write it as a manifest for kubectl or culvert apply
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert data-service export orders > orders.yaml\n  culvert data-service export orders | kubectl apply -f -"
)]
pub(crate) struct Export {
    /// Name or id of the data service
    data_service: String,
}

pub(super) async fn list(run: &Invocation, args: List) -> Result<(), Failure> {
    let filters = [
        ("project", args.project.as_deref()),
        ("cluster", args.cluster.as_deref()),
        ("engine", args.engine.as_deref()),
        ("state", args.state.as_deref()),
        ("name", args.name.as_deref()),
        ("deleted", args.deleted.then_some("true")),
    ];
    NOUN.list(run, &filters, args.extent).await
}

pub(super) async fn get(run: &Invocation, args: &Get) -> Result<(), Failure> {
    let service = NOUN.find(&run.client().await?, &args.data_service).await?;
    NOUN.one(run, &service)?;
    if run.out.for_people() {
        let conditions =
            crate::commands::view::at(&service, "status.conditions").map(Tree::list).unwrap_or_default();
        if !conditions.is_empty() {
            run.out.data(&format!("\n{}", run.out.text_of(&self::conditions(run, conditions))))?;
        }
        if crate::commands::view::at(&service, "stale") == Some(&Tree::Bool(true)) {
            let seen = run.out.clock.show(text_at(&service, "observed_at"));
            run.out.notice(&format!("the cluster is not connected; this is as it was at {seen}"));
        }
    }
    Ok(())
}

fn conditions(run: &Invocation, conditions: &[Tree]) -> Table {
    let mut table = Table::new(&["CONDITION", "STATUS", "SINCE", "MESSAGE"], &["REASON"]);
    for condition in conditions {
        table.row([
            Cell::new(text_at(condition, "type")),
            Cell::new(text_at(condition, "status")),
            Cell::new(run.out.clock.show(text_at(condition, "lastTransitionTime"))),
            Cell::new(text_at(condition, "message")),
            Cell::new(text_at(condition, "reason")),
        ]);
    }
    table
}

pub(super) async fn logs(run: &Invocation, args: &Logs) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    let mut ask = client
        .ask(Method::GET, &["data-services", text_at(&service, "id"), "logs"])
        .query("tail", &args.tail.to_string());
    if let Some(instance) = &args.instance {
        ask = ask.query("instance", instance);
    }
    if args.follow {
        ask = ask.query("follow", "true");
    }
    let mut stream = client.stream(&ask).await?;
    loop {
        let piece = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Err(interrupted()),
            piece = stream.chunk() => piece,
        };
        let broken =
            |error: reqwest::Error| Failure::new(Exit::Unreachable, "the log broke off").because(error);
        let Some(piece) = piece.map_err(broken)? else { return Ok(()) };
        if std::io::stdout().lock().write_all(&piece).and_then(|()| std::io::stdout().flush()).is_err() {
            // Nobody reads any more.
            return Ok(());
        }
    }
}

pub(super) async fn events(run: &Invocation, args: &Events) -> Result<(), Failure> {
    let client = run.client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    let tree = client.get(&["data-services", text_at(&service, "id"), "events"]).await?.tree()?;
    let items = tree.get("items").map(Tree::list).unwrap_or_default();
    let missing = text_at(&tree, "missing");
    if !missing.is_empty() && run.out.for_people() {
        run.out.notice(&format!("the cluster's own events are missing: {missing}"));
    }
    if items.is_empty() && run.out.for_people() {
        run.out.note("nothing happened lately");
        return Ok(());
    }
    let mut table = Table::new(&["AT", "TYPE", "REASON", "MESSAGE"], &["OBJECT", "COUNT"]);
    for event in items {
        let kind = text_at(event, "type");
        let tone = if kind == "Warning" { Tone::Warning } else { Tone::Plain };
        table.row([
            Cell::new(run.out.clock.show(text_at(event, "at"))),
            Cell::toned(kind, tone),
            Cell::new(text_at(event, "reason")),
            Cell::new(text_at(event, "message")),
            Cell::new(text_at(event, "object")),
            Cell::new(event.get("count").map(plain).unwrap_or_default()),
        ]);
    }
    let names: Vec<String> = items.iter().map(|event| text_at(event, "reason").to_owned()).collect();
    run.out.answer(&tree, &table, &names)
}

pub(super) async fn diff(run: &Invocation, args: &Diff) -> Result<(), Failure> {
    let client = run.client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    let tree = client.get(&["data-services", text_at(&service, "id"), "diff"]).await?.tree()?;
    let changes = tree.get("differences").map(Tree::list).unwrap_or_default();
    if changes.is_empty() && run.out.for_people() {
        run.out.note("the cluster has what is recorded here");
        return Ok(());
    }
    let mut table = Table::new(&["FIELD", "RECORDED", "IN THE CLUSTER", "CHANGED BY"], &[]);
    for change in changes {
        let value = |key: &str| Cell::new(change.get(key).map(plain).unwrap_or_default());
        table.row([value("field"), value("recorded"), value("live"), value("manager")]);
    }
    let names: Vec<String> = changes.iter().map(|change| text_at(change, "field").to_owned()).collect();
    run.out.answer(&tree, &table, &names)
}

pub(super) async fn metrics(run: &Invocation, args: &Metrics) -> Result<(), Failure> {
    let client = run.client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    let ask = client.ask(Method::GET, &["data-services", text_at(&service, "id"), "metrics"]);
    figures::show(run, &client, ask, args.since).await
}

pub(super) async fn export(run: &Invocation, args: &Export) -> Result<(), Failure> {
    let client = run.client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    let answer = client.get(&["data-services", text_at(&service, "id"), "manifest"]).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if run.out.format != Format::Json {
        return run.out.data(&text);
    }
    let unreadable = |why: String| Failure::new(Exit::Failed, "the manifest is not understood").because(why);
    run.out.data(&(Tree::from_yaml(&text).map_err(unreadable)?.json()? + "\n"))
}
