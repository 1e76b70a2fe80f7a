//! Colour, always beside a word that says the same.

/// What a word means; the colour follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Warning,
    Faint,
    Strong,
}

/// Puts colour on a word, or leaves it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    pub(crate) fn new(on: bool) -> Self {
        Self { on }
    }

    pub(crate) fn apply(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.on => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warning => "33",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The tone of a state's name, as the API spells it.
impl Tone {
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "connected" | "on" | "active" | "passed" | "ok" | "ready" | "complete" | "succeeded" | "done" => {
                Self::Good
            }
            "locked" | "deleted" | "revoked" | "failed" | "refused" | "unavailable" => Self::Bad,
            "disconnected" | "expired" | "running" | "warning" | "progressing" | "degraded" | "deleting"
            | "cancelling" => Self::Warning,
            "pending" | "off" | "used" | "skipped" | "stopped" | "cancelled" | "unknown" => Self::Faint,
            _ => Self::Plain,
        }
    }
}
