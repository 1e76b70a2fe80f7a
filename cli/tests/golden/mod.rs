//! Texts that are a contract: compared with a committed file, written anew with `CULVERT_GEN=1`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::path::Path;

/// Fails when the text is not that of `tests/golden/<name>.txt`.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("CULVERT_GEN").is_some() {
        return std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed == text {
        return;
    }
    let differing = committed.lines().zip(text.lines()).position(|(was, is)| was != is);
    let line = differing.unwrap_or_else(|| committed.lines().count().min(text.lines().count()));
    panic!(
        "{name} differs from its golden file at line {}:\n  was: {:?}\n  is:  {:?}\n\n{text}\n\
         If this is what it should be now, run: make gen",
        line + 1,
        committed.lines().nth(line),
        text.lines().nth(line)
    );
}
