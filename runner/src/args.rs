//! The command line: what the runner is asked for, and the folders it works in.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use culvert_resources::instance::{
    ARCHIVE_DIR, BIN_DIR, CONFIG_DIR, CREDENTIALS_DIR, POD_NAME_VAR, POD_UID_VAR, RUN_DIR, RUNNER_PORT,
    SHARE_DIR, SOURCE_DIR, TLS_DIR, VOLUME_DIR,
};
use culvert_resources::job::JOB_DIR;

/// Exit code for a command line that makes no sense (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// The static program beside a database engine.
#[derive(Debug, Parser)]
#[command(name = "culvert-runner", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the runner can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy this program into a folder, for the containers that come after.
    Install {
        /// The folder.
        folder: PathBuf,
    },
    /// Run the engine of this instance.
    Run(RunArgs),
    /// Carry out the Job that is described in the Job's folder.
    Job(JobArgs),
    /// Put a segment of the log into the archive (called by the engine).
    ArchiveWal {
        /// Path of the segment, relative to the engine's data.
        path: PathBuf,
        /// Name in the archive.
        name: String,
        /// Where things are.
        #[command(flatten)]
        folders: Folders,
    },
    /// Fetch a segment of the log from an archive (called by the engine).
    FetchWal {
        /// Name in the archive.
        name: String,
        /// Where to put it, relative to the engine's data.
        path: PathBuf,
        /// Where things are.
        #[command(flatten)]
        folders: Folders,
    },
    /// Ask the runner of this pod how it is.
    Probe {
        /// What to ask.
        what: ProbeKind,
        /// Port of the runner.
        #[arg(long, default_value_t = RUNNER_PORT)]
        port: u16,
    },
}

/// What `probe` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProbeKind {
    /// Whether the runner works.
    Live,
    /// Whether the engine serves.
    Ready,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Where things are.
    #[command(flatten)]
    pub folders: Folders,
    /// Name of the pod.
    #[arg(long, env = POD_NAME_VAR)]
    pub pod_name: String,
    /// uid of the pod.
    #[arg(long, env = POD_UID_VAR)]
    pub pod_uid: String,
    /// Address and port of the runner's own HTTP.
    #[arg(long, hide = true, default_value_t = std::net::SocketAddr::from(([0, 0, 0, 0], RUNNER_PORT)))]
    pub listen: std::net::SocketAddr,
    /// Where a member is, as `NAME=HOST:PORT:RUNNER_PORT`, instead of its name in the headless Service.
    #[arg(long = "peer", hide = true)]
    pub peers: Vec<String>,
    /// Kubeconfig, instead of the pod's ServiceAccount.
    #[arg(long, hide = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Set by the first process of the pod on the one that works.
    #[arg(long, hide = true)]
    pub beneath: bool,
    /// Directives of the log.
    #[arg(long, env = "CULVERT_LOG", default_value = "info")]
    pub log: String,
}

/// Arguments of `job`.
#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    /// Where things are.
    #[command(flatten)]
    pub folders: Folders,
    /// Folder with `job.json`.
    #[arg(long, hide = true, default_value = JOB_DIR)]
    pub job: PathBuf,
    /// Kubeconfig, instead of the pod's ServiceAccount.
    #[arg(long, hide = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Where word is left of how it ended: the termination message of the container.
    #[arg(long, hide = true, default_value = "/dev/termination-log")]
    pub termination: PathBuf,
    /// Directives of the log.
    #[arg(long, env = "CULVERT_LOG", default_value = "info")]
    pub log: String,
}

/// Where things are. In a pod these are the mounts that the operator makes, and no flag is given.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Folders {
    /// Folder with `instance.json`.
    #[arg(long, hide = true, default_value = CONFIG_DIR)]
    pub config: PathBuf,
    /// Folder with passwords.
    #[arg(long, hide = true, default_value = CREDENTIALS_DIR)]
    pub credentials: PathBuf,
    /// Folder with the server's certificate.
    #[arg(long, hide = true, default_value = TLS_DIR)]
    pub tls: PathBuf,
    /// Folder with the Secret of the archive's target.
    #[arg(long, hide = true, default_value = ARCHIVE_DIR)]
    pub archive: PathBuf,
    /// Folder with the Secret of the source's target.
    #[arg(long, hide = true, default_value = SOURCE_DIR)]
    pub source: PathBuf,
    /// Mount point of a file share.
    #[arg(long, hide = true, default_value = SHARE_DIR)]
    pub share: PathBuf,
    /// The volume.
    #[arg(long, hide = true, default_value = VOLUME_DIR)]
    pub volume: PathBuf,
    /// Folder in memory for sockets and files with passwords.
    #[arg(long, hide = true, default_value = RUN_DIR)]
    pub run: PathBuf,
    /// Folder with this program.
    #[arg(long, hide = true, default_value = BIN_DIR)]
    pub bin: PathBuf,
    /// Folder with the engine's programs; found by the engine's own rules when absent.
    #[arg(long, hide = true)]
    pub engine_bin: Option<PathBuf>,
}

impl Folders {
    /// The engine's files.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.volume.join("data")
    }

    /// This program, as the engine calls it back.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.bin.join("culvert-runner")
    }

    /// The flags that tell a second call of this program the same folders; none in a pod.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let usual = [
            ("--config", &self.config, CONFIG_DIR),
            ("--credentials", &self.credentials, CREDENTIALS_DIR),
            ("--tls", &self.tls, TLS_DIR),
            ("--archive", &self.archive, ARCHIVE_DIR),
            ("--source", &self.source, SOURCE_DIR),
            ("--share", &self.share, SHARE_DIR),
            ("--volume", &self.volume, VOLUME_DIR),
            ("--run", &self.run, RUN_DIR),
            ("--bin", &self.bin, BIN_DIR),
        ];
        let changed = usual.into_iter().filter(|(_, path, default)| path.as_os_str() != *default);
        changed.flat_map(|(flag, path, _)| [flag.to_owned(), path.display().to_string()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        folders: Folders,
    }

    #[test]
    fn in_a_pod_a_second_call_needs_no_flags() {
        let folders = Only::parse_from(["x"]).folders;
        assert!(folders.flags().is_empty());
        assert_eq!(folders.data(), PathBuf::from("/var/lib/culvert/data/data"));
    }

    #[test]
    fn flags_bring_the_same_folders_back() {
        let folders = Only::parse_from(["x", "--volume", "/tmp/v", "--run", "/tmp/r"]).folders;
        let again = Only::parse_from(std::iter::once("x".to_owned()).chain(folders.flags())).folders;
        assert_eq!(again, folders);
    }
}
