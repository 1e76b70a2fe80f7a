//! The log: text or JSON lines on standard error.
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Why the log could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The directives mean nothing.
    #[error("--log: {0}")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    /// There is a log already.
    #[error("the log was set up twice")]
    Twice,
}

/// Starts the log of this process.
///
/// # Errors
/// [`TelemetryError`] when the directives cannot be read.
pub fn start(format: LogFormat, directives: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(directives)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| TelemetryError::Twice)
}
