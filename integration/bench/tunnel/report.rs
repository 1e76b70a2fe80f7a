//! The figures of a run, as a Markdown table beside the reference.

use std::collections::HashMap;

use culvert_integration::figures::{Sample, cell, table};

use crate::contender::Contender;
use crate::workloads::Figure;

/// All that was measured.
pub(crate) struct Report {
    contenders: Vec<Contender>,
    samples: HashMap<(Figure, &'static str), Sample>,
}

impl Report {
    pub(crate) fn new(contenders: Vec<Contender>) -> Self {
        Self { contenders, samples: HashMap::new() }
    }

    /// Adds a round of one contender.
    pub(crate) fn note(&mut self, contender: Contender, figures: Vec<(Figure, f64)>) {
        for (figure, value) in figures {
            self.samples.entry((figure, contender.name())).or_default().push(value);
        }
    }

    pub(crate) fn print(&self, rounds: usize) {
        println!(
            "## Tunnels side by side\n\n{rounds} rounds in turns; {}\n",
            culvert_integration::figures::machine()
        );
        println!("Ratio to `pair`, in brackets median and half the spread.\n");
        let names: Vec<&str> = self.contenders.iter().map(|contender| contender.name()).collect();
        let head: Vec<&str> = ["workload"].into_iter().chain(names.iter().copied()).collect();
        let none = Sample::default();
        let of = |figure: Figure, name: &'static str| self.samples.get(&(figure, name)).unwrap_or(&none);
        let rows: Vec<Vec<String>> = Figure::ALL
            .into_iter()
            .map(|figure| {
                let reference = of(figure, Contender::Pair.name());
                let cells = self.contenders.iter().map(|one| cell(of(figure, one.name()), reference));
                [figure.name().to_owned()].into_iter().chain(cells).collect()
            })
            .collect();
        println!("{}", table(&head, &rows));
    }
}
