//! Data services: databases, from their plan to their end.

mod change;
mod create;
mod look;
mod spec;

use clap::Subcommand;

use super::view::{Kind, Noun, column, wide};
use crate::failure::Failure;
use crate::invocation::Invocation;

pub(crate) const NOUN: Noun = Noun {
    one: "data service",
    list: "culvert data-service list",
    collection: "data-services",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("ENGINE", "spec.engine", Kind::Text),
        column("VERSION", "status.version.running", Kind::Text),
        column("CLUSTER", "cluster", Kind::Text),
        column("STATE", "state", Kind::State),
        column("READY", "status.readyReplicas", Kind::Text),
        column("WHY", "status.why.message", Kind::Text),
        wide("NEXT", "status.why.next", Kind::Text),
        wide("PROJECT", "project", Kind::Text),
        wide("NAMESPACE", "namespace", Kind::Text),
        wide("STORAGE", "spec.storage.size", Kind::Text),
        wide("DATA", "status.dataBytes", Kind::Bytes),
        wide("LAST BACKUP", "status.lastBackup.at", Kind::Time),
        wide("RECOVERABLE FROM", "status.recoverable.from", Kind::Time),
        wide("RECOVERABLE UNTIL", "status.recoverable.until", Kind::Time),
        wide("UPGRADE", "status.version.available", Kind::Text),
        wide("SEEN", "observed_at", Kind::Time),
        wide("DELETED", "deleted_at", Kind::Time),
        wide("UNDELETE UNTIL", "undelete_until", Kind::Time),
        wide("ID", "id", Kind::Text),
    ],
    first: "culvert data-service create NAME --cluster CLUSTER --engine postgresql",
};

/// Databases in clusters: create, change, look into, delete
#[derive(Subcommand)]
#[command(visible_aliases = ["ds", "dsvc"], after_help = "Examples:
  culvert data-service create orders --cluster edge-1 --engine postgresql --version 17
  culvert data-service list
  culvert data-service plan orders --memory 2Gi
  culvert data-service logs orders --follow")]
pub(crate) enum DataService {
    Create(create::Create),
    List(look::List),
    Get(look::Get),
    Plan(change::Plan),
    Update(change::Update),
    Scale(change::Scale),
    /// Restart all instances one after the other; the primary last
    #[command(
        after_help = "Examples:\n  culvert data-service restart orders\n  culvert data-service restart orders --no-wait"
    )]
    Restart(change::Act),
    /// Stop a data service: no instance runs, the volumes stay
    #[command(
        after_help = "Examples:\n  culvert data-service stop orders --yes\n  culvert data-service stop orders --yes --no-wait"
    )]
    Stop(change::Act),
    /// Start a data service that was stopped
    #[command(
        after_help = "Examples:\n  culvert data-service start orders\n  culvert data-service start orders --no-wait"
    )]
    Start(change::Act),
    /// Make new passwords and certificates; connections that are open stay
    #[command(
        after_help = "Examples:\n  culvert data-service rotate-credentials orders\n  culvert data-service rotate-credentials orders --no-wait"
    )]
    RotateCredentials(change::Act),
    Delete(change::Delete),
    /// Bring back a deleted data service while its volumes are still there
    #[command(
        after_help = "Examples:\n  culvert data-service undelete orders\n  culvert data-service undelete orders --no-wait"
    )]
    Undelete(change::Act),
    Logs(look::Logs),
    Events(look::Events),
    Diff(look::Diff),
    Metrics(look::Metrics),
    Export(look::Export),
}

pub(crate) async fn run(run: &Invocation, command: DataService) -> Result<(), Failure> {
    match command {
        DataService::Create(args) => create::run(run, args).await,
        DataService::List(args) => look::list(run, args).await,
        DataService::Get(args) => look::get(run, &args).await,
        DataService::Plan(args) => change::plan(run, args).await,
        DataService::Update(args) => change::update(run, args).await,
        DataService::Scale(args) => change::scale(run, &args).await,
        DataService::Restart(args) => change::act(run, &args, "restart").await,
        DataService::Stop(args) => change::stop(run, &args).await,
        DataService::Start(args) => change::act(run, &args, "start").await,
        DataService::RotateCredentials(args) => change::act(run, &args, "rotate-credentials").await,
        DataService::Delete(args) => change::delete(run, &args).await,
        DataService::Undelete(args) => change::act(run, &args, "undelete").await,
        DataService::Logs(args) => look::logs(run, &args).await,
        DataService::Events(args) => look::events(run, &args).await,
        DataService::Diff(args) => look::diff(run, &args).await,
        DataService::Metrics(args) => look::metrics(run, &args).await,
        DataService::Export(args) => look::export(run, &args).await,
    }
}
