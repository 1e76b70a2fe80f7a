//! Templates: resolved when a service is made, and never afterwards.

use axum::http::Method;
use serde_json::json;

use crate::fixture::House;

#[tokio::test]
async fn a_service_keeps_what_its_template_said_then() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    let small = json!({"name": "small", "engine": "postgresql", "description": "for trying things",
        "spec": {"version": "17", "storage": {"size": "2Gi"}, "parameters": {"work_mem": "8MB"}}});
    admin.post("/templates", small).await.ok(201);
    let wish = json!({"name": "orders", "cluster": "plant", "template": "small",
        "spec": {"parameters": {"work_mem": null, "max_connections": "50"}}});
    let made = admin.post("/data-services", wish).await.ok(202)["data_service"].clone();
    assert_eq!(made["spec"]["engine"], "postgresql");
    assert_eq!(made["spec"]["storage"]["size"], "2Gi");
    assert_eq!(made["spec"]["parameters"], json!({"max_connections": "50"}));
    assert_eq!(made["spec"]["template"], json!({"name": "small", "revision": 1}));

    let larger = json!({"engine": "postgresql", "spec": {"version": "17", "storage": {"size": "9Gi"}}});
    let put = admin.json_with(Method::PUT, "/templates/small", larger, &[]).await.ok(200);
    assert_eq!(put["revision"], 2);
    let again = admin.get("/data-services/orders").await.ok(200);
    assert_eq!((&again["spec"], &again["revision"]), (&made["spec"], &json!(1)));
    admin.delete("/templates/small").await.ok(204);
    admin.get("/data-services/orders").await.ok(200);
}

#[tokio::test]
async fn a_template_that_could_not_be_a_spec_is_refused() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let ask = |spec| admin.post("/templates", json!({"name": "t", "engine": "postgresql", "spec": spec}));
    let mistyped = ask(json!({"storag": {"size": "1Gi"}})).await;
    assert_eq!(mistyped.json()["errors"][0]["field"], "spec.storag");
    assert_eq!(ask(json!({"engine": "valkey"})).await.json()["errors"][0]["field"], "spec.engine");
    assert_eq!(ask(json!("x")).await.refused(400), "invalid");
    ask(json!({})).await.ok(201);
    assert_eq!(ask(json!({})).await.refused(409), "name_taken");
    let renamed = json!({"name": "u", "engine": "postgresql", "spec": {}});
    let refused = admin.json_with(Method::PUT, "/templates/t", renamed, &[]).await;
    assert_eq!(refused.json()["errors"][0]["code"], "immutable");
}
