//! Engines: what there is, and what a cluster can really run.

use clap::{Args, Subcommand};

use super::view::{Kind, Noun, column, plain, text_at, wide};
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tree};

pub(crate) const NOUN: Noun = Noun {
    one: "engine",
    list: "culvert engine list",
    collection: "engines",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("TITLE", "title", Kind::Text),
        column("VERSIONS", "releases", Kind::Text),
        wide("PORT", "port", Kind::Text),
        wide("MAX REPLICAS", "maxReplicas", Kind::Text),
    ],
    first: "culvert engine list",
};

/// Engines: what can be deployed
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert engine list
  culvert engine list --cluster edge-1
  culvert engine get postgresql")]
pub(crate) enum Engine {
    List(List),
    Get(Get),
}

/// List the engines, or what a cluster can really run of them
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert engine list\n  culvert engine list --cluster edge-1"
)]
pub(crate) struct List {
    /// What this cluster can run
    #[arg(long)]
    cluster: Option<String>,
}

/// Show an engine with its parameters
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert engine get postgresql\n  culvert engine get valkey -o json")]
pub(crate) struct Get {
    /// The engine
    engine: String,
}

pub(crate) async fn run(run: &Invocation, command: Engine) -> Result<(), Failure> {
    match command {
        Engine::List(List { cluster: Some(cluster) }) => of_cluster(run, &cluster).await,
        Engine::List(List { cluster: None }) => all(run).await,
        Engine::Get(args) => get(run, &args.engine).await,
    }
}

async fn all(run: &Invocation) -> Result<(), Failure> {
    let tree = run.client().await?.get(&["engines"]).await?.tree()?;
    let items = tree.get("items").unwrap_or(&tree).list();
    let mut table = Table::new(&["NAME", "TITLE", "VERSIONS"], &[]);
    for engine in items {
        table.row([
            Cell::new(text_at(engine, "name")),
            Cell::new(text_at(engine, "title")),
            Cell::new(versions(engine)),
        ]);
    }
    let names: Vec<String> = items.iter().map(|engine| text_at(engine, "name").to_owned()).collect();
    run.out.answer(&tree, &table, &names)
}

fn versions(engine: &Tree) -> String {
    let releases = engine.get("releases").map(Tree::list).unwrap_or_default();
    releases.iter().map(|release| text_at(release, "version")).collect::<Vec<_>>().join(", ")
}

async fn of_cluster(run: &Invocation, cluster: &str) -> Result<(), Failure> {
    let tree = run.client().await?.get(&["clusters", cluster, "engines"]).await?.tree()?;
    let items = tree.get("items").unwrap_or(&tree).list();
    if items.is_empty() && run.out.for_people() {
        run.out.note("this cluster can run none: install the chart culvert-operator there");
        return Ok(());
    }
    let mut table = Table::new(&["ENGINE", "VERSION", "READY", "MESSAGE"], &["IMAGE"]);
    for engine in items {
        let value = |key: &str| Cell::new(engine.get(key).map(plain).unwrap_or_default());
        table.row([value("engine"), value("version"), value("ready"), value("message"), value("image")]);
    }
    let names: Vec<String> =
        items.iter().map(|e| format!("{} {}", text_at(e, "engine"), text_at(e, "version"))).collect();
    run.out.answer(&tree, &table, &names)
}

async fn get(run: &Invocation, name: &str) -> Result<(), Failure> {
    let engine = NOUN.find(&run.client().await?, name).await?;
    if !run.out.for_people() {
        return NOUN.one(run, &engine);
    }
    run.out.data(&format!("{} ({}): {}\n\n", text_at(&engine, "title"), name, versions(&engine)))?;
    let mut table =
        Table::new(&["PARAMETER", "DEFAULT", "UNIT", "APPLIED BY", "DESCRIPTION"], &["MIN", "MAX"]);
    if let Some(Tree::Map(parameters)) = engine.get("parameters") {
        for (name, parameter) in parameters {
            let value = |key: &str| Cell::new(parameter.get(key).map(plain).unwrap_or_default());
            table.row([
                Cell::new(name),
                value("default"),
                value("unit"),
                value("apply"),
                value("description"),
                value("min"),
                value("max"),
            ]);
        }
    }
    run.out.data(&run.out.text_of(&table))
}
