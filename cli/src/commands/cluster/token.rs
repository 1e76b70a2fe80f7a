//! Join tokens of a cluster.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use secrecy::{ExposeSecret, SecretString};

use super::{Model, find};
use crate::args::duration;
use crate::client::model::{JoinToken, NewJoinToken, Page};
use crate::client::pages::{Part, gather};
use crate::client::{Answer, Client};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Format, Table};

/// One-time tokens with which a cluster's agent enrols
#[derive(Subcommand)]
#[command(
    after_help = "Examples:\n  culvert cluster token create edge-1\n  culvert cluster token list edge-1"
)]
pub(crate) enum Token {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Create a join token; it is shown once, on standard output
#[derive(Args)]
#[command(after_help = "Examples:
  culvert cluster token create edge-1 > token
  culvert cluster token create edge-1 --ttl 15m --from 192.0.2.0/24")]
pub(crate) struct Create {
    /// Name or id of the cluster
    cluster: String,
    #[command(flatten)]
    terms: Terms,
}

/// How long and from where a join token may be used.
#[derive(Args, Clone, Debug)]
pub(crate) struct Terms {
    /// How long it may be used, at most 24h; the controller's default is one hour
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Only from this network
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub(crate) from: Option<String>,
}

/// List a cluster's join tokens, without their secrets
#[derive(Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  culvert cluster token list edge-1")]
pub(crate) struct List {
    /// Name or id of the cluster
    cluster: String,
}

/// Revoke a join token that was not used yet
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert cluster token revoke edge-1 jtk_…")]
pub(crate) struct Revoke {
    /// Name or id of the cluster
    cluster: String,
    /// Id of the token
    token: String,
}

pub(crate) async fn run(run: &Invocation, command: Token) -> Result<(), Failure> {
    match command {
        Token::Create(args) => create(run, &args).await,
        Token::List(args) => list(run, &args).await,
        Token::Revoke(args) => revoke(run, &args).await,
    }
}

/// An address or a network in CIDR notation.
pub(crate) fn network(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" is no network; write 192.0.2.0/24 or 2001:db8::/32");
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = if text.contains('/') { bits.parse().map_err(|_| wrong())? } else { most };
    if bits <= most { Ok(format!("{address}/{bits}")) } else { Err(wrong()) }
}

/// Asks the controller for a join token.
pub(super) async fn request(client: &Client, cluster: &Model, terms: &Terms) -> Result<Answer, Failure> {
    let mut body = serde_json::Map::new();
    if let Some(ttl) = terms.ttl {
        body.insert("ttl_seconds".to_owned(), ttl.as_secs().into());
    }
    if let Some(network) = &terms.from {
        body.insert("cidr".to_owned(), network.as_str().into());
    }
    let ask = client.ask(Method::POST, &["clusters", &cluster.id, "join-tokens"]);
    client.send(ask.json(&body)?).await
}

async fn create(run: &Invocation, args: &Create) -> Result<(), Failure> {
    let client = run.client().await?;
    let cluster = find(&client, &args.cluster).await?;
    let answer = request(&client, &cluster, &args.terms).await?;
    let made: NewJoinToken = answer.read()?;
    reveal(run, &answer, &made.token)?;
    run.out.notice(&format!(
        "{}: shown this once; one use, until {}",
        made.id,
        run.out.clock.show(&made.expires_at)
    ));
    Ok(())
}

/// Writes a new secret to standard output: alone on a line, or in the API's own shape.
pub(crate) fn reveal(run: &Invocation, answer: &Answer, token: &SecretString) -> Result<(), Failure> {
    match run.out.format {
        Format::Json => run.out.data(&(answer.tree()?.json()? + "\n")),
        Format::Yaml => run.out.data(&answer.tree()?.yaml()?),
        _ => run.out.data(&format!("{}\n", token.expose_secret())),
    }
}

async fn list(run: &Invocation, args: &List) -> Result<(), Failure> {
    let client = run.client().await?;
    let cluster = find(&client, &args.cluster).await?;
    let tree = gather(&client, &["clusters", &cluster.id, "join-tokens"], &[], &Part::default()).await?;
    let page: Page<JoinToken> = tree.read().map_err(|error| {
        Failure::new(Exit::Failed, "the controller's list is not understood").because(error)
    })?;
    if page.items.is_empty() && run.out.for_people() {
        run.out.note(&format!("no join token; next: culvert cluster connect {}", cluster.name));
        return Ok(());
    }
    let time = |at: &Option<String>| Cell::from(at.as_deref().map(|at| run.out.clock.show(at)));
    let mut table = Table::new(&["ID", "STATE", "EXPIRES", "USED"], &["CREATED", "USED FROM"]);
    for token in &page.items {
        table.row([
            Cell::new(&token.id),
            Cell::state(&token.state),
            time(&token.expires_at),
            time(&token.used_at),
            time(&token.created_at),
            Cell::from(token.used_from.as_ref()),
        ]);
    }
    let names: Vec<String> = page.items.iter().map(|token| token.id.clone()).collect();
    run.out.answer(&tree, &table, &names)
}

async fn revoke(run: &Invocation, args: &Revoke) -> Result<(), Failure> {
    let client = run.client().await?;
    let cluster = find(&client, &args.cluster).await?;
    client
        .send(client.ask(Method::DELETE, &["clusters", &cluster.id, "join-tokens", &args.token]))
        .await
        .map_err(|failure| match failure.exit {
            Exit::NotFound => failure.next(format!("culvert cluster token list {}", cluster.name)),
            _ => failure,
        })?;
    run.out.note(&format!("revoked {}", args.token));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn a_network_is_an_address_and_bits() {
        assert_eq!(network("192.0.2.0/24").as_deref(), Ok("192.0.2.0/24"));
        assert_eq!(network("192.0.2.7").as_deref(), Ok("192.0.2.7/32"));
        assert_eq!(network("2001:db8::/32").as_deref(), Ok("2001:db8::/32"));
        for text in ["", "a", "192.0.2.0/33", "192.0.2/24", "::/129", "1.2.3.4/", "1.2.3.4/x", "1.2.3.4/-1"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
