//! The help of every command, as people see it, and the reference page made of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod golden;

use std::fmt::Write as _;

use clap::Command;

/// Every command with its whole name, parents first.
fn commands() -> Vec<(String, Command)> {
    fn walk(name: &str, command: &Command, found: &mut Vec<(String, Command)>) {
        found.push((name.to_owned(), command.clone()));
        for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
            walk(&format!("{name} {}", child.get_name()), child, found);
        }
    }
    let mut root = culvert_cli::command().term_width(100);
    root.build();
    let mut found = Vec::new();
    walk("culvert", &root, &mut found);
    found
}

fn help(command: &Command) -> String {
    let text = command.clone().term_width(100).render_long_help().to_string();
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn the_help_of_every_command_is_as_committed() {
    for (name, command) in commands() {
        golden::check(&format!("help-{}", name.replace(' ', "-")), &help(&command));
    }
}

#[test]
fn every_command_shows_an_example() {
    for (name, command) in commands() {
        let text = help(&command);
        let (_, examples) = text.split_once("Examples:").unwrap_or_else(|| panic!("{name} has no examples"));
        assert!(examples.lines().count() >= 2, "{name}: {examples}");
        assert!(command.get_about().is_some(), "{name} does not say what it does");
    }
}

/// Examples that the parser refuses would teach something wrong.
#[test]
fn every_example_is_accepted_by_the_parser() {
    let mut checked = 0;
    for (name, command) in commands() {
        let text = help(&command);
        let Some((_, examples)) = text.split_once("Examples:\n") else { continue };
        for line in examples.lines().map(str::trim).filter(|line| !line.is_empty()) {
            for part in line.split(['|', ';']).flat_map(|part| part.split("&&")) {
                let Some(at) = part.find("culvert ") else { continue };
                let words = words(part.get(at..).unwrap());
                let parsed = culvert_cli::command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{name}: {words:?}: {}", parsed.unwrap_err());
                checked += 1;
            }
        }
    }
    assert!(checked > 50, "only {checked} examples were found");
}

/// The words of an example: quotes of a shell, and no redirection or remark.
fn words(line: &str) -> Vec<String> {
    let line = line.split(" > ").next().unwrap_or(line);
    let line = line.split("    ").next().unwrap_or(line).trim_end_matches(')');
    let pin = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.replace("sha256:…", pin).chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

/// `CULVERT_GEN=1` writes the page; without it a page that drifted fails.
#[test]
fn the_reference_page_is_as_committed() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = reference();
    if std::env::var_os("CULVERT_GEN").is_some() {
        std::fs::write(&path, page).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/cli.md has drifted; run: CULVERT_GEN=1 cargo test -p culvert-cli --test help"
    );
}

fn reference() -> String {
    let mut page = String::from(
        "# The command line\n\n\
         This page is made from the command's own help by a test; `make gen` writes it again.\n\n\
         Data goes to standard output and everything else to standard error. Tables are cut to the width of\n\
         the terminal; `-o wide` and pipes are never cut, and `-o json` is the API's own shape. Secrets are\n\
         never arguments: they come from standard input, a file or the environment.\n\n\
         ## Exit codes\n\n| code | meaning |\n| --- | --- |\n",
    );
    for (code, meaning) in culvert_cli::exit_codes() {
        let _ = writeln!(page, "| {code} | {meaning} |");
    }
    page.push_str(
        "\n## Environment\n\n| variable | meaning |\n| --- | --- |\n\
         | `CULVERT_CONFIG` | the file with the contexts, instead of `culvert/config.toml` in the XDG folder |\n\
         | `CULVERT_CONTEXT` | the context to use, as `--context` |\n\
         | `CULVERT_FORMAT` | the format of data, as `-o` |\n\
         | `CULVERT_CODE` | the sign-in code for `culvert login` |\n\
         | `CULVERT_API_TOKEN_FILE`, `CULVERT_API_TOKEN` | an API token to use instead of a sign-in |\n\
         | `HTTPS_PROXY`, `NO_PROXY` | the proxy on the way to the controller |\n\
         | `NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb` | no colour, colour even in a pipe, a terminal that only prints |\n\
         | `COLUMNS` | the width of tables, also in a pipe |\n\n## Commands\n",
    );
    for (name, command) in commands() {
        let text = help(&command);
        let text = if name == "culvert" { text } else { without_globals(&text) };
        let _ = write!(page, "\n### {name}\n\n```text\n{}\n```\n", text.trim_end());
    }
    page
}

/// The global options stand on the page once.
fn without_globals(text: &str) -> String {
    let Some((before, rest)) = text.split_once("Global options:\n") else { return text.to_owned() };
    let after: Vec<&str> = rest.lines().skip_while(|line| line.is_empty() || line.starts_with(' ')).collect();
    format!("{before}{}", after.join("\n"))
}
