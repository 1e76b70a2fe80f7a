//! Projects and their quota, through the router.

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json};

use crate::fixture::{Client, House, On};

/// A wish for a data service of the project `shop`.
fn wish(name: &str, cpu: &str) -> Value {
    json!({"name": name, "cluster": "plant", "project": "shop", "spec": {
        "engine": "postgresql", "version": "17", "topology": {"replicas": 2}, "resources": {"cpu": cpu}}})
}

async fn shop(house: &House, quota: Value) -> Client<'_> {
    let admin = house.admin().await;
    admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    admin.post("/projects", json!({"name": "shop", "quota": quota})).await.ok(201);
    admin
}

#[tokio::test]
async fn a_project_is_made_changed_and_deleted_when_empty() {
    let house = House::sqlite().await;
    let admin = shop(&house, json!({"cpu": "4", "memory": "16Gi"})).await;
    let made = admin.get("/projects/shop").await.ok(200);
    assert_eq!(made["quota"], json!({"data_services": null, "cpu": "4", "memory": "16Gi", "storage": null}));
    assert_eq!(admin.post("/projects", json!({"name": "shop"})).await.refused(409), "name_taken");
    for bad in ["", "Shop", "a/b", &"x".repeat(51)] {
        assert_eq!(admin.post("/projects", json!({"name": bad})).await.refused(400), "invalid", "{bad}");
    }
    let negative = json!({"name": "less", "quota": {"cpu": "-1", "memory": "much"}});
    let refused = admin.post("/projects", negative).await;
    assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 2, "{refused:?}");

    admin.post("/data-services", wish("orders", "1")).await.ok(202);
    assert_eq!(admin.delete("/projects/shop").await.refused(409), "project_not_empty");
    assert_eq!(admin.delete("/projects/default").await.refused(409), "default_project");
    let patch = |body| admin.json_with(Method::PATCH, "/projects/shop", body, &[]);
    let renamed = patch(json!({"name": "store"})).await.ok(200);
    assert_eq!((&renamed["name"], &renamed["quota"]["cpu"]), (&json!("store"), &json!("4")));
    let listed = admin.get("/projects").await.ok(200);
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["default", "store"]);
}

#[tokio::test]
async fn a_quota_counts_instances_and_says_its_numbers() {
    let house = House::sqlite().await;
    let admin = shop(&house, json!({"cpu": "3", "data_services": 2})).await;
    admin.post("/data-services", wish("a", "1")).await.ok(202);
    let used = admin.get("/projects/shop").await.ok(200)["used"].clone();
    assert_eq!(used, json!({"data_services": 1, "cpu": "2", "memory": "1Gi", "storage": "2Gi"}));

    let refused = admin.post("/data-services", wish("b", "750m")).await;
    assert_eq!(
        refused.json()["detail"].as_str().unwrap().split(": ").skip(1).collect::<Vec<_>>(),
        ["cpu", "2 of 3 are in use, and this asks for 1500m"]
    );
    assert_eq!(refused.refused(403), "quota_exceeded");
    let planned = admin.post("/data-services/plan", wish("b", "750m")).await.ok(200);
    assert_eq!(planned["plan"]["faults"][0]["field"], "quota.cpu");

    // Growing counts the difference, shrinking is always allowed, and what is gone is free.
    let grow = json!({"spec": {"resources": {"cpu": "2"}}});
    assert_eq!(
        admin.json_with(Method::PATCH, "/data-services/a", grow, &[]).await.refused(403),
        "quota_exceeded"
    );
    admin.json_with(Method::PATCH, "/projects/shop", json!({"quota": {"cpu": "1"}}), &[]).await.ok(200);
    let shrink = json!({"spec": {"resources": {"cpu": "900m"}}});
    admin.json_with(Method::PATCH, "/data-services/a", shrink, &[]).await.ok(202);
    admin.json_with(Method::PATCH, "/projects/shop", json!({"quota": null}), &[]).await.ok(200);
    admin.post("/data-services", wish("b", "8")).await.ok(202);
}

async fn of_many_at_once_as_many_fit_as_the_quota_has_room(on: On) {
    let house = House::open(on).await;
    let admin = Arc::new(shop(&house, json!({"data_services": 3})).await);
    let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
    let asked = names.iter().map(|name| {
        let admin = admin.clone();
        async move { admin.post("/data-services", wish(name, "100m")).await.status.as_u16() }
    });
    let answers = futures::future::join_all(asked).await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(202), count(403)), (3, 9), "{answers:?}");
    assert_eq!(admin.get("/projects/shop").await.ok(200)["used"]["data_services"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_as_many_fit_on_sqlite() {
    of_many_at_once_as_many_fit_as_the_quota_has_room(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_as_many_fit_on_postgres() {
    of_many_at_once_as_many_fit_as_the_quota_has_room(On::Postgres).await;
}
