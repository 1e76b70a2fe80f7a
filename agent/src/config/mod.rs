//! The command line and the environment, turned into settings that are known to be well-formed.
//!
//! Every fault is listed at once and ends the program with code 64 before a
//! socket opens. Secrets come from files or the environment, never from the
//! command line, where every process of the machine could read them.
mod address;
mod flags;
mod proxy;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use culvert_pki::name::TrustDomain;
use thiserror::Error;

use crate::telemetry::Addresses;

pub use address::{HostPort, SecretName, StatePlace};
pub use flags::{Carrier, Cli, Command, Flags, HealthFlags, LogFormat};
pub use proxy::{Environment, ProxySettings};

/// Exit code for settings that cannot be used (EX_USAGE of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;

/// The settings cannot be used.
#[derive(Debug, Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Settings of `run` and `preflight`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the controller listens.
    pub controller: HostPort,
    /// Its trust domain.
    pub domain: TrustDomain,
    /// File with the join token.
    pub token_file: Option<PathBuf>,
    /// Secret to delete once enrolled.
    pub token_secret: Option<SecretName>,
    /// Where key and certificate are kept.
    pub state: StatePlace,
    /// Local policy.
    pub policy: Option<PathBuf>,
    /// Way to the API server from outside.
    pub kubeconfig: Option<PathBuf>,
    /// Way to the controller.
    pub proxy: Option<ProxySettings>,
    /// What carries the TLS session with it.
    pub carrier: Carrier,
    /// Whether data services are watched and their credentials opened.
    pub data_services: bool,
    /// Where instances of databases, and their operator, are asked for their figures.
    pub figures: Addresses,
    /// Where the status is written.
    pub status_file: PathBuf,
    /// How long calls may take to end.
    pub grace: Duration,
}

impl Settings {
    /// Checks flags and the environment's proxy settings.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn from_flags(flags: &Flags, environment: &Environment) -> Result<Settings, ConfigError> {
        let mut faults = Vec::new();
        let controller = needed(
            &mut faults,
            "--controller (CULVERT_CONTROLLER)",
            "HOST:PORT",
            flags.controller.as_deref(),
        );
        let state = needed(
            &mut faults,
            "--state (CULVERT_STATE)",
            "dir:PATH or secret:NAMESPACE/NAME",
            flags.state.as_deref(),
        );
        let domain = flags
            .domain
            .parse::<TrustDomain>()
            .map_err(|error| faults.push(format!("--domain: {error}")))
            .ok();
        let token_secret = flags.token_secret.as_deref().map(|text| {
            needed::<SecretName>(
                &mut faults,
                "--token-secret (CULVERT_TOKEN_SECRET)",
                "NAMESPACE/NAME",
                Some(text),
            )
        });
        let proxy = proxy::proxy(flags, environment, controller.as_ref()).unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        let mut figures = match flags.instance_metrics.as_deref().map(str::parse::<Addresses>) {
            None => Addresses::default(),
            Some(Ok(addresses)) => addresses,
            Some(Err(error)) => {
                faults.push(format!("--instance-metrics (CULVERT_INSTANCE_METRICS): {error}"));
                Addresses::default()
            }
        };
        if let Err(error) = figures.set_operator(&flags.operator_metrics) {
            faults.push(format!("--operator-metrics (CULVERT_OPERATOR_METRICS): {error}"));
        }
        let (Some(controller), Some(state), Some(domain), true) =
            (controller, state, domain, faults.is_empty())
        else {
            return Err(ConfigError(faults));
        };
        let status_file = flags.status_file.clone().unwrap_or_else(|| default_status_file(&state));
        Ok(Settings {
            controller,
            domain,
            token_file: flags.token_file.clone(),
            token_secret: token_secret.flatten(),
            state,
            policy: flags.policy.clone(),
            kubeconfig: flags.kubeconfig.clone(),
            proxy,
            carrier: flags.carrier,
            data_services: flags.data_services,
            figures,
            status_file,
            grace: Duration::from_secs(flags.grace_seconds),
        })
    }
}

impl HealthFlags {
    /// The status file that the running agent writes.
    ///
    /// # Errors
    /// [`ConfigError`] when `--state` cannot be read.
    pub fn path(&self) -> Result<PathBuf, ConfigError> {
        if let Some(path) = &self.status_file {
            return Ok(path.clone());
        }
        let mut faults = Vec::new();
        let state = self.state.as_deref().map(|text| {
            needed::<StatePlace>(
                &mut faults,
                "--state (CULVERT_STATE)",
                "dir:PATH or secret:NAMESPACE/NAME",
                Some(text),
            )
        });
        match state {
            Some(None) => Err(ConfigError(faults)),
            Some(Some(place)) => Ok(default_status_file(&place)),
            None => Ok(PathBuf::from(TEMPORARY_STATUS)),
        }
    }
}

