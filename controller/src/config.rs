//! The configuration: one typed value, every fault of it found at once.
//!
//! `config.default.toml` is compiled in and is the list of all keys there are. A
//! file, the environment and flags are laid over it as text and numbers; only then
//! is the whole turned into types, so that a fault reads the same wherever the
//! value came from. Nothing is opened or bound here.

mod layers;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_pki::name::TrustDomain;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::domain::{Name, Version};
use layers::{Layers, Reader};

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Trust domain, and DNS suffix of the doors.
    pub domain: TrustDomain,
    /// Where the one port listens.
    pub listen: SocketAddr,
    /// Where that port is reached from outside; `None` when as `listen`.
    pub public_address: Option<HostPort>,
    /// Where other replicas reach that port; `None` when there are none.
    pub peer_address: Option<HostPort>,
    /// Further names and addresses of the API's certificate.
    pub public_names: Vec<String>,
    /// Folder for database, key file and audit spool.
    pub data_dir: PathBuf,
    /// The database.
    pub database: Database,
    /// The file with the key-encryption key.
    pub kek_file: PathBuf,
    /// Where health and metrics are served.
    pub ops_listen: SocketAddr,
    /// What the first start makes.
    pub bootstrap: Bootstrap,
    /// Bounds of what strangers may use.
    pub limits: Limits,
    /// Time that streams get to finish after a signal to stop.
    pub grace: Duration,
    /// What is asked of agents.
    pub agents: Agents,
    /// How the log looks.
    pub log: Log,
}

/// Where the database is.
#[derive(Debug, Clone)]
pub enum Database {
    /// At this URL, which may hold a password.
    Url(SecretString),
    /// At the URL in this file.
    UrlFile(PathBuf),
    /// The embedded one, in this file.
    Embedded(PathBuf),
}

/// What the first start makes.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Name of the organisation.
    pub org: Name,
    /// Name of its first administrator.
    pub user: Name,
    /// Where the first sign-in code is written; printed when absent.
    pub code_file: Option<PathBuf>,
}

/// Bounds of what strangers may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once, over all doors.
    pub connections: usize,
    /// Connections from one address at once.
    pub connections_per_address: usize,
    /// Handshakes going on at once.
    pub handshakes: usize,
    /// Time a TLS handshake may take.
    pub handshake: Duration,
    /// Time in which the head of an HTTP request must have come.
    pub header: Duration,
    /// Event streams open at once.
    pub event_streams: usize,
}

/// What is asked of agents.
#[derive(Debug, Clone)]
pub struct Agents {
    /// Agents below this are refused.
    pub minimum_version: Version,
    /// Life of an agent's certificate.
    pub certificate_life: Duration,
    /// Chart named in the helm command of a join token.
    pub chart: String,
}

/// How the log looks.
#[derive(Debug, Clone)]
pub struct Log {
    /// Its form.
    pub format: LogFormat,
    /// A level, or directives per module.
    pub level: String,
}

/// Forms of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `host:port`; IPv6 addresses in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The host: a DNS name or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|p| *p != 0)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        good.then(|| Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
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

/// A DNS name or an IPv4 address.
fn is_host(host: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct ConfigFault {
    /// The key, or the file.
    pub place: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s):", self.0.len())?;
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl Config {
    /// The configuration of `file` (its text), the environment and `flags` (path of
    /// a key and its value), each over the one before.
    pub fn load(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigFaults> {
        let layers = Layers::load(file, environment, flags)?;
        let mut read = Reader::new(layers);
        let config = Self::read(&mut read);
        let faults = read.into_faults();
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigFaults(faults)),
        }
    }

    /// Every reader is asked before any answer is looked at, so that one load finds
    /// all faults.
    fn read(read: &mut Reader) -> Option<Self> {
        let data_dir = read.path("data_dir");
        let domain = read.parsed("domain", "a lower-case DNS name", |t| t.parse().ok());
        let listen = read.address("listen");
        let public_address =
            read.optional_parsed("public_address", "host:port, an IPv6 address in brackets", HostPort::parse);
        let public_names = read.host_list("public_names");
        let ops_listen = read.address("ops.listen");
        let database = read_database(read, data_dir.as_deref());
        let peer_address = read_peer_address(read, database.as_ref());
        let kek_file = read.optional_path("keys.kek_file");
        let bootstrap = read_bootstrap(read);
        let limits = read_limits(read);
        let grace = read.seconds("shutdown.grace_seconds", 0, 3600);
        let agents = read_agents(read);
        let log = read_log(read);
        let data_dir = data_dir?;
        Some(Self {
            domain: domain?,
            listen: listen?,
            public_address: public_address?,
            peer_address: peer_address?,
            public_names: public_names?,
            database: database?,
            kek_file: kek_file?.unwrap_or_else(|| data_dir.join("kek")),
            ops_listen: ops_listen?,
            bootstrap: bootstrap?,
            limits: limits?,
            grace: grace?,
            agents: agents?,
            log: log?,
            data_dir,
        })
    }

    /// Where the port is reached from outside.
    #[must_use]
    pub fn public_address(&self) -> HostPort {
        self.public_address.clone().unwrap_or_else(|| self.listen.into())
    }
}

