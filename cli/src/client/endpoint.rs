//! Where a controller is: its URL, and the name in its certificate when that differs.

use std::net::SocketAddr;

use reqwest::Url;

use crate::failure::{Exit, Failure};

/// An address that the certificate does not name is reached under the name that
/// it does: the name goes into the URL and the address into the resolver.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    address: Url,
    named: Option<(Url, String, Vec<SocketAddr>)>,
}

impl Endpoint {
    /// An endpoint whose certificate names the host of the URL.
    pub(crate) fn plain(address: Url) -> Self {
        Self { address, named: None }
    }

    /// An endpoint whose certificate holds `name`. Through a proxy this cannot
    /// work, for the proxy resolves the name; that error then names the cause.
    pub(crate) async fn named(address: Url, name: Option<&str>) -> Result<Self, Failure> {
        let Some(name) = name.filter(|name| address.host_str() != Some(*name)) else {
            return Ok(Self::plain(address));
        };
        let port = address.port_or_known_default().unwrap_or(443);
        let host = bare_host(&address);
        let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|error| {
            Failure::new(Exit::Unreachable, format!("cannot find {host}"))
                .because(error)
                .next("culvert doctor")
        })?;
        let mut url = address.clone();
        url.set_host(Some(name)).map_err(|_| {
            Failure::new(Exit::Failed, "the context is broken").because(format!("\"{name}\" is no host name"))
        })?;
        Ok(Self { address, named: Some((url, name.to_owned(), found.collect())) })
    }

    /// The URL that requests go to.
    pub(crate) fn url(&self) -> Url {
        self.named.as_ref().map_or(&self.address, |(url, _, _)| url).clone()
    }

    /// `host:port` as the person wrote it.
    pub(crate) fn authority(&self) -> String {
        let host = self.address.host_str().unwrap_or_default();
        format!("{host}:{}", self.address.port_or_known_default().unwrap_or(443))
    }

    /// The name to resolve by ourselves, and to what.
    pub(crate) fn override_addresses(&self) -> Option<(&str, &[SocketAddr])> {
        self.named.as_ref().map(|(_, name, addresses)| (name.as_str(), addresses.as_slice()))
    }
}

/// The host without the brackets of an IPv6 address.
pub(crate) fn bare_host(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// A controller's URL as people write it: `https://` may be left out, a path may not be there.
pub(crate) fn parse_url(text: &str) -> Result<Url, Failure> {
    let refuse = |why: &str| {
        Failure::new(Exit::Usage, format!("\"{text}\" is not the URL of a controller"))
            .because(why)
            .next("culvert login https://HOST[:PORT]")
    };
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&whole).map_err(|error| refuse(&error.to_string()))?;
    if url.scheme() != "https" {
        return Err(refuse("only https:// is spoken"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it must not hold a user or a password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it must end after the host and the port"));
    }
    url.set_path("/");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_lack_its_scheme_and_nothing_else() {
        let ok = |text: &str| parse_url(text).unwrap().to_string();
        assert_eq!(ok("localhost:8443"), "https://localhost:8443/");
        assert_eq!(ok("culvert.example.com"), "https://culvert.example.com/");
        assert_eq!(ok("https://[::1]:8443/"), "https://[::1]:8443/");
        for text in
            ["http://a", "https://a/b", "https://u:p@a", "a?x=1", "a#b", "", "https://", "a b", "ftp://a"]
        {
            assert_eq!(parse_url(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }

    #[tokio::test]
    async fn another_name_goes_into_the_url_and_the_address_into_the_resolver() {
        let url = parse_url("127.0.0.1:8443").unwrap();
        let endpoint = Endpoint::named(url, Some("culvert.internal")).await.unwrap();
        assert_eq!(endpoint.url().as_str(), "https://culvert.internal:8443/");
        assert_eq!(endpoint.authority(), "127.0.0.1:8443");
        let (name, addresses) = endpoint.override_addresses().unwrap();
        assert_eq!((name, addresses), ("culvert.internal", &["127.0.0.1:8443".parse().unwrap()][..]));
    }
}
