//! Columns: padded, cut to a width, or never cut.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Paint, Tone, clean};

/// Cells are two spaces apart.
const GAP: usize = 2;
/// A cut column keeps at least this much: less tells nothing.
const LEAST: usize = 6;

/// One value of a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = clean(text.as_ref());
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, tone }
    }

    pub(crate) fn state(state: &str) -> Self {
        Self::toned(state, Tone::of_state(state))
    }
}

impl<T: AsRef<str>> From<Option<T>> for Cell {
    fn from(text: Option<T>) -> Self {
        Self::new(text.as_ref().map_or("-", AsRef::as_ref))
    }
}

/// A heading and whether only `wide` shows it.
type Column = (&'static str, bool);

/// Rows under headings. A table without headings is a list of facts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    headings: bool,
    /// Width that a column has at least, so that tables made apart line up.
    least: usize,
}

impl Table {
    /// `columns` are always shown, `wide` ones only in wide tables, after them.
    pub(crate) fn new(columns: &[&'static str], wide: &[&'static str]) -> Self {
        let columns = columns.iter().map(|c| (*c, false)).chain(wide.iter().map(|c| (*c, true))).collect();
        Self { columns, rows: Vec::new(), headings: true, least: 0 }
    }

    /// Facts about one thing: a name and a value a line.
    pub(crate) fn facts() -> Self {
        Self { columns: vec![("", false), ("", false)], rows: Vec::new(), headings: false, least: 0 }
    }

    /// The same with columns of at least this width.
    #[must_use]
    pub(crate) fn spaced(mut self, least: usize) -> Self {
        self.least = least;
        self
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Cell>) {
        self.rows.push(vec![Cell::toned(format!("{name}:"), Tone::Faint), value.into()]);
    }

    /// The table with its headings.
    pub(crate) fn render(&self, width: Option<usize>, wide: bool, paint: Paint) -> String {
        let mut lines = Vec::new();
        if self.headings {
            lines.push(self.columns.iter().map(|(name, _)| Cell::toned(name, Tone::Strong)).collect());
        }
        lines.extend(self.rows.iter().cloned());
        self.lay_out(&lines, width, wide, paint)
    }

    /// The rows alone.
    pub(crate) fn render_rows(&self, width: Option<usize>, wide: bool, paint: Paint) -> String {
        self.lay_out(&self.rows, width, wide, paint)
    }

    fn lay_out(&self, lines: &[Vec<Cell>], width: Option<usize>, wide: bool, paint: Paint) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|n| wide || self.columns.get(*n).is_some_and(|(_, only_wide)| !only_wide))
            .collect();
        let mut widths: Vec<usize> = shown
            .iter()
            .map(|n| lines.iter().filter_map(|line| line.get(*n)).map(|c| c.text.width()).max().unwrap_or(0))
            .map(|width| width.max(self.least))
            .collect();
        if let Some(limit) = width {
            shrink(&mut widths, limit);
        }
        lines.iter().map(|line| lay_line(line, &shown, &widths, paint)).collect()
    }
}

fn lay_line(line: &[Cell], shown: &[usize], widths: &[usize], paint: Paint) -> String {
    let mut text = String::new();
    let blank = Cell::default();
    let mut owed = 0;
    for (n, width) in shown.iter().zip(widths) {
        let cell = line.get(*n).unwrap_or(&blank);
        let cut = cut(&cell.text, *width);
        text.extend(std::iter::repeat_n(' ', owed));
        owed = width.saturating_sub(cut.width()) + GAP;
        text.push_str(&paint.apply(cell.tone, &cut));
    }
    text.push('\n');
    text
}

/// Takes from the widest column until the line fits or nothing is left to take.
fn shrink(widths: &mut [usize], limit: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
    while over > 0 {
        let Some(widest) = widths.iter_mut().max_by_key(|w| **w).filter(|w| **w > LEAST) else { return };
        *widest -= 1;
        over -= 1;
    }
}

/// The text in at most `width` columns, with an ellipsis when something is missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "STATE"], &["ID"]);
        table.row([Cell::new("factory-graz"), Cell::state("connected"), Cell::new("cls_1")]);
        table.row([Cell::new(""), Cell::state("pending"), Cell::new("cls_22")]);
        table
    }

    #[test]
    fn a_table_is_padded_and_wide_has_more() {
        let plain = Paint::new(false);
        assert_eq!(
            sample().render(None, false, plain),
            "NAME          STATE\nfactory-graz  connected\n-             pending\n"
        );
        assert_eq!(sample().render(None, true, plain).lines().nth(1), Some("factory-graz  connected  cls_1"));
        assert_eq!(sample().render(Some(20), false, plain).lines().nth(1), Some("factory-…  connected"));
    }

    #[test]
    fn colour_only_goes_around_the_word() {
        let text = sample().render(None, false, Paint::new(true));
        assert!(text.contains("\u{1b}[32mconnected\u{1b}[0m"), "{text:?}");
        assert!(!sample().render(None, false, Paint::new(false)).contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            rows in prop::collection::vec(prop::collection::vec("\\PC{0,60}", 3), 0..6),
            width in 30_usize..120,
        ) {
            let mut table = Table::new(&["A", "B", "C"], &[]);
            for row in rows {
                table.row(row.iter().map(Cell::new));
            }
            for line in table.render(Some(width), false, Paint::new(false)).lines() {
                prop_assert!(line.width() <= width, "{} > {width}: {line:?}", line.width());
            }
        }
    }
}
