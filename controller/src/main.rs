//! The life of the controller's process.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use culvert_controller::api::document;
use culvert_controller::cli::{Cli, Command, Settings};
use culvert_controller::config::Config;
use culvert_controller::run::{serve, sign_in_code};
use culvert_controller::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Serve(settings) => with(&settings, |config| {
            telemetry::init(&config.log)?;
            block_on(async { Ok(serve(config).await?) })
        }),
        Command::SignInCode { settings, user } => with(&settings, |config| {
            let user = user.map(|name| name.parse()).transpose().context("--user")?;
            let made = block_on(async { Ok(sign_in_code(&config, user.as_ref()).await?) })?;
            say(made.code.expose())
        }),
        Command::CheckConfig(settings) => with(&settings, |_| say("the configuration is right")),
        Command::Openapi => ended(say(document().trim_end())),
        Command::Version => ended(say(concat!("culvert-controller ", env!("CARGO_PKG_VERSION")))),
    }
}

fn block_on<T>(life: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(life);
    runtime.shutdown_background();
    ended
}

fn with(settings: &Settings, act: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    settings.load().map_or_else(|faults| complain(&faults, 64), |config| ended(act(config)))
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    result.map_or_else(|error| complain(&format!("{error:#}"), 1), |()| ExitCode::SUCCESS)
}

fn complain(what: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "culvert-controller: {what}");
    ExitCode::from(code)
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
