//! Following an operation: each step as it begins and ends, until the work is done.
//!
//! Ctrl-C and `--timeout` end the command and never the work, and both say how to go on. The
//! operation is asked for again and again rather than listened to, so that a controller that
//! restarts in the middle, or a laptop that slept, costs no more than a repeated line.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::view::{at, number_at, text_at};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::invocation::{Invocation, interrupted};
use crate::output::Tree;

/// Between two looks.
pub(crate) const PERIOD: Duration = Duration::from_millis(700);
/// Failures to reach the controller in a row that are borne, about a minute.
const PATIENCE: u32 = 60;

/// Whether to wait for the work.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Waiting {
    /// Return as soon as the controller has taken the work; follow it with `culvert operation watch`
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Sends what starts an operation, and follows it; gives the answer of the request.
pub(crate) async fn start(
    run: &Invocation,
    ask: crate::client::Ask,
    waiting: &Waiting,
) -> Result<Tree, Failure> {
    let client = run.waiting_client().await?;
    let answer = client.send(ask).await?.tree()?;
    let Some(operation) = answer.get("operation").filter(|operation| **operation != Tree::Null) else {
        run.out.note(match answer.get("operation") {
            Some(_) => "nothing to do: it is as asked already",
            None => "taken; the clusters do it as they are reached",
        });
        return Ok(answer);
    };
    let id = text_at(operation, "id").to_owned();
    if waiting.no_wait {
        run.out.note(&format!("started; follow it with: culvert operation watch {id}"));
        return Ok(answer);
    }
    follow(run, &client, &id).await?;
    Ok(answer)
}

/// Follows an operation to its end; fails as the operation fails.
pub(crate) async fn follow(run: &Invocation, client: &Client, id: &str) -> Result<(), Failure> {
    if let Some(range) = expected(&get(client, id).await?) {
        run.out.note(&range);
    }
    let end = run.globals.timeout.map(|time| Instant::now() + time);
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            run.out.notice(&format!("the work goes on; follow it with: culvert operation watch {id}"));
            Err(interrupted())
        }
        () = until(end) => Err(Failure::new(Exit::TimedOut, "it is not done yet, and goes on")
            .next(format!("culvert operation watch {id}"))),
        outcome = to_the_end(run, client, id) => outcome,
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn get(client: &Client, id: &str) -> Result<Tree, Failure> {
    client.send(client.ask(Method::GET, &["operations", id])).await?.tree()
}

