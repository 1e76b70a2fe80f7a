//! Tunnels of others, as their own documentation sets them up, with one encrypted hop each.
//!
//! konnectivity: mTLS between agent and server, `http-connect` on a socket for users.
//! chisel: its own SSH, over plain HTTP, so that it encrypts once. frp: mTLS, one
//! connection for all streams (its default). rathole: TLS; it has no client certificates.

use std::path::PathBuf;

use anyhow::Context;
use culvert_integration::process::free_address;

use crate::client::Way;
use crate::contender::{Ground, Plan, Program};

fn program(ground: &Ground, name: &str) -> anyhow::Result<PathBuf> {
    Ok(ground.peers.as_ref().context("the programs of others were not built")?.join("bin").join(name))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn konnectivity(ground: &Ground) -> anyhow::Result<Plan> {
    let agents = free_address("127.0.0.1")?;
    let socket = ground.folder.join("konnectivity.sock");
    let pem = |name: &str| ground.file(name);
    let (admin, health) = (free_address("127.0.0.1")?, free_address("127.0.0.1")?);
    let server = format!(
        "--mode=http-connect --uds-name={} --delete-existing-uds-file --server-port=0 --server-count=1 \
         --agent-port={} --agent-bind-address=127.0.0.1 --cluster-ca-cert={} --cluster-cert={} --cluster-key={} \
         --admin-port={} --admin-bind-address=127.0.0.1 --health-port={} --health-bind-address=127.0.0.1",
        socket.display(),
        agents.port(),
        pem("ca.pem"),
        pem("server.pem"),
        pem("server.key"),
        admin.port(),
        health.port(),
    );
    let (admin, health) = (free_address("127.0.0.1")?, free_address("127.0.0.1")?);
    let agent = format!(
        "--ca-cert={} --agent-cert={} --agent-key={} --proxy-server-host=127.0.0.1 --proxy-server-port={} \
         --admin-server-port={} --health-server-port={} --sync-interval=500ms --probe-interval=500ms \
         --sync-interval-cap=1s",
        pem("ca.pem"),
        pem("client.pem"),
        pem("client.key"),
        agents.port(),
        admin.port(),
        health.port(),
    );
    Ok(Plan {
        server: Program::of(&program(ground, "konnectivity-server")?, words(&server)),
        client: Some(Program::of(&program(ground, "konnectivity-agent")?, words(&agent))),
        way: Way::Proxy(socket, ground.origin),
        ready: Some(agents),
    })
}

pub(crate) fn chisel(ground: &Ground) -> anyhow::Result<Plan> {
    let (agents, users) = (free_address("127.0.0.1")?, free_address("127.0.0.1")?);
    let server = format!("server --reverse --host 127.0.0.1 --port {}", agents.port());
    let client = format!("client http://{agents} R:{users}:{}", ground.origin);
    Ok(Plan {
        server: Program::of(&program(ground, "chisel")?, words(&server)),
        client: Some(Program::of(&program(ground, "chisel")?, words(&client))),
        way: Way::Tcp(users),
        ready: Some(agents),
    })
}

pub(crate) fn frp(ground: &Ground) -> anyhow::Result<Plan> {
    let (agents, users) = (free_address("127.0.0.1")?, free_address("127.0.0.1")?);
    let tls = |name: &str| {
        format!(
            "transport.tls.certFile = \"{}\"\ntransport.tls.keyFile = \"{}\"\ntransport.tls.trustedCaFile = \"{}\"\n",
            ground.file(&format!("{name}.pem")),
            ground.file(&format!("{name}.key")),
            ground.file("ca.pem"),
        )
    };
    let server = format!(
        "bindAddr = \"127.0.0.1\"\nbindPort = {}\nproxyBindAddr = \"127.0.0.1\"\nlog.level = \"warn\"\n\
         transport.tls.force = true\n{}",
        agents.port(),
        tls("server"),
    );
    let client = format!(
        "serverAddr = \"127.0.0.1\"\nserverPort = {}\nlog.level = \"warn\"\nloginFailExit = false\n\
         transport.tls.serverName = \"localhost\"\n{}\n[[proxies]]\nname = \"origin\"\ntype = \"tcp\"\n\
         localIP = \"127.0.0.1\"\nlocalPort = {}\nremotePort = {}\n",
        agents.port(),
        tls("client"),
        ground.origin.port(),
        users.port(),
    );
    let files = [ground.file("frps.toml"), ground.file("frpc.toml")];
    std::fs::write(&files[0], server)?;
    std::fs::write(&files[1], client)?;
    let [server, client] = files.map(|file| vec!["-c".to_owned(), file]);
    Ok(Plan {
        server: Program::of(&program(ground, "frps")?, server),
        client: Some(Program::of(&program(ground, "frpc")?, client)),
        way: Way::Tcp(users),
        ready: Some(agents),
    })
}

pub(crate) fn rathole(ground: &Ground) -> anyhow::Result<Plan> {
    let (agents, users) = (free_address("127.0.0.1")?, free_address("127.0.0.1")?);
    let store = ground.file("server.p12");
    let openssl = words(&format!(
        "pkcs12 -export -passout pass:bench -in {} -inkey {} -certfile {} -out {store}",
        ground.file("server.pem"),
        ground.file("server.key"),
        ground.file("ca.pem"),
    ));
    let made = std::process::Command::new("openssl").args(openssl).output()?;
    anyhow::ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let server = format!(
        "[server]\nbind_addr = \"{agents}\"\ndefault_token = \"bench\"\n[server.transport]\ntype = \"tls\"\n\
         [server.transport.tls]\npkcs12 = \"{store}\"\npkcs12_password = \"bench\"\n\
         [server.services.origin]\nbind_addr = \"{users}\"\n",
    );
    let client = format!(
        "[client]\nremote_addr = \"{agents}\"\ndefault_token = \"bench\"\n[client.transport]\ntype = \"tls\"\n\
         [client.transport.tls]\ntrusted_root = \"{}\"\nhostname = \"localhost\"\n\
         [client.services.origin]\nlocal_addr = \"{}\"\n",
        ground.file("ca.pem"),
        ground.origin,
    );
    let files = [ground.file("rathole-server.toml"), ground.file("rathole-client.toml")];
    std::fs::write(&files[0], server)?;
    std::fs::write(&files[1], client)?;
    let [server, client] = files.map(|file| vec![file]);
    Ok(Plan {
        server: Program::of(&program(ground, "rathole")?, [vec!["--server".to_owned()], server].concat()),
        client: Some(Program::of(
            &program(ground, "rathole")?,
            [vec!["--client".to_owned()], client].concat(),
        )),
        way: Way::Tcp(users),
        ready: Some(agents),
    })
}
