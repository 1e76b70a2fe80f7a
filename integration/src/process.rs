//! Programs as child processes: their log, their end, and the ways to end them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};

use crate::wait;

/// A running program; killed when dropped, and by the kernel should the test run
/// itself be killed.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: PathBuf,
    process: std::process::Child,
    at_drop: Signal,
}

/// A signal, by the name that `kill` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The end that an operator or a kubelet asks for.
    Term,
    /// Ctrl-C; for PostgreSQL the quick and clean end.
    Int,
    /// The end that cannot be handled.
    Kill,
    /// Stands still, as on an overloaded or suspended machine.
    Stop,
    /// Goes on.
    Cont,
    /// Reload.
    Hup,
}

impl Signal {
    /// As `kill` knows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
            Self::Hup => "HUP",
        }
    }
}

impl Child {
    /// Starts `command` with both outputs in the file `log` (made anew) and no input.
    ///
    /// Program, arguments, variables and folder are taken from `command`; `env_clear`
    /// and other settings are not.
    pub fn spawn(name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        Self::spawn_ending_by(Signal::Kill, name, command, log)
    }

    /// As [`Child::spawn`], for a program that wants another signal than KILL, both when
    /// it is dropped and when the test run dies. It gets 10 s before KILL follows.
    pub fn spawn_ending_by(end: Signal, name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut tied = tied_to_this_process(end, &command);
        tied.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = spawn_from_lasting_thread(tied).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), process, at_drop: end })
    }

    /// Its process number. It stays its own for as long as this value lives.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// File descriptors it holds now: files, sockets, pipes.
    pub fn files(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Where its outputs go.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        match std::fs::read(&self.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("({}: {error})", self.log.display()),
        }
    }

    /// Waits for a line with `text` in its output and gives that line. Fails at once
    /// when the program ends without having written it.
    pub async fn line(&mut self, text: &str, limit: Duration) -> anyhow::Result<String> {
        let end = Instant::now() + limit;
        loop {
            // In this order: what it wrote before it ended counts.
            let ended = self.process.try_wait()?;
            let output = self.output();
            if let Some(line) = output.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            let name = &self.name;
            if let Some(status) = ended {
                bail!("{name} ended ({status}) without a line with {text:?}; its output:\n{output}");
            }
            ensure!(
                Instant::now() < end,
                "no line with {text:?} from {name} in {limit:?}; its output:\n{output}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Waits for its end.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < end,
                "{} still runs after {limit:?}; its output:\n{}",
                self.name,
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends it a signal. A program that has ended already is an error.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        ensure!(self.is_running()?, "{} has ended; its output:\n{}", self.name, self.output());
        let done =
            Command::new("kill").arg(format!("-{}", signal.name())).arg(self.pid().to_string()).output()?;
        ensure!(done.status.success(), "kill: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// Ends it by SIGTERM and gives its exit status; fails when that takes longer than `limit`.
    pub async fn terminate(mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::Term)?;
        self.ended(limit).await
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.ended(Duration::from_secs(10)).await.map(drop)
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.at_drop != Signal::Kill
            && self.signal(self.at_drop).is_ok()
            && self.ended_within(Duration::from_secs(10))
        {
            return;
        }
        // What it started itself is in its group. Both fail only when there is nobody
        // left, which is what they are for. The number is not reused before `wait`.
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.pid())]).output();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same command, to be killed by the kernel when the thread ends that starts it.
fn tied_to_this_process(end: Signal, command: &Command) -> Command {
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", end.name()]);
    // Who becomes another user loses the tie, so that setpriv has to do both, in its order.
    if command.get_program() != tied.get_program() {
        tied.arg("--").arg(command.get_program());
    }
    tied.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        tied.current_dir(folder);
    }
    tied.process_group(0);
    tied
}

type Spawned = std::io::Result<std::process::Child>;

