//! The lights of an enrolment: drawn over on a terminal, one line a change elsewhere.

use std::io::{self, Write};

use super::{Out, Tone, clean};
use crate::client::model::Light;

/// The stages in their order, with the words people read.
const STAGES: [(&str, &str); 6] = [
    ("reached", "reached the controller"),
    ("tls", "TLS with the right key"),
    ("token", "join token accepted"),
    ("identity", "identity issued"),
    ("tunnel", "tunnel up"),
    ("capabilities", "capabilities probed"),
];

/// What was drawn last.
pub(crate) struct Lights {
    out: Out,
    shown: Vec<Light>,
    drawn: usize,
    waiting: String,
}

impl Lights {
    pub(crate) fn new(out: Out) -> Self {
        Self { out, shown: Vec::new(), drawn: 0, waiting: String::new() }
    }

    /// Shows the lights as they are now, with a line about the wait.
    pub(crate) fn show(&mut self, lights: &[Light], waiting: &str) {
        if lights == self.shown && (!self.out.redraws() || waiting == self.waiting) {
            return;
        }
        if self.out.redraws() {
            self.wipe();
            self.draw(lights, waiting);
        } else {
            let told =
                |light: &&Light| self.shown.iter().any(|s| s.stage == light.stage && s.state == light.state);
            let changed = lights.iter().filter(|light| light.state != "off" && !told(light));
            changed.for_each(|light| self.out.note(&self.line(light)));
        }
        self.shown = lights.to_vec();
        waiting.clone_into(&mut self.waiting);
    }

    /// Shows the same lights with another line about the wait.
    pub(crate) fn keep(&mut self, waiting: &str) {
        if !self.out.redraws() && waiting != self.waiting {
            self.out.note(waiting);
            waiting.clone_into(&mut self.waiting);
        }
        let lights = self.shown.clone();
        self.show(&lights, waiting);
    }

    /// A line that stays, above the lights.
    pub(crate) fn say(&mut self, text: &str) {
        self.wipe();
        self.out.notice(text);
        if self.out.redraws() && !self.shown.is_empty() {
            let (shown, waiting) = (std::mem::take(&mut self.shown), self.waiting.clone());
            self.draw(&shown, &waiting);
            self.shown = shown;
        }
    }

    /// Leaves the lights where they are and ends the drawing.
    pub(crate) fn finish(&mut self) {
        if self.drawn > 0 {
            self.wipe();
            let shown = self.shown.clone();
            self.draw(&shown, "");
            self.drawn = 0;
        }
    }

    fn draw(&mut self, lights: &[Light], waiting: &str) {
        let mut lines: Vec<String> = lights.iter().map(|light| self.line(light)).collect();
        if !waiting.is_empty() {
            // A line that wraps would be two to wipe, so each is cut to the width.
            let cut = super::table::cut(waiting, self.out.notes_width());
            lines.push(self.out.notes_paint().apply(Tone::Faint, &cut));
        }
        self.drawn = lines.len();
        self.out.ask(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }

    fn wipe(&mut self) {
        if self.drawn > 0 {
            // Up by what was drawn, then clear to the end; the terminal may be gone.
            let _ = write!(io::stderr().lock(), "\u{1b}[{}A\u{1b}[0J", self.drawn);
            self.drawn = 0;
        }
    }

    fn line(&self, light: &Light) -> String {
        let (mark, tone) = match light.state.as_str() {
            "on" => ("[ok]  ", Tone::Good),
            "failed" => ("[fail]", Tone::Bad),
            _ => ("[  ]  ", Tone::Faint),
        };
        let mut text = format!("{:<24}", words(&light.stage));
        if light.state != "off" {
            let at = light.at.as_deref().map(|at| self.out.clock.show(at));
            let from = light.source.as_deref().map(|source| format!("from {}", clean(source)));
            let detail = light.detail.as_deref().map(clean);
            for part in [at, from, detail].into_iter().flatten().filter(|part| !part.is_empty()) {
                text.push_str("  ");
                text.push_str(&part);
            }
        }
        let room = self.out.notes_width().saturating_sub(mark.len() + 1);
        let rest = super::table::cut(text.trim_end(), room);
        format!("{} {rest}", self.out.notes_paint().apply(tone, mark))
    }
}

/// The words for a stage; one that a newer controller added is shown as it is.
pub(crate) fn words(stage: &str) -> String {
    let known = STAGES.iter().find(|(name, _)| *name == stage);
    known.map_or_else(|| clean(stage), |(_, words)| (*words).to_owned())
}
