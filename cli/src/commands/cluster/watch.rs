//! Clusters as they change.

use std::collections::BTreeMap;

use clap::Args;
use tokio::time::Instant;

use super::{Model, missing, show};
use crate::client::Client;
use crate::client::events::{Event, Events, News};
use crate::client::pages::{Part, gather};
use crate::failure::{Exit, Failure};
use crate::invocation::{Invocation, interrupted};
use crate::output::Tree;

/// Each line is laid out by itself; this much makes most of them line up.
const SPACE: usize = 14;

/// Follow clusters as they change, until Ctrl-C or --timeout
#[derive(Args)]
#[command(after_help = "With -o json each change is one line: the cluster as the API shows it.

Examples:
  culvert cluster watch
  culvert cluster watch edge-1 --until connected --timeout 5m
  culvert cluster watch -o json")]
pub(crate) struct Watch {
    /// Name or id of a cluster; all of them when left out
    cluster: Option<String>,
    /// End with success as soon as the cluster has this state
    #[arg(long, requires = "cluster", value_parser = ["pending", "connected", "disconnected", "locked"])]
    until: Option<String>,
}

pub(super) async fn run(run: &Invocation, args: Watch) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let only = match &args.cluster {
        Some(name) => Some(super::find(&client, name).await?.id),
        None => None,
    };
    let events = Events::of(client.clone(), only.as_deref());
    let follower = Follower { run, client, only, until: args.until.clone(), known: BTreeMap::new() };
    if run.out.for_people() {
        run.out.data(&run.out.text_of(&show::table().spaced(SPACE)))?;
    }
    let end = run.globals.timeout.map(|time| Instant::now() + time);
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(interrupted()),
        () = at(end) => timed_out(&args),
        outcome = follower.follow(events) => outcome,
    }
}

/// Waits until then, or for ever.
pub(super) async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn timed_out(args: &Watch) -> Result<(), Failure> {
    match (&args.until, &args.cluster) {
        (Some(state), Some(cluster)) => {
            Err(Failure::new(Exit::TimedOut, format!("{cluster} is not {state} yet"))
                .next(format!("culvert cluster diagnose {cluster}")))
        }
        _ => Ok(()),
    }
}

struct Follower<'r> {
    run: &'r Invocation,
    client: Client,
    only: Option<String>,
    until: Option<String>,
    known: BTreeMap<String, (String, Tree)>,
}

impl Follower<'_> {
    /// Shows the state and then each change, until the awaited state is reached.
    async fn follow(mut self, mut events: Events) -> Result<(), Failure> {
        let mut reached = self.reread().await?;
        while !reached {
            let news = events.next().await?;
            reached = self.hear(news).await?;
        }
        Ok(())
    }

    /// Takes news; true when the awaited state is reached.
    async fn hear(&mut self, news: News) -> Result<bool, Failure> {
        match news {
            News::Reread => self.reread().await,
            News::Cut(cause) => {
                self.run.out.note(&format!("the stream is cut ({cause}); reconnecting"));
                Ok(false)
            }
            News::Event(Event { name, data }) if name == "cluster" => {
                let tree = Tree::from_json(data.as_bytes()).map_err(|error| {
                    Failure::new(Exit::Failed, "the controller's event is not understood").because(error)
                })?;
                self.see(tree)
            }
            News::Event(Event { name, .. }) if name == "agent" => self.reread().await,
            News::Event(_) => Ok(false),
        }
    }

    /// Reads the state by GET and shows what is new in it.
    async fn reread(&mut self) -> Result<bool, Failure> {
        let trees = match &self.only {
            Some(id) => vec![self.client.get(&["clusters", id]).await.map_err(|f| missing(f, id))?.tree()?],
            None => gather(&self.client, &["clusters"], &[], &Part::default())
                .await?
                .get("items")
                .map(|items| items.list().to_vec())
                .unwrap_or_default(),
        };
        let id_of = |tree: &Tree| tree.get("id").and_then(Tree::text).unwrap_or_default().to_owned();
        let present: Vec<String> = trees.iter().map(id_of).collect();
        let out = &self.run.out;
        self.known.retain(|id, (name, _)| {
            let stays = present.contains(id);
            if !stays {
                out.note(&format!("{name} was deleted"));
            }
            stays
        });
        for tree in trees {
            if self.see(tree)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Shows a cluster if it differs from what was shown.
    fn see(&mut self, tree: Tree) -> Result<bool, Failure> {
        let cluster: Model = tree.read().map_err(|error| {
            Failure::new(Exit::Failed, "the controller's event is not understood").because(error)
        })?;
        if self.known.get(&cluster.id).is_none_or(|(_, shown)| *shown != tree) {
            let mut table = show::table().spaced(SPACE);
            show::row(self.run, &mut table, &cluster);
            self.run.out.change(&tree, &table, std::slice::from_ref(&cluster.name))?;
        }
        if cluster.state == "deleted" {
            self.known.remove(&cluster.id);
            return match self.only {
                Some(_) => Err(Failure::new(Exit::NotFound, format!("{} was deleted", cluster.name))),
                None => Ok(false),
            };
        }
        let reached = self.until.as_ref().is_some_and(|state| *state == cluster.state);
        self.known.insert(cluster.id, (cluster.name, tree));
        Ok(reached)
    }
}
