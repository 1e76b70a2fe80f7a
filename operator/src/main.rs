//! The operator's program: reads the command line, runs, and says how it ended.
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use culvert_operator::config::{Config, EXIT_CONFIG, EXIT_FAILED};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) => {
            let asked = !error.use_stderr();
            return if error.print().is_ok() && asked { ExitCode::SUCCESS } else { EXIT_CONFIG.into() };
        }
    };
    if let Err(error) = culvert_operator::telemetry::start(config.log_format, &config.log) {
        return ended(EXIT_CONFIG, &error.into());
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(EXIT_FAILED, &error.into()),
    };
    match runtime.block_on(culvert_operator::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended(EXIT_FAILED, &error),
    }
}

/// Says on standard error why the process ends; nobody may be there to read, and the code says it too.
fn ended(code: u8, error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "culvert-operator: {error:#}");
    code.into()
}
