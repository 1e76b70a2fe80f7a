//! What anybody may know of this installation.

use super::App;
use crate::config::HostPort;
use crate::domain::Time;

/// How to reach and trust this installation.
#[derive(Debug, Clone)]
pub struct Info {
    /// The program's version.
    pub version: &'static str,
    /// The trust domain.
    pub domain: String,
    /// Where the one port is reached.
    pub public_address: HostPort,
    /// Server name of the API.
    pub api_server_name: String,
    /// Server name of the agents' door.
    pub agents_server_name: String,
    /// Server name of the gateway.
    pub gateway_server_name: String,
    /// The root's certificate.
    pub ca_pem: String,
    /// The root's pin, `sha256:…`.
    pub ca_pin: String,
    /// Our clock.
    pub time: Time,
}

impl App {
    /// How to reach and trust this installation.
    #[must_use]
    pub fn info(&self) -> Info {
        let domain = self.domain();
        Info {
            version: env!("CARGO_PKG_VERSION"),
            domain: domain.to_string(),
            public_address: self.inner.public_address.clone(),
            api_server_name: domain.to_string(),
            agents_server_name: domain.agents_server_name(),
            gateway_server_name: domain.gateway_server_name(),
            ca_pem: self.root_pem(),
            ca_pin: self.pin().to_string(),
            time: self.now(),
        }
    }

    /// Where the one port is reached.
    #[must_use]
    pub fn public_address(&self) -> &HostPort {
        &self.inner.public_address
    }

    /// The chart named in helm commands.
    #[must_use]
    pub fn chart(&self) -> &str {
        &self.inner.chart
    }
}
