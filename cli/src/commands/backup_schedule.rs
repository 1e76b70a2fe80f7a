//! Schedules: when backups are made, and how long they are kept.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::data_service::NOUN as SERVICE;
use super::follow::PERIOD;
use super::view::{Extent, Kind, Noun, column, plain, text_at, wide};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::Tree;

pub(crate) const NOUN: Noun = Noun {
    one: "backup schedule",
    list: "culvert backup-schedule list",
    collection: "backup-schedules",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("DATA SERVICE", "spec.service", Kind::Text),
        column("CLUSTER", "cluster", Kind::Text),
        column("TARGET", "spec.target", Kind::Text),
        column("CRON", "spec.cron", Kind::Text),
        column("LAST SUCCESS", "status.lastSuccess", Kind::Time),
        column("NEXT", "status.next", Kind::Time),
        column("MISSES", "status.missesInARow", Kind::Text),
        wide("ZONE", "spec.timeZone", Kind::Text),
        wide("METHOD", "spec.method", Kind::Text),
        wide("SUSPENDED", "spec.suspended", Kind::Text),
        wide("KEEP LAST", "spec.retention.keepLast", Kind::Text),
        wide("KEEP HOURS", "spec.retention.maxAgeHours", Kind::Text),
        wide("DRY RUN", "spec.retention.dryRun", Kind::Text),
        wide("KEPT", "status.kept", Kind::Text),
        wide("WOULD DELETE", "status.wouldDelete", Kind::Text),
        wide("VERIFY EVERY", "spec.verifyEvery", Kind::Text),
        wide("WHY", "status.why.message", Kind::Text),
        wide("NAMESPACE", "namespace", Kind::Text),
        wide("SEEN", "observed_at", Kind::Time),
        wide("ID", "id", Kind::Text),
    ],
    first: "culvert backup-schedule create DATA-SERVICE --cron '0 3 * * *'",
};

/// How long the operator has to begin a backup when nothing else is said.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Backup schedules: when backups are made, and how long they are kept
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert backup-schedule create orders --cron '0 3 * * *' --keep-last 14
  culvert backup-schedule list
  culvert backup-schedule run orders-nightly")]
pub(crate) enum BackupSchedule {
    Create(Create),
    List(List),
    Get(Which),
    Update(Update),
    Run(Run),
    Delete(Delete),
}

/// What a schedule says
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Flags {
    /// Time zone of the cron expression
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// How: the engine's files, or its own dump
    #[arg(long, value_parser = ["physical", "logical"])]
    method: Option<String>,
    /// Keep so many of the newest
    #[arg(long, value_name = "COUNT")]
    keep_last: Option<u32>,
    /// Keep what is younger than this, such as 30d
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    keep_for: Option<std::time::Duration>,
    /// Never go below so many
    #[arg(long, value_name = "COUNT")]
    keep_at_least: Option<u32>,
    /// Only tell what retention would delete
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    retention_dry_run: Option<bool>,
    /// Restore every n-th into a throwaway service, query it and time it; 0 for none
    #[arg(long, value_name = "N")]
    verify_every: Option<u32>,
    /// Begin up to so many seconds late, so that not all schedules begin at once
    #[arg(long, value_name = "SECONDS")]
    jitter: Option<u32>,
}

/// Make a schedule for a data service
#[derive(Args)]
#[command(after_help = "Examples:
  culvert backup-schedule create orders --cron '0 3 * * *' --keep-last 14
  culvert backup-schedule create orders --name hourly --cron '15 * * * *' --keep-for 2d --verify-every 24")]
pub(crate) struct Create {
    /// Name or id of the data service
    data_service: String,
    /// Minute, hour, day, month, weekday
    #[arg(long)]
    cron: String,
    /// Where they go; where the service's backups go when left out
    #[arg(long)]
    target: Option<String>,
    /// Its name; made from the service's when left out
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

/// List the schedules
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert backup-schedule list\n  culvert backup-schedule list --data-service orders -o wide"
)]
pub(crate) struct List {
    /// Only of this data service
    #[arg(long)]
    data_service: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

/// Show a schedule, with what retention would delete now
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-schedule get orders-nightly\n  culvert backup-schedule get orders-nightly -o yaml"
)]
pub(crate) struct Which {
    /// Name or id of the schedule
    schedule: String,
}

/// Change a schedule
#[derive(Args)]
#[command(after_help = "Examples:
  culvert backup-schedule update orders-nightly --keep-last 30
  culvert backup-schedule update orders-nightly --suspended=yes")]
pub(crate) struct Update {
    /// Name or id of the schedule
    schedule: String,
    /// Minute, hour, day, month, weekday
    #[arg(long)]
    cron: Option<String>,
    /// Begin no run
    #[arg(long, value_name = "YES|NO", value_parser = ["yes", "no"], num_args = 0..=1, default_missing_value = "yes", require_equals = true)]
    suspended: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

/// Make one of its backups now
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-schedule run orders-nightly\n  culvert backup-schedule run orders-nightly --no-wait"
)]
pub(crate) struct Run {
    /// Name or id of the schedule
    schedule: String,
    /// Return as soon as the cluster was asked
    #[arg(long)]
    no_wait: bool,
}

/// Delete a schedule; the backups that it made stay
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-schedule delete orders-nightly\n  culvert backup-schedule delete orders-nightly --yes"
)]
pub(crate) struct Delete {
    /// Name or id of the schedule
    schedule: String,
}