const TEMPORARY_STATUS: &str = "/tmp/culvert-agent-status.json";

fn default_status_file(state: &StatePlace) -> PathBuf {
    match state {
        StatePlace::Folder(path) => path.join("status.json"),
        StatePlace::Secret(_) => PathBuf::from(TEMPORARY_STATUS),
    }
}

fn needed<T: FromStr>(faults: &mut Vec<String>, flag: &str, form: &str, text: Option<&str>) -> Option<T> {
    match text.map(str::parse::<T>) {
        Some(Ok(value)) => Some(value),
        Some(Err(_)) => {
            faults.push(format!("{flag} must have the form {form}"));
            None
        }
        None => {
            faults.push(format!("{flag} is missing; its form is {form}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use secrecy::ExposeSecret;

    fn flags(arguments: &[&str]) -> Flags {
        let all = ["culvert-agent", "run"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Run(flags) => *flags,
            other => panic!("{other:?}"),
        }
    }

    const GOOD: [&str; 4] = ["--controller", "cp.example.org:8443", "--state", "dir:/var/lib/culvert"];

    fn with(more: &[&str], environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let arguments: Vec<&str> = GOOD.iter().chain(more).copied().collect();
        Settings::from_flags(&flags(&arguments), &Environment::from_pairs(pairs))
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let faults = Settings::from_flags(
            &flags(&["--domain", "Bad_Domain", "--state", "folder", "--token-secret", "x"]),
            &Environment::default(),
        )
        .unwrap_err();
        assert_eq!(faults.0.len(), 4, "{faults}");
        assert!(faults.to_string().contains("--controller"));
    }

    #[test]
    fn the_proxy_comes_from_flag_then_own_variable_then_the_usual_ones() {
        let environment = [
            ("HTTPS_PROXY", "http://usual:3128"),
            ("NO_PROXY", "10.0.0.0/8,.example.org"),
            ("CULVERT_PROXY", "http://anna:p%40ss@own"),
        ];
        let by_flag = with(&["--proxy", "http://flag"], &environment).unwrap().proxy.unwrap();
        assert_eq!((by_flag.address.to_string().as_str(), by_flag.tls), ("flag:80", false));
        let own = with(&[], &environment).unwrap().proxy.unwrap();
        assert_eq!((own.address.to_string().as_str(), own.tls), ("own:80", false));
        let (user, password) = own.credentials.as_ref().unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("anna", "p@ss"));
        assert!(!format!("{own:?}").contains("p@ss"));
        assert!(with(&[], &environment[..2]).unwrap().proxy.is_none());
        let usual = with(&[], &environment[..1]).unwrap().proxy.unwrap();
        assert_eq!(usual.address.to_string(), "usual:3128");
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_without_repeating_it() {
        let error = with(&["--proxy", "http://anna:hush@p:1"], &[]).unwrap_err().to_string();
        assert!(error.contains("--proxy-credentials-file"));
        assert!(!error.contains("hush"));
    }

    #[test]
    fn credentials_and_certificates_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(&path, "anna:se:cret\n").unwrap();
        let file = path.to_str().unwrap();
        let proxy =
            with(&["--proxy", "http://p:1", "--proxy-credentials-file", file], &[]).unwrap().proxy.unwrap();
        assert_eq!(proxy.credentials.unwrap().1.expose_secret(), "se:cret");
        assert!(with(&["--proxy", "http://p:1", "--proxy-ca-file", file], &[]).is_err());
        let error = with(&["--proxy", "https://p"], &[]).unwrap_err().to_string();
        assert!(error.contains("--proxy-ca-file"), "{error}");
        assert!(with(&["--proxy", "http://p:1", "--proxy-ca-file", "/nowhere"], &[]).is_err());
    }

    #[test]
    fn the_status_file_is_found_by_the_probe() {
        let settings = with(&[], &[]).unwrap();
        let probe =
            HealthFlags { status_file: None, state: Some("dir:/var/lib/culvert".to_owned()), ready: true };
        assert_eq!(settings.status_file, probe.path().unwrap());
    }
}