fn read_database(read: &mut Reader, data_dir: Option<&Path>) -> Option<Database> {
    let url = read.optional_parsed("database.url", "sqlite://PATH or postgres://…", |text| {
        let known = ["sqlite:", "postgres://", "postgresql://"];
        known.iter().any(|k| text.starts_with(k)).then(|| SecretString::from(text.to_owned()))
    });
    let file = read.optional_path("database.url_file");
    match (url?, file?) {
        (Some(_), Some(_)) => {
            read.fault("database", "set url or url_file, not both");
            None
        }
        (Some(url), None) => Some(Database::Url(url)),
        (None, Some(file)) => Some(Database::UrlFile(file)),
        (None, None) => Some(Database::Embedded(data_dir?.join("culvert.db"))),
    }
}

fn read_peer_address(read: &mut Reader, database: Option<&Database>) -> Option<Option<HostPort>> {
    let form = "host:port, an IPv6 address in brackets";
    let address = read.optional_parsed("peer.address", form, HostPort::parse)?;
    let alone = match database {
        Some(Database::Embedded(_)) => true,
        Some(Database::Url(url)) => url.expose_secret().starts_with("sqlite:"),
        Some(Database::UrlFile(_)) | None => false,
    };
    if address.is_some() && alone {
        read.fault("peer.address", "several replicas need PostgreSQL; set database.url or leave this out");
        return None;
    }
    Some(address)
}

fn read_bootstrap(read: &mut Reader) -> Option<Bootstrap> {
    let name = "1 to 63 letters, digits, dots, dashes, underscores and @";
    let org = read.parsed("bootstrap.org", name, |t| t.parse().ok());
    let user = read.parsed("bootstrap.user", name, |t| t.parse().ok());
    let code_file = read.optional_path("bootstrap.code_file");
    Some(Bootstrap { org: org?, user: user?, code_file: code_file? })
}

fn read_limits(read: &mut Reader) -> Option<Limits> {
    let connections = read.count("limits.connections", 1, 1_000_000);
    let connections_per_address = read.count("limits.connections_per_address", 1, 1_000_000);
    let handshakes = read.count("limits.handshakes", 1, 100_000);
    let handshake = read.seconds("limits.handshake_seconds", 1, 120);
    let header = read.seconds("limits.header_seconds", 1, 120);
    let event_streams = read.count("limits.event_streams", 1, 1_000_000);
    Some(Limits {
        connections: connections?,
        connections_per_address: connections_per_address?,
        handshakes: handshakes?,
        handshake: handshake?,
        header: header?,
        event_streams: event_streams?,
    })
}

fn read_agents(read: &mut Reader) -> Option<Agents> {
    let minimum_version =
        read.parsed("agents.minimum_version", "a version such as 1.2.3", |t| t.parse().ok());
    let certificate_life = read.seconds("agents.certificate_seconds", 10, 30 * 24 * 3600);
    let chart = read.parsed("agents.chart", "a chart's path or address, without blanks or quotes", |text| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"./:_-@".contains(&b);
        (!text.is_empty() && !text.starts_with('-') && text.bytes().all(plain)).then(|| text.to_owned())
    });
    Some(Agents { minimum_version: minimum_version?, certificate_life: certificate_life?, chart: chart? })
}

