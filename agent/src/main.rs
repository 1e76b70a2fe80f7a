//! The agent's program: reads the command line, runs what it asks for, and says how it ended.
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use culvert_agent::commands::execute;
use culvert_agent::config::{Cli, EXIT_CONFIG};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            return if error.print().is_ok() && asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(EXIT_CONFIG)
            };
        }
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            // Nobody may be there to read; the code says it too.
            let _ = writeln!(std::io::stderr(), "culvert-agent: {error}");
            ExitCode::from(code)
        }
    }
}
