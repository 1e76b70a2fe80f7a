//! Data services and their operations, through the router; their cluster is away unless said.

use axum::body::Body;
use axum::http::Method;
use culvert_controller::app::{News, Report, Since};
use culvert_controller::domain::observed::Observation;
use culvert_controller::domain::{Caller, ObjectKey, OperationState, Role};
use serde_json::{Value, json};

use crate::fixture::{Answer, Client, House, On};
use crate::presence::enrol;

fn wish(name: &str) -> Value {
    json!({"name": name, "cluster": "plant", "spec": {"engine": "postgresql", "version": "17"}})
}

async fn plant(house: &House) -> Client<'_> {
    let admin = house.admin().await;
    admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    admin
}

async fn act(client: &Client<'_>, path: &str) -> Answer {
    client.send(client.request(Method::POST, path).body(Body::empty()).unwrap()).await
}

async fn patch(client: &Client<'_>, body: Value) -> Answer {
    client.json_with(Method::PATCH, "/data-services/orders", body, &[]).await
}

/// Drives everything that is due, once; gives how many operations there were.
async fn drive(house: &House) -> usize {
    let due = house.app.due_operations(&[], 100).await.unwrap();
    for one in &due {
        house.app.drive(*one).await.unwrap();
    }
    due.len()
}

async fn operation(client: &Client<'_>, begun: &Value) -> Value {
    client.get(&format!("/operations/{}", begun["operation"]["id"].as_str().unwrap())).await.ok(200)
}

/// A DataService as an agent tells it.
fn told(name: &str, version: u32, spec: Value, status: Value) -> Observation {
    let uid = uuid::Uuid::from_u128(name.bytes().map(u128::from).sum());
    let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
        "metadata": {"namespace": "data-default", "name": name, "uid": uid, "generation": 1,
            "resourceVersion": version.to_string(), "creationTimestamp": "2026-03-01T10:00:00Z"},
        "spec": spec, "status": status});
    let key = ObjectKey::parse("DataService", "data-default", name).unwrap();
    Observation::parse(key, &uid.to_string(), 1, object.to_string().as_bytes(), false).unwrap()
}

