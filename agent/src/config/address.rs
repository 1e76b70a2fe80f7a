//! Hosts, Secrets and places of state, as they are written on the command line.
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Port that is dialled when none is named.
const DEFAULT_PORT: u16 = 443;

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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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
}
