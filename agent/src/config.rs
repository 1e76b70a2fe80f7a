//! The command line and the environment, turned into settings that are known to be well-formed.
//!
//! Every fault is listed at once and ends the program with code 64 before a
//! socket opens. Secrets come from files or the environment, never from the
//! command line, where every process of the machine could read them.
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use culvert_pki::name::TrustDomain;
use culvert_tunnel::bypasses_proxy;
use secrecy::SecretString;
use thiserror::Error;

/// Exit code for settings that cannot be used (EX_USAGE of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;

/// Port that is dialled when none is named.
const DEFAULT_PORT: u16 = 443;

/// Longest credentials or certificate file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

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

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings cannot be used.
#[derive(Debug, Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<HostPort, ()> {
        let authority: http::uri::Authority = text.parse().map_err(|_| ())?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if text.contains('@') || host.is_empty() {
            return Err(());
        }
        let written = text.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let port = match (authority.port_u16(), written) {
            (Some(port), _) if port != 0 => port,
            (None, None) => DEFAULT_PORT,
            _ => return Err(()),
        };
        Ok(HostPort { host, port })
    }
}

/// Name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for SecretName {
    type Err = ();

    fn from_str(text: &str) -> Result<SecretName, ()> {
        let (namespace, name) = text.split_once('/').ok_or(())?;
        let fits = |part: &str| {
            !part.is_empty()
                && part.len() <= 253
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        };
        if !fits(namespace) || !fits(name) {
            return Err(());
        }
        Ok(SecretName { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Where key and certificate are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatePlace {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A Secret of the cluster.
    Secret(SecretName),
}

impl fmt::Display for StatePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatePlace::Folder(path) => write!(f, "dir:{}", path.display()),
            StatePlace::Secret(name) => write!(f, "secret:{name}"),
        }
    }
}

impl FromStr for StatePlace {
    type Err = ();

    fn from_str(text: &str) -> Result<StatePlace, ()> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(StatePlace::Folder(PathBuf::from(path))),
            Some(("secret", name)) => name.parse().map(StatePlace::Secret),
            _ => Err(()),
        }
    }
}

/// How the connection passes a proxy.
#[derive(Clone)]
pub struct ProxySettings {
    /// Whether the proxy itself speaks TLS.
    pub tls: bool,
    /// Its address.
    pub address: HostPort,
    /// User and password.
    pub credentials: Option<(String, SecretString)>,
    /// PEM text of certificates to trust for it; there when `tls` is set.
    pub ca_pem: Option<String>,
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySettings")
            .field("tls", &self.tls)
            .field("address", &self.address)
            .field("credentials", &self.credentials.is_some())
            .finish_non_exhaustive()
    }
}

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
        let proxy = proxy(flags, environment, controller.as_ref()).unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
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

/// The environment variables that matter beyond those of the flags.
#[derive(Default)]
pub struct Environment(BTreeMap<String, SecretString>);

impl Environment {
    /// Reads this process's environment, once.
    pub fn read() -> Environment {
        Environment::from_pairs(std::env::vars())
    }

    /// Takes the variables that matter out of `pairs`.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Environment {
        let wanted = ["CULVERT_PROXY", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];
        let kept =
            pairs.into_iter().filter(|(name, value)| wanted.contains(&name.as_str()) && !value.is_empty());
        Environment(kept.map(|(name, value)| (name, SecretString::from(value))).collect())
    }

    fn get(&self, names: &[&str]) -> Option<&str> {
        use secrecy::ExposeSecret;
        names.iter().find_map(|name| self.0.get(*name)).map(ExposeSecret::expose_secret)
    }
}

/// The proxy to pass, by flag, `CULVERT_PROXY`, or the usual two variables.
fn proxy(
    flags: &Flags,
    environment: &Environment,
    controller: Option<&HostPort>,
) -> Result<Option<ProxySettings>, String> {
    let given = flags.proxy.as_deref().or_else(|| environment.get(&["CULVERT_PROXY"]));
    let inherited = || {
        let excepted = environment.get(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        let wanted = controller.is_some_and(|address| !bypasses_proxy(excepted, &address.host, address.port));
        environment.get(&["HTTPS_PROXY", "https_proxy"]).filter(|_| wanted)
    };
    let Some(url) = given.or_else(inherited) else { return Ok(None) };
    if flags.proxy.as_deref().is_some_and(|url| url.contains('@')) {
        return Err("--proxy must not hold a password, every process could read it: \
                    use --proxy-credentials-file or CULVERT_PROXY"
            .to_owned());
    }
    let mut settings = parse_proxy(url)?;
    if let Some(path) = &flags.proxy_credentials_file {
        let text = read_file(path, "--proxy-credentials-file")?;
        let (user, password) = text
            .trim_end_matches(['\r', '\n'])
            .split_once(':')
            .ok_or("--proxy-credentials-file must hold user:password")?;
        settings.credentials = Some((user.to_owned(), SecretString::from(password)));
    }
    if let Some(path) = &flags.proxy_ca_file {
        let text = read_file(path, "--proxy-ca-file")?;
        culvert_pki::pem::certificates_from_pem(&text)
            .map_err(|error| format!("--proxy-ca-file: {error}"))?;
        settings.ca_pem = Some(text);
    }
    if settings.tls && settings.ca_pem.is_none() {
        return Err(
            "a proxy with https:// needs the certificate of its issuer: name it with --proxy-ca-file"
                .to_owned(),
        );
    }
    Ok(Some(settings))
}

/// `[http[s]://][user[:password]@]host:port[/]`. The text may hold a password,
/// so no error quotes it.
fn parse_proxy(url: &str) -> Result<ProxySettings, String> {
    let form = || "the proxy must have the form http://host:port or https://host:port".to_owned();
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(form()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (userinfo, host) = match rest.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, rest),
    };
    let written_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let mut address: HostPort = host.parse().map_err(|()| form())?;
    if !written_port && !tls {
        address.port = 80;
    }
    let credentials = userinfo.map(credentials).transpose()?;
    Ok(ProxySettings { tls, address, credentials, ca_pem: None })
}

fn credentials(userinfo: &str) -> Result<(String, SecretString), String> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let decoded =
        |text: &str| percent_decode(text).ok_or("the proxy's user or password is badly percent-encoded");
    Ok((decoded(user)?, SecretString::from(decoded(password)?)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn read_file(path: &std::path::Path, flag: &str) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| format!("{flag}: {} cannot be read: {error}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
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

    #[rstest]
    #[case("a.example.org", "a.example.org", 443)]
    #[case("a:8443", "a", 8443)]
    #[case("[::1]:8443", "::1", 8443)]
    #[case("[::1]", "::1", 443)]
    fn addresses(#[case] text: &str, #[case] host: &str, #[case] port: u16) {
        assert_eq!(text.parse::<HostPort>(), Ok(HostPort { host: host.to_owned(), port }));
    }

    #[rstest]
    #[case("a:0")]
    #[case("a:99999")]
    #[case("a:")]
    #[case("u@a:1")]
    #[case("https://a")]
    #[case("")]
    fn no_addresses(#[case] text: &str) {
        assert!(text.parse::<HostPort>().is_err());
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
