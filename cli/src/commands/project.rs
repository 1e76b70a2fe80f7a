//! Projects: named parts of an organisation, with what they may use.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::view::{Extent, Kind, Noun, column, text_at, wide};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::Tree;

pub(crate) const NOUN: Noun = Noun {
    one: "project",
    list: "culvert project list",
    collection: "projects",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("DATA SERVICES", "used.data_services", Kind::Text),
        column("CPU", "used.cpu", Kind::Text),
        column("MEMORY", "used.memory", Kind::Text),
        column("STORAGE", "used.storage", Kind::Text),
        wide("MAX DATA SERVICES", "quota.data_services", Kind::Text),
        wide("MAX CPU", "quota.cpu", Kind::Text),
        wide("MAX MEMORY", "quota.memory", Kind::Text),
        wide("MAX STORAGE", "quota.storage", Kind::Text),
        wide("CREATED", "created_at", Kind::Time),
        wide("ID", "id", Kind::Text),
    ],
    first: "culvert project create NAME",
};

/// Projects: parts of the organisation, with a quota each
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert project create shop --max-storage 500Gi
  culvert project list -o wide")]
pub(crate) enum Project {
    Create(Create),
    List(List),
    Get(Which),
    Update(Update),
    Delete(Which),
}

/// What a project may use
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Quota {
    /// At most so many data services
    #[arg(long, value_name = "COUNT")]
    max_data_services: Option<u32>,
    /// At most so much CPU, all instances together
    #[arg(long, value_name = "CPU")]
    max_cpu: Option<String>,
    /// At most so much memory, all instances together
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    /// At most so much of volumes, all instances together
    #[arg(long, value_name = "SIZE")]
    max_storage: Option<String>,
}

/// Create a project
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert project create shop\n  culvert project create shop --max-data-services 10 --max-memory 64Gi"
)]
pub(crate) struct Create {
    /// The name: lower-case letters, digits and dashes
    name: String,
    #[command(flatten)]
    quota: Quota,
}

/// List the projects
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert project list\n  culvert project list -o wide"
)]
pub(crate) struct List {
    #[command(flatten)]
    extent: Extent,
}

/// Work with one project
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert project get shop\n  culvert project delete shop")]
pub(crate) struct Which {
    /// Name or id of the project
    project: String,
}

/// Change what a project may use; what runs already is not touched
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert project update shop --max-storage 1Ti\n  culvert project update shop --no-quota"
)]
pub(crate) struct Update {
    /// Name or id of the project
    project: String,
    #[command(flatten)]
    quota: Quota,
    /// Take all limits away
    #[arg(long, conflicts_with_all = ["max_data_services", "max_cpu", "max_memory", "max_storage"])]
    no_quota: bool,
}

pub(crate) async fn run(run: &Invocation, command: Project) -> Result<(), Failure> {
    match command {
        Project::Create(args) => create(run, &args).await,
        Project::List(args) => NOUN.list(run, &[], args.extent).await,
        Project::Get(args) => NOUN.show(run, &args.project).await,
        Project::Update(args) => update(run, &args).await,
        Project::Delete(args) => delete(run, &args.project).await,
    }
}

impl Quota {
    fn body(&self) -> Option<Value> {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let given: Map<String, Value> = [
            ("data_services", self.max_data_services.map(Value::from)),
            ("cpu", text(&self.max_cpu)),
            ("memory", text(&self.max_memory)),
            ("storage", text(&self.max_storage)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
        (!given.is_empty()).then_some(Value::Object(given))
    }
}

async fn create(run: &Invocation, args: &Create) -> Result<(), Failure> {
    let client = run.client().await?;
    let body = json!({ "name": args.name, "quota": args.quota.body() });
    let answer = client.send(client.ask(Method::POST, &["projects"]).json(&body)?).await?;
    NOUN.one(run, &answer.tree()?)
}

async fn update(run: &Invocation, args: &Update) -> Result<(), Failure> {
    let given = args.quota.body();
    if given.is_none() && !args.no_quota {
        return Err(Failure::new(Exit::Usage, "nothing to change was given"));
    }
    let client = run.client().await?;
    let project = NOUN.find(&client, &args.project).await?;
    let quota = given.map_or(Value::Null, |given| kept(&project, given));
    let ask =
        client.ask(Method::PATCH, &["projects", text_at(&project, "id")]).json(&json!({ "quota": quota }))?;
    NOUN.one(run, &client.send(ask).await?.tree()?)
}

/// The whole quota, as the API wants it: what is not given stays as it is.
fn kept(project: &Tree, given: Value) -> Value {
    let now = project.get("quota").and_then(|quota| serde_json::to_value(quota).ok());
    match (now, given) {
        (Some(Value::Object(mut quota)), Value::Object(given)) => {
            quota.extend(given);
            Value::Object(quota)
        }
        (_, given) => given,
    }
}

async fn delete(run: &Invocation, which: &str) -> Result<(), Failure> {
    let client = run.client().await?;
    let project = NOUN.find(&client, which).await?;
    let name = text_at(&project, "name");
    run.confirm_name(&format!("{name} is deleted; it must be empty."), name).await?;
    client.send(client.ask(Method::DELETE, &["projects", text_at(&project, "id")])).await?;
    run.out.note(&format!("deleted {name}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_given_stays() {
        let project = |text: &str| Tree::from_json(text.as_bytes()).unwrap();
        let bounded = project(r#"{"quota":{"data_services":3,"cpu":"4","memory":null,"storage":null}}"#);
        let wanted = json!({"data_services": 3, "cpu": "4", "memory": null, "storage": "1Ti"});
        assert_eq!(kept(&bounded, json!({"storage": "1Ti"})), wanted);
        assert_eq!(kept(&project(r#"{"quota":null}"#), json!({"cpu": "2"})), json!({"cpu": "2"}));
    }
}
