//! Creating a data service: the plan first, then the work, then how to connect.

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::NOUN;
use super::spec::{SpecFlags, put};
use crate::commands::follow::{Waiting, start};
use crate::commands::plan;
use crate::commands::view::text_at;
use crate::failure::Failure;
use crate::invocation::Invocation;

/// Create a database in a cluster, and wait until it answers
#[derive(Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  culvert data-service create orders --cluster edge-1 --engine postgresql
  culvert data-service create orders --cluster edge-1 --engine postgresql --version 17 --replicas 3 --synchronous
  culvert data-service create cache --cluster edge-1 --engine valkey --memory 512Mi
  culvert data-service create orders --cluster edge-1 --template small --backup-target vault
  culvert data-service create orders --cluster edge-1 -f orders.yaml --dry-run"
)]
pub(crate) struct Create {
    /// The name: a letter, then lower-case letters, digits and dashes, at most 40
    name: String,
    /// The cluster, by name or id
    #[arg(long)]
    cluster: String,
    /// The engine; culvert engine list tells which there are
    #[arg(long)]
    engine: Option<String>,
    /// The project; default when left out
    #[arg(long)]
    project: Option<String>,
    /// The namespace; the project's own when left out
    #[arg(short, long)]
    namespace: Option<String>,
    /// A template to begin with
    #[arg(long)]
    template: Option<String>,
    #[command(flatten)]
    spec: SpecFlags,
    /// Show the plan and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) async fn run(run: &Invocation, args: Create) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let body = body(&args)?;
    if args.dry_run {
        let answer = client.send(client.ask(Method::POST, &["data-services", "plan"]).json(&body)?).await?;
        return plan::show(run, &answer.tree()?);
    }
    let ask = client.ask(Method::POST, &["data-services"]).json(&body)?;
    let answer = start(run, ask, &args.waiting).await?;
    let id = answer.get("data_service").map(|made| text_at(made, "id")).unwrap_or_default().to_owned();
    let made = NOUN.find(&client, if id.is_empty() { &args.name } else { &id }).await?;
    NOUN.one(run, &made)?;
    for endpoint in
        made.get("status").and_then(|s| s.get("endpoints")).map(crate::output::Tree::list).unwrap_or_default()
    {
        let port = crate::commands::view::number_at(endpoint, "port").unwrap_or_default();
        run.out.note(&format!(
            "{}: {}:{port} inside the cluster",
            text_at(endpoint, "name"),
            text_at(endpoint, "host")
        ));
    }
    Ok(())
}

fn body(args: &Create) -> Result<Value, Failure> {
    let mut spec = args.spec.spec()?;
    put(&mut spec, &["engine"], args.engine.clone().map(Value::String));
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(args.name));
    body.insert("cluster".to_owned(), json!(args.cluster));
    for (key, value) in
        [("project", &args.project), ("namespace", &args.namespace), ("template", &args.template)]
    {
        put(&mut body, &[key], value.clone().map(Value::String));
    }
    body.insert("spec".to_owned(), Value::Object(spec));
    Ok(Value::Object(body))
}