fn read_log(read: &mut Reader) -> Option<Log> {
    let format = read.parsed("log.format", "text or json", |text| match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    let level = read.parsed("log.level", "a level, or directives as module=level", |text| {
        text.parse::<tracing_subscriber::EnvFilter>().ok().map(|_| text.to_owned())
    });
    Some(Log { format: format?, level: level? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str) -> Result<Config, Vec<String>> {
        Config::load(Some(file), [], &[]).map_err(|f| f.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_committed_defaults_are_valid() {
        let config = Config::load(None, [], &[]).unwrap();
        assert_eq!(config.domain.as_str(), "culvert.internal");
        assert_eq!(config.public_address().to_string(), "127.0.0.1:8443");
        assert_eq!(config.kek_file, Path::new("./data/kek"));
        assert!(
            matches!(config.database, Database::Embedded(path) if path == Path::new("./data/culvert.db"))
        );
    }

    #[test]
    fn all_faults_are_listed_at_once() {
        let faults = load(
            "domain = 'UPPER'\nlisten = 7\nunknown = 1\n[limits]\nconnections = 0\n[log]\nformat = 'xml'\nlevle = 'x'\n",
        )
        .unwrap_err();
        let all = faults.join("\n");
        for part in ["domain:", "listen:", "unknown:", "limits.connections:", "log.format:", "log.levle:"] {
            assert!(all.contains(part), "{part} is missing in\n{all}");
        }
        assert_eq!(faults.len(), 6);
    }

    #[test]
    fn a_broken_file_says_where() {
        let faults = load("domain = \n").unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("line 1"), "{}", faults[0]);
    }

    #[test]
    fn flags_overrule_environment_overrules_file() {
        let file = "listen = '127.0.0.1:1'\ndata_dir = '/file'\n[ops]\nlisten = '127.0.0.1:1'\n";
        let env = [
            ("CULVERT_CONTROLLER_LISTEN", "127.0.0.1:2"),
            ("CULVERT_CONTROLLER_OPS_LISTEN", "127.0.0.1:2"),
            ("HOME", "/"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let config = Config::load(Some(file), env, &[("listen", "127.0.0.1:3".to_owned())]).unwrap();
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.ops_listen.port(), 2);
        assert_eq!(config.data_dir, Path::new("/file"));
    }

    #[test]
    fn the_environment_gives_numbers_and_lists() {
        let env = [
            ("CULVERT_CONTROLLER_LIMITS_HANDSHAKES", "7"),
            ("CULVERT_CONTROLLER_PUBLIC_NAMES", "a.example, 10.0.0.1"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let config = Config::load(None, env, &[]).unwrap();
        assert_eq!(config.limits.handshakes, 7);
        assert_eq!(config.public_names, ["a.example", "10.0.0.1"]);
        let bad = [("CULVERT_CONTROLLER_LIMITS_HANDSHAKES".to_owned(), "many".to_owned())];
        assert!(Config::load(None, bad, &[]).unwrap_err().to_string().contains("limits.handshakes"));
    }

    #[test]
    fn a_database_has_one_place_and_its_password_is_not_shown() {
        let both = "[database]\nurl = 'postgres://u:secret@h/d'\nurl_file = '/f'\n";
        assert!(load(both).unwrap_err()[0].starts_with("database:"));
        let bad = "[database]\nurl = 'mysql://u:secret@h/d'\n";
        assert!(!load(bad).unwrap_err().join("").contains("secret"));
        let good = load("[database]\nurl = 'postgres://u:secret@h/d'\n").unwrap();
        assert!(!format!("{good:?}").contains("secret"));
    }

    #[test]
    fn several_replicas_need_postgres() {
        let peer = "[peer]\naddress = '10.0.0.1:8443'\n";
        for alone in ["", "[database]\nurl = 'sqlite:///f'\n"] {
            let faults = load(&format!("{peer}{alone}")).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with("peer.address:"), "{faults:?}");
        }
        let config = load(&format!("{peer}[database]\nurl = 'postgres://h/d'\n")).unwrap();
        assert_eq!(config.peer_address.unwrap().to_string(), "10.0.0.1:8443");
        assert!(load(&format!("{peer}[database]\nurl_file = '/f'\n")).is_ok());
    }

    #[test]
    fn addresses_have_one_form() {
        for good in ["a.example:443", "10.0.0.1:1", "[::1]:8443", "localhost:65535"] {
            assert_eq!(HostPort::parse(good).unwrap().to_string(), good);
        }
        for bad in
            ["", "a", "a:", "a:0", "a:65536", "::1:443", "[a]:1", "a b:1", "-a:1", "http://a:1", "a..b:1"]
        {
            assert!(HostPort::parse(bad).is_none(), "{bad}");
        }
    }
}
