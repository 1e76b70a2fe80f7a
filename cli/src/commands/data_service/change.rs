//! Changing a data service: what it will cost first, then the change.

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::NOUN;
use super::spec::{SpecFlags, put};
use crate::client::Client;
use crate::commands::follow::{Waiting, start};
use crate::commands::plan as plans;
use crate::commands::view::{number_at, text_at};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::Tree;

/// Show what a change would do: what restarts, and for how long it is away
#[derive(Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  culvert data-service plan orders --memory 2Gi
  culvert data-service plan orders --version 17.12 --parameter max_connections=300"
)]
pub(crate) struct Plan {
    /// Name or id of the data service
    data_service: String,
    #[command(flatten)]
    spec: SpecFlags,
}

/// Change a data service; shows the plan and asks first when something is interrupted
#[derive(Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  culvert data-service update orders --parameter work_mem=16MB
  culvert data-service update orders --version 17.12
  culvert data-service update orders -f orders.yaml --yes"
)]
pub(crate) struct Update {
    /// Name or id of the data service
    data_service: String,
    #[command(flatten)]
    spec: SpecFlags,
    /// Change only this revision; refused when somebody was faster
    #[arg(long, value_name = "NUMBER")]
    revision: Option<i64>,
    /// Show the plan and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Change the number of instances, or their size
#[derive(Args)]
#[command(after_help = "Examples:
  culvert data-service scale orders --replicas 3
  culvert data-service scale orders --cpu 2 --memory 8Gi")]
pub(crate) struct Scale {
    /// Name or id of the data service
    data_service: String,
    /// Instances, the primary included
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// CPU of each instance
    #[arg(long)]
    cpu: Option<String>,
    /// Memory of each instance
    #[arg(long)]
    memory: Option<String>,
    /// Volume of each instance
    #[arg(long, value_name = "SIZE")]
    storage: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// Do this to a data service, and wait until it is done
#[derive(Args)]
#[command(after_help = "Examples:
  culvert data-service restart orders
  culvert data-service stop orders --yes
  culvert data-service start orders --no-wait")]
pub(crate) struct Act {
    /// Name or id of the data service
    data_service: String,
    #[command(flatten)]
    waiting: Waiting,
}

/// Delete a data service; by default its volumes stay for a while, for undelete
#[derive(Args)]
#[command(after_help = "Examples:
  culvert data-service delete orders
  culvert data-service delete orders --final-backup --yes
  culvert data-service undelete orders")]
pub(crate) struct Delete {
    /// Name or id of the data service
    data_service: String,
    /// Take a last backup first, whatever the service says
    #[arg(long)]
    final_backup: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) async fn plan(run: &Invocation, args: Plan) -> Result<(), Failure> {
    let client = run.client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    plans::show(run, &planned(&client, text_at(&service, "id"), &Value::Object(args.spec.spec()?)).await?)
}

async fn planned(client: &Client, id: &str, patch: &Value) -> Result<Tree, Failure> {
    let ask = client.ask(Method::POST, &["data-services", id, "plan"]).json(&json!({ "spec": patch }))?;
    client.send(ask).await?.tree()
}

pub(super) async fn update(run: &Invocation, args: Update) -> Result<(), Failure> {
    let patch = Value::Object(args.spec.spec()?);
    change(run, &args.data_service, patch, args.revision, args.dry_run, &args.waiting).await
}

pub(super) async fn scale(run: &Invocation, args: &Scale) -> Result<(), Failure> {
    let mut patch = Map::new();
    let text = |value: &Option<String>| value.clone().map(Value::String);
    put(&mut patch, &["topology", "replicas"], args.replicas.map(Value::from));
    put(&mut patch, &["resources", "cpu"], text(&args.cpu));
    put(&mut patch, &["resources", "memory"], text(&args.memory));
    put(&mut patch, &["storage", "size"], text(&args.storage));
    change(run, &args.data_service, Value::Object(patch), None, false, &args.waiting).await
}

async fn change(
    run: &Invocation,
    which: &str,
    patch: Value,
    revision: Option<i64>,
    dry_run: bool,
    waiting: &Waiting,
) -> Result<(), Failure> {
    if patch.as_object().is_none_or(Map::is_empty) {
        return Err(Failure::new(Exit::Usage, "nothing to change was given")
            .next("culvert data-service update --help"));
    }
    let client = run.waiting_client().await?;
    let service = NOUN.find(&client, which).await?;
    let id = text_at(&service, "id");
    let plan = planned(&client, id, &patch).await?;
    plans::show(run, &plan)?;
    if dry_run {
        return Ok(());
    }
    if interrupts(&plan) {
        run.confirm(&format!("Change {} now?", text_at(&service, "name"))).await?;
    }
    // What was planned is what is changed: somebody else's change in between is a conflict.
    let revision = revision.or_else(|| number_at(&service, "revision"));
    let ask = client.ask(Method::PATCH, &["data-services", id]);
    let answer = start(run, ask.json(&json!({ "spec": patch, "revision": revision }))?, waiting).await;
    answer.map(drop).map_err(|failure| conflicted(failure, which))
}

fn conflicted(mut failure: Failure, which: &str) -> Failure {
    if failure.code.as_deref() == Some("revision_conflict") {
        failure.next =
            Some(format!("look at it, then change it anew: culvert data-service get {which} -o yaml"));
    }
    failure
}

/// Whether a plan takes something away for a while.
fn interrupts(plan: &Tree) -> bool {
    let plan = plan.get("plan").unwrap_or(plan);
    let changes = plan.get("changes").map(Tree::list).unwrap_or_default();
    changes.iter().any(|change| !matches!(text_at(change, "effect"), "none" | "reload" | "grow"))
}

pub(super) async fn stop(run: &Invocation, args: &Act) -> Result<(), Failure> {
    run.confirm(&format!("{} will answer nobody until it is started again. Stop it?", args.data_service))
        .await?;
    act(run, args, "stop").await
}

pub(super) async fn act(run: &Invocation, args: &Act, verb: &str) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    let ask = client.ask(Method::POST, &["data-services", text_at(&service, "id"), verb]);
    start(run, ask, &args.waiting).await.map(drop)
}

pub(super) async fn delete(run: &Invocation, args: &Delete) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let service = NOUN.find(&client, &args.data_service).await?;
    let name = text_at(&service, "name");
    run.confirm_name(&consequences(&service, args.final_backup), name).await?;
    let mut ask =
        client.ask(Method::DELETE, &["data-services", text_at(&service, "id")]).query("confirm", name);
    if args.final_backup {
        ask = ask.query("strategy", "FinalBackup");
    }
    start(run, ask, &args.waiting).await?;
    run.out.note(&format!("deleted {name}; to have it back: culvert data-service undelete {name}"));
    Ok(())
}