async fn to_the_end(run: &Invocation, client: &Client, id: &str) -> Result<(), Failure> {
    let mut told = Told::default();
    let mut unreachable = 0;
    loop {
        match get(client, id).await {
            Ok(operation) => {
                unreachable = 0;
                told.steps(&operation).iter().for_each(|line| run.out.note(line));
                if let Some(outcome) = outcome(&operation) {
                    return outcome;
                }
            }
            Err(failure) if failure.exit == Exit::Unreachable && unreachable < PATIENCE => {
                if unreachable == 0 {
                    run.out.note("the controller cannot be reached; the work goes on, trying again");
                }
                unreachable += 1;
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// What has been told, so that nothing is told twice.
#[derive(Default)]
struct Told {
    steps: BTreeMap<String, (String, String)>,
}

impl Told {
    /// The lines that are new.
    fn steps(&mut self, operation: &Tree) -> Vec<String> {
        let steps = operation.get("steps").map(Tree::list).unwrap_or_default();
        steps.iter().filter_map(|step| self.step(step, operation)).collect()
    }

    fn step(&mut self, step: &Tree, operation: &Tree) -> Option<String> {
        let state = text_at(step, "state");
        if matches!(state, "pending" | "") {
            return None;
        }
        let message = match (state, progress(operation)) {
            ("running", Some(progress)) => progress,
            _ => text_at(step, "message").to_owned(),
        };
        let now = (state.to_owned(), message.clone());
        if self.steps.insert(text_at(step, "name").to_owned(), now.clone()) == Some(now) {
            return None;
        }
        let sign = match state {
            "done" => "done",
            "failed" => "FAILED",
            "skipped" => "left out",
            _ => "...",
        };
        let title = text_at(step, "title");
        let title = if title.is_empty() { text_at(step, "name") } else { title };
        Some(if message.is_empty() {
            format!("{sign:>8}  {title}")
        } else {
            format!("{sign:>8}  {title}: {message}")
        })
    }
}

/// How far it is, in bytes.
fn progress(operation: &Tree) -> Option<String> {
    let progress = operation.get("progress").filter(|progress| **progress != Tree::Null)?;
    let number = |snake, camel| number_at(progress, snake).or_else(|| number_at(progress, camel));
    let bytes = |count: i64| super::view::bytes(u64::try_from(count).unwrap_or_default());
    let done = number("done_bytes", "doneBytes")?;
    let step = match text_at(progress, "step") {
        "" => "moved",
        step => step,
    };
    Some(match number("total_bytes", "totalBytes") {
        Some(total) if total > 0 => {
            format!("{step} {} of {} ({} %)", bytes(done), bytes(total), done.min(total) * 100 / total)
        }
        _ => format!("{step} {}", bytes(done)),
    })
}

fn expected(operation: &Tree) -> Option<String> {
    let low = number_at(operation, "expected_seconds.low")?;
    let high = number_at(operation, "expected_seconds.high")?;
    let length =
        |seconds: i64| crate::output::ago(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
    Some(format!("this takes {} to {} by experience", length(low), length(high)))
}

/// The end, once there is one.
fn outcome(operation: &Tree) -> Option<Result<(), Failure>> {
    match text_at(operation, "state") {
        "succeeded" => Some(Ok(())),
        "failed" => Some(Err(failed(operation))),
        "cancelled" => Some(Err(Failure::new(Exit::OperationFailed, "it was cancelled"))),
        _ => None,
    }
}

fn failed(operation: &Tree) -> Failure {
    let said = |path| Some(text_at(operation, path).to_owned()).filter(|text| !text.is_empty());
    let what = format!("{} failed", said("kind").unwrap_or_else(|| "the operation".to_owned()));
    let mut failure = Failure::new(Exit::OperationFailed, what);
    failure.why = said("failure.message");
    failure.code = said("failure.code");
    failure.next = said("failure.next").or_else(|| {
        at(operation, "id").and_then(Tree::text).map(|id| format!("culvert operation retry {id}"))
    });
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_step_is_told_when_it_changes() {
        let mut told = Told::default();
        let running = tree(
            r#"{"steps":[{"name":"send","title":"send it","state":"running","message":"waits"},{"name":"x","state":"pending"}]}"#,
        );
        assert_eq!(told.steps(&running), ["     ...  send it: waits"]);
        assert!(told.steps(&running).is_empty());
        let done = tree(r#"{"steps":[{"name":"send","title":"send it","state":"done","message":""}]}"#);
        assert_eq!(told.steps(&done), ["    done  send it"]);
    }

    #[test]
    fn progress_is_told_in_bytes_and_parts() {
        let operation =
            tree(r#"{"progress":{"step":"copying files","doneBytes":1048576,"totalBytes":4194304}}"#);
        assert_eq!(progress(&operation).unwrap(), "copying files 1.0 MiB of 4.0 MiB (25 %)");
        assert_eq!(progress(&tree(r#"{"progress":null}"#)), None);
    }

    #[test]
    fn a_failure_says_what_why_and_next() {
        let operation = tree(
            r#"{"id":"opn_1","kind":"backup","state":"failed","failure":{"code":"bucket_missing","message":"there is no bucket x","next":null}}"#,
        );
        let failure = outcome(&operation).unwrap().unwrap_err();
        assert_eq!(failure.exit, Exit::OperationFailed);
        assert_eq!(failure.why.as_deref(), Some("there is no bucket x"));
        assert_eq!(failure.next.as_deref(), Some("culvert operation retry opn_1"));
        assert!(outcome(&tree(r#"{"state":"running"}"#)).is_none());
    }
}
