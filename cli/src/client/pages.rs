//! Lists longer than a page, gathered into one answer of the same shape.

use http::Method;

use super::Client;
use super::model::Page;
use crate::failure::Failure;
use crate::output::Tree;

/// The API's largest page.
const PAGE: usize = 200;

/// What part of a list is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    /// At most this many; everything when `None`.
    pub(crate) limit: Option<usize>,
    /// Begin after this cursor.
    pub(crate) after: Option<String>,
}

/// Reads `{items, next}` page by page. `next` of the answer is set only when the
/// limit left something over.
pub(crate) async fn gather(
    client: &Client,
    segments: &[&str],
    filters: &[(&str, Option<&str>)],
    part: &Part,
) -> Result<Tree, Failure> {
    let mut items = Vec::new();
    let mut after = part.after.clone();
    loop {
        let room = part.limit.map_or(PAGE, |limit| limit.saturating_sub(items.len()).min(PAGE));
        let mut ask = client.ask(Method::GET, segments).query("limit", &room.to_string());
        if let Some(cursor) = &after {
            ask = ask.query("after", cursor);
        }
        for (name, value) in filters {
            if let Some(value) = value {
                ask = ask.query(name, value);
            }
        }
        let page: Page<Tree> = client.send(ask).await?.read()?;
        let empty = page.items.is_empty();
        items.extend(page.items);
        let full = part.limit.is_some_and(|limit| items.len() >= limit);
        let repeats = page.next == after;
        after = page.next;
        // A page without items, or a cursor that stands still, would never end.
        if after.is_none() || full || empty || repeats {
            let next = after.map_or(Tree::Null, Tree::Text);
            return Ok(Tree::map([("items", Tree::List(items)), ("next", next)]));
        }
    }
}
