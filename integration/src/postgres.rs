//! A real PostgreSQL server that lives as long as a test.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::process::{self, Child, Signal};
use crate::wait;

/// Where Debian puts the programs of version 15.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// The user `nobody`; PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

/// An empty server on a free port of 127.0.0.1, and a socket; gone when dropped.
#[derive(Debug)]
pub struct Postgres {
    // In this order: the server ends before its folder goes.
    server: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
    password: String,
}

impl Postgres {
    /// Makes and starts one, without syncing to disk.
    pub async fn start() -> anyhow::Result<Self> {
        // Short, because a Unix socket's path is.
        let folder = tempfile::Builder::new().prefix("culvert-pg-").tempdir_in("/tmp")?;
        let root = folder.path();
        let password = uuid::Uuid::new_v4().simple().to_string();
        std::fs::write(root.join("password"), &password)?;
        if is_root()? {
            chown(root, Some(NOBODY), Some(NOBODY))?;
            chown(root.join("password"), Some(NOBODY), Some(NOBODY))?;
        }
        process::run(initdb(root)?).await?;
        let address = process::free_address("127.0.0.1")?;
        let log = root.join("log");
        let server = Child::spawn_ending_by(Signal::Int, "postgres", serve(root, address.port())?, &log)?;
        let postgres = Self { server, folder, address, password };
        let ready = wait::until(Duration::from_secs(20), || postgres.query("postgres", "select 1")).await;
        ready.with_context(|| format!("the server's log:\n{}", postgres.server.output()))?;
        Ok(postgres)
    }

    /// The URL of its first database, with password.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes an empty database with a name of its own, and gives its URL.
    pub async fn database(&self) -> anyhow::Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("story{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.query("postgres", &format!("create database {name}")).await?;
        Ok(self.url_of(&name))
    }

    /// Runs SQL in a database by psql, through the socket, and gives bare rows.
    pub async fn query(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(format!("{PROGRAMS}/psql"));
        psql.arg("--host").arg(self.folder.path()).args(["--port", &self.address.port().to_string()]);
        psql.args(["--username", "postgres", "--no-password", "--no-psqlrc", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["--dbname", database, "-Atqc", sql]);
        process::run(psql).await
    }

    /// Ends the server as an operator does who does not wait for sessions.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.server.signal(Signal::Int)?;
        self.server.ended(Duration::from_secs(20)).await.map(drop)
    }

    /// Starts the server again on the same data and port.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let root = self.folder.path();
        let log = root.join("log");
        self.server =
            Child::spawn_ending_by(Signal::Int, "postgres", serve(root, self.address.port())?, &log)?;
        let ready = wait::until(Duration::from_secs(20), || self.query("postgres", "select 1")).await;
        ready.map(drop).with_context(|| format!("the server's log:\n{}", self.server.output()))
    }

    /// The server's process, to stop it, cut it off, or read its log.
    pub fn server(&mut self) -> &mut Child {
        &mut self.server
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres:{}@{}/{database}", self.password, self.address)
    }
}

fn initdb(folder: &Path) -> anyhow::Result<Command> {
    let mut command = unprivileged("initdb")?;
    command.arg("--pgdata").arg(folder.join("data")).arg("--pwfile").arg(folder.join("password"));
    command.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]);
    command.args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]);
    command.current_dir(folder);
    Ok(command)
}

fn serve(folder: &Path, port: u16) -> anyhow::Result<Command> {
    let mut command = unprivileged("postgres")?;
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
    command.arg("-k").arg(folder).args(["-c", "fsync=off", "-c", "shared_buffers=16MB"]);
    command.current_dir(folder);
    Ok(command)
}

/// One of its programs, as nobody when we are root.
fn unprivileged(program: &str) -> anyhow::Result<Command> {
    let path = format!("{PROGRAMS}/{program}");
    ensure!(Path::new(&path).exists(), "{path} is missing: run integration/kube/requires --stories");
    if !is_root()? {
        return Ok(Command::new(path));
    }
    Ok(process::as_user(NOBODY, &path))
}

fn is_root() -> anyhow::Result<bool> {
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}
