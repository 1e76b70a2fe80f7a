//! The other members of the database: where they are, and what their runners say.
use std::collections::BTreeMap;
use std::time::Duration;

use culvert_resources::instance::{InstanceConfig, InstanceStatus, RUNNER_PORT};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use thiserror::Error;

use crate::engine::Peer;
use crate::lease::claim::PeerSeen;

/// How long a runner may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const LONGEST: usize = 1 << 20;

/// A `--peer` that says nothing.
#[derive(Debug, Error)]
#[error("--peer {0}: it is not NAME=HOST:PORT:RUNNER_PORT")]
pub struct PeerError(String);

/// Where members are.
#[derive(Debug, Clone)]
pub struct Peers {
    told: BTreeMap<String, Peer>,
    client: reqwest::Client,
}

impl Peers {
    /// Members are found by their names in the headless Service, besides those that are told.
    ///
    /// # Errors
    /// [`PeerError`], or the client's.
    pub fn new(told: &[String]) -> anyhow::Result<Self> {
        let told: Result<_, _> =
            told.iter().map(|text| parse(text).map(|peer| (peer.pod.clone(), peer))).collect();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER).build()?;
        Ok(Self { told: told?, client })
    }

    /// Where a member is.
    #[must_use]
    pub fn of(&self, config: &InstanceConfig, pod: &str) -> Peer {
        self.told.get(pod).cloned().unwrap_or_else(|| Peer {
            pod: pod.to_owned(),
            host: format!("{pod}.{}-pods.{}.svc", config.database, config.namespace),
            port: config.port,
            runner_port: RUNNER_PORT,
        })
    }

    /// Asks all other members; those that answered.
    pub async fn ask(&self, config: &InstanceConfig, this: &str) -> Vec<PeerSeen> {
        let names = (0..config.replicas).map(|ordinal| format!("{}-{ordinal}", config.database));
        let peers = names.filter(|name| name != this).map(|name| self.of(config, &name));
        let asked: FuturesUnordered<_> = peers.map(|peer| self.status(peer)).collect();
        asked.filter_map(|answer| async { answer }).collect().await
    }

    async fn status(&self, peer: Peer) -> Option<PeerSeen> {
        let address = format!("http://{}:{}/status", peer.host, peer.runner_port);
        let answer = self.client.get(address).send().await.ok()?;
        let body = bounded(answer).await?;
        let status: InstanceStatus = serde_json::from_slice(&body).ok()?;
        Some(PeerSeen {
            pod: peer.pod,
            identity: status.data_identity,
            position: status.position.filter(|_| status.healthy).and_then(|text| text.parse().ok()),
        })
    }
}

async fn bounded(mut answer: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.ok()? {
        body.extend_from_slice(&piece);
        if body.len() > LONGEST {
            return None;
        }
    }
    Some(body)
}

fn parse(text: &str) -> Result<Peer, PeerError> {
    let wrong = || PeerError(text.to_owned());
    let (pod, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (rest, runner_port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    Ok(Peer {
        pod: pod.to_owned(),
        host: host.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
        runner_port: runner_port.parse().map_err(|_| wrong())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_or_refused() {
        let peer = parse("db-1=127.0.0.1:5001:9001").unwrap();
        assert_eq!((peer.host.as_str(), peer.port, peer.runner_port), ("127.0.0.1", 5001, 9001));
        for wrong in ["", "db-1", "db-1=host", "db-1=host:1", "db-1=host:x:1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