/// The blast radius in words.
fn consequences(service: &Tree, final_backup: bool) -> String {
    let name = text_at(service, "name");
    let strategy = if final_backup { "FinalBackup" } else { text_at(service, "spec.deletion.strategy") };
    let hours = number_at(service, "spec.deletion.undeleteHours").unwrap_or(72);
    let data = number_at(service, "status.dataBytes").and_then(|bytes| u64::try_from(bytes).ok());
    let data =
        data.map(|bytes| format!(" with {} of data", super::super::view::bytes(bytes))).unwrap_or_default();
    let fate = match strategy {
        "Delete" => "Its volumes are deleted at once.".to_owned(),
        "FinalBackup" => format!("A last backup is taken first; its volumes stay for {hours} hours."),
        _ if hours == 0 => "Its volumes stay until somebody deletes them.".to_owned(),
        _ => format!("Its volumes stay for {hours} hours."),
    };
    format!("{name}{data} stops, and nobody can connect any more.\n{fate} Its backups stay.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_what_takes_something_away_is_asked_about() {
        assert!(interrupts(&tree(r#"{"changes":[{"effect":"reload"},{"effect":"rolling-restart"}]}"#)));
        assert!(!interrupts(&tree(r#"{"changes":[{"effect":"reload"},{"effect":"grow"}]}"#)));
    }

    #[test]
    fn deletion_says_what_becomes_of_the_data() {
        let service = tree(
            r#"{"name":"orders","spec":{"deletion":{"strategy":"Delete"}},"status":{"dataBytes":1073741824}}"#,
        );
        assert!(consequences(&service, false).contains("orders with 1.0 GiB of data stops"));
        assert!(consequences(&service, false).contains("deleted at once"));
        assert!(consequences(&service, true).contains("A last backup is taken first"));
    }
}
