//! Backup schedules at the API: shown as their clusters tell them, and refused with their reasons.

use axum::http::Method;
use culvert_controller::domain::ObjectKey;
use culvert_controller::domain::observed::Observation;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{House, On};
use crate::mirror::{Site, deltas};

/// A schedule as an agent would tell it.
pub(crate) fn observation(namespace: &str, name: &str, service: &str) -> Observation {
    let number =
        |text: &str| text.bytes().fold(1, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let uid = Uuid::from_u64_pair(number(namespace), number(name));
    let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupSchedule",
        "metadata": {"namespace": namespace, "name": name, "uid": uid,
            "creationTimestamp": "2026-03-01T10:00:00Z",
            "annotations": {"data.culvert.dev/run-now": "2026-03-01T11:00:00Z"}},
        "spec": {"service": service, "target": "vault", "cron": "0 3 * * *", "retention": {"dryRun": true}},
        "status": {"wouldDelete": ["old"], "kept": 3}});
    let key = ObjectKey::parse("BackupSchedule", namespace, name).unwrap();
    Observation::parse(key, &uid.to_string(), 1, object.to_string().as_bytes(), false).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[rstest::rstest]
#[tokio::test]
async fn schedules_are_shown_as_they_were_told(#[values(On::Sqlite, On::Postgres)] on: On) {
    let house = House::open(on).await;
    let admin = house.admin().await;
    let site = Site::new(&house, &admin, "plant").await;
    let service =
        json!({"name": "shop", "cluster": "plant", "spec": {"engine": "postgresql", "version": "17"}});
    let service = admin.post("/data-services", service).await.ok(202)["data_service"]["id"].clone();
    let told =
        [("data-default", "nightly", "shop"), ("data-default", "other", "else"), ("alien", "own", "shop")];
    let told = told.map(|(namespace, name, service)| observation(namespace, name, service));
    site.tell(&house, deltas(told.to_vec())).await;

    let shown = admin.get("/backup-schedules/nightly").await.ok(200);
    assert_eq!(shown["data_service"], json!({"id": service, "name": "shop"}));
    assert_eq!((&shown["cluster"]["name"], &shown["namespace"]), (&json!("plant"), &json!("data-default")));
    assert_eq!((&shown["spec"]["cron"], &shown["stale"]), (&json!("0 3 * * *"), &json!(true)));
    assert_eq!((&shown["status"]["wouldDelete"][0], &shown["status"]["kept"]), (&json!("old"), &json!(3)));
    assert_eq!(shown["run_asked"], "2026-03-01T11:00:00Z");
    let id = shown["id"].as_str().unwrap();
    assert_eq!(admin.get(&format!("/backup-schedules/{id}")).await.ok(200), shown);

    // Page by page, each once.
    let (mut seen, mut next) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = admin.get(&format!("/backup-schedules?limit=1{next}")).await.ok(200);
        seen.extend(names(&page).into_iter().map(str::to_owned));
        next = page["next"].as_str().map(|next| format!("&after={next}")).unwrap_or_default();
    }
    seen.sort();
    assert_eq!((seen.join(" ").as_str(), next.as_str()), ("nightly other own", ""));
    let of_shop = admin.get("/backup-schedules?data_service=shop").await.ok(200);
    assert_eq!(names(&of_shop), ["nightly"], "a namesake's in another namespace is another's");
    assert_eq!(admin.get("/backup-schedules?cluster=none").await.refused(404), "not_found");

    site.tell(&house, deltas(vec![observation("alien", "nightly", "x")])).await;
    assert_eq!(admin.get("/backup-schedules/nightly").await.refused(409), "name_ambiguous");
}

#[tokio::test]
async fn what_is_wrong_is_named_before_the_cluster_is_asked() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    Site::new(&house, &admin, "plant").await;
    let service =
        json!({"name": "shop", "cluster": "plant", "spec": {"engine": "postgresql", "version": "17"}});
    admin.post("/data-services", service).await.ok(202);
    let good = json!({"cron": "0 3 * * *", "target": "vault"});
    let with = |more: Value| {
        let mut spec = good.clone();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"data_service": "shop", "name": "nightly", "spec": spec})
    };
    for (more, field) in [
        (json!({"cron": "0 25 * * *"}), "spec.cron"),
        (json!({"cron": "@daily"}), "spec.cron"),
        (json!({"timeZone": "Mars/Olympus"}), "spec.timeZone"),
        (json!({"target": null}), "spec.target"),
        (json!({"retention": {"keepLast": 0}}), "spec.retention.keepLast"),
        (json!({"retention": {"keep": 3}}), "spec.retention.keep"),
        (json!({"service": "other"}), "spec.service"),
        (json!({"method": "magic"}), "spec"),
    ] {
        let answer = admin.post("/backup-schedules", with(more)).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["errors"][0]["field"]),
            (400, &json!(field)),
            "{answer:?}"
        );
    }
    let long = json!({"data_service": "shop", "name": "n".repeat(41), "spec": good});
    assert_eq!(admin.post("/backup-schedules", long).await.json()["errors"][0]["field"], "name");
    let unknown = json!({"data_service": "none", "spec": good});
    assert_eq!(admin.post("/backup-schedules", unknown).await.refused(404), "not_found");
    // The cluster is not connected: it is said at once, and nothing is left behind.
    let away = admin
        .json_with(Method::POST, "/backup-schedules", with(json!({})), &[("idempotency-key", "k")])
        .await;
    assert_eq!(away.refused(503), "cluster_away");
    assert!(names(&admin.get("/backup-schedules").await.ok(200)).is_empty());
}
