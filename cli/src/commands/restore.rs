//! Bringing a backup back: into a new data service, or in place.

use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::backup::NOUN as BACKUP;
use super::data_service::NOUN as SERVICE;
use super::follow::{Waiting, start};
use super::view::{Extent, Kind, Noun, column, text_at, wide};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;

pub(crate) const NOUN: Noun = Noun {
    one: "restore",
    list: "culvert restore list",
    collection: "restores",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("DATA SERVICE", "spec.service", Kind::Text),
        column("FROM", "spec.source.backup", Kind::Text),
        column("STATE", "status.phase", Kind::State),
        column("REACHED", "status.reached", Kind::Time),
        column("ENDED", "status.endedAt", Kind::Time),
        wide("CLUSTER", "cluster", Kind::Text),
        wide("WANTED", "spec.pointInTime", Kind::Time),
        wide("PATH", "status.path", Kind::Text),
        wide("WHY", "status.failure.message", Kind::Text),
        wide("NEXT", "status.failure.hint", Kind::Text),
        wide("ID", "id", Kind::Text),
    ],
    first: "culvert restore create NEW-NAME --backup BACKUP",
};

/// Restores: bring a backup back, into a new data service or in place
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert restore create orders-copy --backup orders-1764037000
  culvert restore create orders-copy --data-service orders --to 2026-11-24T18:00:00Z
  culvert restore list")]
pub(crate) enum Restore {
    Create(Box<Create>),
    List(List),
    Get(Get),
}

/// Bring a backup back, and follow it until the data answers
#[derive(Args)]
#[command(group = ArgGroup::new("source").required(true).args(["backup", "data_service", "path"]), after_help = "Examples:
  culvert restore create orders-copy --backup orders-1764037000
  culvert restore create orders-copy --data-service orders --to 2026-11-24T18:00:00Z
  culvert restore create orders --target vault --path services/shop.orders.1a2b3c4d --cluster edge-2
  culvert restore create orders --backup orders-1764037000 --in-place")]
pub(crate) struct Create {
    /// Name of the data service that is made, or with --in-place is replaced
    name: String,
    /// This backup, by name or id
    #[arg(long)]
    backup: Option<String>,
    /// The newest backup of this data service that fits the time
    #[arg(long, value_name = "NAME")]
    data_service: Option<String>,
    /// A folder of a target, when nothing but the bucket is left
    #[arg(long, requires = "target")]
    path: Option<String>,
    /// The target of --path
    #[arg(long)]
    target: Option<String>,
    /// Bring it back to this moment; to the newest one when left out
    #[arg(long, value_name = "RFC3339")]
    to: Option<String>,
    /// The cluster; the backup's own when left out
    #[arg(long)]
    cluster: Option<String>,
    /// The project
    #[arg(long)]
    project: Option<String>,
    /// The namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Instances of the new service
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// A commit waits for a standby; no when only --replicas is given
    #[arg(long, requires = "replicas")]
    synchronous: bool,
    /// CPU of each instance, such as 500m or 2
    #[arg(long, requires = "memory")]
    cpu: Option<String>,
    /// Memory of each instance, such as 2Gi
    #[arg(long, requires = "cpu")]
    memory: Option<String>,
    /// Volume of each instance, such as 20Gi
    #[arg(long, value_name = "SIZE")]
    storage: Option<String>,
    /// Where backups and the log archive of the new service go; nowhere when left out
    #[arg(long, value_name = "TARGET", conflicts_with = "in_place")]
    backup_target: Option<String>,
    /// Version of the new service
    #[arg(long)]
    version: Option<String>,
    /// Replace the data of the service that has this name; a backup of it is made first
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// List restores
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert restore list\n  culvert restore list --data-service orders -o wide"
)]
pub(crate) struct List {
    /// Only into this data service
    #[arg(long)]
    data_service: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

/// Show a restore
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert restore get orders-copy-1764037000\n  culvert restore get orders-copy-1764037000 -o yaml"
)]
pub(crate) struct Get {
    /// Name or id of the restore
    restore: String,
}

pub(crate) async fn run(run: &Invocation, command: Restore) -> Result<(), Failure> {
    match command {
        Restore::Create(args) => create(run, *args).await,
        Restore::List(args) => {
            NOUN.list(run, &[("data_service", args.data_service.as_deref())], args.extent).await
        }
        Restore::Get(args) => NOUN.show(run, &args.restore).await,
    }
}

async fn create(run: &Invocation, args: Create) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let mut body = Map::new();
    body.insert("data_service".to_owned(), json!(args.name));
    body.insert("source".to_owned(), source(&client, &args).await?);
    let texts = [
        ("point_in_time", &args.to),
        ("cluster", &args.cluster),
        ("project", &args.project),
        ("namespace", &args.namespace),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            body.insert(key.to_owned(), json!(value));
        }
    }
    let overrides = overrides(&args);
    if !overrides.is_empty() {
        body.insert("overrides".to_owned(), Value::Object(overrides));
    }
    if args.in_place {
        body.insert("in_place".to_owned(), json!({ "confirm": confirmed(run, &client, &args.name).await? }));
    }
    let ask = client.ask(Method::POST, &["restores"]).json(&Value::Object(body))?;
    start(run, ask, &args.waiting).await?;
    if args.waiting.no_wait { Ok(()) } else { SERVICE.show(run, &args.name).await }
}

async fn source(client: &Client, args: &Create) -> Result<Value, Failure> {
    if let Some(path) = &args.path {
        return Ok(json!({ "target": args.target, "path": path }));
    }
    if let Some(backup) = &args.backup {
        return Ok(json!({ "backup": text_at(&BACKUP.find(client, backup).await?, "id") }));
    }
    let named = args.data_service.as_deref().unwrap_or_default();
    let service = SERVICE.find(client, named).await?;
    Ok(json!({ "data_service": text_at(&service, "id") }))
}

fn overrides(args: &Create) -> Map<String, Value> {
    let mut overrides = Map::new();
    if let Some(replicas) = args.replicas {
        let topology = json!({ "replicas": replicas, "synchronous": args.synchronous });
        overrides.insert("topology".to_owned(), topology);
    }
    if let (Some(cpu), Some(memory)) = (&args.cpu, &args.memory) {
        overrides.insert("resources".to_owned(), json!({ "cpu": cpu, "memory": memory }));
    }
    if let Some(size) = &args.storage {
        overrides.insert("storage".to_owned(), json!({ "size": size }));
    }
    if let Some(target) = &args.backup_target {
        overrides.insert("backup".to_owned(), json!({ "target": target }));
    }
    if let Some(version) = &args.version {
        overrides.insert("version".to_owned(), json!(version));
    }
    overrides
}

/// Asks for the name, and gives what proves to the controller that this very service is meant.
async fn confirmed(run: &Invocation, client: &Client, name: &str) -> Result<String, Failure> {
    let service = SERVICE.find(client, name).await?;
    if text_at(&service, "id").is_empty() {
        return Err(Failure::new(Exit::Failed, format!("{name} has no id")));
    }
    let question = format!(
        "All data that {name} has now is replaced by the backup's. A backup of {name} is made first.\n\
         Nobody can connect meanwhile."
    );
    run.confirm_name(&question, name).await?;
    Ok(text_at(&service, "id").to_owned())
}
