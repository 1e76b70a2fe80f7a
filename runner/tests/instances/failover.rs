//! Several instances: standbys, failover under writes, switchover, the old primary's return, a lost API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_resources::meta;

use crate::rig::{Database, needs_root};

/// Writes numbers one after the other to whoever is primary, and remembers those that were acknowledged.
async fn write(database: Arc<Database>, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    let mut next = 0_i64;
    while !stop.load(Ordering::Relaxed) {
        for ordinal in 0..database.pods().len() {
            let connected = database.connect(ordinal, "app", "owner-first");
            let Ok(Ok(client)) = tokio::time::timeout(Duration::from_secs(3), connected).await else {
                continue;
            };
            while !stop.load(Ordering::Relaxed) {
                next += 1;
                let number = next;
                let written = async { client.execute("INSERT INTO numbers VALUES ($1)", &[&number]).await };
                match tokio::time::timeout(Duration::from_secs(3), written).await {
                    Ok(Ok(_)) => acknowledged.push(next),
                    // Whether it was written nobody knows; the number is not used again.
                    _ => break,
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    acknowledged
}

async fn make_numbers(database: &Database) {
    let owner = database.owner(0).await;
    owner.batch_execute("CREATE TABLE numbers (n bigint PRIMARY KEY)").await.unwrap();
}

async fn numbers(database: &Database, ordinal: usize) -> i64 {
    let Ok(client) = database.connect(ordinal, "app", "owner-first").await else { return 0 };
    client.query_one("SELECT count(*) FROM numbers", &[]).await.map_or(0, |row| row.get(0))
}

async fn until_numbers(database: &Database, ordinal: usize, least: i64) {
    let began = Instant::now();
    let mut last = 0;
    while began.elapsed() < Duration::from_secs(60) {
        last = numbers(database, ordinal).await;
        if last >= least {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("only {last} of {least} numbers: {}", database.pod(ordinal).log());
}

async fn missing(database: &Database, primary: usize, acknowledged: &[i64]) -> Vec<i64> {
    let rows = database.owner(primary).await.query("SELECT n FROM numbers", &[]).await.unwrap();
    let there: std::collections::HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    acknowledged.iter().copied().filter(|number| !there.contains(number)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_when_the_primary_is_killed_under_load() {
    needs_root();
    let database = Arc::new(Database::new(2, true).await);
    database.start_all();
    database.until_primary(0).await;
    database.until_synchronous(1).await;
    make_numbers(&database).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(database.clone(), stop.clone()));
    until_numbers(&database, 0, 30).await;
    database.pod(0).kill();
    database.until_primary(1).await;
    // Commits wait until there is a standby again: the old primary, as another pod.
    database.start(0);
    database.until_synchronous(0).await;
    let before = numbers(&database, 1).await;
    until_numbers(&database, 1, before + 30).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.unwrap();
    assert_eq!(missing(&database, 1, &acknowledged).await, Vec::<i64>::new());
    assert_eq!(missing(&database, 0, &acknowledged).await, Vec::<i64>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_handed_over_on_request_and_nothing_is_lost() {
    needs_root();
    let database = Arc::new(Database::new(2, false).await);
    database.start_all();
    database.until_primary(0).await;
    database.until_follows(1).await;
    make_numbers(&database).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(database.clone(), stop.clone()));
    until_numbers(&database, 0, 30).await;
    let began = Instant::now();
    database.annotate_lease(meta::SWITCHOVER_TO, "db-1").await;
    database.until_primary(1).await;
    let took = began.elapsed();
    database.until_follows(0).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.unwrap();
    assert_eq!(missing(&database, 1, &acknowledged).await, Vec::<i64>::new());
    let annotations = database.lease().await.metadata.annotations.unwrap();
    assert!(!annotations.contains_key(meta::SWITCHOVER_TO), "the request is taken away");
    // No waiting for the Lease to expire: it is well below that and the time to see a change.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_commits_did_not_wait_for_is_not_promoted() {
    needs_root();
    let database = Database::new(2, true).await;
    database.start(0);
    database.until_primary(0).await;
    make_numbers(&database).await;
    database.start(1);
    database.until_synchronous(1).await;
    database.pod(1).kill();
    // Somebody edits the list by hand: nobody is on it.
    database.pod(0).kill();
    database.annotate_lease(meta::SYNCHRONOUS, "").await;
    database.start(1);
    let refused = |status: &culvert_resources::instance::InstanceStatus| {
        status.problem.as_ref().is_some_and(|why| why.code == "not_synchronous")
    };
    let status = database.until(1, "refusing", refused).await;
    assert_eq!(status.role, "replica");
    database.start(0);
    database.until_primary(0).await;
    database.until_synchronous(1).await;
}
