//! The text of `valkey.conf`: directives written so that no value can become another directive, and read back.

use std::fmt::Write as _;

/// A directive and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its name, in lower case.
    pub(super) name: String,
    /// Its arguments.
    pub(super) args: Vec<String>,
}

impl Directive {
    pub(super) fn new(name: &str, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { name: name.to_owned(), args: args.into_iter().map(Into::into).collect() }
    }
}

/// All directives as a file, each argument in quotes.
pub(super) fn write(directives: &[Directive]) -> String {
    let mut text = String::from("# Written by culvert-runner; changes are overwritten.\n");
    for directive in directives {
        text.push_str(&directive.name);
        for arg in &directive.args {
            text.push(' ');
            quote(arg, &mut text);
        }
        text.push('\n');
    }
    text
}

/// The quotes of the engine's `sdssplitargs`: whatever is not plain is written as `\xHH`, so that no value ends a line.
fn quote(arg: &str, text: &mut String) {
    text.push('"');
    for byte in arg.bytes() {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // Writing into a String cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('"');
}

/// What [`write()`] wrote, read back; lines of another shape are left out.
pub(super) fn read(text: &str) -> Vec<Directive> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(directive).collect()
}

fn directive(line: &str) -> Option<Directive> {
    let (name, mut rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut args = Vec::new();
    while let Some(quoted) = rest.strip_prefix('"') {
        let (arg, after) = unquote(quoted)?;
        args.push(arg);
        rest = after.trim_start_matches(' ');
    }
    (!name.is_empty() && rest.is_empty()).then(|| Directive { name: name.to_owned(), args })
}

/// The argument up to its closing quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        match text.as_bytes().get(at)? {
            b'"' => return Some((String::from_utf8(bytes).ok()?, text.get(at + 1..)?)),
            b'\\' if text.as_bytes().get(at + 1) == Some(&b'x') => {
                bytes.push(u8::from_str_radix(text.get(at + 2..at + 4)?, 16).ok()?);
                at += 4;
            }
            b'\\' => {
                bytes.push(*text.as_bytes().get(at + 1)?);
                at += 2;
            }
            byte => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_with_a_line_break_stays_one_value() {
        let text = write(&[Directive::new("notify-keyspace-events", ["a\nport 6379\"\\"])]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(r#"notify-keyspace-events "a\x0aport 6379\"\\""#), "{text}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(args in prop::collection::vec(any::<String>(), 0..4)) {
            let directives = vec![Directive::new("user", args), Directive::new("save", [""])];
            prop_assert_eq!(read(&write(&directives)), directives);
        }

        #[test]
        fn any_text_is_read_without_harm(text in any::<String>()) {
            let _ = read(&text);
        }
    }
}
