//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigFault, ConfigFaults};

/// The control plane of Culvert.
#[derive(Debug, Parser)]
#[command(name = "culvert-controller", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller until it is told to stop.
    Serve(Settings),
    /// Make a one-time sign-in code, for somebody who cannot sign in otherwise.
    SignInCode {
        /// The configuration of the controller.
        #[command(flatten)]
        settings: Settings,
        /// Whom the code lets in; the first administrator when not given.
        #[arg(long)]
        user: Option<String>,
    },
    /// Say whether the configuration is right, and everything that is wrong with it.
    CheckConfig(Settings),
    /// Print the OpenAPI document.
    Openapi,
    /// Print the version.
    Version,
}

/// Settings that can be given as flags; every one can be set in a file or by the environment too.
#[derive(Debug, Args)]
pub struct Settings {
    /// Configuration file, TOML; see config.default.toml for its keys.
    #[arg(long, value_name = "FILE", env = "CULVERT_CONTROLLER_CONFIG")]
    config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// host:port at which agents, kubectl and people reach it [default: as --listen]
    #[arg(long, value_name = "HOST:PORT")]
    public_address: Option<String>,
    /// host:port at which other replicas reach it; makes it one of several, on PostgreSQL
    #[arg(long, value_name = "HOST:PORT")]
    peer_address: Option<String>,
    /// Trust domain and suffix of the server names [default: culvert.internal]
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Folder for the database, the key file and the audit [default: ./data]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Address and port for health and metrics [default: 127.0.0.1:9443]
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<String>,
    /// Write the first sign-in code to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    code_file: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A level, or directives as module=level [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Settings {
    /// The configuration these settings lead to.
    pub fn load(&self) -> Result<Config, ConfigFaults> {
        let file = match &self.config {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                let place = path.display().to_string();
                ConfigFaults(vec![ConfigFault { place, problem: format!("cannot be read: {error}") }])
            })?),
            None => None,
        };
        let flags = [
            ("listen", &self.listen),
            ("public_address", &self.public_address),
            ("peer.address", &self.peer_address),
            ("domain", &self.domain),
            ("data_dir", &self.data_dir),
            ("ops.listen", &self.ops_listen),
            ("bootstrap.code_file", &self.code_file),
            ("log.format", &self.log_format),
            ("log.level", &self.log_level),
        ];
        let given: Vec<(&str, String)> =
            flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
        Config::load(file.as_deref(), environment(), &given)
    }
}

/// The environment, as far as it is text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
