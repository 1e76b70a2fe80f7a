//! Which hosts `NO_PROXY` takes out of the proxy's hands.

use std::net::IpAddr;

use ipnet::IpNet;

/// Whether `host` (a name or an address, no brackets) and `port` are to be
/// reached without a proxy, by the usual rules: `*` is everything; a name is
/// itself and what is below it, with or without a dot before it; an address or a
/// CIDR is what it says; `:port` narrows an entry.
#[must_use]
pub fn bypasses_proxy(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    no_proxy
        .split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| matches(&entry.to_ascii_lowercase(), &host, port))
}

fn matches(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>()
        && let Ok(net) = entry.parse::<IpNet>()
    {
        return net.contains(&address);
    }
    let (name, only) = split_port(entry);
    if only.is_some_and(|only| only != port) {
        return false;
    }
    match (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        (Ok(entry), Ok(host)) => entry == host,
        (Err(_), Err(_)) => is_below(host, name.trim_start_matches("*.").trim_matches('.')),
        _ => false,
    }
}

fn is_below(host: &str, name: &str) -> bool {
    !name.is_empty() && (host == name || host.strip_suffix(name).is_some_and(|before| before.ends_with('.')))
}

/// Splits `name:port` and `[v6]:port`; a bare IPv6 address has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((inside, rest)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (inside, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.split_once(':') {
        Some((name, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_rules() {
        let yes = [
            ("*", "a.example", 443),
            ("a.example", "a.example", 443),
            ("a.example", "b.A.Example.", 443),
            (".a.example", "b.a.example", 443),
            ("*.a.example", "b.a.example", 443),
            ("x, a.example:8443", "a.example", 8443),
            ("10.0.0.0/8", "10.1.2.3", 443),
            ("10.1.2.3", "10.1.2.3", 443),
            ("[fd00::1]:443", "fd00::1", 443),
            ("fd00::/8", "fd00::1", 443),
            ("fd00::1", "fd00::1", 443),
        ];
        let no = [
            ("", "a.example", 443),
            ("a.example", "ba.example", 443),
            ("a.example:8443", "a.example", 443),
            ("10.0.0.0/8", "11.1.2.3", 443),
            ("10.0.0.0/8", "10.example", 443),
            ("10.1.2.3:80", "10.1.2.3", 443),
            (".", "a.example", 443),
            ("1.2.3", "4.1.2.3", 443),
        ];
        for (rules, host, port) in yes {
            assert!(bypasses_proxy(rules, host, port), "{rules} {host}:{port}");
        }
        for (rules, host, port) in no {
            assert!(!bypasses_proxy(rules, host, port), "{rules} {host}:{port}");
        }
    }
}
