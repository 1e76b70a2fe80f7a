//! Story: a tenant whose agent was taken over, and one whose people are hostile, with
//! valid identities both. They hurt themselves alone: the calls of another tenant go on
//! within their deadlines, memory stays within its budget, and the record says why the
//! hostile session ended.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use culvert_integration::door::Door;
use culvert_integration::gateway::Gateway;
use culvert_integration::hand::{Hand, Held, hello};
use culvert_integration::stage::{Enrolled, Stage, clock, ground};
use culvert_integration::wait;
use culvert_pki::tls::{self, ClientIdentity};
use culvert_pki::token::JoinToken;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Until a hostile session must have ended.
const END: Duration = Duration::from_secs(30);

/// What one connection may hold unread (64 MiB), and as much again for what allocators
/// keep: docs/tunnel.md.
const BUDGET: u64 = 128 << 20;

/// A controller with a sound cluster whose calls go on, and a second cluster that is
/// about to turn hostile.
struct Scene {
    stage: Stage,
    neighbour: Enrolled,
    epoch: serde_json::Value,
    memory: u64,
    stop: CancellationToken,
    calls: JoinHandle<anyhow::Result<u32>>,
}

impl Scene {
    async fn begin() -> anyhow::Result<Self> {
        let stage = Stage::open().await?;
        let neighbour = stage.enrol("plant", ground().await?).await?;
        let gateway = stage.gateway_as_admin(&neighbour.cluster)?;
        gateway.get("/version").await?.ok()?;
        let epoch = stage.admin.agent_of(&neighbour.cluster).await?["epoch"].clone();
        let memory = stage.controller.memory()?;
        let stop = CancellationToken::new();
        let calls = tokio::spawn(calls(gateway, stop.clone()));
        Ok(Self { stage, neighbour, epoch, memory, stop, calls })
    }

    /// A second cluster with a valid identity.
    async fn thief(&self) -> anyhow::Result<(String, Held)> {
        let cluster = self.stage.admin.cluster_create("thief").await?;
        let token = self.stage.admin.join_token(&cluster).await?;
        let held = Hand::new(&self.stage.controller)?.enrol(&JoinToken::parse(&token)?).await?;
        Ok((cluster, held))
    }

    /// The neighbour was served all the time, and memory stays within its budget.
    async fn survived(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let calls = self.calls.await?.context("the neighbour's calls")?;
        ensure!(calls > 0, "not one call of the neighbour");
        let agent = self.stage.admin.agent_of(&self.neighbour.cluster).await?;
        ensure!(agent["epoch"] == self.epoch, "the neighbour lost its connection: {agent}");
        wait::until(Duration::from_secs(10), || async {
            let (before, after) = (self.memory, self.stage.controller.memory()?);
            ensure!(after < before + BUDGET, "memory went from {before} to {after} bytes");
            Ok(())
        })
        .await?;
        let log = self.stage.controller.log();
        ensure!(!log.contains("panicked"), "{log}");
        ensure!(log.len() < 1 << 20, "{} bytes of log", log.len());
        Ok(())
    }
}

/// Calls without end; each has the gateway fixture's deadline.
async fn calls(gateway: Gateway, stop: CancellationToken) -> anyhow::Result<u32> {
    let mut calls = 0;
    while !stop.is_cancelled() {
        gateway.get("/version").await?.ok()?;
        calls += 1;
    }
    Ok(calls)
}

/// A connection at the agents' door, with a session, in the hands of a thief.
struct Taken {
    send: SendRequest<Bytes>,
    up: SendStream<Bytes>,
    down: RecvStream,
    connection: JoinHandle<Result<(), h2::Error>>,
}

fn framed(message: &proto::ControlUp) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

fn request(name: &str, path: &str) -> anyhow::Result<Request<()>> {
    let uri = format!("https://{name}/culvert.tunnel.v1.Tunnel/{path}");
    Ok(Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(())?)
}

impl Taken {
    async fn connect(scene: &Scene, held: &Held) -> anyhow::Result<Self> {
        let identity = ClientIdentity { chain: &held.chain, key: &held.key };
        let tls = tls::trusted_client(&held.roots, Some(identity), &[b"h2"], clock())?;
        let door = Door::new(scene.stage.controller.address(), "agents.culvert.internal", tls)?;
        let (send, connection) = h2::client::handshake(door.open().await?).await?;
        let connection = tokio::spawn(connection);
        let mut send = send.ready().await?;
        let (response, mut up) = send.send_request(request(&door.name(), "Control")?, false)?;
        up.send_data(framed(&proto::ControlUp { kind: Some(Up::Hello(hello())) }), false)?;
        let mut down = tokio::time::timeout(END, response).await??.into_body();
        let welcome = tokio::time::timeout(END, down.data()).await?.context("no Welcome")??;
        ensure!(!welcome.is_empty());
        Ok(Self { send, up, down, connection })
    }

