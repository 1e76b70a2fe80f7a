//! The proxy on the way to the controller: by flag, by an own variable, or by the usual two.
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use culvert_tunnel::bypasses_proxy;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{Flags, HostPort};

/// Longest credentials or certificate file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

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
        names.iter().find_map(|name| self.0.get(*name)).map(ExposeSecret::expose_secret)
    }
}

/// The proxy to pass, by flag, `CULVERT_PROXY`, or the usual two variables.
pub(super) fn proxy(
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
        settings.ca_pem = Some(text.to_string());
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

fn read_file(path: &Path, flag: &str) -> Result<Zeroizing<String>, String> {
    use std::io::Read;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| format!("{flag}: {} cannot be read: {error}", path.display()))?;
    Ok(text)
}
