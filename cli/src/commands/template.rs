//! Templates: specs to begin with.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::view::{Extent, Kind, Noun, column, text_at, wide};
use crate::failure::{Exit, Failure};
use crate::files;
use crate::invocation::Invocation;
use crate::output::Tree;

pub(crate) const NOUN: Noun = Noun {
    one: "template",
    list: "culvert template list",
    collection: "templates",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("ENGINE", "engine", Kind::Text),
        column("REVISION", "revision", Kind::Text),
        column("DESCRIPTION", "description", Kind::Text),
        wide("ID", "id", Kind::Text),
    ],
    first: "culvert template create NAME --engine postgresql -f spec.yaml",
};

/// A template is a page.
const LIMIT: u64 = 1 << 20;

/// Templates: specs to begin with; changing one changes no data service
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert template create small --engine postgresql -f small.yaml
  culvert data-service create orders --cluster edge-1 --template small")]
pub(crate) enum Template {
    Create(Put),
    List(List),
    Get(Which),
    Update(Put),
    Delete(Which),
}

/// Write a template: the part of a spec that it brings
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert template create small --engine postgresql -f small.yaml\n  culvert template update small --engine postgresql -f small.yaml --description 'for tests'"
)]
pub(crate) struct Put {
    /// The name: lower-case letters, digits and dashes
    template: String,
    /// The engine
    #[arg(long)]
    engine: String,
    /// What it is for
    #[arg(long, default_value = "")]
    description: String,
    /// The spec as YAML or JSON
    #[arg(short, long = "file", value_name = "FILE")]
    file: PathBuf,
}

/// List the templates
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert template list\n  culvert template list -o json"
)]
pub(crate) struct List {
    #[command(flatten)]
    extent: Extent,
}

/// Work with one template
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert template get small -o yaml\n  culvert template delete small")]
pub(crate) struct Which {
    /// Name or id of the template
    template: String,
}

pub(crate) async fn run(run: &Invocation, command: Template) -> Result<(), Failure> {
    match command {
        Template::Create(args) => {
            let client = run.client().await?;
            let mut body = body(&args)?;
            body.insert("name".to_owned(), json!(args.template));
            let ask = client.ask(Method::POST, &["templates"]).json(&body)?;
            NOUN.one(run, &client.send(ask).await?.tree()?)
        }
        Template::List(args) => NOUN.list(run, &[], args.extent).await,
        Template::Get(args) => NOUN.show(run, &args.template).await,
        Template::Update(args) => {
            let client = run.client().await?;
            let template = NOUN.find(&client, &args.template).await?;
            let ask =
                client.ask(Method::PUT, &["templates", text_at(&template, "id")]).json(&body(&args)?)?;
            NOUN.one(run, &client.send(ask).await?.tree()?)
        }
        Template::Delete(args) => delete(run, &args.template).await,
    }
}

/// What a template holds besides its name.
fn body(args: &Put) -> Result<Map<String, Value>, Failure> {
    let text =
        files::read_text(&args.file, LIMIT).map_err(|error| Failure::file("read", &args.file, &error))?;
    let text =
        text.ok_or_else(|| Failure::new(Exit::NotFound, format!("{} is not there", args.file.display())))?;
    let wrong =
        |why: String| Failure::new(Exit::Usage, format!("{} is no spec", args.file.display())).because(why);
    let spec = Tree::from_yaml(&text).map_err(wrong)?;
    let spec = serde_json::to_value(&spec).map_err(|error| wrong(error.to_string()))?;
    let fields = [("engine", json!(args.engine)), ("description", json!(args.description)), ("spec", spec)];
    Ok(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

async fn delete(run: &Invocation, which: &str) -> Result<(), Failure> {
    let client = run.client().await?;
    let template = NOUN.find(&client, which).await?;
    let name = text_at(&template, "name");
    run.confirm(&format!("Delete the template {name}? Data services made from it stay as they are.")).await?;
    client.send(client.ask(Method::DELETE, &["templates", text_at(&template, "id")])).await?;
    run.out.note(&format!("deleted {name}"));
    Ok(())
}
