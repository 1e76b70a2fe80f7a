//! Backup targets at the API and in the store: credentials go in and never come out.

use axum::http::Method;
use culvert_controller::domain::{BackupTargetRef, Caller};
use serde_json::{Value, json};

use crate::fixture::{House, On};

const SECRET: &str = "hush-hush-a-key-that-nobody-may-read";

fn s3(name: &str) -> Value {
    json!({"name": name, "spec": {"s3": {"bucket": "b", "endpoint": "https://10.0.0.7:9000"}},
        "credentials": {"access-key-id": "id", "secret-access-key": SECRET}})
}

#[rstest::rstest]
#[tokio::test]
async fn credentials_lie_sealed_and_are_shown_to_nobody(#[values(On::Sqlite, On::Postgres)] on: On) {
    let house = House::open(on).await;
    let admin = house.admin().await;
    let made = admin.post("/backup-targets", s3("main")).await.ok(201);
    let shown = admin.get("/backup-targets/main").await;
    assert!(!shown.text.contains(SECRET) && !made.to_string().contains(SECRET), "{shown:?}");
    assert_eq!(shown.ok(200)["credential_generation"], 1);
    let list = admin.get("/backup-targets").await.ok(200);
    assert_eq!(list["items"][0]["spec"]["s3"]["bucket"], "b");

    let other = "another-one-of-these";
    let rotated = json!({"credentials": {"access-key-id": "id", "secret-access-key": other}});
    let path = "/backup-targets/main/credentials";
    let rotated = admin.json_with(Method::PUT, path, rotated, &[]).await.ok(202);
    assert_eq!(rotated["credential_generation"], 2);

    let store = house.store().await;
    let caller = house.caller().await;
    let rows = store.org(&caller);
    let target = rows.backup_target(&BackupTargetRef::Name("main".parse().unwrap())).await.unwrap().unwrap();
    let sealed = rows.sealed_credentials(target.id).await.unwrap().unwrap();
    let has = |text: &str| sealed.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!has(SECRET) && !has(other) && !has("access-key-id"));
    // Another organisation has no way to it.
    let elsewhere = Caller::controller(store.organisations().await.unwrap()[1].id);
    assert!(store.org(&elsewhere).sealed_credentials(target.id).await.unwrap().is_none());
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_named_and_never_quoted() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    for (spec, credentials, field) in [
        (json!({"s3": {"bucket": "b"}}), json!({"account-key": SECRET}), "credentials.account-key"),
        (json!({"s3": {"bucket": "b"}}), json!({"access-key-id": SECRET}), "credentials"),
        (json!({"s3": {"bucket": "b", "endpoint": "http://x"}}), json!({}), "spec.s3.endpoint"),
        (json!({"tape": {}}), json!({}), "spec"),
    ] {
        let asked = json!({"name": "main", "spec": spec, "credentials": credentials});
        let answer = admin.post("/backup-targets", asked).await;
        assert!(!answer.text.contains(SECRET), "{answer:?}");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{answer:?}");
    }
    admin.post("/backup-targets", s3("main")).await.ok(201);
    assert_eq!(admin.post("/backup-targets", s3("main")).await.refused(409), "name_taken");
    let kind = json!({"spec": {"s3": null, "gcs": {"bucket": "b"}}});
    let answer = admin.json_with(Method::PATCH, "/backup-targets/main", kind, &[]).await;
    assert_eq!(answer.json()["errors"][0]["code"], "immutable", "{answer:?}");
}

#[tokio::test]
async fn a_repetition_makes_one_target_and_a_target_in_use_stays() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let key = [("idempotency-key", "one")];
    let first = admin.json_with(Method::POST, "/backup-targets", s3("main"), &key).await.ok(201);
    let again = admin.json_with(Method::POST, "/backup-targets", s3("main"), &key).await.ok(201);
    assert_eq!(first["id"], again["id"]);

    admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    let spec = json!({"engine": "postgresql", "version": "17", "backup": {"target": "main"}});
    let service = json!({"name": "shop", "cluster": "plant", "spec": spec});
    admin.post("/data-services", service).await.ok(202);
    let placed = admin.get("/backup-targets/main").await.ok(200);
    assert_eq!(placed["placements"][0]["namespace"], "data-default");
    assert_eq!(placed["placements"][0]["stale"], true);
    assert_eq!(admin.delete("/backup-targets/main").await.refused(409), "in_use");

    // Nothing of it was sent: it goes at once, and its row with it.
    let change = json!({"spec": {"backup": null}});
    admin.json_with(Method::PATCH, "/data-services/shop", change, &[]).await.ok(202);
    admin.delete("/backup-targets/main").await.ok(202);
    assert_eq!(house.app.place_targets().await.unwrap(), 1);
    assert_eq!(admin.get("/backup-targets/main").await.refused(404), "not_found");
}

/// The cluster's agent comes with another key while its targets are sent with the old one.
#[rstest::rstest]
#[tokio::test]
async fn a_placement_that_is_hurried_while_it_is_looked_at_stays_due(
    #[values(On::Sqlite, On::Postgres)] on: On,
) {
    let house = House::open(on).await;
    let admin = house.admin().await;
    admin.post("/backup-targets", s3("main")).await.ok(201);
    let cluster = admin.post("/clusters", json!({"name": "edge"})).await.ok(201);
    let store = house.store().await;
    let caller = house.caller().await;
    let rows = store.org(&caller);
    let target = rows.backup_target(&BackupTargetRef::Name("main".parse().unwrap())).await.unwrap().unwrap();
    let cluster = cluster["id"].as_str().unwrap().parse().unwrap();
    let namespace = "data".parse().unwrap();
    // So far off that nothing is due by itself.
    let at = |seconds| time::macros::datetime!(2100-01-01 0:00 UTC) + time::Duration::seconds(seconds);
    let tx = store.write(&caller).await.unwrap();
    tx.want_placement(target.id, cluster, &namespace, at(1)).await.unwrap();
    tx.commit().await.unwrap();
    for (hurried, due) in [(true, at(2)), (false, at(3600))] {
        let mut placement = rows.placements_of(target.id).await.unwrap().remove(0);
        let was_due = placement.due_at;
        placement.due_at = at(3600);
        let tx = store.write(&caller).await.unwrap();
        if hurried {
            tx.hurry_placements_in(cluster, at(2)).await.unwrap();
        }
        tx.put_placement(&placement, was_due).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(rows.placements_of(target.id).await.unwrap()[0].due_at, due, "hurried: {hurried}");
    }
    store.close().await.unwrap();
}