pub(crate) async fn run(run: &Invocation, command: BackupSchedule) -> Result<(), Failure> {
    match command {
        BackupSchedule::Create(args) => create(run, args).await,
        BackupSchedule::List(args) => {
            NOUN.list(run, &[("data_service", args.data_service.as_deref())], args.extent).await
        }
        BackupSchedule::Get(args) => NOUN.show(run, &args.schedule).await,
        BackupSchedule::Update(args) => update(run, args).await,
        BackupSchedule::Run(args) => now(run, &args).await,
        BackupSchedule::Delete(args) => delete(run, &args).await,
    }
}

impl Flags {
    fn spec(&self) -> Map<String, Value> {
        let mut spec = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec.insert(key.to_owned(), value);
            }
        };
        put("timeZone", self.time_zone.clone().map(Value::from));
        put("method", self.method.clone().map(Value::from));
        put("verifyEvery", self.verify_every.map(Value::from));
        put("jitterSeconds", self.jitter.map(Value::from));
        let retention = self.retention();
        put("retention", (!retention.is_empty()).then_some(Value::Object(retention)));
        spec
    }

    fn retention(&self) -> Map<String, Value> {
        let hours = self.keep_for.map(|time| time.as_secs().div_ceil(3600));
        [
            ("keepLast", self.keep_last.map(Value::from)),
            ("maxAgeHours", hours.map(Value::from)),
            ("keepAtLeast", self.keep_at_least.map(Value::from)),
            ("dryRun", self.retention_dry_run.map(Value::from)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }
}

async fn create(run: &Invocation, args: Create) -> Result<(), Failure> {
    let client = run.client().await?;
    let service = SERVICE.find(&client, &args.data_service).await?;
    let mut spec = args.flags.spec();
    spec.insert("cron".to_owned(), args.cron.into());
    if let Some(target) = args.target {
        spec.insert("target".to_owned(), target.into());
    }
    let mut body = json!({ "data_service": text_at(&service, "id"), "spec": spec });
    if let (Some(name), Some(body)) = (args.name, body.as_object_mut()) {
        body.insert("name".to_owned(), name.into());
    }
    let ask = client.ask(Method::POST, &["backup-schedules"]).json(&body)?;
    NOUN.one(run, &client.send(ask).await?.tree()?)
}

async fn update(run: &Invocation, args: Update) -> Result<(), Failure> {
    let mut spec = args.flags.spec();
    if let Some(cron) = args.cron {
        spec.insert("cron".to_owned(), cron.into());
    }
    if let Some(suspended) = args.suspended {
        spec.insert("suspended".to_owned(), (suspended == "yes").into());
    }
    if spec.is_empty() {
        return Err(Failure::new(Exit::Usage, "nothing to change was given"));
    }
    let client = run.client().await?;
    let schedule = NOUN.find(&client, &args.schedule).await?;
    let ask = client.ask(Method::PATCH, &["backup-schedules", text_at(&schedule, "id")]);
    NOUN.one(run, &client.send(ask.json(&json!({ "spec": spec }))?).await?.tree()?)
}

async fn now(run: &Invocation, args: &Run) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let schedule = NOUN.find(&client, &args.schedule).await?;
    let id = text_at(&schedule, "id");
    let ask = client.ask(Method::POST, &["backup-schedules", id, "run"]);
    let asked = client.send(ask).await?.tree()?;
    let list = format!("culvert backup list --data-service {}", text_at(&asked, "spec.service"));
    if args.no_wait {
        run.out.note(&format!("asked; see its backup with: {list}"));
        return Ok(());
    }
    begun(run, &client, id, text_at(&asked, "run_asked"), &list).await?;
    run.out.note(&format!("its backup is being made; see it with: {list}"));
    Ok(())
}

/// Waits until the operator has made the backup's object.
async fn begun(run: &Invocation, client: &Client, id: &str, asked: &str, list: &str) -> Result<(), Failure> {
    let end = Instant::now() + run.globals.timeout.unwrap_or(PATIENCE);
    loop {
        let schedule = NOUN.find(client, id).await?;
        if text_at(&schedule, "status.asked") == asked {
            return Ok(());
        }
        if Instant::now() >= end {
            let failure = Failure::new(Exit::TimedOut, "the cluster was asked, and has begun no backup yet");
            let why = text_at(&schedule, "status.why.message");
            let failure = if why.is_empty() { failure } else { failure.because(why) };
            return Err(failure.next(list));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn delete(run: &Invocation, args: &Delete) -> Result<(), Failure> {
    let client = run.client().await?;
    let schedule = NOUN.find(&client, &args.schedule).await?;
    let (name, kept) = (text_at(&schedule, "name"), kept(&schedule));
    let question = format!("{name} makes no more backups of {}. {kept}", text_at(&schedule, "spec.service"));
    run.confirm_name(&question, name).await?;
    client.send(client.ask(Method::DELETE, &["backup-schedules", text_at(&schedule, "id")])).await?;
    run.out.note(&format!("deleted {name}"));
    Ok(())
}

fn kept(schedule: &Tree) -> String {
    let kept = super::view::at(schedule, "status.kept").map(plain).unwrap_or_default();
    if kept.is_empty() || kept == "0" {
        "It has made none.".to_owned()
    } else {
        format!("The {kept} that exist stay.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_in_hours_rounded_up() {
        let flags = Flags {
            keep_for: Some(std::time::Duration::from_secs(5400)),
            keep_last: Some(7),
            ..Flags::default()
        };
        assert_eq!(Value::Object(flags.spec()), json!({"retention": {"maxAgeHours": 2, "keepLast": 7}}));
        assert!(Flags::default().spec().is_empty());
    }
}