/// The kernel's "parent" is a thread, and a test's thread ends before the test run
/// does, so one thread that never ends starts everything.
fn spawn_from_lasting_thread(command: Command) -> anyhow::Result<std::process::Child> {
    static STARTER: LazyLock<mpsc::Sender<(Command, mpsc::Sender<Spawned>)>> = LazyLock::new(|| {
        let (sender, orders) = mpsc::channel::<(Command, mpsc::Sender<Spawned>)>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                // Nobody waits for the answer any more: the child is dropped, and ends with us.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, spawned) = mpsc::channel();
    STARTER.send((command, answer)).ok().context("the thread that starts programs has ended")?;
    Ok(spawned.recv().context("the thread that starts programs has ended")??)
}

/// A loopback or other local address whose port nobody listens on at the moment, and
/// that this process has given to nobody else.
///
/// It is below the ports that the kernel hands out: one of those may become the source of
/// somebody's connection before, or between two starts of, the program that shall listen.
pub fn free_address(host: &str) -> anyhow::Result<SocketAddr> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
        // 20000 and above are those that the kit gives to API servers.
        let port = 10_000 + u16::from_be_bytes([high, low]) % 10_000;
        let free = std::net::TcpListener::bind((host, port));
        if let Ok(listener) = free
            && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port)
        {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port of {host} is free, or {host} is no address of this machine")
}

/// Waits until something accepts TCP connections there.
pub async fn accepts(address: SocketAddr, limit: Duration) -> anyhow::Result<()> {
    wait::until(limit, || async move {
        tokio::net::TcpStream::connect(address)
            .await
            .with_context(|| format!("{address} does not accept"))?;
        Ok(())
    })
    .await
}

/// Runs a command to its end and gives what it wrote to standard output, or fails
/// with what it wrote to standard error.
pub async fn run(command: Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {program}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{program}: {}: {err}{out}", output.status);
    Ok(out.into_owned())
}

/// A command that root runs as another user, without any groups of its own.
pub fn as_user(user: u32, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--", program]);
    command
}

/// The path of one of the workspace's programs, such as `culvert-agent`, of the same
/// profile as the test. Builds them first when one is missing or older than its sources:
/// cargo builds only the libraries for a test, and a story about yesterday's program
/// proves nothing.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("the test is not in a target folder")?;
    let program = folder.join(name);
    if !up_to_date(&program) {
        let release = folder.file_name() == Some(OsStr::new("release"));
        let built = BUILT.get_or_init(|| build(release).map_err(|error| format!("{error:#}")));
        built.clone().map_err(anyhow::Error::msg)?;
    }
    ensure!(program.is_file(), "the workspace has no program {name}: {} is missing", program.display());
    Ok(program)
}

fn build(release: bool) -> anyhow::Result<()> {
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--workspace",
        "--bins",
        "--locked",
        "--quiet",
    ]);
    if release {
        cargo.arg("--release");
    }
    let output = cargo.output().context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the programs do not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether none of the sources that cargo lists beside a program is newer than it.
fn up_to_date(program: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|of| of.modified());
    let Ok(built) = changed(program) else { return false };
    let Ok(list) = std::fs::read_to_string(program.with_extension("d")) else { return false };
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    sources
        .split_whitespace()
        .all(|source| changed(Path::new(source)).is_ok_and(|time: SystemTime| time <= built))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_line_is_found_and_an_early_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut child = Child::spawn("talker", shell("echo one; echo two; exit 3"), &log).unwrap();
        assert_eq!(child.line("tw", Duration::from_secs(10)).await.unwrap(), "two");
        let missing = child.line("three", Duration::from_secs(10)).await.unwrap_err().to_string();
        assert!(missing.contains("exit status: 3") && missing.contains("one\ntwo"), "{missing}");
    }

    #[tokio::test]
    async fn a_term_is_seen_by_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
        let log = folder.path().join("log");
        let mut child = Child::spawn("patient", shell(script), &log).unwrap();
        child.line("ready", Duration::from_secs(10)).await.unwrap();
        let status = child.terminate(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(std::fs::read_to_string(log).unwrap(), "ready\nbye\n");
    }

    #[test]
    fn whoever_becomes_another_user_stays_tied() {
        use std::os::unix::fs::MetadataExt;
        use std::os::unix::process::ExitStatusExt;
        let mut sleep = Command::new("sleep");
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            sleep = as_user(65534, "sleep");
        }
        let mut tied = tied_to_this_process(Signal::Kill, sleep.arg("600"));
        // The thread is its parent, and ends once the program has begun.
        let begun = std::thread::spawn(move || {
            let child = tied.spawn().unwrap();
            let name = format!("/proc/{}/comm", child.id());
            while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
                std::thread::yield_now();
            }
            child
        });
        assert_eq!(begun.join().unwrap().wait().unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn nothing_is_left_after_a_drop() {
        let folder = tempfile::tempdir().unwrap();
        let child = Child::spawn("sleeper", shell("exec sleep 600"), &folder.path().join("log")).unwrap();
        let process = format!("/proc/{}", child.pid());
        assert!(Path::new(&process).exists());
        drop(child);
        assert!(!Path::new(&process).exists());
    }
}
