//! Which door a TLS server name belongs to.

use std::net::SocketAddr;

/// The three doors of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
pub(crate) enum Door {
    /// REST, for people and their tools.
    Api,
    /// Enrolment and the tunnel.
    Agents,
    /// `kubectl`.
    Gateway,
}

/// The names that belong to the deployment.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    agents: String,
    agents_suffix: String,
    gateway: String,
}

/// A client that said where it wants to go.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) source: SocketAddr,
    pub(crate) door: Door,
    /// Public id of a join token, said in the name by an agent that enrols. A hint for
    /// diagnosis only: anybody can say it.
    pub(crate) token_id: Option<String>,
}

/// Base32 of 8 bytes without padding.
const TOKEN_ID_LENGTH: usize = 13;

impl Names {
    pub(crate) fn new(domain: &str) -> Names {
        let domain = domain.to_ascii_lowercase();
        Names { agents: format!("agents.{domain}"), agents_suffix: format!(".agents.{domain}"), gateway: format!("kube.{domain}") }
    }

    /// The door that `name` leads to; no name and unknown names lead to the API.
    pub(crate) fn arrival(&self, name: Option<&str>, source: SocketAddr) -> Arrival {
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        if name == self.gateway {
            return Arrival { source, door: Door::Gateway, token_id: None };
        }
        if name == self.agents {
            return Arrival { source, door: Door::Agents, token_id: None };
        }
        match name.strip_suffix(&self.agents_suffix) {
            Some(label) => Arrival { source, door: Door::Agents, token_id: token_id(label) },
            None => Arrival { source, door: Door::Api, token_id: None },
        }
    }
}

fn token_id(label: &str) -> Option<String> {
    let fits = label.len() == TOKEN_ID_LENGTH && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    fits.then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, Door::Api, None)]
    #[case(Some("culvert.internal"), Door::Api, None)]
    #[case(Some("example.org"), Door::Api, None)]
    #[case(Some("agents.culvert.internal.example.org"), Door::Api, None)]
    #[case(Some("kube.culvert.internal"), Door::Gateway, None)]
    #[case(Some("KUBE.culvert.internal."), Door::Gateway, None)]
    #[case(Some("agents.culvert.internal"), Door::Agents, None)]
    #[case(Some("abcdefghij234.agents.culvert.internal"), Door::Agents, Some("abcdefghij234"))]
    #[case(Some("ABCDEFGHIJ234.agents.culvert.internal"), Door::Agents, Some("abcdefghij234"))]
    #[case(Some("short.agents.culvert.internal"), Door::Agents, None)]
    #[case(Some("abcdefgh.ij23.agents.culvert.internal"), Door::Agents, None)]
    fn names_lead_to_doors(#[case] name: Option<&str>, #[case] door: Door, #[case] token: Option<&str>) {
        let arrival = Names::new("Culvert.internal").arrival(name, ([192, 0, 2, 1], 5).into());
        assert_eq!((arrival.door, arrival.token_id.as_deref()), (door, token));
    }
}
