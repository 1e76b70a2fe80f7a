//! One instance: made once, restarted, killed, given other passwords, certificates and parameters.

use std::time::Duration;

use culvert_resources::meta;

use crate::rig::{Database, needs_root};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_made_once_and_comes_back_with_its_data() {
    needs_root();
    let database = Database::new(1, false).await;
    database.start_all();
    let status = database.until_primary(0).await;
    assert!(status.version.is_some_and(|version| version.starts_with("15.")));
    let owner = database.owner(0).await;
    owner.batch_execute("CREATE TABLE t AS SELECT 7 AS x").await.unwrap();
    assert!(database.connect(0, "app", "owner-wrong").await.is_err());
    assert_eq!(database.http(0, "readyz").await.0, 200);
    let metrics = database.http(0, "metrics").await.1;
    assert!(metrics.contains("culvert_postgresql_connections"), "{metrics}");

    database.stop(0).await;
    let lease = database.lease().await;
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some(""), "the Lease is given back");
    assert!(database.pod(0).log().contains("database system is shut down"), "{}", database.pod(0).log());
    database.start(0);
    database.until_primary(0).await;
    database.pod(0).kill();
    database.start_container(0);
    database.until_primary(0).await;
    let row = database.owner(0).await.query_one("SELECT x FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_half_made_is_made_again_and_what_was_lost_is_not() {
    needs_root();
    let database = Database::new(1, false).await;
    database.start_all();
    database.until(0, "initialising", |status| status.doing == "initialising").await;
    let control = database.pod(0).folder("volume/data/global");
    let began = std::time::Instant::now();
    while !control.exists() {
        assert!(began.elapsed() < Duration::from_secs(30), "initdb has not begun: {}", database.pod(0).log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    database.pod(0).kill();
    assert!(!database.pod(0).folder("volume/data.whole").exists());
    database.start_container(0);
    let status = database.until_primary(0).await;
    let made = database.lease().await.metadata.annotations.unwrap().remove(meta::INITIALISED);
    assert_eq!(made, status.data_identity);

    database.pod(0).kill();
    std::fs::remove_dir_all(database.pod(0).folder("volume/data")).unwrap();
    std::fs::remove_file(database.pod(0).folder("volume/data.whole")).unwrap();
    database.start(0);
    let lost = |status: &culvert_resources::instance::InstanceStatus| {
        status.problem.as_ref().is_some_and(|why| why.code == "volume_lost")
    };
    let status = database.until(0, "without its volume", lost).await;
    assert!(!status.healthy && database.http(0, "livez").await.0 == 200);
    assert!(!database.pod(0).folder("volume/data/PG_VERSION").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_certificates_and_parameters_change_while_it_serves() {
    needs_root();
    let mut database = Database::new(1, false).await;
    database.start_all();
    let before = database.until_primary(0).await;

    database.give_passwords(&database.pods()[0], "second");
    database.give_certificate(&database.pods()[0]);
    let turned = |status: &culvert_resources::instance::InstanceStatus| {
        status.credentials_digest.is_some() && status.credentials_digest != before.credentials_digest
    };
    database.until(0, "on the new passwords", turned).await;
    database.connect(0, "app", "owner-second").await.unwrap();
    assert!(database.connect(0, "app", "owner-first").await.is_err());
    assert!(!database.pod(0).log().contains("owner-second"));
    let served = std::fs::read(database.pod(0).folder("run/tls.crt")).unwrap();
    assert_eq!(served, std::fs::read(database.pod(0).folder("tls/tls.crt")).unwrap());

    let parameters = &mut database.config.parameters;
    parameters.insert("work_mem".into(), "9MB".into());
    parameters.insert("max_connections".into(), "77".into());
    database.configure();
    let pending = |status: &culvert_resources::instance::InstanceStatus| !status.pending_restart.is_empty();
    let status = database.until(0, "waiting for a restart", pending).await;
    assert_eq!(status.pending_restart, ["max_connections"]);
    let owner = database.connect(0, "app", "owner-second").await.unwrap();
    let shown: String = owner.query_one("SHOW work_mem", &[]).await.unwrap().get(0);
    assert_eq!(shown, "9MB");
    database.stop(0).await;
    database.start(0);
    assert!(database.until_primary(0).await.pending_restart.is_empty());
}
