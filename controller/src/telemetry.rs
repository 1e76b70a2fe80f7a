//! Logs, and the ids that tie a caller's error to them.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use uuid::Uuid;

use crate::config::{Log, LogFormat};

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is neither a level nor a list of directives.
    #[error(
        "log level {level:?} cannot be read: use error, warn, info, debug, trace, or directives such as culvert_controller=debug,info"
    )]
    Level {
        /// The text as given.
        level: String,
    },
    /// Something else has set a logger up before.
    #[error("a logger is already installed")]
    Installed,
}

/// Sends log lines to standard error.
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|_| LogError::Level { level: log.level.clone() })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_target(true);
    let installed = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| LogError::Installed)
}

/// A fresh id for a request: `req_` and 26 characters that sort by time.
pub fn request_id() -> String {
    let text = data_encoding::BASE32HEX_NOPAD.encode(Uuid::now_v7().as_bytes()).to_ascii_lowercase();
    format!("req_{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_have_a_prefix_and_sort_by_time() {
        let ids: Vec<String> = (0..100).map(|_| request_id()).collect();
        assert!(ids.iter().all(|id| id.len() == 30 && id.starts_with("req_")), "{ids:?}");
        assert!(ids.is_sorted(), "{ids:?}");
    }

    #[test]
    fn a_level_that_cannot_be_read_is_named() {
        let error = init(&Log { format: LogFormat::Text, level: "culvert=loud=er".into() }).unwrap_err();
        assert!(error.to_string().contains("culvert=loud=er"), "{error}");
    }
}
