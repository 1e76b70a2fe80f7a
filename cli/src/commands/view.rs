//! Answers of the API as tables, by a list of columns: what a noun shows is data.

use crate::client::Client;
use crate::client::pages::{Part, gather};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tree};

/// How a value is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it is.
    Text,
    /// A state, in its colour.
    State,
    /// A time, by the clock asked for.
    Time,
    /// A number of bytes, in the unit that fits.
    Bytes,
}

/// One column of a list, or one fact of a thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    /// Names of fields from the outside in, with dots.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// Only with `-o wide`, and always among the facts of one thing.
    pub(crate) wide: bool,
}

/// A column that is always shown.
pub(crate) const fn column(heading: &'static str, path: &'static str, kind: Kind) -> Column {
    Column { heading, path, kind, wide: false }
}

/// A column for `-o wide`.
pub(crate) const fn wide(heading: &'static str, path: &'static str, kind: Kind) -> Column {
    Column { heading, path, kind, wide: true }
}

/// A noun: what it is called, and what is shown of it.
pub(crate) struct Noun {
    /// In the middle of a sentence, such as `data service`.
    pub(crate) one: &'static str,
    /// The command that lists them.
    pub(crate) list: &'static str,
    /// The collection in the API's path.
    pub(crate) collection: &'static str,
    pub(crate) columns: &'static [Column],
    /// What to do when there is none yet.
    pub(crate) first: &'static str,
}

/// How much of a list is wanted.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Extent {
    /// At most this many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on after the cursor of an earlier list
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

impl Noun {
    /// Lists, with filters that were given.
    pub(crate) async fn list(
        &self,
        run: &Invocation,
        filters: &[(&str, Option<&str>)],
        extent: Extent,
    ) -> Result<(), Failure> {
        let client = run.client().await?;
        let part = Part { limit: extent.limit.map(|n| n as usize), after: extent.after };
        let tree = gather(&client, &[self.collection], filters, &part).await?;
        let items = tree.get("items").map(Tree::list).unwrap_or_default();
        if items.is_empty() && run.out.for_people() {
            let filtered = filters.iter().any(|(_, value)| value.is_some());
            run.out.note(&if filtered {
                format!("no {} matches; without filters: {}", self.one, self.list)
            } else {
                format!("no {} yet; next: {}", self.one, self.first)
            });
            return Ok(());
        }
        run.out.answer(&tree, &self.table(run, items), &names(items))?;
        if let Some(cursor) = tree.get("next").and_then(Tree::text).filter(|_| run.out.for_people()) {
            run.out.note(&format!("there are more; go on with: --after {cursor}"));
        }
        Ok(())
    }

    /// One of them by name or id.
    pub(crate) async fn find(&self, client: &Client, which: &str) -> Result<Tree, Failure> {
        client.get(&[self.collection, which]).await.map_err(|f| self.missing(f, which))?.tree()
    }

    /// Gets and shows one.
    pub(crate) async fn show(&self, run: &Invocation, which: &str) -> Result<(), Failure> {
        let tree = self.find(&run.client().await?, which).await?;
        self.one(run, &tree)
    }

    /// Shows one.
    pub(crate) fn one(&self, run: &Invocation, tree: &Tree) -> Result<(), Failure> {
        let mut table = Table::facts();
        for column in self.columns {
            let Some(value) = at(tree, column.path).filter(|value| **value != Tree::Null) else { continue };
            table.fact(&column.heading.to_lowercase(), cell(run, column.kind, value));
        }
        run.out.answer(tree, &table, &names(std::slice::from_ref(tree)))
    }

    fn table(&self, run: &Invocation, items: &[Tree]) -> Table {
        let headings = |wide| self.columns.iter().filter(move |c| c.wide == wide);
        let plain: Vec<_> = headings(false).map(|c| c.heading).collect();
        let more: Vec<_> = headings(true).map(|c| c.heading).collect();
        let mut table = Table::new(&plain, &more);
        for item in items {
            table.row(headings(false).chain(headings(true)).map(|column| match at(item, column.path) {
                Some(value) => cell(run, column.kind, value),
                None => Cell::new("-"),
            }));
        }
        table
    }

    /// Names what was not found, and where to look.
    pub(crate) fn missing(&self, mut failure: Failure, which: &str) -> Failure {
        if failure.exit == Exit::NotFound {
            failure.what = format!("there is no {} \"{which}\" that you may see", self.one);
            failure.next.get_or_insert_with(|| self.list.to_owned());
        }
        failure
    }
}

/// The value at a path of names with dots.
pub(crate) fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Tree> {
    path.split('.').try_fold(tree, |tree, name| tree.get(name))
}

/// The text at a path, empty when there is none.
pub(crate) fn text_at<'a>(tree: &'a Tree, path: &str) -> &'a str {
    at(tree, path).and_then(Tree::text).unwrap_or_default()
}

/// A whole number at a path.
pub(crate) fn number_at(tree: &Tree, path: &str) -> Option<i64> {
    match at(tree, path)? {
        Tree::Signed(value) => Some(*value),
        Tree::Unsigned(value) => i64::try_from(*value).ok(),
        _ => None,
    }
}

fn names(items: &[Tree]) -> Vec<String> {
    let name =
        |item: &Tree| item.get("name").or_else(|| item.get("id")).and_then(Tree::text).map(str::to_owned);
    items.iter().filter_map(name).collect()
}

fn cell(run: &Invocation, kind: Kind, value: &Tree) -> Cell {
    let text = plain(value);
    match kind {
        Kind::Text => Cell::new(text),
        Kind::State => Cell::state(&text.to_lowercase()),
        Kind::Time if text.is_empty() => Cell::new("-"),
        Kind::Time => Cell::new(run.out.clock.show(&text)),
        Kind::Bytes => Cell::new(text.parse::<u64>().map_or(text, bytes)),
    }
}

/// A value on one line.
pub(crate) fn plain(value: &Tree) -> String {
    match value {
        Tree::Null => String::new(),
        Tree::Bool(true) => "yes".to_owned(),
        Tree::Bool(false) => "no".to_owned(),
        Tree::Signed(number) => number.to_string(),
        Tree::Unsigned(number) => number.to_string(),
        Tree::Float(number) => number.to_string(),
        Tree::Text(text) => text.clone(),
        Tree::List(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Tree::Map(fields) => match value.get("name") {
            Some(name) => plain(name),
            None => fields
                .iter()
                .map(|(key, value)| format!("{key}={}", plain(value)))
                .collect::<Vec<_>>()
                .join(" "),
        },
    }
}

/// Bytes in the unit that fits, with three digits at most before the point.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, unit) in UNITS {
        if count >= size {
            return format!("{}.{} {unit}", count / size, (count % size) * 10 / size);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(bytes((1 << 40) + (1 << 39)), "1.5 TiB");
    }

    #[test]
    fn a_path_leads_to_a_value_or_nowhere() {
        let tree = Tree::from_json(br#"{"a":{"b":{"c":7,"name":"x"}},"l":[{"name":"y"},2]}"#).unwrap();
        assert_eq!(number_at(&tree, "a.b.c"), Some(7));
        assert_eq!(at(&tree, "a.x.c"), None);
        assert_eq!(text_at(&tree, "a.b.name"), "x");
        assert_eq!(plain(at(&tree, "a.b").unwrap()), "x");
        assert_eq!(plain(at(&tree, "l").unwrap()), "y, 2");
    }
}
