//! The runner's program: reads the command line, does what it asks for, and says how it ended.
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use culvert_runner::args::{Cli, EXIT_USAGE};
use culvert_runner::commands::execute;

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
                ExitCode::from(EXIT_USAGE)
            };
        }
    };
    match execute(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody may be there to read; the code says it too.
            let _ = writeln!(std::io::stderr(), "culvert-runner: {error:#}");
            ExitCode::FAILURE
        }
    }
}
