//! Which door a TLS server name belongs to.

use std::net::SocketAddr;

use culvert_pki::name::TrustDomain;
use culvert_pki::token::TokenId;

/// The doors of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
pub(crate) enum Door {
    /// REST, for people and their tools.
    Api,
    /// Enrolment and the tunnel.
    Agents,
    /// `kubectl`.
    Gateway,
    /// Other replicas.
    Replicas,
}

/// The names that belong to the deployment.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    domain: TrustDomain,
    agents: String,
    agents_suffix: String,
    gateway: String,
    replicas_suffix: String,
}

/// A client that said where it wants to go.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) source: SocketAddr,
    pub(crate) door: Door,
    /// Public id of a join token, said in the name by an agent that enrols. A hint for
    /// diagnosis only: anybody can say it.
    pub(crate) token_id: Option<TokenId>,
}

impl Names {
    pub(crate) fn new(domain: &TrustDomain) -> Names {
        let agents = domain.agents_server_name();
        let agents_suffix = format!(".{agents}");
        Names {
            domain: domain.clone(),
            agents,
            agents_suffix,
            gateway: domain.gateway_server_name(),
            replicas_suffix: format!(".{}", domain.replicas_server_name()),
        }
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
        if name.ends_with(&self.agents_suffix) {
            return Arrival { source, door: Door::Agents, token_id: self.domain.token_id_of(name) };
        }
        if name.ends_with(&self.replicas_suffix) {
            return Arrival { source, door: Door::Replicas, token_id: None };
        }
        Arrival { source, door: Door::Api, token_id: None }
    }
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
    #[case(Some("replicas.culvert.internal"), Door::Api, None)]
    #[case(Some("0b0e.replicas.culvert.internal"), Door::Replicas, None)]
    #[case(Some("agents.culvert.internal"), Door::Agents, None)]
    #[case(Some("abcdefghij234.agents.culvert.internal"), Door::Agents, Some("abcdefghij234"))]
    #[case(Some("ABCDEFGHIJ234.agents.culvert.internal"), Door::Agents, Some("abcdefghij234"))]
    #[case(Some("short.agents.culvert.internal"), Door::Agents, None)]
    #[case(Some("abcdefgh.ij23.agents.culvert.internal"), Door::Agents, None)]
    fn names_lead_to_doors(#[case] name: Option<&str>, #[case] door: Door, #[case] token: Option<&str>) {
        let arrival =
            Names::new(&"culvert.internal".parse().unwrap()).arrival(name, ([192, 0, 2, 1], 5).into());
        assert_eq!((arrival.door, arrival.token_id.map(|id| id.to_string()).as_deref()), (door, token));
    }
}
