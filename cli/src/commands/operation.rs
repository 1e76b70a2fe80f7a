//! Operations: the long work that the control plane does, and how to steer it.

use clap::{Args, Subcommand};
use http::Method;

use super::follow::{self, follow};
use super::view::{Extent, Kind, Noun, column, text_at, wide};
use crate::failure::Failure;
use crate::invocation::Invocation;

pub(crate) const NOUN: Noun = Noun {
    one: "operation",
    list: "culvert operation list",
    collection: "operations",
    columns: &[
        column("ID", "id", Kind::Text),
        column("KIND", "kind", Kind::Text),
        column("SUBJECT", "subject", Kind::Text),
        column("CLUSTER", "cluster", Kind::Text),
        column("STATE", "state", Kind::State),
        column("BEGUN", "created_at", Kind::Time),
        wide("ENDED", "ended_at", Kind::Time),
        wide("BY", "created_by", Kind::Text),
        wide("WHY", "failure.message", Kind::Text),
        wide("NEXT", "failure.next", Kind::Text),
    ],
    first: "culvert data-service create NAME --cluster CLUSTER --engine postgresql",
};

/// Long work: what is under way, what ended, and how
#[derive(Subcommand)]
#[command(
    visible_alias = "op",
    after_help = "Examples:
  culvert operation list --state running
  culvert operation watch opn_01hzy
  culvert operation cancel opn_01hzy"
)]
pub(crate) enum Operation {
    List(List),
    Get(Which),
    Watch(Watch),
    Cancel(Cancel),
    Retry(Retry),
}

/// List operations, the newest first
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert operation list\n  culvert operation list --state failed -o wide"
)]
pub(crate) struct List {
    /// Only this state
    #[arg(long, value_parser = ["pending", "running", "cancelling", "succeeded", "failed", "cancelled"])]
    state: Option<String>,
    /// Only this kind, such as create or backup
    #[arg(long)]
    kind: Option<String>,
    /// Only on this data service or other thing, by id
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

/// Show an operation with its steps
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert operation get opn_01hzy\n  culvert operation get opn_01hzy -o yaml"
)]
pub(crate) struct Which {
    /// Id of the operation
    operation: String,
}

/// Follow an operation to its end; its success is the command's
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert operation watch opn_01hzy\n  culvert operation watch opn_01hzy --timeout 10m"
)]
pub(crate) struct Watch {
    /// Id of the operation
    operation: String,
}

/// Ask an operation to stop; what cannot be undone is finished first
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert operation cancel opn_01hzy\n  culvert operation cancel opn_01hzy --no-wait"
)]
pub(crate) struct Cancel {
    /// Id of the operation
    operation: String,
    #[command(flatten)]
    waiting: follow::Waiting,
}

/// Try a failed operation again, from the step that failed
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert operation retry opn_01hzy\n  culvert operation retry opn_01hzy --no-wait"
)]
pub(crate) struct Retry {
    /// Id of the operation
    operation: String,
    #[command(flatten)]
    waiting: follow::Waiting,
}

pub(crate) async fn run(run: &Invocation, command: Operation) -> Result<(), Failure> {
    match command {
        Operation::List(args) => {
            let filters = [
                ("state", args.state.as_deref()),
                ("kind", args.kind.as_deref()),
                ("subject", args.subject.as_deref()),
            ];
            NOUN.list(run, &filters, args.extent).await
        }
        Operation::Get(args) => get(run, &args.operation).await,
        Operation::Watch(args) => follow(run, &run.waiting_client().await?, &args.operation)
            .await
            .map_err(|failure| NOUN.missing(failure, &args.operation)),
        Operation::Cancel(args) => cancel(run, &args).await,
        Operation::Retry(args) => retry(run, &args).await,
    }
}

async fn get(run: &Invocation, id: &str) -> Result<(), Failure> {
    let tree = NOUN.find(&run.client().await?, id).await?;
    NOUN.one(run, &tree)?;
    if run.out.for_people() {
        run.out.data("\n")?;
        run.out.data(&run.out.text_of(&steps(run, &tree)))?;
    }
    Ok(())
}

fn steps(run: &Invocation, operation: &crate::output::Tree) -> crate::output::Table {
    use crate::output::{Cell, Table, Tree};
    let mut table = Table::new(&["STEP", "STATE", "BEGUN", "MESSAGE"], &["ENDED"]);
    let time = |step: &Tree, path| match text_at(step, path) {
        "" => Cell::new("-"),
        at => Cell::new(run.out.clock.show(at)),
    };
    for step in operation.get("steps").map(Tree::list).unwrap_or_default() {
        let title = text_at(step, "title");
        table.row([
            Cell::new(if title.is_empty() { text_at(step, "name") } else { title }),
            Cell::state(text_at(step, "state")),
            time(step, "started_at"),
            Cell::new(text_at(step, "message")),
            time(step, "ended_at"),
        ]);
    }
    table
}

async fn cancel(run: &Invocation, args: &Cancel) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let id = args.operation.as_str();
    client
        .send(client.ask(Method::POST, &["operations", id, "cancel"]))
        .await
        .map_err(|failure| NOUN.missing(failure, id))?;
    run.out.note("asked it to stop");
    if args.waiting.no_wait {
        return Ok(());
    }
    match follow(run, &client, id).await {
        Err(failure) if failure.what == "it was cancelled" => {
            run.out.note("it was cancelled");
            Ok(())
        }
        // It ended before the wish arrived, well or badly.
        other => other,
    }
}

async fn retry(run: &Invocation, args: &Retry) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let id = args.operation.as_str();
    client
        .send(client.ask(Method::POST, &["operations", id, "retry"]))
        .await
        .map_err(|failure| NOUN.missing(failure, id))?;
    if args.waiting.no_wait { Ok(()) } else { follow(run, &client, id).await }
}
