//! Clusters for people: a row each, or everything about one.

use super::Model;
use crate::client::model::Page;
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tree};

const COLUMNS: [&str; 5] = ["NAME", "STATE", "KUBERNETES", "AGENT", "LAST SEEN"];
const WIDE: [&str; 7] = ["ID", "NODES", "SOURCE", "RTT", "CERTIFICATE UNTIL", "LABELS", "NOTE"];

/// The table of clusters, empty.
pub(super) fn table() -> Table {
    Table::new(&COLUMNS, &WIDE)
}

/// Adds a row for a cluster.
pub(super) fn row(run: &Invocation, table: &mut Table, cluster: &Model) {
    let time = |at: &Option<String>| at.as_deref().map(|at| run.out.clock.show(at));
    let agent = cluster.agent.as_ref();
    let facts = cluster.facts.as_ref();
    let seen = if cluster.state == "connected" {
        Some("now".to_owned())
    } else {
        agent.and_then(|agent| time(&agent.last_seen_at))
    };
    table.row([
        Cell::new(&cluster.name),
        Cell::state(&cluster.state),
        Cell::from(facts.and_then(|f| f.kubernetes_version.as_ref())),
        Cell::from(agent.and_then(|a| a.version.as_ref())),
        Cell::from(seen),
        Cell::new(&cluster.id),
        Cell::from(facts.and_then(|f| f.nodes).map(|nodes| nodes.to_string())),
        Cell::from(agent.and_then(|a| a.source.as_ref())),
        Cell::from(agent.and_then(|a| a.rtt_us).map(milliseconds)),
        Cell::from(agent.and_then(|a| time(&a.certificate_not_after))),
        Cell::new(labels(cluster)),
        Cell::from(note(cluster)),
    ]);
}

fn labels(cluster: &Model) -> String {
    cluster.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What a person should know: the lock, then a problem, then the last refusal.
fn note(cluster: &Model) -> Option<String> {
    let lock = cluster.lock.as_ref().map(|lock| format!("locked: {}", lock.message));
    let problem = || cluster.facts.as_ref().and_then(|facts| facts.problem.clone());
    let refusal = || cluster.agent.as_ref()?.last_refusal.as_ref().map(|r| format!("refused: {}", r.code));
    lock.or_else(problem).or_else(refusal)
}

/// Microseconds as people read them.
pub(crate) fn milliseconds(microseconds: u64) -> String {
    if microseconds < 10_000 {
        format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
    } else {
        format!("{} ms", microseconds / 1000)
    }
}

/// Shows a list.
pub(super) fn many(run: &Invocation, tree: &Tree, filtered: bool) -> Result<(), Failure> {
    let page: Page<Model> = tree.read().map_err(|error| {
        Failure::new(Exit::Failed, "the controller's list is not understood").because(error)
    })?;
    if page.items.is_empty() && run.out.for_people() {
        run.out.note(if filtered {
            "no cluster matches; without filters: culvert cluster list"
        } else {
            "no cluster yet; next: culvert cluster connect NAME"
        });
        return Ok(());
    }
    let mut table = table();
    page.items.iter().for_each(|cluster| row(run, &mut table, cluster));
    let names: Vec<String> = page.items.into_iter().map(|cluster| cluster.name).collect();
    run.out.answer(tree, &table, &names)?;
    if let Some(cursor) = page.next.filter(|_| run.out.for_people()) {
        run.out.note(&format!("there are more; go on with: --after {cursor}"));
    }
    Ok(())
}

/// Shows one cluster.
pub(super) fn one(run: &Invocation, tree: &Tree, cluster: &Model) -> Result<(), Failure> {
    let time = |at: &Option<String>| Cell::from(at.as_deref().map(|at| run.out.clock.show(at)));
    let mut table = Table::facts();
    table.fact("name", Cell::new(&cluster.name));
    table.fact("id", Cell::new(&cluster.id));
    table.fact("state", Cell::state(&cluster.state));
    if let Some(lock) = &cluster.lock {
        table.fact("locked", Cell::new(&lock.message));
        table.fact("locked at", time(&lock.at));
    }
    table.fact("labels", Cell::new(labels(cluster)));
    table.fact("created", time(&cluster.created_at));
    if let Some(facts) = &cluster.facts {
        table.fact("kubernetes", Cell::from(facts.kubernetes_version.as_ref()));
        table.fact("nodes", Cell::from(facts.nodes.map(|nodes| nodes.to_string())));
        table.fact("API latency", Cell::from(facts.api_latency_us.map(milliseconds)));
        table.fact("route", Cell::from(facts.route.as_ref()));
        if let Some(policy) = facts.policy.as_ref().filter(|policy| !policy.is_empty()) {
            table.fact("policy", Cell::new(policy));
        }
        if let Some(problem) = &facts.problem {
            table.fact("problem", Cell::new(problem));
        }
    }
    if let Some(agent) = &cluster.agent {
        crate::commands::agent::facts(run, &mut table, agent);
    }
    run.out.answer(tree, &table, std::slice::from_ref(&cluster.name))
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn a_round_trip_is_shown_in_milliseconds() {
        assert_eq!(milliseconds(0), "0.0 ms");
        assert_eq!(milliseconds(1_234), "1.2 ms");
        assert_eq!(milliseconds(9_999), "9.9 ms");
        assert_eq!(milliseconds(123_456), "123 ms");
    }
}
