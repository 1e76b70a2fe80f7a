//! A database that is filled from a backup of another, by files and by dumps.

use std::sync::Arc;

use culvert_pki::stream::BackupKey;
use culvert_resources::Method;
use culvert_resources::instance::{ArchiveConfig, SourceConfig};
use culvert_resources::job::TargetConfig;
use culvert_runner::backup::dump::Dump;
use culvert_runner::backup::make::{Wanted, make};
use culvert_runner::backup::manifest::Service;
use culvert_runner::backup::postgresql::{Logical, Physical, Place, Programs, Server};
use culvert_runner::pack::Meter;
use culvert_runner::storage::{Patience, Storage};
use tokio_util::sync::CancellationToken;

use crate::rig::{Database, needs_root, own};

const SERVICE: &str = "services/data.shop.12345678";

/// A target in a folder of a database.
fn target(database: &Database) -> TargetConfig {
    let (mount, secret) = (database.path().join("share"), database.path().join("secret"));
    for folder in [mount.join("of-us").join(SERVICE).join("wal"), secret.clone()] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(secret.join("encryption-key"), BackupKey::generate().unwrap().expose().as_bytes())
        .unwrap();
    own(&mount);
    own(&secret);
    TargetConfig {
        name: "nightly".into(),
        share: Some(mount.to_str().unwrap().into()),
        prefix: "of-us".into(),
        credentials: Some(secret.to_str().unwrap().into()),
        ..TargetConfig::default()
    }
}

fn server(database: &Database) -> Server {
    let place = Place {
        host: "localhost".into(),
        port: database.pod(0).port,
        ca: Some(database.pod(0).folder("tls/ca.crt")),
    };
    Server::new(place, "culvert_admin", "admin-first".into(), database.path()).unwrap()
}

async fn back_up(database: &Database, target: &TargetConfig, method: Method) {
    let programs = Programs::in_folder("/usr/lib/postgresql/15/bin".as_ref());
    let mut dump: Box<dyn Dump> = match method {
        Method::Physical => Box::new(Physical::new(server(database), server(database), Some(programs), true)),
        Method::Logical => Box::new(Logical::new(server(database), Some(programs))),
    };
    let wanted = Wanted {
        name: "one".into(),
        folder: format!("{SERVICE}/backups/one"),
        engine: "postgresql".into(),
        method,
        service: Service {
            namespace: "data".into(),
            name: "shop".into(),
            uid: "12345678-0".into(),
            owner: "app".into(),
            spec: serde_json::json!({"engine": "postgresql"}),
        },
        started_at: jiff::Timestamp::now(),
    };
    let storage = Storage::open(target, Patience::CHECK).unwrap();
    make(&wanted, &storage, &mut *dump, &Meter::default(), &CancellationToken::new()).await.unwrap();
    own(&database.path().join("share"));
}

fn source(target: &TargetConfig) -> SourceConfig {
    SourceConfig {
        restore: "again".into(),
        target: target.clone(),
        path: format!("{SERVICE}/backups/one"),
        manifest_digest: None,
        point_in_time: None,
    }
}

/// A new database with passwords of its own, and what it holds.
async fn filled(target: &TargetConfig) -> (Arc<Database>, tokio_postgres::Client) {
    let mut database = Database::new(1, false).await;
    database.config.source = Some(source(target));
    database.configure();
    database.give_passwords(database.pod(0), "second");
    database.start(0);
    database.until_primary(0).await;
    assert!(database.connect(0, "app", "owner-first").await.is_err(), "the source's password works");
    let owner = database.connect(0, "app", "owner-second").await.unwrap();
    (Arc::new(database), owner)
}

async fn sum(client: &tokio_postgres::Client) -> i64 {
    client.query_one("SELECT sum(n)::bigint FROM numbers", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_log_fill_a_database_that_has_its_own_passwords_and_timeline() {
    needs_root();
    let mut old = Database::new(1, false).await;
    let target = target(&old);
    old.config.archive = Some(ArchiveConfig { target: target.clone(), path: SERVICE.into() });
    old.configure();
    old.start(0);
    old.until_primary(0).await;
    let owner = old.owner(0).await;
    owner.batch_execute("CREATE TABLE numbers AS SELECT 1::bigint AS n").await.unwrap();
    back_up(&old, &target, Method::Physical).await;
    owner.batch_execute("INSERT INTO numbers VALUES (2), (4)").await.unwrap();
    drop(owner);
    // A fast shutdown archives the rest of the log.
    old.stop(0).await;
    let (new, client) = filled(&target).await;
    assert_eq!(sum(&client).await, 7);
    let position = new.status(0).await.unwrap().position.unwrap();
    assert!(position.starts_with("2/"), "{position}");
    client.batch_execute("INSERT INTO numbers VALUES (8)").await.unwrap();
    drop(client);
    // It is filled once.
    new.stop(0).await;
    new.start(0);
    new.until_primary(0).await;
    let client = new.connect(0, "app", "owner-second").await.unwrap();
    assert_eq!(sum(&client).await, 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_fill_a_database_and_a_damaged_one_fills_none() {
    needs_root();
    let old = Database::new(1, false).await;
    let target = target(&old);
    old.start(0);
    old.until_primary(0).await;
    let owner = old.owner(0).await;
    owner.batch_execute("CREATE TABLE numbers AS SELECT generate_series(1, 100)::bigint AS n").await.unwrap();
    back_up(&old, &target, Method::Logical).await;
    let (_new, client) = filled(&target).await;
    assert_eq!(sum(&client).await, 5050);

    let manifest = old.path().join("share/of-us").join(SERVICE).join("backups/one/manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"shop\"", "\"shot\"")).unwrap();
    let mut none = Database::new(1, false).await;
    none.config.source = Some(source(&target));
    none.configure();
    none.start(0);
    let why = |status: &culvert_resources::instance::InstanceStatus| {
        status.problem.as_ref().is_some_and(|why| why.code == "backup_forged")
    };
    none.until(0, "refusing the manifest", why).await;
    assert!(!none.pod(0).folder("volume/data").exists());
}