    async fn answer(&self, number: u128) -> anyhow::Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
        let mut request = request("agents.culvert.internal", "Answer")?;
        request.headers_mut().insert("culvert-call", format!("{number:032x}").parse()?);
        Ok(self.send.clone().ready().await?.send_request(request, false)?)
    }

    /// Says the same until it is not heard any more.
    async fn say_on(&mut self, message: &proto::ControlUp) {
        let message = framed(message).repeat(100);
        for _ in 0..10_000 {
            self.up.reserve_capacity(message.len());
            while self.up.capacity() < message.len() {
                if !matches!(std::future::poll_fn(|cx| self.up.poll_capacity(cx)).await, Some(Ok(_))) {
                    return;
                }
            }
            if self.up.send_data(message.clone().into(), false).is_err() {
                return;
            }
        }
    }

    async fn ended(self) -> anyhow::Result<()> {
        let Self { connection, down, .. } = self;
        // How it ends is the controller's choice.
        let _ = tokio::time::timeout(END, connection).await.context("the hostile session goes on")?;
        drop(down);
        Ok(())
    }
}

#[tokio::test]
async fn an_agent_that_was_taken_over() -> anyhow::Result<()> {
    let scene = Scene::begin().await?;
    let (cluster, held) = scene.thief().await?;

    let taken = Taken::connect(&scene, &held).await?;
    let mut kept = Vec::new();
    for number in 0..20_000 {
        let Ok(answer) = taken.answer(number).await else { break };
        kept.push(answer);
    }
    taken.ended().await.context("answers to calls it was not given")?;
    drop(kept);

    let mut taken = Taken::connect(&scene, &held).await?;
    taken.say_on(&proto::ControlUp { kind: Some(Up::Heartbeat(proto::Heartbeat::default())) }).await;
    taken.ended().await.context("a million heartbeats")?;

    let mut taken = Taken::connect(&scene, &held).await?;
    taken.say_on(&proto::ControlUp { kind: Some(Up::Facts(proto::Facts::default())) }).await;
    taken.ended().await.context("facts in a loop")?;

    let taken = Taken::connect(&scene, &held).await?;
    for number in 0..20_000 {
        let Ok((_, mut stream)) = taken.answer(number).await else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    taken.ended().await.context("resets in a loop")?;

    let log = scene.stage.controller.log();
    for cause in
        ["calls that it was not given", "faster than any sound agent", "more often than a cluster changes"]
    {
        ensure!(log.contains(cause), "the log does not say {cause:?}: {log}");
    }
    let agent = scene.stage.admin.agent_of(&cluster).await?;
    ensure!(agent.to_string().contains("protocol"), "the cluster's page does not say why: {agent}");
    scene.survived().await
}

/// A request of somebody who is signed in.
fn asked(scene: &Scene, path: &str) -> anyhow::Result<Request<()>> {
    let uri = format!("https://kube.culvert.internal/clusters/{}{path}", scene.neighbour.cluster);
    let bearer = format!("Bearer {}", scene.stage.admin.bearer());
    Ok(Request::get(uri).header("authorization", bearer).body(())?)
}

#[tokio::test]
async fn people_who_give_up_in_a_loop() -> anyhow::Result<()> {
    let scene = Scene::begin().await?;
    let tls = tls::trusted_client(&scene.stage.admin.roots()?, None, &[b"h2"], clock())?;
    let door = Door::new(scene.stage.controller.address(), "kube.culvert.internal", tls)?;
    for round in 0..5 {
        let (client, connection) = h2::client::handshake(door.open().await?).await?;
        let connection = tokio::spawn(connection);
        let mut held = Vec::new();
        for number in 0..2000 {
            // Watches and plain requests; most are given up at once, some a little later.
            let path = if number % 2 == 0 { "/api/v1/configmaps?watch=true" } else { "/version" };
            let Ok(Ok(mut ready)) = tokio::time::timeout(END, client.clone().ready()).await else { break };
            let Ok((response, mut body)) = ready.send_request(asked(&scene, path)?, true) else { break };
            if number % 10 == round {
                held.push((response, body));
            } else {
                body.send_reset(h2::Reason::CANCEL);
            }
            if held.len() > 50 {
                held.clear();
            }
        }
        drop((held, client));
        // That the controller hangs up on such a caller is fine; so is that it does not.
        let _ = tokio::time::timeout(END, connection).await.context("the connection lives on")?;
    }
    scene.survived().await
}
