//! From nothing to a connected cluster: record, token, helm line, lights.
//!
//! The join token goes into a values file that only its owner can read, and the
//! helm line names that file: a token in the line itself would be seen in the
//! list of processes and kept in the shell's history. Once the agent is connected
//! the token is worth nothing and the file is removed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use secrecy::ExposeSecret;
use tokio::time::{Instant, MissedTickBehavior};
use zeroize::Zeroizing;

use super::diagnose::{cause_and_fix, turned_away};
use super::token::{self, Terms};
use super::{Model, creation};
use crate::args::pair;
use crate::client::Client;
use crate::client::events::{Events, News};
use crate::client::model::{Diagnosis, NewJoinToken};
use crate::failure::{Exit, Failure};
use crate::files;
use crate::invocation::{Invocation, interrupted};
use crate::output::lights::{Lights, words};
use crate::output::{Format, Tree, ago, clean};

/// The lights are read again this often even when no event came.
const REREAD: Duration = Duration::from_secs(3);
/// A connected agent that has not told its capabilities by then is connected all the same.
const CAPABILITIES: Duration = Duration::from_secs(15);
/// The release and the namespace of the helm line.
const RELEASE: &str = "culvert-agent";

/// Connect a cluster: make its record and a join token, print the helm line, follow the lights
#[derive(Args)]
#[command(
    after_help = "The helm line goes to standard output; run it where helm reaches the cluster. It reads the
join token from a values file that only you can read, and that is removed once the agent is
connected. When helm runs elsewhere, copy that file there, or pipe it:

  culvert cluster connect edge-1 --values-file - --quiet |
    ssh admin@edge helm upgrade --install culvert-agent CHART --namespace culvert-agent \\
      --create-namespace --values -

Ctrl-C stops the following and nothing else.

Examples:
  culvert cluster connect edge-1
  culvert cluster connect edge-1 --no-wait | sh
  culvert cluster connect edge-1 --follow --timeout 10m"
)]
pub(crate) struct Connect {
    /// Name of the cluster; its record is made when it is missing
    cluster: String,
    /// A label for a new record; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    terms: Terms,
    /// Where to write the values with the token; - for standard output, without waiting
    #[arg(long, value_name = "FILE")]
    values_file: Option<PathBuf>,
    /// Print the helm line and do not wait
    #[arg(long, conflicts_with = "follow")]
    no_wait: bool,
    /// Make no new token; only follow the lights
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(run: &Invocation, args: Connect) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let cluster = record(run, &client, &args).await?;
    if cluster.state == "locked" {
        return Err(Failure::new(Exit::Refused, format!("{} is locked", cluster.name))
            .because(cluster.lock.map(|lock| lock.message).unwrap_or_default())
            .next(format!("culvert cluster unlock {}", cluster.name)));
    }
    if cluster.state == "connected" {
        run.out.note(&format!("{} is connected already", cluster.name));
        return next_steps(run, &cluster.name);
    }
    let offer = if args.follow { None } else { Some(offer(run, &client, &cluster, &args).await?) };
    // Whoever reads values from the pipe waits for its end, so the following waits too.
    let piped = args.values_file.as_deref() == Some(Path::new("-"));
    if args.no_wait || (piped && !args.follow) {
        run.out.note(&format!("follow it with: culvert cluster connect {} --follow", cluster.name));
        return Ok(());
    }
    let end = run.globals.timeout.map(|time| Instant::now() + time);
    Box::pin(Following::begin(run, client, &cluster).watch_until(end)).await?;
    if let Some(path) = offer.flatten() {
        // It holds a token that was used; leaving it would only confuse.
        let _ = files::remove(&path);
    }
    next_steps(run, &cluster.name)
}

/// The cluster's record, made if it is missing.
async fn record(run: &Invocation, client: &Client, args: &Connect) -> Result<Model, Failure> {
    match client.get(&["clusters", &args.cluster]).await {
        Ok(answer) => answer.read(),
        Err(failure) if failure.exit == Exit::NotFound && !args.follow => {
            let made: Model = client.send(creation(client, &args.cluster, &args.labels)?).await?.read()?;
            run.out.note(&format!("made the record of {} ({})", made.name, made.id));
            Ok(made)
        }
        Err(failure) => Err(super::missing(failure, &args.cluster)),
    }
}

