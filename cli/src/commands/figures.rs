//! Recent figures, of whatever they are.

use std::time::Duration;

use crate::client::{Ask, Client};
use crate::commands::view::{plain, text_at};
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tree};

/// Asks for figures and shows them.
pub(super) async fn show(
    run: &Invocation,
    client: &Client,
    ask: Ask,
    since: Duration,
) -> Result<(), Failure> {
    let tree = client.send(ask.query("since", &format!("{}s", since.as_secs()))).await?.tree()?;
    let list = |key| tree.get(key).map(Tree::list).unwrap_or_default();
    if run.out.for_people() {
        for problem in list("problems") {
            let (instance, why) = (text_at(problem, "instance"), text_at(problem, "problem"));
            run.out.notice(&format!("{instance} told nothing: {why}"));
        }
        if tree.get("stale") == Some(&Tree::Bool(true)) {
            run.out.notice("the cluster is not connected; nothing newer is known");
        }
        if list("series").is_empty() {
            run.out.note("no figures have arrived within this time");
            return Ok(());
        }
    }
    let names: Vec<String> = list("series").iter().map(|one| text_at(one, "name").to_owned()).collect();
    run.out.answer(&tree, &figures(list("series")), &names)
}

fn figures(series: &[Tree]) -> Table {
    let mut table = Table::new(&["METRIC", "INSTANCE", "LAST"], &["KIND", "UNIT", "LABELS", "SAMPLES"]);
    for one in series {
        let samples = one.get("samples").map(Tree::list).unwrap_or_default();
        let last = samples.last().and_then(|sample| sample.get("value")).map(plain).unwrap_or_default();
        let unit = text_at(one, "unit");
        // A number of bytes has no fraction.
        let shown = match last.parse::<u64>() {
            Ok(count) if unit == "bytes" => crate::commands::view::bytes(count),
            _ => last,
        };
        table.row([
            Cell::new(text_at(one, "name")),
            Cell::new(text_at(one, "labels.instance")),
            Cell::new(shown),
            Cell::new(text_at(one, "kind")),
            Cell::new(unit),
            Cell::new(one.get("labels").map(plain).unwrap_or_default()),
            Cell::new(samples.len().to_string()),
        ]);
    }
    table
}
