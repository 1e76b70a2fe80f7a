//! The commands with which PostgreSQL moves its log: over the socket of a runner, and without one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser as _;
use culvert_resources::instance::{ArchiveConfig, SourceConfig};
use culvert_runner::args::{Cli, Command, Folders};
use culvert_runner::wal::{self, EXIT_FAULT, EXIT_MISSING};
use support::postgres::Postgres;
use support::{Share, text};
use tokio_util::sync::CancellationToken;

const SERVICE: &str = "services/data.shop.12345678";

/// The folders of a pod whose service archives to a share.
struct Pod {
    share: Share,
    /// For its folders only; nothing runs.
    postgres: Postgres,
}

impl Pod {
    fn new() -> Self {
        let (share, postgres) = (Share::new(), Postgres::folders());
        std::fs::create_dir(postgres.data()).unwrap();
        let pod = Self { share, postgres };
        pod.postgres.configure(Some(pod.archive_config()), None);
        pod
    }

    fn archive_config(&self) -> ArchiveConfig {
        ArchiveConfig { target: self.share.config.clone(), path: SERVICE.into() }
    }

    fn folders(&self) -> Folders {
        let at = |below: &str| text(&self.postgres.folder.path().join(below));
        let args = [
            "runner",
            "fetch-wal",
            "x",
            "y",
            "--config",
            &at("config"),
            "--run",
            &at("run"),
            "--volume",
            &at("volume"),
        ];
        match Cli::try_parse_from(args).unwrap().command {
            Command::FetchWal { folders, .. } => folders,
            other => panic!("{other:?}"),
        }
    }

    fn segment(&self, name: &str, content: &str) -> PathBuf {
        let path = self.postgres.data().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn archive(&self, name: &str, content: &str) -> u8 {
        wal::archive(&self.folders(), &self.segment(name, content), name).await.unwrap()
    }

    async fn fetch(&self, name: &str) -> (u8, Option<String>) {
        let to = self.postgres.data().join("RECOVERYXLOG");
        drop(std::fs::remove_file(&to));
        let code = wal::fetch(&self.folders(), name, &to).await.unwrap();
        (code, std::fs::read_to_string(to).ok())
    }

    fn signal(&self, name: &str) {
        std::fs::write(self.postgres.data().join(name), "").unwrap();
    }
}

fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

#[tokio::test]
async fn the_same_again_is_success_and_another_is_refused() {
    let pod = Pod::new();
    assert_eq!(pod.archive(&name(1), "one").await, 0);
    assert_eq!(pod.archive(&name(1), "one").await, 0);
    assert_eq!(pod.archive(&name(1), "other").await, 1);
    assert_eq!(pod.fetch(&name(1)).await, (0, Some("one".into())));
    // One that is refused does not block the next.
    assert_eq!(pod.archive(&name(2), "two").await, 0);
    for other in
        ["00000002.history", "000000010000000000000001.00000028.backup", "000000010000000000000003.partial"]
    {
        assert_eq!(pod.archive(other, other).await, 0);
        assert_eq!(pod.fetch(other).await, (0, Some(other.into())));
    }
    assert_eq!(pod.archive("notes.txt", "no log").await, 1);
}

#[tokio::test]
async fn what_is_not_there_is_the_end_and_a_fault_is_not() {
    let mut pod = Pod::new();
    let source = SourceConfig {
        restore: "again".into(),
        target: pod.share.config.clone(),
        path: format!("{SERVICE}/backups/one"),
        manifest_digest: None,
        point_in_time: None,
    };
    pod.postgres.configure(None, Some(source.clone()));
    pod.signal("recovery.signal");
    assert_eq!(pod.fetch(&name(1)).await, (EXIT_MISSING, None));
    pod.share.config.share = Some("/nowhere/at/all".into());
    let away = SourceConfig { target: pod.share.config.clone(), ..source };
    pod.postgres.configure(None, Some(away));
    assert_eq!(pod.fetch(&name(1)).await, (EXIT_FAULT, None));
    // A standby asks again, and its promotion must not fail for a bucket.
    pod.postgres.configure(Some(pod.archive_config()), None);
    std::fs::remove_file(pod.postgres.data().join("recovery.signal")).unwrap();
    pod.signal("standby.signal");
    assert_eq!(pod.fetch(&name(1)).await, (EXIT_MISSING, None));
}

#[tokio::test]
async fn damage_is_not_the_end_of_the_log() {
    let pod = Pod::new();
    assert_eq!(pod.archive(&name(1), "one").await, 0);
    pod.signal("recovery.signal");
    let object = pod.share.file(&format!("{SERVICE}/wal/0000000100000000/{}.zst.enc", name(1)));
    let good = std::fs::read(&object).unwrap();
    for length in [0, 10, good.len() - 1] {
        std::fs::write(&object, &good[..length]).unwrap();
        assert_eq!(pod.fetch(&name(1)).await, (EXIT_FAULT, None), "{length} bytes of {}", good.len());
    }
    let another = culvert_pki::stream::BackupKey::generate().unwrap();
    std::fs::write(&object, good).unwrap();
    std::fs::write(pod.share.folder.path().join("secret/encryption-key"), another.expose().as_bytes())
        .unwrap();
    assert_eq!(pod.fetch(&name(1)).await, (EXIT_FAULT, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_reads_ahead_and_works_for_the_commands() {
    let pod = Pod::new();
    let (folders, ended) = (pod.folders(), CancellationToken::new());
    let serving = tokio::spawn({
        let (folders, ended) = (folders.clone(), ended.clone());
        async move { wal::serve(&folders, ended).await }
    });
    until(|| folders.run.join(wal::SOCKET).exists(), "the socket").await;
    for number in 1..=4 {
        assert_eq!(pod.archive(&name(number), &format!("segment {number}")).await, 0);
    }
    assert_eq!(pod.fetch(&name(1)).await, (0, Some("segment 1".into())));
    let ahead = pod.postgres.folder.path().join("volume/wal-ahead");
    until(|| (2..=4).all(|number| ahead.join(name(number)).exists()), "segments ahead").await;
    // It comes from there, not from the archive.
    std::fs::remove_dir_all(pod.share.file(&format!("{SERVICE}/wal"))).unwrap();
    for number in 2..=4 {
        assert_eq!(pod.fetch(&name(number)).await, (0, Some(format!("segment {number}"))));
    }
    assert_eq!(pod.fetch(&name(5)).await, (EXIT_MISSING, None));
    // What was not there when it was looked for ahead is looked for again when it is wanted.
    assert_eq!(pod.archive(&name(5), "late").await, 0);
    assert_eq!(pod.fetch(&name(5)).await, (0, Some("late".into())));
    ended.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(pod.fetch(&name(5)).await, (0, Some("late".into())), "without a runner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_says_nothing_keeps_nobody_waiting() {
    let pod = Pod::new();
    let (folders, ended) = (pod.folders(), CancellationToken::new());
    let serving = tokio::spawn({
        let (folders, ended) = (folders.clone(), ended.clone());
        async move { wal::serve(&folders, ended).await }
    });
    let socket = folders.run.join(wal::SOCKET);
    until(|| socket.exists(), "the socket").await;
    let _silent = connect(&socket).await;
    assert_eq!(pod.archive(&name(1), "one").await, 0);
    ended.cancel();
    serving.await.unwrap().unwrap();
}

async fn connect(socket: &Path) -> tokio::net::UnixStream {
    tokio::net::UnixStream::connect(socket).await.unwrap()
}

async fn until(look: impl Fn() -> bool, what: &str) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !look() {
        assert!(Instant::now() < limit, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