/// Makes a token, writes the values and prints the helm line. Gives the values file.
async fn offer(
    run: &Invocation,
    client: &Client,
    cluster: &Model,
    args: &Connect,
) -> Result<Option<PathBuf>, Failure> {
    let answer = token::request(client, cluster, &args.terms).await?;
    let made: NewJoinToken = answer.read()?;
    let values = values(&made)?;
    let until = run.out.clock.show(&made.expires_at);
    let chart = made.helm.repo_chart.as_deref().unwrap_or("culvert-agent");
    if args.values_file.as_deref() == Some(Path::new("-")) {
        run.out.data(&values)?;
        run.out.note(&format!("the token is for one use, until {until}; pipe these values into:\n"));
        run.out.note(&format!("  {}\n", helm_line(chart, "-")));
        return Ok(None);
    }
    let path = match &args.values_file {
        Some(path) => path.clone(),
        None => run.store.joins().join(format!("{}-values.yaml", cluster.id)),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    files::write_private(&path, values.as_bytes()).map_err(|e| Failure::file("write", &path, &e))?;
    let line = helm_line(chart, &path.to_string_lossy());
    run.out.note(&format!(
        "run this where helm reaches {}; the token in the file is for one use, until {until}:\n",
        cluster.name
    ));
    announce(run, cluster, &made, &path, &line)?;
    run.out.note("");
    Ok(Some(path))
}

fn announce(
    run: &Invocation,
    cluster: &Model,
    made: &NewJoinToken,
    path: &Path,
    line: &str,
) -> Result<(), Failure> {
    let tree = Tree::map([
        ("cluster", Tree::from(cluster.name.as_str())),
        ("cluster_id", Tree::from(cluster.id.as_str())),
        ("join_token_id", Tree::from(made.id.as_str())),
        ("expires_at", Tree::from(made.expires_at.as_str())),
        ("values_file", Tree::Text(path.to_string_lossy().into_owned())),
        ("command", Tree::from(line)),
    ]);
    match run.out.format {
        Format::Json => run.out.data(&(tree.json()? + "\n")),
        Format::Yaml => run.out.data(&tree.yaml()?),
        _ => run.out.data(&format!("{line}\n")),
    }
}

/// The chart's values as the controller wants them, with the token in place.
fn values(made: &NewJoinToken) -> Result<Zeroizing<String>, Failure> {
    let mut tree: Tree = serde_json::from_value(made.helm.values.clone()).unwrap_or_default();
    if !matches!(tree, Tree::Map(_)) {
        tree = Tree::Map(Vec::new());
    }
    tree.set("token", Tree::from(made.token.expose_secret()));
    let note = "# Holds a one-time join token. Remove this file once the agent is connected.\n";
    Ok(Zeroizing::new(format!("{note}{}", tree.yaml()?)))
}

fn helm_line(chart: &str, values: &str) -> String {
    format!(
        "helm upgrade --install {RELEASE} {} --namespace {RELEASE} --create-namespace --values {}",
        quoted(chart),
        quoted(values)
    )
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn next_steps(run: &Invocation, name: &str) -> Result<(), Failure> {
    run.out.note(&format!("next: culvert cluster kubeconfig {name} --merge && kubectl get nodes"));
    Ok(())
}

/// Follows one cluster's lights until it is connected.
struct Following<'r> {
    run: &'r Invocation,
    client: Client,
    id: String,
    name: String,
    lights: Lights,
    told: BTreeSet<(String, Option<String>)>,
    began: Instant,
    connected: Option<Instant>,
    trouble: Option<String>,
}

impl<'r> Following<'r> {
    fn begin(run: &'r Invocation, client: Client, cluster: &Model) -> Self {
        Self {
            run,
            client,
            id: cluster.id.clone(),
            name: cluster.name.clone(),
            lights: Lights::new(run.out.clone()),
            told: BTreeSet::new(),
            began: Instant::now(),
            connected: None,
            trouble: None,
        }
    }

    /// Follows until the cluster is connected, the time is over or Ctrl-C; the last
    /// two also end a request that is on its way.
    async fn watch_until(mut self, end: Option<Instant>) -> Result<(), Failure> {
        let name = self.name.clone();
        let outcome = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(detached(interrupted(), &name)),
            () = super::watch::at(end) => {
                Err(detached(Failure::new(Exit::TimedOut, format!("{name} is not connected yet")), &name))
            }
            outcome = self.follow() => outcome,
        };
        self.lights.finish();
        if outcome.is_ok() {
            self.run.out.note(&format!("{name} is connected"));
        }
        outcome
    }

    async fn follow(&mut self) -> Result<(), Failure> {
        let mut events = Events::of(self.client.clone(), Some(&self.id));
        let mut tick = tokio::time::interval(REREAD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let read = tokio::select! {
                news = events.next() => match news? {
                    News::Cut(cause) => {
                        self.trouble = Some(format!("the stream is cut ({cause}); reconnecting"));
                        false
                    }
                    News::Reread | News::Event(_) => true,
                },
                _ = tick.tick() => true,
            };
            if read && self.read().await? {
                return Ok(());
            }
        }
    }

    /// Reads the diagnosis and shows it; true when the cluster is connected.
    async fn read(&mut self) -> Result<bool, Failure> {
        let diagnosis: Diagnosis = match self.client.get(&["clusters", &self.id, "diagnosis"]).await {
            Ok(answer) => answer.read()?,
            Err(failure) if failure.exit == Exit::Unreachable => {
                // The controller may be restarting; the wait goes on and says so.
                self.trouble = Some(failure.cause().to_owned());
                self.show_again();
                return Ok(false);
            }
            Err(failure) => return Err(super::missing(failure, &self.name)),
        };
        self.trouble = None;
        self.tell_refusals(&diagnosis);
        self.lights.show(&diagnosis.lights, &self.waiting());
        if diagnosis.state != "connected" {
            self.connected = None;
            return Ok(false);
        }
        let since = *self.connected.get_or_insert_with(Instant::now);
        let probed =
            diagnosis.lights.iter().all(|light| light.stage != "capabilities" || light.state == "on");
        Ok(probed || since.elapsed() >= CAPABILITIES)
    }

    fn show_again(&mut self) {
        let waiting = self.waiting();
        self.lights.keep(&waiting);
    }

    fn waiting(&self) -> String {
        match &self.trouble {
            Some(trouble) => clean(trouble),
            None => format!("waiting for {} since {}; Ctrl-C detaches", self.name, ago(self.began.elapsed())),
        }
    }

    /// Each refused attempt is told once, oldest first.
    fn tell_refusals(&mut self, diagnosis: &Diagnosis) {
        for attempt in diagnosis.attempts.iter().rev().filter(|attempt| turned_away(attempt)) {
            if !self.told.insert((attempt.id.clone(), attempt.code.clone())) {
                continue;
            }
            let stage = attempt.stage.as_deref().map(words).unwrap_or_default();
            let from = attempt.source.as_deref().map(|s| format!(" from {s}")).unwrap_or_default();
            let code = attempt.code.as_deref().unwrap_or("refused");
            let head = clean(&format!("an attempt{from} was {} at \"{stage}\": {code}", attempt.outcome));
            let body: String = cause_and_fix(attempt).lines().map(|line| format!("\n  {line}")).collect();
            self.lights.say(&format!("{head}{body}"));
        }
    }
}

