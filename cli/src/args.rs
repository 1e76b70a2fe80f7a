//! The arguments: global flags, the nouns, and how a wrong one is answered.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands;
use crate::failure::Exit;
use crate::output::Format;
use crate::surroundings::Surroundings;

/// Work with clusters that nobody can dial into.
#[derive(Parser)]
#[command(
    name = "culvert",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:
  culvert login https://culvert.example.com --pin sha256:…
  culvert cluster connect edge-1
  culvert cluster kubeconfig edge-1 --merge
  culvert cluster list -o wide
  culvert data-service create orders --cluster edge-1 --engine postgresql
  culvert backup create orders

Exit codes: 0 ok, 1 failed, 2 usage, 3 not signed in, 4 refused, 5 not found, 6 conflict,
7 timed out but still running, 8 unreachable, 9 operation failed, 130 interrupted."
)]
pub(crate) struct Culvert {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// How to write data to standard output
    #[arg(
        short = 'o',
        long = "format",
        global = true,
        value_enum,
        default_value_t,
        env = "CULVERT_FORMAT",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub(crate) format: Format,
    /// The context to use instead of the current one
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "CULVERT_CONTEXT",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub(crate) context: Option<String>,
    /// How long to wait, as 30s, 5m or 1h; when it ends the work goes on and the exit code is 7
    #[arg(long, global = true, value_name = "TIME", value_parser = duration, help_heading = "Global options")]
    pub(crate) timeout: Option<Duration>,
    /// Never ask; fail instead
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_input: bool,
    /// Only data and errors, no notes
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Show times in UTC instead of local time
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) utc: bool,
    /// Answer yes to every question
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) yes: bool,
    /// Tell each request on standard error
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) verbose: bool,
}

/// The nouns.
#[derive(Subcommand)]
pub(crate) enum Command {
    Login(commands::login::Login),
    Logout(commands::login::Logout),
    Whoami(commands::login::Whoami),
    #[command(subcommand)]
    Context(commands::context::Context),
    #[command(subcommand)]
    Cluster(commands::cluster::Cluster),
    #[command(subcommand)]
    DataService(commands::data_service::DataService),
    #[command(subcommand)]
    Backup(commands::backup::Backup),
    #[command(subcommand)]
    BackupSchedule(commands::backup_schedule::BackupSchedule),
    #[command(subcommand)]
    BackupTarget(commands::backup_target::BackupTarget),
    #[command(subcommand)]
    Restore(commands::restore::Restore),
    #[command(subcommand)]
    Operation(commands::operation::Operation),
    Apply(commands::apply::Apply),
    #[command(subcommand)]
    Project(commands::project::Project),
    #[command(subcommand)]
    Template(commands::template::Template),
    #[command(subcommand)]
    Engine(commands::engine::Engine),
    #[command(subcommand)]
    Agent(commands::agent::Agent),
    #[command(subcommand)]
    Token(commands::token::Token),
    #[command(subcommand)]
    Kube(commands::kube::Kube),
    Api(commands::api::Api),
    Completion(commands::completion::Completion),
    Doctor(commands::doctor::Doctor),
    Version(commands::version::Version),
}

/// Parses, or prints help or the fault and gives the exit code.
pub(crate) fn parse(
    around: &Surroundings,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Culvert, u8> {
    let choice =
        if around.colour(around.stderr_is_terminal) { ColorChoice::Always } else { ColorChoice::Never };
    let command = Culvert::command().color(choice);
    command.try_get_matches_from(arguments).and_then(|matches| Culvert::from_arg_matches(&matches)).map_err(
        |error| {
            // Help that nobody reads any more (a closed pipe) is no failure.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage as u8 } else { 0 }
        },
    )
}

/// A length of time: a whole number and `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no length of time; write 30s, 5m, 1h or 2d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        "d" => number.checked_mul(86_400),
        _ => None,
    };
    seconds.filter(|s| (1..=31_536_000).contains(s)).map(Duration::from_secs).ok_or_else(wrong)
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("\"{text}\" is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Culvert::command().debug_assert();
    }

    #[test]
    fn a_length_of_time_has_a_unit_and_a_bound() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "5", "s", "0s", "-1s", "1.5h", "1w", "99999999999999999999s", "400d", "5 m", "5é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
