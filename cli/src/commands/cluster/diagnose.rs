//! What the controller saw of a cluster's attempts to connect, and what to do.

use std::fmt::Write as _;

use clap::Args;

use super::missing;
use crate::client::model::{Attempt, Diagnosis};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::lights::words;
use crate::output::{Cell, Table, Tone, clean};

/// Show what the controller saw of a cluster's attempts to connect, the cause and the fix
#[derive(Args)]
#[command(after_help = "The exit code is 0 when nothing is wrong and 9 when a step failed.

Examples:
  culvert cluster diagnose edge-1
  culvert cluster diagnose edge-1 -o json")]
pub(crate) struct Diagnose {
    /// Name or id of the cluster
    cluster: String,
}

pub(super) async fn run(run: &Invocation, args: &Diagnose) -> Result<(), Failure> {
    let client = run.client().await?;
    let path = ["clusters", args.cluster.as_str(), "diagnosis"];
    let answer = client.get(&path).await.map_err(|f| missing(f, &args.cluster))?;
    let diagnosis: Diagnosis = answer.read()?;
    if run.out.for_people() {
        run.out.data(&page(run, &diagnosis))?;
    } else {
        run.out.answer(&answer.tree()?, &Table::default(), std::slice::from_ref(&diagnosis.state))?;
    }
    verdict(&diagnosis, &args.cluster)
}

/// A failed light, or a last attempt that was turned away, is a failure of the operation.
fn verdict(diagnosis: &Diagnosis, cluster: &str) -> Result<(), Failure> {
    let light = diagnosis.lights.iter().find(|light| light.state == "failed");
    let attempt = diagnosis.attempts.first().filter(|a| turned_away(a) && diagnosis.state != "connected");
    if light.is_none() && attempt.is_none() {
        return Ok(());
    }
    let stage = light.map(|l| l.stage.as_str()).or_else(|| attempt?.stage.as_deref()).unwrap_or("enrolment");
    let mut failure =
        Failure::new(Exit::OperationFailed, format!("{cluster} does not get past: {}", words(stage)));
    failure.why = attempt.and_then(|a| a.detail.clone()).or_else(|| light?.detail.clone());
    failure.next = diagnosis.next.clone().or_else(|| attempt?.fix.clone());
    failure.code = attempt.and_then(|a| a.code.clone());
    Err(failure)
}

/// Whether an attempt ended without getting through.
pub(super) fn turned_away(attempt: &Attempt) -> bool {
    matches!(attempt.outcome.as_str(), "refused" | "failed")
}

fn page(run: &Invocation, diagnosis: &Diagnosis) -> String {
    let time = |at: &Option<String>| Cell::from(at.as_deref().map(|at| run.out.clock.show(at)));
    let mut facts = Table::facts();
    facts.fact("state", Cell::state(&diagnosis.state));
    if let Some(summary) = &diagnosis.summary {
        facts.fact("summary", Cell::new(summary));
    }
    if let Some(next) = &diagnosis.next {
        facts.fact("next", Cell::toned(next, Tone::Strong));
    }
    let mut lights = Table::new(&["STEP", "STATE", "AT", "FROM", "DETAIL"], &[]);
    for light in &diagnosis.lights {
        lights.row([
            Cell::new(words(&light.stage)),
            Cell::state(&light.state),
            time(&light.at),
            Cell::from(light.source.as_ref()),
            Cell::from(light.detail.as_ref()),
        ]);
    }
    let mut text = format!("{}\n{}", run.out.text_of(&facts), run.out.text_of(&lights));
    if !diagnosis.attempts.is_empty() {
        let mut attempts = Table::new(&["ATTEMPT", "FROM", "STEP", "OUTCOME", "CODE"], &["AGENT", "ID"]);
        for attempt in &diagnosis.attempts {
            attempts.row([
                time(&attempt.at),
                Cell::from(attempt.source.as_ref()),
                Cell::from(attempt.stage.as_deref().map(words)),
                Cell::state(&attempt.outcome),
                Cell::from(attempt.code.as_ref()),
                Cell::from(attempt.agent_version.as_ref()),
                Cell::new(&attempt.id),
            ]);
        }
        text = format!("{text}\n{}", run.out.text_of(&attempts));
        if let Some(last) = diagnosis.attempts.iter().find(|attempt| turned_away(attempt)) {
            text.push('\n');
            text.push_str(&cause_and_fix(last));
        }
    }
    text
}

/// The cause and the fix of an attempt in full: these are never cut.
pub(super) fn cause_and_fix(attempt: &Attempt) -> String {
    let mut text = String::new();
    for (label, value) in [("cause", &attempt.detail), ("fix", &attempt.fix)] {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{label:<7}{}", clean(value));
        }
    }
    text
}
