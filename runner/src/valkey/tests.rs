//! What the driver does with files, without an engine.

use std::sync::Arc;

use culvert_resources::instance::InstanceConfig;

use super::*;
use crate::args::Folders;
use crate::credentials::Credentials;

/// An instance `a-0` of the database `a`.
pub(super) fn situation() -> Situation {
    let config = InstanceConfig {
        engine: "valkey".to_owned(),
        driver: "valkey".to_owned(),
        version: "8.1.1".to_owned(),
        namespace: "x".to_owned(),
        database: "a".to_owned(),
        uid: "u".to_owned(),
        port: 6379,
        replicas: 1,
        synchronous: false,
        owner: "app".to_owned(),
        parameters: [("maxmemory".to_owned(), "64mb".to_owned())].into(),
        tls: culvert_resources::TlsMode::Required,
        archive: None,
        source: None,
        lease_seconds: 15,
        volume_bytes: None,
    };
    let secret = |name: &str| format!("{name}-secret").into();
    Situation {
        folders: Arc::new(folders(std::path::Path::new("/nowhere"))),
        pod: "a-0".to_owned(),
        config: Arc::new(config),
        credentials: Arc::new(Credentials {
            admin: secret("admin"),
            owner: secret("owner"),
            replication: secret("replication"),
            monitor: secret("monitor"),
            digest: "d".to_owned(),
        }),
        required: Arc::new([]),
        read_only: false,
        distrusted: false,
        filling: crate::filling::Filling::default(),
    }
}

fn folders(top: &std::path::Path) -> Folders {
    let folder = |name: &str| top.join(name);
    Folders {
        config: folder("config"),
        credentials: folder("credentials"),
        tls: folder("tls"),
        archive: folder("archive"),
        source: folder("source"),
        share: folder("share"),
        volume: folder("volume"),
        run: folder("run"),
        bin: folder("bin"),
        engine_bin: None,
    }
}

fn at(top: &tempfile::TempDir) -> Situation {
    Situation { folders: Arc::new(folders(top.path())), ..situation() }
}

#[tokio::test]
async fn data_is_whole_only_once_it_has_been_initialised() {
    let top = tempfile::tempdir().unwrap();
    let now = at(&top);
    assert_eq!(Valkey.inspect(&now).await.unwrap(), Data::Empty);
    std::fs::create_dir_all(now.folders.data().join("appendonlydir")).unwrap();
    assert_eq!(Valkey.inspect(&now).await.unwrap(), Data::Unfinished);
    Valkey.initialise(&now).await.unwrap();
    let found = Valkey.inspect(&now).await.unwrap();
    assert!(matches!(found, Data::Whole { led: false, .. }), "{found:?}");
    assert!(!now.folders.data().join("appendonlydir").exists(), "what was unfinished is gone");
}

#[tokio::test]
async fn files_are_written_once_and_hold_passwords_only_where_nobody_else_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let top = tempfile::tempdir().unwrap();
    let now = at(&top);
    assert!(Valkey.configure(&now, &Role::Primary).await.unwrap());
    assert!(!Valkey.configure(&now, &Role::Primary).await.unwrap());
    assert!(Valkey.configure(&now, &Role::Replica(None)).await.unwrap());
    let mode = std::fs::metadata(settings::conf_path(&now.folders)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let launch = Valkey.launch(&now).unwrap();
    assert!(!format!("{launch:?}").contains("secret"), "{launch:?}");
}

#[test]
fn a_refused_write_tells_the_way_out() {
    let told = |why: &str| match stuck(EngineError::refused("write the record", why)) {
        EngineError::Stuck(why) => why.code,
        other => other.to_string(),
    };
    assert_eq!(told("OOM command not allowed when used memory > 'maxmemory'."), "memory_full");
    assert_eq!(told("NOREPLICAS Not enough good replicas to write."), "too_few_replicas");
    assert_eq!(told("MISCONF Errors writing to the AOF file: No space left on device"), "disk_full");
    assert_eq!(told("LOADING"), "write the record: LOADING");
}
