//! The one error of a command: what failed, why, what to do next, and the exit code.

use std::fmt::{self, Write as _};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use culvert_pki::tls::TlsFailure;

use crate::output::clean;

/// Exit codes. They are part of the interface: scripts branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// The arguments, or a value in them, cannot be used.
    Usage = 2,
    /// There is no session, or it has ended.
    NotSignedIn = 3,
    /// The caller may not do this.
    Refused = 4,
    /// The named thing does not exist, or the caller may not see it.
    NotFound = 5,
    /// It exists already, or it changed in between.
    Conflict = 6,
    /// The wait ended; the work goes on.
    TimedOut = 7,
    /// The controller could not be reached, or could not be trusted.
    Unreachable = 8,
    /// The work itself failed.
    OperationFailed = 9,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// All of them with the sentence of the reference page.
    pub(crate) const TABLE: [(Self, &'static str); 10] = [
        (Self::Failed, "failed"),
        (Self::Usage, "wrong usage"),
        (Self::NotSignedIn, "not signed in"),
        (Self::Refused, "refused"),
        (Self::NotFound, "not found"),
        (Self::Conflict, "conflict"),
        (Self::TimedOut, "timed out, and the work goes on"),
        (Self::Unreachable, "the controller is unreachable or not trusted"),
        (Self::OperationFailed, "the operation failed"),
        (Self::Interrupted, "interrupted"),
    ];
}

/// Why a command did not do what it was asked. Never holds a secret. Boxed, so
/// that a result is as small as its success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(Box<Facts>);

/// The facts of a failure; read and set through the failure itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) exit: Exit,
    /// What failed, without an end mark.
    pub(crate) what: String,
    /// The cause.
    pub(crate) why: Option<String>,
    /// Faults of single fields, as (field, detail).
    pub(crate) fields: Vec<(String, String)>,
    /// The command or the step that helps.
    pub(crate) next: Option<String>,
    /// The controller's stable code, when it answered.
    pub(crate) code: Option<String>,
    /// The id to quote to whoever runs the controller.
    pub(crate) request_id: Option<String>,
    /// What was wrong with the other end's certificate, when that was the cause.
    pub(crate) tls: Option<TlsFailure>,
}

impl Deref for Failure {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Facts {
        &mut self.0
    }
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            exit,
            what: what.into(),
            why: None,
            fields: Vec::new(),
            next: None,
            code: None,
            request_id: None,
            tls: None,
        }))
    }

    /// The same with its cause.
    #[must_use]
    pub(crate) fn because(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(why.to_string());
        self
    }

    /// The same with what to do about it.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// A file that could not be read or written.
    pub(crate) fn file(verb: &str, path: &Path, cause: &io::Error) -> Self {
        Self::new(Exit::Failed, format!("cannot {verb} {}", path.display())).because(cause)
    }

    /// No session for the current context.
    pub(crate) fn not_signed_in(why: impl fmt::Display) -> Self {
        Self::new(Exit::NotSignedIn, "you are not signed in").because(why).next("culvert login")
    }

    /// The cause, or else what failed: one sentence for inside another.
    pub(crate) fn cause(&self) -> &str {
        self.why.as_deref().unwrap_or(&self.what)
    }

    /// The text for standard error: one fact a line, nothing that can move a cursor.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}\n", clean(&self.what));
        let mut line = |label: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {label:<8} {}", clean(value));
        };
        if let Some(why) = &self.why {
            line("why:", why);
        }
        for (field, detail) in &self.fields {
            line("field:", &format!("{field}: {detail}"));
        }
        if let Some(next) = &self.next {
            line("next:", next);
        }
        if let Some(code) = &self.code {
            line("code:", code);
        }
        if let Some(id) = &self.request_id {
            line("request:", id);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_next_and_request() {
        let mut failure = Failure::new(Exit::Conflict, "cluster \"edge\" exists")
            .because("a name is used once")
            .next("culvert cluster get edge");
        failure.fields.push(("name".to_owned(), "taken".to_owned()));
        failure.request_id = Some("req_1".to_owned());
        assert_eq!(
            failure.render(),
            "error: cluster \"edge\" exists\n  why:     a name is used once\n  field:   name: taken\n  \
             next:    culvert cluster get edge\n  request: req_1\n"
        );
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        let text = Failure::new(Exit::Failed, "bad\u{1b}[2Jname").because("a\nb\rc").render();
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
        assert_eq!(text.lines().count(), 2);
    }
}