/// The wait ends and the work does not.
fn detached(failure: Failure, name: &str) -> Failure {
    failure
        .because("the record and the token stay; the agent may still connect")
        .next(format!("culvert cluster connect {name} --follow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helm_line_survives_the_shell_and_holds_no_token() {
        assert_eq!(quoted("oci://registry.example/culvert-agent"), "oci://registry.example/culvert-agent");
        assert_eq!(quoted("it's here; rm"), "'it'\\''s here; rm'");
        assert_eq!(quoted(""), "''");
        assert_eq!(
            helm_line("chart", "/tmp/a b.yaml"),
            "helm upgrade --install culvert-agent chart --namespace culvert-agent --create-namespace \
             --values '/tmp/a b.yaml'"
        );
    }

    #[test]
    fn values_hold_the_token_once_and_keep_the_rest() {
        let made: NewJoinToken = serde_json::from_str(
            r#"{"id":"jtk_1","token":"cvj1.secret","expires_at":"x",
                "helm":{"repo_chart":"c","values":{"controller":{"address":"a:443"},"token":"<token>"},"command":"x"}}"#,
        )
        .unwrap();
        let text = values(&made).unwrap();
        let tree = Tree::from_yaml(&text).unwrap();
        assert_eq!(tree.get("token").and_then(Tree::text), Some("cvj1.secret"));
        assert_eq!(tree.get("controller").unwrap().get("address").and_then(Tree::text), Some("a:443"));
        assert_eq!(text.matches("cvj1.").count(), 1);
    }
}
