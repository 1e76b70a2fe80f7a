//! Asks the app whether an agent may have a session.

use std::net::SocketAddr;

use culvert_proto::tunnel::v1::Hello;
use culvert_tunnel::{Admission, Admitted, AgentKey, Hub, Moved, Owner, Refusal};

use super::refusal::{refusal_of, report};
use crate::app::{App, Arrival, Welcome};
use crate::supervise::Supervisor;

/// Decides for one connection.
pub(crate) struct Gatekeeper {
    app: App,
    hub: Hub,
    supervisor: Supervisor,
    /// Serial number of the connection's certificate.
    serial: String,
}

impl Gatekeeper {
    pub(crate) fn new(app: App, hub: Hub, supervisor: Supervisor, serial: String) -> Self {
        Gatekeeper { app, hub, supervisor, serial }
    }

    /// Tells the replica that held the session until now; it also reads so by itself.
    fn tell(&self, owner: Owner, moved: Moved) {
        let hub = self.hub.clone();
        self.supervisor.work("word of a moved session", async move {
            if let Err(error) = hub.tell_moved(&owner, &moved).await {
                tracing::debug!(agent = %moved.agent, replica = %owner.replica, %error, "not told of a moved session");
            }
        });
    }
}

impl Admission for Gatekeeper {
    async fn admit(&self, agent: AgentKey, hello: &Hello, source: SocketAddr) -> Result<Admitted, Refusal> {
        let arrival = Arrival {
            agent,
            serial: &self.serial,
            version: &hello.version,
            instance: hello.instance.as_ref().try_into().unwrap_or_default(),
            last_epoch: hello.last_epoch,
            standby: hello.standby,
            clock_ms: hello.clock_ms,
            source,
        };
        match self.app.admit(arrival).await {
            Ok(Welcome { epoch, moved_from }) => {
                if let Some(owner) = moved_from {
                    let source = source.to_string();
                    self.tell(owner, Moved { agent, epoch, instance: arrival.instance, source });
                }
                Ok(Admitted { epoch_floor: epoch.saturating_sub(1) })
            }
            Err(turned) => {
                report("session", source, &turned);
                Err(refusal_of(&turned))
            }
        }
    }
}
