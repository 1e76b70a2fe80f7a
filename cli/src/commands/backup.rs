//! Backups of data services, across clusters.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::data_service::NOUN as SERVICE;
use super::follow::{Waiting, start};
use super::view::{Extent, Kind, Noun, column, number_at, text_at, wide};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;

pub(crate) const NOUN: Noun = Noun {
    one: "backup",
    list: "culvert backup list",
    collection: "backups",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("DATA SERVICE", "spec.service", Kind::Text),
        column("TARGET", "spec.target", Kind::Text),
        column("METHOD", "spec.method", Kind::Text),
        column("STATE", "status.phase", Kind::State),
        column("SIZE", "status.storedBytes", Kind::Bytes),
        column("ENDED", "status.endedAt", Kind::Time),
        column("VERIFIED", "status.verified.ok", Kind::Text),
        wide("RESTORED IN (S)", "status.verified.seconds", Kind::Text),
        wide("DATA", "status.dataBytes", Kind::Bytes),
        wide("RECOVERABLE FROM", "status.recoverable.from", Kind::Time),
        wide("RECOVERABLE UNTIL", "status.recoverable.until", Kind::Time),
        wide("CLUSTER", "cluster", Kind::Text),
        wide("TRIGGER", "spec.trigger", Kind::Text),
        wide("MADE FROM", "status.madeFrom", Kind::Text),
        wide("ENCRYPTED", "status.encrypted", Kind::Text),
        wide("PATH", "status.path", Kind::Text),
        wide("WHY", "status.failure.message", Kind::Text),
        wide("NEXT", "status.failure.hint", Kind::Text),
        wide("ID", "id", Kind::Text),
    ],
    first: "culvert backup create DATA-SERVICE",
};

/// Backups: make, list, look, delete
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert backup create orders
  culvert backup list --data-service orders
  culvert restore create orders-copy --backup orders-1764037000")]
pub(crate) enum Backup {
    Create(Create),
    List(List),
    Get(Get),
    Delete(Delete),
}

/// Make a backup now, and follow it
#[derive(Args)]
#[command(after_help = "Examples:
  culvert backup create orders
  culvert backup create orders --method logical --verify
  culvert backup create orders --target vault --expires 30d --no-wait")]
pub(crate) struct Create {
    /// Name or id of the data service
    data_service: String,
    /// Where it goes; where the service's backups go when left out
    #[arg(long)]
    target: Option<String>,
    /// How: the engine's files, or its own dump
    #[arg(long, value_parser = ["physical", "logical"])]
    method: Option<String>,
    /// Restore it into a throwaway service afterwards, query it and time it
    #[arg(long)]
    verify: bool,
    /// Delete it after this time, such as 30d
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    expires: Option<std::time::Duration>,
    /// Its name; made from service and time when left out
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// List backups, the newest first
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert backup list\n  culvert backup list --data-service orders -o wide"
)]
pub(crate) struct List {
    /// Only of this data service
    #[arg(long)]
    data_service: Option<String>,
    /// Only in this target
    #[arg(long)]
    target: Option<String>,
    /// Only in this cluster
    #[arg(long)]
    cluster: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

/// Show a backup
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup get orders-1764037000\n  culvert backup get orders-1764037000 -o yaml"
)]
pub(crate) struct Get {
    /// Name or id of the backup
    backup: String,
}

/// Delete a backup, and what lies in its target
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup delete orders-1764037000\n  culvert backup delete orders-1764037000 --yes --no-wait"
)]
pub(crate) struct Delete {
    /// Name or id of the backup
    backup: String,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(run: &Invocation, command: Backup) -> Result<(), Failure> {
    match command {
        Backup::Create(args) => create(run, args).await,
        Backup::List(args) => {
            let filters = [
                ("data_service", args.data_service.as_deref()),
                ("target", args.target.as_deref()),
                ("cluster", args.cluster.as_deref()),
            ];
            NOUN.list(run, &filters, args.extent).await
        }
        Backup::Get(args) => NOUN.show(run, &args.backup).await,
        Backup::Delete(args) => delete(run, &args).await,
    }
}

async fn create(run: &Invocation, args: Create) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let service = SERVICE.find(&client, &args.data_service).await?;
    let mut body = json!({ "data_service": text_at(&service, "id"), "verify": args.verify });
    let expires = args.expires.map(after).transpose()?;
    for (key, value) in
        [("target", args.target), ("method", args.method), ("name", args.name), ("expires_at", expires)]
    {
        if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
            body.insert(key.to_owned(), value.into());
        }
    }
    let answer = start(run, client.ask(Method::POST, &["backups"]).json(&body)?, &args.waiting).await?;
    let made = answer.get("backup").map(|backup| text_at(backup, "name")).unwrap_or_default();
    if !args.waiting.no_wait && !made.is_empty() {
        return NOUN.show(run, made).await;
    }
    Ok(())
}

/// The time so long from now, as the API takes it.
fn after(length: std::time::Duration) -> Result<String, Failure> {
    let length = jiff::SignedDuration::try_from(length);
    let at = length.ok().and_then(|length| jiff::Timestamp::now().checked_add(length).ok());
    at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .ok_or_else(|| Failure::new(Exit::Usage, "that is too far away"))
}

async fn delete(run: &Invocation, args: &Delete) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let backup = NOUN.find(&client, &args.backup).await?;
    let (name, service) = (text_at(&backup, "name"), text_at(&backup, "spec.service"));
    let size = number_at(&backup, "status.storedBytes").and_then(|size| u64::try_from(size).ok());
    let size = size.map(|size| format!(" ({})", super::view::bytes(size))).unwrap_or_default();
    let question = if text_at(&backup, "spec.deletionPolicy") == "Retain" {
        format!("{name}, a backup of {service}, is forgotten. What lies in its target stays.")
    } else {
        format!("{name}{size}, a backup of {service}, is deleted from its target. It cannot be had back.")
    };
    run.confirm_name(&question, name).await?;
    let ask = client.ask(Method::DELETE, &["backups", text_at(&backup, "id")]);
    start(run, ask, &args.waiting).await.map(drop)
}
