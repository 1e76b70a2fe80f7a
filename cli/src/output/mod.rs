//! Everything that a person or a program reads.
//!
//! Two streams: data (standard output) in the form asked for with `-o`, and
//! notes (standard error) for everything else. `json` and `yaml` show the
//! controller's own answer, fields in its order, so what the documentation of
//! the API says holds for the command too; `table`, `wide` and `name` show what
//! a command picked.
//!
//! Mistakes a newcomer could make here: cutting a table when nobody looks at it
//! (a pipe gets whole values), writing colour where the word is missing, and
//! treating a closed pipe as an error (`culvert cluster list | head` is fine).

pub(crate) mod lights;
mod moment;
mod style;
mod table;
mod tree;

use std::io::{self, Write};

use clap::ValueEnum;
pub(crate) use moment::{Clock, ago};
pub(crate) use style::{Paint, Tone};
pub(crate) use table::{Cell, Table};
pub(crate) use tree::Tree;

use crate::failure::{Exit, Failure};
use crate::surroundings::Surroundings;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns cut to the width of the terminal
    #[default]
    Table,
    /// More columns, never cut
    Wide,
    /// The API's own shape
    Json,
    /// The same as YAML
    Yaml,
    /// One name a line
    Name,
}

/// The two streams and what was asked about them.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    pub(crate) format: Format,
    pub(crate) clock: Clock,
    quiet: bool,
    verbose: bool,
    width: Option<usize>,
    data: Paint,
    notes: Paint,
    redraws: bool,
}

impl Out {
    pub(crate) fn new(around: &Surroundings, format: Format, utc: bool, quiet: bool, verbose: bool) -> Self {
        Self {
            format,
            clock: Clock::new(utc),
            quiet,
            verbose,
            width: width(around),
            data: Paint::new(around.colour(around.stdout_is_terminal)),
            notes: Paint::new(around.colour(around.stderr_is_terminal)),
            redraws: around.stderr_is_terminal && !around.dumb(),
        }
    }

    /// Whether a person reads the data: not a program, not only names.
    pub(crate) fn for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Whether lines on standard error may be drawn over.
    pub(crate) fn redraws(&self) -> bool {
        self.redraws && !self.quiet
    }

    /// Columns of standard error when it is drawn over, else no limit.
    pub(crate) fn notes_width(&self) -> usize {
        if !self.redraws() {
            return usize::MAX;
        }
        let columns = rustix::termios::tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col));
        columns.ok().filter(|columns| *columns > 0).unwrap_or(80)
    }

    /// The colours of standard error.
    pub(crate) fn notes_paint(&self) -> Paint {
        self.notes
    }

    /// Data as it is.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        written(io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()))
    }

    /// A whole answer: the API's own shape, or the table, or the names.
    pub(crate) fn answer(&self, tree: &Tree, table: &Table, names: &[String]) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.data(&(tree.json()? + "\n")),
            Format::Yaml => self.data(&tree.yaml()?),
            Format::Name => self.data(&names.iter().map(|name| clean(name) + "\n").collect::<String>()),
            Format::Table => self.data(&table.render(self.width, false, self.data)),
            Format::Wide => self.data(&table.render(None, true, self.data)),
        }
    }

    /// A table as the text that `table` or `wide` shows, to be put among others.
    pub(crate) fn text_of(&self, table: &Table) -> String {
        let wide = self.format == Format::Wide;
        table.render(if wide { None } else { self.width }, wide, self.data)
    }

    /// One change of a stream: a JSON object or a YAML document or a line.
    pub(crate) fn change(&self, tree: &Tree, table: &Table, names: &[String]) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.data(&(tree.json_line()? + "\n")),
            Format::Yaml => self.data(&format!("---\n{}", tree.yaml()?)),
            Format::Table => self.data(&table.render_rows(self.width, false, self.data)),
            Format::Wide => self.data(&table.render_rows(None, true, self.data)),
            Format::Name => self.answer(tree, table, names),
        }
    }

    /// A remark for people; silent with `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.notice(text);
        }
    }

    /// A remark that `--quiet` does not silence: a refusal, a warning, a secret's hint.
    pub(crate) fn notice(&self, text: &str) {
        // Standard error may be closed; there is nowhere left to say so.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A remark that only `--verbose` shows.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            self.notice(text);
        }
    }

    /// Text on standard error without an end of line.
    pub(crate) fn ask(&self, text: &str) {
        let _ = write!(io::stderr().lock(), "{text}");
        let _ = io::stderr().flush();
    }
}

/// A closed pipe has read enough; any other error is one.
fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, "cannot write to standard output").because(error))
        }
        _ => Ok(()),
    }
}

/// Columns of the terminal; `None` when nothing limits a line.
fn width(around: &Surroundings) -> Option<usize> {
    let named = around.text("COLUMNS").and_then(|text| text.parse::<usize>().ok());
    let real = || {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        around.stdout_is_terminal.then_some(usize::from(size.ws_col))
    };
    named.or_else(real).filter(|columns| *columns > 0).map(|columns| columns.max(20))
}

/// Text from outside on one line, without anything that steers a terminal or
/// turns the direction of writing.
pub(crate) fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if steers(c) { if c.is_whitespace() { ' ' } else { '\u{fffd}' } } else { c })
        .collect()
}

#[cfg(test)]
pub(crate) use tree::tests as tree_tests;