#[tokio::test]
async fn a_wish_is_answered_at_once_and_only_once() {
    let house = House::sqlite().await;
    let admin = plant(&house).await;
    let ask = || admin.json_with(Method::POST, "/data-services", wish("orders"), &[("idempotency-key", "k")]);
    let begun = ask().await.ok(202);
    assert_eq!(begun["data_service"]["state"], "pending");
    assert_eq!(begun["data_service"]["namespace"], "data-default");
    assert_eq!(begun["data_service"]["stale"], true);
    let steps = begun["operation"]["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["check", "reserve-quota", "send", "accepted", "provisioned", "available"]);
    assert_eq!(steps[1]["state"], "done");
    let again = ask().await.ok(202);
    assert_eq!(again["operation"]["id"], begun["operation"]["id"]);
    assert_eq!(admin.post("/data-services", wish("orders")).await.refused(409), "name_taken");
    let listed = admin.get("/operations?state=pending&kind=create").await.ok(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_fault_of_a_wish_is_named() {
    let house = House::sqlite().await;
    let admin = plant(&house).await;
    let faults = async |spec: Value| {
        let mut wish = wish("orders");
        wish["spec"] = spec;
        let refused = admin.post("/data-services", wish).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        let errors = refused.json()["errors"].as_array().unwrap().clone();
        errors.iter().map(|e| e["field"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(faults(json!({"engine": "oracle", "version": "17"})).await, ["spec.engine"]);
    assert_eq!(faults(json!({"engine": "postgresql"})).await, ["spec.version"]);
    assert_eq!(faults(json!({"engine": "postgresql", "version": "99"})).await, ["spec.version"]);
    let both = json!({"engine": "postgresql", "version": "17", "parameters": {"no_such": "1"},
        "resources": {"memory": "1Ki"}});
    let found = faults(both).await;
    assert!(found.contains(&"spec.parameters.no_such".to_owned()), "{found:?}");
    assert!(found.contains(&"spec.resources.memory".to_owned()), "{found:?}");
    for (field, bad) in [("name", "../x"), ("name", "Orders"), ("namespace", "kube-system")] {
        let mut hostile = wish("orders");
        hostile[field] = json!(bad);
        let refused = admin.post("/data-services", hostile).await;
        assert_eq!(refused.json()["errors"][0]["field"], field, "{refused:?}");
    }
    for (field, unknown) in [("cluster", "nowhere"), ("project", "nowhere"), ("template", "cls_x")] {
        let mut lost = wish("orders");
        lost[field] = json!(unknown);
        assert_eq!(admin.post("/data-services", lost).await.refused(404), "not_found", "{field}");
    }
}

async fn a_cluster_that_is_away_is_waited_for_until_the_deadline(on: On) {
    let house = House::open(on).await;
    let admin = plant(&house).await;
    let begun = admin.post("/data-services", wish("orders")).await.ok(202);
    assert_eq!(drive(&house).await, 1);
    let waiting = operation(&admin, &begun).await;
    assert_eq!(waiting["state"], "running");
    assert!(waiting["steps"][0]["message"].as_str().unwrap().contains("no agent"), "{waiting}");
    assert_eq!(drive(&house).await, 0, "it is not due yet");
    house.hands.forward(25 * 3600);
    let admin = house.admin().await;
    assert_eq!(drive(&house).await, 1);
    let failed = operation(&admin, &begun).await;
    assert_eq!((&failed["state"], &failed["failure"]["code"]), (&json!("failed"), &json!("deadline")));
    assert!(failed["failure"]["message"].as_str().unwrap().contains("no agent"), "{failed}");

    // A retry goes on; what is over cannot be stopped any more.
    let id = failed["id"].as_str().unwrap();
    assert_eq!(act(&admin, &format!("/operations/{id}/cancel")).await.refused(409), "operation_over");
    assert_eq!(act(&admin, &format!("/operations/{id}/retry")).await.ok(202)["state"], "pending");
    assert_eq!(act(&admin, &format!("/operations/{id}/retry")).await.refused(409), "not_failed");
    assert_eq!(drive(&house).await, 1);
    assert_eq!(operation(&admin, &begun).await["state"], "running");
}

#[tokio::test]
async fn a_cluster_that_is_away_is_waited_for_on_sqlite() {
    a_cluster_that_is_away_is_waited_for_until_the_deadline(On::Sqlite).await;
}

#[tokio::test]
async fn a_cluster_that_is_away_is_waited_for_on_postgres() {
    a_cluster_that_is_away_is_waited_for_until_the_deadline(On::Postgres).await;
}

#[tokio::test]
async fn two_people_cannot_overwrite_each_other() {
    let house = House::sqlite().await;
    let admin = plant(&house).await;
    admin.post("/data-services", wish("orders")).await.ok(202);
    let change = |revision: u64, value: &str| json!({"revision": revision, "spec": {"parameters": {"work_mem": value}}});
    let one = patch(&admin, change(1, "8MB")).await.ok(202);
    assert_eq!(one["data_service"]["revision"], 2);
    let two = patch(&admin, change(1, "16MB")).await;
    let told = two.json()["details"].clone();
    assert_eq!(two.refused(409), "revision_conflict");
    assert_eq!(told["revision"], 2);
    assert_eq!(told["current"]["parameters"]["work_mem"], "8MB");
    assert_eq!(told["yours"]["parameters"]["work_mem"], "16MB");
    let engine = patch(&admin, json!({"spec": {"engine": "valkey"}})).await;
    assert_eq!(engine.json()["errors"][0]["code"], "immutable");
    let smaller = patch(&admin, json!({"spec": {"storage": {"size": "512Mi"}}})).await;
    assert_eq!(smaller.refused(400), "invalid");
}

#[tokio::test]
async fn what_was_never_sent_is_taken_back_without_its_cluster() {
    let house = House::sqlite().await;
    let admin = plant(&house).await;
    let begun = admin.post("/data-services", wish("orders")).await.ok(202);
    let id = begun["operation"]["id"].as_str().unwrap();
    assert_eq!(act(&admin, &format!("/operations/{id}/cancel")).await.ok(202)["state"], "cancelling");
    drive(&house).await;
    assert_eq!(operation(&admin, &begun).await["state"], "cancelled");
    assert_eq!(admin.get("/data-services/orders").await.ok(200)["state"], "deleted");
    assert_eq!(admin.get("/projects/default").await.ok(200)["used"]["data_services"], 0);

    // An update that was not sent: what was wanted before is wanted again.
    admin.post("/data-services", wish("orders")).await.ok(202);
    let changed = patch(&admin, json!({"spec": {"parameters": {"work_mem": "8MB"}}})).await.ok(202);
    let id = changed["operation"]["id"].as_str().unwrap();
    act(&admin, &format!("/operations/{id}/cancel")).await.ok(202);
    drive(&house).await;
    assert_eq!(operation(&admin, &changed).await["state"], "cancelled");
    let service = admin.get("/data-services/orders").await.ok(200);
    assert_eq!((&service["revision"], &service["spec"]["parameters"]), (&json!(3), &Value::Null));

    // A deletion of what never reached the cluster needs no cluster either.
    let deleted = admin.delete("/data-services/orders").await.ok(202);
    for _ in 0..5 {
        drive(&house).await;
        house.hands.forward(2);
    }
    let over = operation(&admin, &deleted).await;
    assert_eq!(over["state"], "succeeded", "{over}");
    assert_eq!(act(&admin, "/data-services/orders/undelete").await.refused(409), "volumes_gone");
}

#[tokio::test]
async fn protection_needs_the_name() {
    let house = House::sqlite().await;
    let admin = plant(&house).await;
    let mut protected = wish("orders");
    protected["spec"]["deletion"] = json!({"protection": true});
    admin.post("/data-services", protected).await.ok(202);
    assert_eq!(admin.delete("/data-services/orders").await.refused(409), "protected");
    let wrong = admin.delete("/data-services/orders?confirm=other").await;
    assert_eq!(wrong.json()["errors"][0]["code"], "wrong_name");
    admin.delete("/data-services/orders?confirm=orders&strategy=Never").await.refused(400);
    let begun = admin.delete("/data-services/orders?confirm=orders").await.ok(202);
    assert_eq!(begun["data_service"]["state"], "deleting");
    assert_eq!(admin.delete("/data-services/orders?confirm=orders").await.refused(409), "deleting");
    assert_eq!(act(&admin, "/data-services/orders/restart").await.refused(409), "deleting");
}

async fn a_claim_that_ran_out_is_taken_over_and_the_old_one_is_not_heard(on: On) {
    let house = House::open(on).await;
    let admin = plant(&house).await;
    let begun = admin.post("/data-services", wish("orders")).await.ok(202);
    let id = begun["operation"]["id"].as_str().unwrap().parse().unwrap();
    let (store, now) = (house.store().await, house.hands.now());
    let caller = Caller::controller(house.caller().await.org());
    let until = now + time::Duration::seconds(30);
    let tx = store.write(&caller).await.unwrap();
    let mut first = tx.claim_operation(id, now, until).await.unwrap().unwrap();
    assert_eq!(tx.claim_operation(id, now, until).await.unwrap(), None, "claimed twice");
    tx.commit().await.unwrap();
    assert_eq!(drive(&house).await, 0, "somebody has it");
    // The process that had it was killed.
    house.hands.forward(31);
    assert_eq!(drive(&house).await, 1);
    first.fail(culvert_controller::domain::Failure::new("late", "too late", ""), now);
    let tx = store.write(&caller).await.unwrap();
    assert!(!tx.put_operation(&first, None).await.unwrap(), "an old claim was heard");
    tx.commit().await.unwrap();
    let now = store.org(&caller).operation(id).await.unwrap().unwrap();
    assert_eq!(now.state, OperationState::Running);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_claim_that_ran_out_is_taken_over_on_sqlite() {
    a_claim_that_ran_out_is_taken_over_and_the_old_one_is_not_heard(On::Sqlite).await;
}

#[tokio::test]
async fn a_claim_that_ran_out_is_taken_over_on_postgres() {
    a_claim_that_ran_out_is_taken_over_and_the_old_one_is_not_heard(On::Postgres).await;
}

#[tokio::test]
async fn what_an_agent_tells_is_seen_and_what_kubectl_made_has_a_record() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let key = enrol(&house, &admin, "plant").await.key;
    admin.post("/data-services", wish("orders")).await.ok(202);
    let spec = json!({"engine": "postgresql", "version": "17"});
    let status = json!({"phase": "Ready", "observedGeneration": 1});
    let newest = house.app.feed().newest();
    let both = vec![
        told("orders", 7, spec.clone(), status.clone()),
        told("foreign", 8, json!({"engine": "valkey", "version": "8"}), status),
        told("broken", 9, json!({"engine": 7}), Value::Null),
    ];
    house.app.observe(key, Report { objects: both, ..Report::default() }).await.unwrap();
    let orders = admin.get("/data-services/orders").await.ok(200);
    assert_eq!((&orders["state"], &orders["status"]["phase"]), (&json!("ready"), &json!("Ready")));
    let foreign = admin.get("/data-services/foreign").await.ok(200);
    assert_eq!((&foreign["managed"], &foreign["in_sync"]), (&json!(false), &json!(true)));
    assert_eq!(admin.get("/data-services/broken").await.refused(404), "not_found");
    let org = house.caller().await.org();
    let Since::Changes(changes, _) = house.app.feed().since(org, newest) else { panic!("a gap") };
    let told_of = changes.iter().filter(|c| matches!(c.news, News::DataService(_))).count();
    assert_eq!(told_of, 2);

    // What comes late says nothing new, and what is gone is gone.
    let late = told("orders", 5, spec, json!({"phase": "Pending", "observedGeneration": 1}));
    house.app.observe(key, Report { objects: vec![late], ..Report::default() }).await.unwrap();
    assert_eq!(admin.get("/data-services/orders").await.ok(200)["state"], "ready");
    let gone = vec![ObjectKey::parse("DataService", "data-default", "foreign").unwrap()];
    house.app.observe(key, Report { deleted: gone, ..Report::default() }).await.unwrap();
    assert_eq!(admin.get("/data-services/foreign").await.ok(200)["state"], "deleted");
}

#[tokio::test]
async fn another_organisation_finds_nothing() {
    let house = House::sqlite().await;
    let admin = plant(&house).await;
    let begun = admin.post("/data-services", wish("orders")).await.ok(202);
    let service = begun["data_service"]["id"].as_str().unwrap().to_owned();
    let other = house.person("mallory", Role::Admin, true).await;
    other.post("/clusters", json!({"name": "theirs"})).await.ok(201);
    for path in ["", "/events", "/diff", "/manifest", "/logs"] {
        let path = format!("/data-services/{service}{path}");
        assert_eq!(other.get(&path).await.refused(404), "not_found", "{path}");
    }
    assert_eq!(other.get("/data-services/orders").await.refused(404), "not_found");
    for query in ["cluster=plant", "project=shop"] {
        assert_eq!(other.get(&format!("/data-services?{query}")).await.refused(404), "not_found");
    }
    let cluster = admin.get("/clusters/plant").await.ok(200)["id"].clone();
    let mut into_ours = wish("mine");
    into_ours["cluster"] = cluster;
    assert_eq!(other.post("/data-services", into_ours).await.refused(404), "not_found");
    let subject = other.get(&format!("/operations?subject={service}")).await.ok(200);
    assert_eq!(subject["items"], json!([]));
    // Their own things have the same names without meeting ours.
    let mut theirs = wish("orders");
    theirs["cluster"] = json!("theirs");
    other.post("/data-services", theirs).await.ok(202);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let house = House::sqlite().await;
    let admin = plant(&house).await;
    for name in ["a-one", "a-two", "b-one"] {
        admin.post("/data-services", wish(name)).await.ok(202);
    }
    let names = async |query: &str| {
        let list = admin.get(&format!("/data-services?{query}")).await.ok(200);
        let items = list["items"].as_array().unwrap().clone();
        (
            items.iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
            list["next"].clone(),
        )
    };
    assert_eq!(names("name=a-").await.0, ["a-one", "a-two"]);
    assert_eq!(names("state=pending&engine=postgresql").await.0.len(), 3);
    assert_eq!(names("state=ready").await.0, [""; 0]);
    assert_eq!(names("deleted=true").await.0, [""; 0]);
    let (first, next) = names("limit=2").await;
    assert_eq!(first, ["a-one", "a-two"]);
    let rest = names(&format!("limit=2&after={}", next.as_str().unwrap())).await;
    assert_eq!(rest, (vec!["b-one".to_owned()], Value::Null));
    assert_eq!(admin.get("/data-services?state=happy").await.refused(400), "invalid");
    assert_eq!(admin.get("/data-services?stat=ready").await.refused(400), "invalid");
}
