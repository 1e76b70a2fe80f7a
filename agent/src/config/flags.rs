//! The command line as it is written.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps a Kubernetes cluster reachable for its control plane, by one outbound connection.
#[derive(Debug, Parser)]
#[command(name = "culvert-agent", disable_version_flag = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrol if need be, then keep the connection until told to stop
    Run(Box<Flags>),
    /// Check everything the agent needs, changing nothing, and print what to mend
    Preflight(Box<Flags>),
    /// Read the status file of a running agent: for exec probes
    Health(HealthFlags),
    /// Print the version
    Version,
}

/// Flags of `run` and `preflight`.
#[derive(Debug, Args)]
pub struct Flags {
    /// Where the controller listens; the port is 443 if left out
    #[arg(long, env = "CULVERT_CONTROLLER", value_name = "HOST:PORT")]
    pub controller: Option<String>,
    /// Trust domain of the controller
    #[arg(long, env = "CULVERT_DOMAIN", default_value = "culvert.internal")]
    pub domain: String,
    /// File that holds the one-time join token; not needed once enrolled
    #[arg(long, env = "CULVERT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Secret that holds the join token, to be deleted once enrolled
    #[arg(long, env = "CULVERT_TOKEN_SECRET", value_name = "NAMESPACE/NAME")]
    pub token_secret: Option<String>,
    /// Where key and certificate are kept
    #[arg(long, env = "CULVERT_STATE", value_name = "dir:PATH|secret:NAMESPACE/NAME")]
    pub state: Option<String>,
    /// Local policy; without it the API server is reachable and nothing else
    #[arg(long, env = "CULVERT_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// How to reach the API server from outside the cluster; without it the service account is used
    #[arg(long, env = "CULVERT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// HTTP proxy for the connection to the controller, else CULVERT_PROXY, else HTTPS_PROXY and NO_PROXY
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// File with `user:password` for the proxy
    #[arg(long, env = "CULVERT_PROXY_CREDENTIALS_FILE", value_name = "FILE")]
    pub proxy_credentials_file: Option<PathBuf>,
    /// PEM certificates to trust for a proxy that speaks TLS
    #[arg(long, env = "CULVERT_PROXY_CA_FILE", value_name = "FILE")]
    pub proxy_ca_file: Option<PathBuf>,
    /// What carries the TLS session with the controller
    #[arg(long, env = "CULVERT_CARRIER", value_enum, default_value_t = Carrier::Auto)]
    pub carrier: Carrier,
    /// Tell the controller of this cluster's data services, and open the credentials it seals for them
    #[arg(long, env = "CULVERT_DATA_SERVICES", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub data_services: bool,
    /// Where an instance of a database is asked for its figures, where the cluster names pods otherwise
    #[arg(long, env = "CULVERT_INSTANCE_METRICS", value_name = "URL WITH {pod} {database} {namespace}")]
    pub instance_metrics: Option<String>,
    /// Where the operator of this cluster's data services is asked for its figures; empty: nowhere
    #[arg(
        long,
        env = "CULVERT_OPERATOR_METRICS",
        value_name = "URL",
        default_value = "http://culvert-operator.culvert-operator.svc:9181/metrics"
    )]
    pub operator_metrics: String,
    /// Where the status is written for `health`
    #[arg(long, env = "CULVERT_STATUS_FILE", value_name = "FILE")]
    pub status_file: Option<PathBuf>,
    /// Seconds that calls may take to end once the agent is told to stop
    #[arg(long, env = "CULVERT_GRACE_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub grace_seconds: u64,
    /// Form of the log
    #[arg(long, env = "CULVERT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to log: a level, or directives as in `info,culvert_agent=debug`
    #[arg(long, env = "CULVERT_LOG", default_value = "info")]
    pub log: String,
}

/// Flags of `health`.
#[derive(Debug, Args)]
pub struct HealthFlags {
    /// The status file of the running agent
    #[arg(long, env = "CULVERT_STATUS_FILE", value_name = "FILE")]
    pub status_file: Option<PathBuf>,
    /// State of the running agent, to find its status file
    #[arg(long, env = "CULVERT_STATE", value_name = "dir:PATH|secret:NAMESPACE/NAME")]
    pub state: Option<String>,
    /// Fail unless the agent is connected or in reserve; without it only unless it is alive
    #[arg(long)]
    pub ready: bool,
}

/// What carries the TLS session with the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Carrier {
    /// The connection itself, and a WebSocket where something on the way opens TLS
    #[default]
    Auto,
    /// The connection itself, always
    Direct,
    /// A WebSocket, always
    Websocket,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
