//! API tokens, for machines.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;

use super::cluster::token::{network, reveal};
use crate::args::duration;
use crate::client::model::{ApiToken, Page};
use crate::client::pages::{Part, gather};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Table};

/// API tokens, with which machines sign in
#[derive(Subcommand)]
#[command(after_help = "A machine gives its token in CULVERT_API_TOKEN_FILE or CULVERT_API_TOKEN.

Examples:
  culvert token create ci --role reader --ttl 30d > token
  culvert token list")]
pub(crate) enum Token {
    Create(Create),
    List(List),
    Delete(Delete),
}

/// Create an API token; it is shown once, on standard output
#[derive(Args)]
#[command(after_help = "Examples:
  umask 077; culvert token create ci --role reader --ttl 30d > token
  culvert token create deploy --role admin --ttl 1h --from 192.0.2.0/24")]
pub(crate) struct Create {
    /// The name; Kubernetes sees the token as culvert:token:NAME
    name: String,
    /// What it may do
    #[arg(long, value_parser = ["admin", "reader"], default_value = "reader")]
    role: String,
    /// How long it is valid
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30d")]
    ttl: Duration,
    /// Only from this network
    #[arg(long, value_name = "CIDR", value_parser = network)]
    from: Option<String>,
}

/// List the API tokens, without their secrets
#[derive(Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  culvert token list\n  culvert token list -o wide")]
pub(crate) struct List {}

/// Delete an API token; whoever uses it is cut off
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert token delete tok_…\n  culvert token delete tok_… --yes")]
pub(crate) struct Delete {
    /// Id or name of the token
    token: String,
}

pub(crate) async fn run(run: &Invocation, command: Token) -> Result<(), Failure> {
    match command {
        Token::Create(args) => create(run, &args).await,
        Token::List(_) => list(run).await,
        Token::Delete(args) => delete(run, &args.token).await,
    }
}

async fn create(run: &Invocation, args: &Create) -> Result<(), Failure> {
    #[derive(serde::Deserialize)]
    struct New {
        id: String,
        token: secrecy::SecretString,
        expires_at: Option<String>,
    }
    let client = run.client().await?;
    let mut body = serde_json::json!({
        "name": args.name, "role": args.role, "ttl_seconds": args.ttl.as_secs(),
    });
    if let (Some(network), Some(body)) = (&args.from, body.as_object_mut()) {
        body.insert("cidr".to_owned(), network.as_str().into());
    }
    let answer = client.send(client.ask(Method::POST, &["api-tokens"]).json(&body)?).await?;
    let made: New = answer.read()?;
    reveal(run, &answer, &made.token)?;
    let until = made.expires_at.map(|at| run.out.clock.show(&at)).unwrap_or_default();
    run.out.notice(&format!("{}: shown this once; valid until {until}", made.id));
    Ok(())
}

async fn read(run: &Invocation) -> Result<(crate::output::Tree, Vec<ApiToken>), Failure> {
    let tree = gather(&run.client().await?, &["api-tokens"], &[], &Part::default()).await?;
    let page: Page<ApiToken> = tree.read().map_err(|error| {
        Failure::new(Exit::Failed, "the controller's list is not understood").because(error)
    })?;
    Ok((tree, page.items))
}

async fn list(run: &Invocation) -> Result<(), Failure> {
    let (tree, tokens) = read(run).await?;
    if tokens.is_empty() && run.out.for_people() {
        run.out.note("no API token; next: culvert token create NAME");
        return Ok(());
    }
    let time = |at: &Option<String>| Cell::from(at.as_deref().map(|at| run.out.clock.show(at)));
    let mut table = Table::new(&["NAME", "ROLE", "EXPIRES", "ID"], &["CREATED", "FROM"]);
    for token in &tokens {
        table.row([
            Cell::new(&token.name),
            Cell::new(&token.role),
            time(&token.expires_at),
            Cell::new(&token.id),
            time(&token.created_at),
            Cell::from(token.cidr.as_ref()),
        ]);
    }
    let names: Vec<String> = tokens.iter().map(|token| token.name.clone()).collect();
    run.out.answer(&tree, &table, &names)
}

async fn delete(run: &Invocation, wanted: &str) -> Result<(), Failure> {
    let (_, tokens) = read(run).await?;
    let found: Vec<&ApiToken> = tokens.iter().filter(|t| t.id == wanted || t.name == wanted).collect();
    let token = match found.as_slice() {
        [token] => *token,
        [] => {
            return Err(Failure::new(Exit::NotFound, format!("there is no API token \"{wanted}\""))
                .next("culvert token list"));
        }
        _ => {
            return Err(Failure::new(Exit::Conflict, format!("several API tokens are named \"{wanted}\""))
                .next("culvert token list, and give the id"));
        }
    };
    run.confirm(&format!("Delete the API token {} ({})?", token.name, token.id)).await?;
    let client = run.client().await?;
    client.send(client.ask(Method::DELETE, &["api-tokens", &token.id])).await?;
    run.out.note(&format!("deleted {}", token.id));
    Ok(())
}
