//! A web server that ends TLS before the controller, as a site's own reverse proxy does.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::process::{self, Child};
use crate::targets::certify;

/// A real nginx with a certificate of an authority that nobody in a story trusts; it starts TLS anew to the
/// controller, and lets WebSockets through. Gone when dropped.
#[derive(Debug)]
pub struct Front {
    // In this order: the server ends before its folder goes.
    server: Option<Child>,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Front {
    /// Starts one at a free port of `host`, before `controller`.
    pub async fn start(host: IpAddr, controller: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        certify(folder.path(), &host.to_string())?;
        let address = process::free_address(&host.to_string())?;
        let config = CONFIG
            .replace("FOLDER", &folder.path().display().to_string())
            .replace("LISTEN", &address.to_string())
            .replace("CONTROLLER", &controller.to_string());
        std::fs::write(folder.path().join("nginx.conf"), config)?;
        let mut front = Self { server: None, folder, address };
        front.resume().await?;
        Ok(front)
    }

    /// Starts it again after [`Front::kill`].
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("nginx");
        command.arg("-e").arg("stderr").arg("-p").arg(self.folder.path());
        command.arg("-c").arg(self.folder.path().join("nginx.conf"));
        let server = Child::spawn("nginx", command, &self.folder.path().join("log"));
        let server = server.context("no nginx: run integration/kube/requires --stories")?;
        let server = self.server.insert(server);
        let accepts = process::accepts(self.address, Duration::from_secs(10)).await;
        accepts.with_context(|| format!("the log of nginx:\n{}", server.output()))
    }

    /// Ends it as a power cut does.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.server.take().context("nginx does not run")?.kill().await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One process, so that ending it ends all of it. What is between the lines `location` is what
/// `docs/operators-guide.md` tells people to write.
const CONFIG: &str = "
daemon off;
master_process off;
pid FOLDER/pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    server {
        listen LISTEN ssl;
        ssl_certificate FOLDER/server.crt;
        ssl_certificate_key FOLDER/server.key;
        location = /culvert.tunnel.v1/carrier {
            proxy_pass https://CONTROLLER;
            proxy_ssl_protocols TLSv1.3;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $host;
            proxy_read_timeout 75s;
            proxy_send_timeout 75s;
        }
    }
}
";
