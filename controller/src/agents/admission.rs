//! Asks the app whether an agent may have a session.

use std::net::SocketAddr;

use culvert_proto::tunnel::v1::Hello;
use culvert_tunnel::{Admission, Admitted, AgentKey, Refusal};

use super::refusal::{refusal_of, report};
use crate::app::{App, Arrival};

/// Decides for one connection.
pub(crate) struct Gatekeeper {
    app: App,
    /// Serial number of the connection's certificate.
    serial: String,
}

impl Gatekeeper {
    pub(crate) fn new(app: App, serial: String) -> Self {
        Gatekeeper { app, serial }
    }
}

impl Admission for Gatekeeper {
    async fn admit(&self, agent: AgentKey, hello: &Hello, source: SocketAddr) -> Result<Admitted, Refusal> {
        let arrival = Arrival {
            agent,
            serial: &self.serial,
            version: &hello.version,
            clock_ms: hello.clock_ms,
            source: source.ip(),
        };
        match self.app.admit(arrival).await {
            Ok(welcome) => Ok(Admitted { epoch_floor: welcome.epoch_floor }),
            Err(turned) => {
                report("session", source, &turned);
                Err(refusal_of(&turned))
            }
        }
    }
}
