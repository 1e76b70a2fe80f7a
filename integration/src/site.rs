//! A place like the ones that Culvert is for: egress to one port, nothing in, no DNS.
//!
//! A site is a network namespace with one link to this machine and a firewall of
//! its own. Its process table and disk are this machine's; its `/etc/hosts` and
//! `/etc/resolv.conf` are not, so no name resolves that the story did not give.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process::{self, Child};

/// A network namespace that lets nothing in, and out only to chosen ports of this
/// machine. Gone when dropped. Needs root.
#[derive(Debug)]
pub struct Site {
    holder: Child,
    folder: tempfile::TempDir,
    /// Number of its network and link, once it has them.
    net: Option<u8>,
}

impl Site {
    /// Makes a site that may dial these TCP ports of [`Site::gateway`] and nothing else.
    pub async fn start(ports: &[u16]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("hosts"), "127.0.0.1 localhost\n")?;
        std::fs::write(folder.path().join("resolv.conf"), "# no name server\n")?;
        // The namespaces live as long as this process does, and their link with them.
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "sh", "-euc"]);
        command.arg(
            "mount --bind \"$0/hosts\" /etc/hosts; mount --bind \"$0/resolv.conf\" /etc/resolv.conf; \
             ip link set lo up; echo apart; exec sleep infinity",
        );
        command.arg(folder.path());
        let mut holder = Child::spawn("site", command, &folder.path().join("log"))?;
        holder.line("apart", Duration::from_secs(5)).await?;
        let mut site = Self { holder, folder, net: None };
        site.net = Some(site.link().await?);
        site.wall(ports).await?;
        Ok(site)
    }

    /// This machine, as the site sees it: what the site shall dial listens here.
    pub fn gateway(&self) -> IpAddr {
        Ipv4Addr::new(10, 78, self.net.unwrap_or_default(), 1).into()
    }

    /// The site, as this machine sees it.
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 78, self.net.unwrap_or_default(), 2).into()
    }

    /// Gives a name to an address, for programs that start from now on or look again.
    pub fn name(&self, name: &str, address: IpAddr) -> anyhow::Result<()> {
        use std::io::Write;
        let mut hosts = std::fs::File::options().append(true).open(self.folder.path().join("hosts"))?;
        Ok(writeln!(hosts, "{address} {name}")?)
    }

    /// A command that runs in the site.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.wrap(&Command::new(program))
    }

    /// The same command in the site: program, arguments, variables and folder.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(self.entrance().iter().skip(1)).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        // nsenter starts in / of the namespace unless it is told.
        let folder = command.get_current_dir().map(Path::to_owned).or_else(|| std::env::current_dir().ok());
        inside.current_dir(folder.unwrap_or_else(|| PathBuf::from("/")));
        inside
    }

    /// The words that, before a command, run it in the site. For a wrapper that has to
    /// outlive a borrow of the site.
    pub fn entrance(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        ["nsenter", "--target", &pid, "--net", "--mount", "--"].map(str::to_owned).to_vec()
    }

    /// Lets it dial one more TCP port of [`Site::gateway`].
    pub async fn allow(&self, port: u16) -> anyhow::Result<()> {
        self.change("add", port).await
    }

    /// Takes a port away, from connections that are open as well.
    pub async fn forbid(&self, port: u16) -> anyhow::Result<()> {
        self.change("delete", port).await
    }

    /// Packets that the firewall refused so far, outgoing and incoming.
    pub async fn refused(&self) -> anyhow::Result<(u64, u64)> {
        let count = async |name: &str| {
            let mut list = self.command("nft");
            list.args(["list", "counter", "inet", "site", name]);
            let text = process::run(list).await?;
            let packets = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
            anyhow::Ok(packets.context("nft lists no packets")?.parse::<u64>()?)
        };
        Ok((count("out").await?, count("in").await?))
    }

    /// Joins it to this machine. A link's name can be given once, so whoever makes
    /// the link has the network that goes with it.
    async fn link(&self) -> anyhow::Result<u8> {
        for net in 0..=u8::MAX {
            let name = format!("cvs{net}");
            let mut add = Command::new("ip");
            add.args(["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns"]);
            add.arg(self.holder.pid().to_string());
            match process::run(add).await {
                Err(error) if error.to_string().contains("File exists") => continue,
                other => other?,
            };
            process::run(words(&format!("ip address add 10.78.{net}.1/30 dev {name}"))).await?;
            process::run(words(&format!("ip link set {name} up"))).await?;
            for step in
                ["address add 10.78.N.2/30 dev eth0", "link set eth0 up", "route add default via 10.78.N.1"]
            {
                let mut ip = self.command("ip");
                ip.args(step.replace('N', &net.to_string()).split(' '));
                process::run(ip).await?;
            }
            return Ok(net);
        }
        bail!("all 256 networks for sites are in use")
    }

    async fn wall(&self, ports: &[u16]) -> anyhow::Result<()> {
        let gateway = self.gateway();
        let rules = format!(
            "table inet site {{
                 counter out {{}}
                 counter in {{}}
                 set ports {{ type inet_service; }}
                 chain incoming {{
                     type filter hook input priority filter; policy drop;
                     iifname lo accept
                     tcp flags & (syn | ack) != syn ip saddr {gateway} tcp sport @ports accept
                     counter name in
                 }}
                 chain outgoing {{
                     type filter hook output priority filter; policy drop;
                     oifname lo accept
                     ip daddr {gateway} tcp dport @ports accept
                     counter name out
                 }}
             }}"
        );
        let file = self.folder.path().join("rules");
        std::fs::write(&file, rules)?;
        let mut nft = self.command("nft");
        nft.arg("-f").arg(file);
        process::run(nft).await?;
        for port in ports {
            self.allow(*port).await?;
        }
        Ok(())
    }

    async fn change(&self, verb: &str, port: u16) -> anyhow::Result<()> {
        let mut nft = self.command("nft");
        nft.args([verb, "element", "inet", "site", "ports", &format!("{{ {port} }}")]);
        process::run(nft).await.map(drop)
    }

    /// Ends what still runs in it: a namespace lives as long as anybody in it does.
    fn clear(&self) -> std::io::Result<()> {
        let own = std::fs::read_link(format!("/proc/{}/ns/net", self.holder.pid()))?;
        if own == std::fs::read_link("/proc/self/ns/net")? {
            return Ok(());
        }
        for process in std::fs::read_dir("/proc")?.flatten() {
            let inside = std::fs::read_link(process.path().join("ns/net")).is_ok_and(|net| net == own);
            if inside {
                Command::new("kill").arg("-KILL").arg(process.file_name()).output()?;
            }
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::error!(%error, net = self.net, "what ran in a site was not ended");
        }
        // The kernel would remove the link with the namespace, but a connection that the
        // firewall froze keeps that for minutes.
        if let Some(net) = self.net
            && let Err(error) = words(&format!("ip link delete cvs{net}")).output()
        {
            tracing::error!(%error, net, "the link of a site remains");
        }
    }
}

fn words(line: &str) -> Command {
    let mut words = line.split(' ').map(OsString::from);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}
