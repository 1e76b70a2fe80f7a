//! The way to other replicas, and who is one.

use std::io;
use std::sync::Arc;

use culvert_pki::name::Identity;
use culvert_pki::verify::verify_peer;
use culvert_tunnel::{AgentKey, Dialer, Hub, Io, Owner, Peering};
use futures::future::BoxFuture;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::app::{App, Error};
use crate::supervise::Supervisor;

/// Joins the other replicas, when this is to be one of several.
pub(super) async fn start(app: &App, hub: &Hub, supervisor: &Supervisor) -> Result<(), Error> {
    app.enter_replicas().await?;
    if app.replica().is_some() {
        hub.join(Neighbours(app.clone()));
        let (app, stop) = (app.clone(), supervisor.stopping().clone());
        supervisor.keep("replicas", move || app.clone().be_replica(stop.clone()));
    }
    Ok(())
}

/// Whether the holder of this certificate is a replica.
pub(super) fn is_replica(app: &App, chain: &[CertificateDer<'static>]) -> bool {
    let verified = verify_peer(chain, app.roots(), app.domain(), app.now());
    matches!(verified, Ok(peer) if matches!(peer.identity, Identity::Replica { .. }))
}

struct Neighbours(App);

impl Peering for Neighbours {
    fn owner(&self, agent: AgentKey) -> Option<Owner> {
        self.0.owner(agent)
    }

    fn ask(&self, agent: AgentKey) -> BoxFuture<'_, Option<Owner>> {
        Box::pin(async move {
            self.0.ask_owner(agent).await.unwrap_or_else(|error| {
                tracing::debug!(%agent, %error, "where an agent is cannot be looked up at the moment");
                self.0.owner(agent)
            })
        })
    }

    fn dial<'a>(&'a self, owner: &'a Owner) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let name = self.0.domain().replica_server_name(owner.replica);
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let tls = Arc::new(self.0.replica_client().map_err(io::Error::other)?);
            let carrier = Dialer::new(owner.address.clone(), name, tls).dial().await;
            Ok(Box::new(carrier.map_err(io::Error::other)?) as Box<dyn Io>)
        })
    }
}
