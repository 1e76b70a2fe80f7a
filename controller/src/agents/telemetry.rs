//! The telemetry service: what an agent tells of its cluster, wire to app and back.

use std::net::SocketAddr;
use std::time::Duration;

use culvert_proto::telemetry::v1 as wire;
use culvert_proto::telemetry::v1::telemetry_server::Telemetry;
use culvert_tunnel::AgentKey;
use tonic::{Request, Response, Status};

use super::figures;
use super::refusal::status;
use crate::app::{App, Report, Resync, SOURCES_MAX, Taken, Untaken};
use crate::domain::Cause;
use crate::domain::observed::{ObjectKey, Observation, Untakable};

/// The largest report taken, bytes.
pub(crate) const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most of a name that nobody could read is shown.
const SHOWN_MAX: usize = 100;

/// The service as one connection sees it.
pub(crate) struct TelemetryDesk {
    pub(crate) app: App,
    pub(crate) source: SocketAddr,
    /// From the connection's verified certificate.
    pub(crate) agent: Option<AgentKey>,
}

#[tonic::async_trait]
impl Telemetry for TelemetryDesk {
    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let agent = self.agent()?;
        let taken = self.app.observe(agent, read(request.into_inner())).await;
        let taken = taken.map_err(|untaken| self.refuse(agent, &untaken))?;
        if let Some((object, why)) = taken.refused.first() {
            let count = taken.refused.len();
            tracing::warn!(%agent, object, %why, count, "objects that an agent told were not taken");
        }
        Ok(Response::new(answer(taken)))
    }

    async fn sample(
        &self,
        request: Request<wire::SampleRequest>,
    ) -> Result<Response<wire::SampleResponse>, Status> {
        let agent = self.agent()?;
        let sources = request.into_inner().sources;
        if sources.len() > SOURCES_MAX {
            return Err(self.refuse(agent, &Untaken::TooMany(SOURCES_MAX)));
        }
        let (sources, unread) = figures::read(sources);
        let taken = self.app.sample(agent, sources).await;
        let full = taken.map_err(|untaken| self.refuse(agent, &untaken))?;
        if full > 0 || unread > 0 {
            tracing::debug!(%agent, full, unread, "samples that an agent told were not taken");
        }
        Ok(Response::new(wire::SampleResponse { wait_ms: 0 }))
    }
}

impl TelemetryDesk {
    fn agent(&self) -> Result<AgentKey, Status> {
        self.agent.ok_or_else(|| status(Cause::Unauthenticated, "", None))
    }

    fn refuse(&self, agent: AgentKey, untaken: &Untaken) -> Status {
        let source = self.source;
        match untaken {
            Untaken::Nobody => status(Cause::Revoked, "", None),
            Untaken::Busy | Untaken::TooMuch | Untaken::TooMany(_) | Untaken::TooOften => {
                tracing::warn!(%agent, %source, why = %untaken, "what an agent told was not taken");
                status(Cause::RateLimited, &untaken.to_string(), Some(Duration::from_secs(5)))
            }
            Untaken::Failed(error) => {
                tracing::error!(%agent, %source, error = error as &dyn std::error::Error, "a report could not be kept");
                status(Cause::Internal, "", Some(Duration::from_secs(15)))
            }
        }
    }
}

fn read(told: wire::ReportRequest) -> Report {
    let mut report = Report {
        resync: told.resync.map(|r| Resync { id: r.id, first: r.first, last: r.last, partial: r.partial }),
        ..Report::default()
    };
    for object in told.objects {
        let key = object.key.unwrap_or_default();
        match observation(&key, &object.uid, object.generation, &object.json, object.cut) {
            Ok(observation) => report.objects.push(observation),
            Err(why) => report.refused.push((shown(&key), why)),
        }
    }
    for key in told.deleted {
        match ObjectKey::parse(&key.kind, &key.namespace, &key.name) {
            Ok(key) => report.deleted.push(key),
            Err(why) => report.refused.push((shown(&key), why)),
        }
    }
    report
}

fn observation(
    key: &wire::Key,
    uid: &str,
    generation: i64,
    json: &[u8],
    cut: bool,
) -> Result<Observation, Untakable> {
    let key = ObjectKey::parse(&key.kind, &key.namespace, &key.name)?;
    Observation::parse(key, uid, generation, json, cut)
}

/// A key that may hold anything, for a log and the answer.
fn shown(key: &wire::Key) -> String {
    let text = format!("{}/{}/{}", key.kind, key.namespace, key.name);
    crate::domain::agent::bounded_text(&text, SHOWN_MAX)
}

fn answer(taken: Taken) -> wire::ReportResponse {
    let named = |(object, why): (String, Untakable)| {
        let mut parts = object.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (kind, second, third) = (next(), next(), next());
        let (namespace, name) = if third.is_empty() { (third, second) } else { (second, third) };
        wire::Refused { key: Some(wire::Key { kind, namespace, name }), reason: why.to_string() }
    };
    wire::ReportResponse {
        resync: taken.resync,
        wait_ms: u32::try_from(taken.wait.as_millis()).unwrap_or(u32::MAX),
        refused: taken.refused.into_iter().map(named).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_taken() {
        let key = |kind: &str, name: &str| wire::Key {
            kind: kind.to_owned(),
            namespace: "data".to_owned(),
            name: name.to_owned(),
        };
        let uid = "11111111-2222-4333-8444-555555555555";
        let json = serde_json::json!({"kind": "Backup",
            "metadata": {"namespace": "data", "name": "good", "uid": uid}});
        let object = |key: wire::Key| wire::Object {
            key: Some(key),
            uid: uid.to_owned(),
            generation: 1,
            json: json.to_string().into(),
            cut: false,
        };
        let report = read(wire::ReportRequest {
            resync: None,
            objects: vec![
                object(key("Backup", "good")),
                object(key("Secret", "bad\u{1b}[31m")),
                wire::Object::default(),
            ],
            deleted: vec![key("Backup", "gone"), key("Backup", "../x")],
        });
        assert_eq!((report.objects.len(), report.deleted.len()), (1, 1));
        let refused: Vec<_> = report.refused.iter().map(|(_, why)| *why).collect();
        assert_eq!(refused, [Untakable::Kind, Untakable::Kind, Untakable::Name]);
        assert!(report.refused.iter().all(|(name, _)| !name.contains('\u{1b}')));
        let told = answer(Taken { refused: report.refused, ..Taken::default() });
        assert_eq!(told.refused[0].key.as_ref().map(|key| key.kind.as_str()), Some("Secret"));
    }
}
