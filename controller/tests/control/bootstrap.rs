//! The first start and those after it, kills and lost keys included.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use culvert_controller::app::{App, BootstrapError, Clock, Opened};
use culvert_controller::config::Config;
use culvert_controller::domain::RequestId;

use crate::fixture::{config, here};
use crate::postgres;

async fn open(config: &Config) -> Result<Opened, BootstrapError> {
    App::open(config, None, Clock::system()).await
}

/// Starts, tells pin and code, and stops.
async fn start(config: &Config) -> (String, Option<String>) {
    let opened = open(config).await.unwrap();
    let told = (opened.app.pin().to_string(), opened.first_sign_in.map(|f| f.code.expose().to_owned()));
    opened.app.close().await.unwrap();
    told
}

#[tokio::test]
async fn the_first_start_makes_keys_that_stay_and_a_code_that_works_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), None);
    let (pin, first) = start(&config).await;
    let mode = std::fs::metadata(&config.kek_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nobody signed in: each start shows a new code, and the one before is void.
    let opened = open(&config).await.unwrap();
    assert_eq!(opened.app.pin().to_string(), pin);
    let second = opened.first_sign_in.unwrap().code;
    let sign_in = async |code: &str| opened.app.sign_in(code, here().ip(), RequestId::generate()).await;
    assert!(sign_in(&first.unwrap()).await.is_err());
    assert!(sign_in(second.expose()).await.is_ok());
    assert!(sign_in(second.expose()).await.is_err());
    opened.app.close().await.unwrap();
    assert_eq!(start(&config).await, (pin, None));
}

#[tokio::test]
async fn the_code_goes_into_a_private_file_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), None);
    let file = folder.path().join("code");
    config.bootstrap.code_file = Some(file.clone());
    let (_, code) = start(&config).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), code.unwrap());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_missing_wrong_broken_or_open_key_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), None);
    start(&config).await;
    let kek = std::fs::read_to_string(&config.kek_file).unwrap();
    let put = |text: &str, mode: u32| {
        std::fs::write(&config.kek_file, text).unwrap();
        std::fs::set_permissions(&config.kek_file, std::fs::Permissions::from_mode(mode)).unwrap();
    };

    std::fs::remove_file(&config.kek_file).unwrap();
    let missing = open(&config).await.unwrap_err();
    assert!(matches!(missing, BootstrapError::KekMissing { .. }), "{missing:?}");
    assert!(missing.to_string().contains("kek") && missing.to_string().contains("missing"));
    assert!(!config.kek_file.exists(), "a new key would hide that the old one is lost");

    let other = tempfile::tempdir().unwrap();
    let elsewhere = crate::fixture::config(other.path(), None);
    start(&elsewhere).await;
    put(&std::fs::read_to_string(&elsewhere.kek_file).unwrap(), 0o600);
    assert!(matches!(open(&config).await.unwrap_err(), BootstrapError::KekWrong { .. }));

    put(&kek[..kek.len() / 2], 0o600);
    assert!(matches!(open(&config).await.unwrap_err(), BootstrapError::KekBroken { .. }));

    put(&kek, 0o644);
    assert!(matches!(open(&config).await.unwrap_err(), BootstrapError::KekReadable { .. }));

    put(&kek, 0o600);
    start(&config).await;
}

#[tokio::test]
async fn the_domain_cannot_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), None);
    start(&config).await;
    config.domain = "other.example".parse().unwrap();
    assert!(matches!(open(&config).await.unwrap_err(), BootstrapError::DomainChanged { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_at_once_make_one_installation() {
    let database = postgres::Database::create();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Some(database.url()));
    let starts = (0..4).map(|_| {
        let config = config.clone();
        tokio::spawn(async move { start(&config).await.0 })
    });
    let pins: Vec<_> = futures::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    assert!(pins.iter().all(|pin| *pin == pins[0]), "{pins:?}");
}

#[tokio::test]
async fn a_database_that_is_none_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), None);
    std::fs::create_dir_all(&config.data_dir).unwrap();
    let file = config.data_dir.join("culvert.db");
    let text = "this is somebody's letter, not a database\n".repeat(100);
    std::fs::write(&file, &text).unwrap();
    assert!(matches!(open(&config).await.unwrap_err(), BootstrapError::Open(_)));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert!(!config.kek_file.exists());
}

const KILLED: &str = "CULVERT_TEST_KILLED_IN";

/// The process that the next test kills; alone it does nothing.
#[tokio::test]
async fn starts_and_waits_to_be_killed() {
    let Some(folder) = std::env::var_os(KILLED) else { return };
    let opened = open(&config(Path::new(&folder), None)).await.unwrap();
    let code = opened.app.create_sign_in_code_locally(None).await.unwrap();
    let signed_in = opened.app.sign_in(code.code.expose(), here().ip(), RequestId::generate()).await.unwrap();
    loop {
        opened.app.create_sign_in_code(&signed_in.caller, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_a_store_that_opens() {
    let mut survived = Vec::new();
    // From before the first file until long after the last step of a first start.
    for round in 0..24_u64 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bootstrap::starts_and_waits_to_be_killed"])
            .env(KILLED, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment is the point of this test: there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(round * 12));
        child.kill().unwrap();
        child.wait().unwrap();
        let config = config(folder.path(), None);
        survived.push(config.data_dir.join("culvert.db").exists());
        let (pin, _) = start(&config).await;
        assert_eq!(start(&config).await.0, pin, "round {round}");
    }
    assert!(survived.contains(&true), "every kill came before the first file");
}
