//! A real PostgreSQL, which archives its log with the runner's own program.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use culvert_resources::instance::{ArchiveConfig, InstanceConfig, SourceConfig};
use culvert_runner::backup::postgresql::{Place, Programs, Server};

use super::{open_to_all, text};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const NOBODY: u32 = 65534;
pub const PASSWORD: &str = "se:cr\\et";

/// A server and the folders that it would have in a pod.
pub struct Postgres {
    child: Option<Child>,
    pub folder: tempfile::TempDir,
    pub port: u16,
}

impl Postgres {
    /// An empty server, which archives when it is told where.
    pub fn start(archive: Option<ArchiveConfig>) -> Self {
        let mut postgres = Self::folders();
        let root = postgres.folder.path();
        std::fs::write(root.join("password"), PASSWORD).unwrap();
        postgres.configure(archive, None);
        let mut initdb = postgres.unprivileged("initdb");
        initdb.arg("--pgdata").arg(postgres.data()).arg("--pwfile").arg(root.join("password"));
        initdb.args(["--username=culvert_admin", "--auth=scram-sha-256", "--locale=C.UTF-8", "--no-sync"]);
        run(&mut initdb);
        let hba = postgres.data().join("pg_hba.conf");
        let socket = "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(hba, socket).unwrap();
        postgres.serve();
        postgres
    }

    /// The folders of a server that has no data yet.
    pub fn folders() -> Self {
        let folder = tempfile::Builder::new().prefix("culvert-pg-").tempdir_in("/tmp").unwrap();
        open_to_all(folder.path());
        for below in ["run", "volume", "config"] {
            let below = folder.path().join(below);
            std::fs::create_dir(&below).unwrap();
            open_to_all(&below);
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { child: None, folder, port }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("volume/data")
    }

    /// Writes the `instance.json` that the runner reads.
    pub fn configure(&self, archive: Option<ArchiveConfig>, source: Option<SourceConfig>) {
        let config = InstanceConfig {
            engine: "postgresql".into(),
            driver: "postgresql".into(),
            version: "15".into(),
            namespace: "data".into(),
            database: "shop".into(),
            uid: "12345678".into(),
            port: self.port,
            replicas: 1,
            synchronous: false,
            owner: "app".into(),
            parameters: std::collections::BTreeMap::default(),
            tls: culvert_resources::TlsMode::Required,
            archive,
            source,
            lease_seconds: 15,
            volume_bytes: None,
        };
        let text = serde_json::to_vec(&config).unwrap();
        std::fs::write(self.folder.path().join("config/instance.json"), text).unwrap();
    }

    /// How PostgreSQL calls the runner.
    fn runner(&self, command: &str) -> String {
        let root = self.folder.path().display();
        format!(
            "{} {command} --config {root}/config --run {root}/run --volume {root}/volume",
            env!("CARGO_BIN_EXE_culvert-runner")
        )
    }

    /// Starts what lies in the folder of data.
    pub fn serve(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = self.unprivileged("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1"]);
        command.arg("-k").arg(self.folder.path()).args(["-c", "fsync=off", "-c", "shared_buffers=16MB"]);
        command.args(["-c", "archive_mode=on", "-c", "wal_level=replica", "-c", "max_wal_size=64MB"]);
        command.arg("-c").arg(format!("archive_command={}", self.runner("archive-wal %p %f")));
        command.arg("-c").arg(format!("restore_command={}", self.runner("fetch-wal %f %p")));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self.wait("select 'here' where not pg_is_in_recovery()", "here");
    }

    /// Makes what another wrote into the folder of data the server's own.
    pub fn own_data(&self) {
        if is_root() {
            run(Command::new("chown").arg("-R").arg(NOBODY.to_string()).arg(self.data()));
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // `setpriv` becomes the server, so it is one process. SIGQUIT ends it with all of its own.
            let quit = Command::new("kill").arg("-QUIT").arg(child.id().to_string()).status();
            assert!(quit.is_ok() && child.wait().is_ok(), "the server could not be ended");
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs SQL; bare rows.
    pub fn query(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(format!("{PROGRAMS}/psql"));
        psql.arg("-h").arg(self.folder.path()).args(["-p", &self.port.to_string(), "-U", "culvert_admin"]);
        psql.args(["-v", "ON_ERROR_STOP=1", "-XAtqc", sql, database]);
        let output = psql.output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub fn sql(&self, sql: &str) -> String {
        self.query("postgres", sql).unwrap_or_else(|error| panic!("{sql}: {error}\n{}", self.log()))
    }

    /// Waits until a query gives an answer.
    pub fn wait(&self, sql: &str, wanted: &str) {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let last = self.query("postgres", sql);
            if last.as_deref() == Ok(wanted) {
                return;
            }
            assert!(Instant::now() < limit, "{sql}: not {wanted:?} but {last:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Switches to a new segment, and waits until the one before is archived.
    pub fn archive_now(&self) {
        let segment = self.sql("select pg_walfile_name(pg_switch_wal())");
        self.wait(&format!("select last_archived_wal >= '{segment}' from pg_stat_archiver"), "t");
    }

    /// How the runner's Jobs log in.
    pub fn login(&self) -> Server {
        let place = Place { host: "127.0.0.1".into(), port: self.port, ca: None };
        Server::new(place, "culvert_admin", PASSWORD.to_owned().into(), &self.folder.path().join("run"))
            .unwrap()
    }

    pub fn programs() -> Programs {
        Programs::in_folder(Path::new(PROGRAMS))
    }

    fn unprivileged(&self, program: &str) -> Command {
        let mut command = if is_root() {
            chown(self.folder.path().join("volume"), Some(NOBODY), Some(NOBODY)).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]);
            command.arg(format!("{PROGRAMS}/{program}"));
            command
        } else {
            Command::new(format!("{PROGRAMS}/{program}"))
        };
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        text(Path::new(&*String::from_utf8_lossy(&output.stderr)))
    );
}
