//! The command line, which is all of the operator's configuration.
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Exit code when the command line is wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;
/// Exit code when the process failed, the loss of leadership included.
pub const EXIT_FAILED: u8 = 1;

/// Reconciles data services in a cluster, with or without a control plane.
#[derive(Debug, Clone, Parser)]
#[command(name = "culvert-operator", version, max_term_width = 100)]
pub struct Config {
    /// Namespace of the operator itself: its Lease lies there
    #[arg(long, env = "POD_NAMESPACE", default_value = "culvert")]
    pub namespace: String,
    /// Name of this process among its replicas, by default the pod's
    #[arg(long, env = "POD_NAME", default_value = "culvert-operator")]
    pub identity: String,
    /// How to reach the API server from outside the cluster; without it the service account is used
    #[arg(long, env = "CULVERT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered
    #[arg(long, default_value = "0.0.0.0:9181", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Seconds for which a leader may go without renewing its Lease
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=300))]
    pub lease_seconds: u32,
    /// Objects of one kind that are worked on at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// YAML of the DataPlane's spec, which is written to the cluster at the start; without it the DataPlane is left alone
    #[arg(long, value_name = "FILE")]
    pub data_plane: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to log: a level, or directives as in `info,culvert_operator=debug`
    #[arg(long, env = "CULVERT_LOG", default_value = "info")]
    pub log: String,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_cannot_be_kept_is_refused() {
        assert!(Config::try_parse_from(["o", "--lease-seconds", "1"]).is_err());
        assert!(Config::try_parse_from(["o", "--lease-seconds", "15"]).is_ok());
        assert!(Config::try_parse_from(["o", "--leese", "15"]).is_err());
    }
}
