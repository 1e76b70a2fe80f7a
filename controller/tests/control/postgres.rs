//! A throwaway PostgreSQL, one server for all tests that run at the time.
//!
//! PostgreSQL refuses to run as root, so as root it is started as `nobody`. It
//! listens on a Unix socket in its own folder only. A shell that waits for the end
//! of its standard input stops it, so nothing stays when the tests are killed.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running server.
pub(crate) struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    input: Option<ChildStdin>,
    shell: Child,
}

/// A database of its own for one test.
pub(crate) struct Database {
    server: Arc<Postgres>,
    name: String,
}

impl Database {
    pub(crate) fn create() -> Self {
        let server = server();
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        let folder = server.folder.path().display().to_string();
        must(Command::new(server.bin.join("createdb")).args(["-h", &folder, "-U", "culvert", &name]));
        Self { server, name }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://culvert@localhost/{}?host={}", self.name, self.server.folder.path().display())
    }
}

fn server() -> Arc<Postgres> {
    static RUNNING: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap();
    if let Some(server) = running.upgrade() {
        return server;
    }
    let server = Arc::new(Postgres::start());
    *running = Arc::downgrade(&server);
    server
}

impl Postgres {
    fn start() -> Self {
        let bin = programs();
        // Short: a socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let root = is_root();
        if root {
            must(Command::new("chown").arg("nobody").arg(folder.path()));
        }
        let data = folder.path().join("data");
        let initdb = bin.join("initdb");
        must(as_nobody(root, &initdb).arg("-D").arg(&data).args([
            "-U",
            "culvert",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]));
        let script = r#""$0" "$@" & pid=$!; cat >/dev/null; kill -INT "$pid"; wait "$pid""#;
        let mut shell = as_nobody(root, Path::new("/bin/sh"))
            .arg("-c")
            .arg(script)
            .arg(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=300"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = shell.stdin.take();
        let server = Self { folder, bin, input, shell };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let asked = Command::new(self.bin.join("pg_isready"))
                .args(["-U", "culvert", "-h"])
                .arg(self.folder.path())
                .output()
                .unwrap();
            if asked.status.success() {
                return;
            }
            let last = String::from_utf8_lossy(&asked.stdout).into_owned();
            assert!(Instant::now() < deadline, "PostgreSQL is not ready after 60 s; it last said: {last}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.shell.wait();
    }
}

/// The folder of PostgreSQL's programs; a test that needs them fails without them.
fn programs() -> PathBuf {
    let named = std::env::var_os("CULVERT_POSTGRES_BIN").map(PathBuf::from);
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed.map(|entry| entry.path().join("bin")).max();
    let bin = named.or(newest).filter(|bin| bin.join("initdb").exists());
    bin.expect(
        "these tests need PostgreSQL's own programs: install the package postgresql, or name the folder \
         that holds initdb in CULVERT_POSTGRES_BIN",
    )
}

fn is_root() -> bool {
    let asked = Command::new("id").arg("-u").output().unwrap();
    asked.stdout.trim_ascii() == b"0"
}

fn as_nobody(root: bool, program: &Path) -> Command {
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

fn must(command: &mut Command) {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?} failed: {said}");
}
