//! Backups and restores, through the router: what agents told of them, and what is asked for.

use axum::body::Body;
use axum::http::Method;
use culvert_controller::app::{Report, Resync};
use culvert_controller::domain::observed::Observation;
use culvert_controller::domain::{ObjectKey, Role};
use culvert_tunnel::AgentKey;
use serde_json::{Value, json};

use crate::fixture::{Answer, Client, House};
use crate::presence::enrol;

/// An object in `data-default` as an agent tells it; made at a time that its name decides.
pub(crate) fn told(kind: &str, name: &str, spec: Value, status: Value) -> Observation {
    let number = name.bytes().fold(0_u128, |sum, byte| sum * 131 % (1 << 100) + u128::from(byte));
    let uid = uuid::Uuid::from_u128(number);
    let made_at = format!("2026-03-01T10:00:{:02}Z", name.bytes().last().map_or(0, |b| b % 60));
    let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": "data-default", "name": name, "uid": uid, "generation": 1,
            "resourceVersion": "7", "creationTimestamp": made_at},
        "spec": spec, "status": status});
    let key = ObjectKey::parse(kind, "data-default", name).unwrap();
    Observation::parse(key, &uid.to_string(), 1, object.to_string().as_bytes(), false).unwrap()
}

fn backup(name: &str, service: &str, phase: &str) -> Observation {
    let status = json!({"phase": phase, "path": format!("services/{service}/backups/{name}"),
        "recoverable": {"from": "2026-03-01T10:00:00Z", "until": "2026-03-01T10:01:00Z"}});
    told("Backup", name, json!({"service": service, "target": "vault"}), status)
}

async fn tell(house: &House, agent: AgentKey, objects: Vec<Observation>) {
    house.app.observe(agent, Report { objects, ..Report::default() }).await.unwrap();
}

/// A cluster `plant` with an agent, a target `vault`, and a data service `orders` that uses it.
async fn plant(house: &House) -> (Client<'_>, AgentKey) {
    let admin = house.admin().await;
    let agent = enrol(house, &admin, "plant").await.key;
    admin.post("/backup-targets", json!({"name": "vault", "spec": {"s3": {"bucket": "b"}}})).await.ok(201);
    let spec = json!({"engine": "postgresql", "version": "17", "backup": {"target": "vault"}});
    admin.post("/data-services", json!({"name": "orders", "cluster": "plant", "spec": spec})).await.ok(202);
    (admin, agent)
}

async fn names(client: &Client<'_>, path: &str) -> Vec<String> {
    let list = client.get(path).await.ok(200);
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

async fn act(client: &Client<'_>, path: &str) -> Answer {
    client.send(client.request(Method::POST, path).body(Body::empty()).unwrap()).await
}

async fn operation(client: &Client<'_>, begun: &Value) -> Value {
    client.get(&format!("/operations/{}", begun["operation"]["id"].as_str().unwrap())).await.ok(200)
}

/// Drives everything that is due, until nothing is.
async fn drive(house: &House) {
    loop {
        let due = house.app.due_operations(&[], 100).await.unwrap();
        if due.is_empty() {
            return;
        }
        for one in due {
            house.app.drive(one).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_made_while_nobody_looked_is_there_once() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    // A CronJob made it while the tunnel was down: it is told as a change, and in a full telling.
    let resync = Some(Resync { id: 1, first: true, last: true, partial: false });
    for resync in [None, resync, None] {
        let objects = vec![backup("nightly-1", "orders", "Complete"), backup("nightly-2", "other", "Failed")];
        house.app.observe(agent, Report { resync, objects, ..Report::default() }).await.unwrap();
    }
    assert_eq!(names(&admin, "/backups").await, ["nightly-2", "nightly-1"]);
    let one = admin.get("/backups/nightly-1").await.ok(200);
    assert_eq!(one["data_service"]["name"], "orders");
    assert_eq!((&one["cluster"]["name"], &one["namespace"]), (&json!("plant"), &json!("data-default")));
    assert_eq!((&one["status"]["phase"], &one["stale"]), (&json!("Complete"), &json!(true)));
    let id = one["id"].as_str().unwrap();
    assert!(id.starts_with("bkp_"), "{id}");
    assert_eq!(admin.get(&format!("/backups/{id}")).await.ok(200), one);
    assert_eq!(admin.get("/backups/nightly-2").await.ok(200)["data_service"], Value::Null);
    assert_eq!(admin.get("/backups/weekly").await.refused(404), "not_found");
    assert_eq!(admin.get(&format!("/restores/{id}")).await.refused(404), "not_found");
}

#[tokio::test]
async fn a_list_is_filtered_and_paged() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    let objects = vec![
        backup("a-1", "orders", "Complete"),
        backup("a-2", "orders", "Running"),
        backup("b-3", "other", "Complete"),
    ];
    tell(&house, agent, objects).await;
    let service = admin.get("/data-services/orders").await.ok(200)["id"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("data_service=orders", vec!["a-2", "a-1"]),
        (&*format!("data_service={service}"), vec!["a-2", "a-1"]),
        ("data_service=other", vec!["b-3"]),
        ("state=complete", vec!["b-3", "a-1"]),
        ("state=complete&data_service=orders", vec!["a-1"]),
        ("target=vault&cluster=plant", vec!["b-3", "a-2", "a-1"]),
        ("target=elsewhere", vec![]),
        ("project=default", vec!["a-2", "a-1"]),
    ] {
        assert_eq!(names(&admin, &format!("/backups?{query}")).await, expected, "{query}");
    }
    let first = admin.get("/backups?limit=2").await.ok(200);
    let next = first["next"].as_str().unwrap();
    assert_eq!(names(&admin, &format!("/backups?limit=2&after={next}")).await, ["a-1"]);
    for (query, status) in
        [("state=happy", 400), ("stat=x", 400), ("cluster=nowhere", 404), ("project=no", 404)]
    {
        assert_eq!(admin.get(&format!("/backups?{query}")).await.status, status, "{query}");
    }
    // A name that two clusters have needs the id.
    let other = enrol(&house, &admin, "mill").await.key;
    tell(&house, other, vec![backup("a-1", "orders", "Complete")]).await;
    assert_eq!(admin.get("/backups/a-1").await.refused(409), "name_ambiguous");
    let both = admin.get("/backups?state=complete&limit=200").await.ok(200);
    let ids: std::collections::BTreeSet<_> =
        both["items"].as_array().unwrap().iter().map(|item| item["id"].to_string()).collect();
    assert_eq!(ids.len(), 3, "two clusters share an id: {both}");
}

#[tokio::test]
async fn a_backup_is_asked_for_once_and_waits_for_its_cluster() {
    let house = House::sqlite().await;
    let (admin, _) = plant(&house).await;
    let ask = || {
        let body = json!({"data_service": "orders", "verify": true});
        admin.json_with(Method::POST, "/backups", body, &[("idempotency-key", "k")])
    };
    let begun = ask().await.ok(202);
    assert_eq!(begun["backup"]["spec"]["service"], "orders");
    assert_eq!(
        (&begun["backup"]["spec"]["target"], &begun["backup"]["spec"]["method"]),
        (&json!("vault"), &json!("physical"))
    );
    assert_eq!((&begun["backup"]["status"], &begun["backup"]["created_at"]), (&Value::Null, &Value::Null));
    assert_eq!(begun["operation"]["subject"]["id"], begun["backup"]["id"]);
    assert!(begun["backup"]["name"].as_str().unwrap().starts_with("orders-"), "{begun}");
    let steps: Vec<_> =
        begun["operation"]["steps"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    assert_eq!(json!(steps), json!(["check", "target", "send", "started", "complete", "verified"]));
    assert_eq!(ask().await.ok(202)["operation"]["id"], begun["operation"]["id"]);
    // The next one in the same second has another name.
    let second = admin.post("/backups", json!({"data_service": "orders"})).await.ok(202);
    assert_ne!(second["backup"]["name"], begun["backup"]["name"]);
    assert_eq!(admin.get("/operations?kind=backup").await.ok(200)["items"].as_array().unwrap().len(), 2);
    drive(&house).await;
    let waiting = operation(&admin, &begun).await;
    assert_eq!((&waiting["state"], &waiting["steps"][0]["state"]), (&json!("running"), &json!("running")));

    // What was never sent is taken back without its cluster.
    let id = begun["operation"]["id"].as_str().unwrap();
    assert_eq!(act(&admin, &format!("/operations/{id}/cancel")).await.ok(202)["state"], "cancelling");
    drive(&house).await;
    assert_eq!(operation(&admin, &begun).await["state"], "cancelled");
}

#[tokio::test]
async fn a_backup_that_cannot_be_is_refused() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    let bare = json!({"name": "bare", "cluster": "plant", "spec": {"engine": "valkey", "version": "8"}});
    admin.post("/data-services", bare).await.ok(202);
    let faults = async |body: Value| admin.post("/backups", body).await.json()["errors"][0]["field"].clone();
    assert_eq!(faults(json!({"data_service": "bare"})).await, "target");
    assert_eq!(
        faults(json!({"data_service": "orders", "expires_at": "2001-01-01T00:00:00Z"})).await,
        "expires_at"
    );
    assert_eq!(faults(json!({"data_service": "orders", "expires_at": "tomorrow"})).await, "expires_at");
    assert_eq!(faults(json!({"data_service": "orders", "name": "../x"})).await, "name");
    assert_eq!(faults(json!({"data_service": "orders", "nam": "x"})).await, "nam");
    for (body, status, code) in [
        (json!({"data_service": "nowhere"}), 404, "not_found"),
        (json!({"data_service": "orders", "target": "bkt_x"}), 404, "not_found"),
        (json!({"data_service": "orders", "name": "taken"}), 409, "name_taken"),
    ] {
        tell(&house, agent, vec![backup("taken", "orders", "Complete")]).await;
        assert_eq!(admin.post("/backups", body).await.refused(status), code);
    }
    admin.delete("/data-services/orders").await.ok(202);
    assert_eq!(admin.post("/backups", json!({"data_service": "orders"})).await.refused(409), "deleting");
}

#[tokio::test]
async fn a_deletion_is_begun_once() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    tell(&house, agent, vec![backup("old", "orders", "Complete")]).await;
    let begun = admin.delete("/backups/old").await.ok(202);
    assert_eq!(
        (&begun["backup"]["name"], &begun["operation"]["kind"]),
        (&json!("old"), &json!("delete_backup"))
    );
    assert_eq!(admin.delete("/backups/old").await.ok(202)["operation"]["id"], begun["operation"]["id"]);
    assert_eq!(admin.delete("/backups/none").await.refused(404), "not_found");
    let reader = house.person("reader", Role::Reader, false).await;
    assert_eq!(reader.delete("/backups/old").await.status, 403);
}

fn restore(source: Value) -> Value {
    json!({"data_service": "copy", "source": source})
}

#[tokio::test]
async fn a_restore_names_its_backup_here_and_its_folder_elsewhere() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    enrol(&house, &admin, "mill").await;
    tell(&house, agent, vec![backup("b-1", "orders", "Complete"), backup("b-2", "orders", "Running")]).await;
    let here = admin.post("/restores", restore(json!({"backup": "b-1"}))).await.ok(202);
    assert_eq!(here["restore"]["spec"]["source"], json!({"backup": "b-1"}));
    assert_eq!(
        (&here["restore"]["namespace"], &here["restore"]["cluster"]["name"]),
        (&json!("data-default"), &json!("plant"))
    );
    assert!(here["restore"]["name"].as_str().unwrap().starts_with("copy-"), "{here}");

    let mut elsewhere = restore(json!({"backup": "b-1"}));
    elsewhere["cluster"] = json!("mill");
    elsewhere["overrides"] = json!({"topology": {"replicas": 2}});
    let elsewhere = admin.post("/restores", elsewhere).await.ok(202);
    let folder = json!({"target": "vault", "path": "services/orders/backups/b-1"});
    assert_eq!(elsewhere["restore"]["spec"]["source"], folder);
    assert_eq!(elsewhere["restore"]["spec"]["overrides"]["topology"]["replicas"], 2);
    // Its target is on its way there.
    let target = admin.get("/backup-targets/vault").await.ok(200);
    let places: Vec<_> =
        target["placements"].as_array().unwrap().iter().map(|p| p["cluster"]["name"].clone()).collect();
    assert!(places.contains(&json!("mill")), "{target}");

    // From a service, as of a moment; from the bucket alone.
    let mut of_service = restore(json!({"data_service": "orders"}));
    let made = admin.post("/restores", of_service.clone()).await.ok(202);
    assert_eq!(made["restore"]["spec"]["source"]["backup"], "b-1", "the running one was taken");
    of_service["point_in_time"] = json!("2026-03-01T09:00:00Z");
    assert_eq!(admin.post("/restores", of_service).await.refused(409), "no_backup");
    let mut bucket = restore(json!({"target": "vault", "path": "services/lost"}));
    assert_eq!(admin.post("/restores", bucket.clone()).await.json()["errors"][0]["field"], "cluster");
    bucket["cluster"] = json!("mill");
    let made = admin.post("/restores", bucket).await.ok(202);
    assert_eq!(
        (&made["restore"]["namespace"], &made["restore"]["spec"]["source"]["path"]),
        (&json!("data-default"), &json!("services/lost"))
    );
}

#[tokio::test]
async fn a_restore_that_cannot_be_is_refused() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    tell(&house, agent, vec![backup("b-1", "orders", "Complete"), backup("b-2", "orders", "Failed")]).await;
    let with = |field: &str, value: Value| {
        let mut body = restore(json!({"backup": "b-1"}));
        body[field] = value;
        body
    };
    for (body, status, code) in [
        (restore(json!({"backup": "b-2"})), 409, "backup_incomplete"),
        (restore(json!({"backup": "none"})), 404, "not_found"),
        (restore(json!({"target": "none", "path": "p"})), 404, "not_found"),
        (with("data_service", json!("orders")), 409, "name_taken"),
        (with("cluster", json!("nowhere")), 404, "not_found"),
    ] {
        assert_eq!(admin.post("/restores", body.clone()).await.refused(status), code, "{body}");
    }
    let folder = |path: &str| json!({"target": "vault", "path": path});
    for (body, field) in [
        (restore(json!({})), "source"),
        (restore(json!({"backup": "b-1", "data_service": "orders"})), "source"),
        (restore(json!({"target": "vault"})), "source"),
        (restore(folder("../other-tenant")), "source.path"),
        (with("point_in_time", json!("2999-01-01T00:00:00Z")), "point_in_time"),
        (with("overrides", json!({"engine": "valkey"})), "overrides.engine"),
        (with("namespace", json!("kube-system")), "namespace"),
    ] {
        let refused = admin.post("/restores", body.clone()).await;
        assert_eq!(refused.json()["errors"][0]["field"], field, "{body}");
    }
    admin.post("/projects", json!({"name": "small", "quota": {"data_services": 0}})).await.ok(201);
    assert_eq!(admin.post("/restores", with("project", json!("small"))).await.refused(403), "quota_exceeded");
}

#[tokio::test]
async fn in_place_needs_the_proof_that_this_one_is_meant() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    tell(&house, agent, vec![backup("b-1", "orders", "Complete")]).await;
    let id = admin.get("/data-services/orders").await.ok(200)["id"].as_str().unwrap().to_owned();
    let ask = |name: &str, confirm: &str| json!({"data_service": name, "source": {"backup": "b-1"}, "in_place": {"confirm": confirm}});
    assert_eq!(admin.post("/restores", ask("orders", &id)).await.refused(409), "not_in_cluster");
    let spec = json!({"engine": "postgresql", "version": "17", "backup": {"target": "vault"}});
    let seen = told("DataService", "orders", spec, json!({"phase": "Ready"}));
    let uid = seen.uid.to_string();
    tell(&house, agent, vec![seen]).await;
    for (name, confirm) in [("orders", "yes"), ("other", &*id), ("orders", "orders")] {
        let refused = admin.post("/restores", ask(name, confirm)).await;
        assert_eq!(refused.json()["errors"][0]["field"], "in_place.confirm", "{refused:?}");
    }
    let begun = admin.post("/restores", ask("orders", &id)).await.ok(202);
    assert_eq!(begun["restore"]["spec"]["inPlace"]["confirm"], uid);
    assert_eq!(begun["restore"]["spec"]["source"], json!({"backup": "b-1"}));
}

#[tokio::test]
async fn another_organisation_sees_and_touches_nothing() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    tell(&house, agent, vec![backup("b-1", "orders", "Complete")]).await;
    let id = admin.get("/backups/b-1").await.ok(200)["id"].as_str().unwrap().to_owned();
    let other = house.person("mallory", Role::Admin, true).await;
    assert_eq!(names(&other, "/backups").await, [""; 0]);
    for path in ["/backups/b-1".to_owned(), format!("/backups/{id}")] {
        assert_eq!(other.get(&path).await.refused(404), "not_found");
        assert_eq!(other.delete(&path).await.refused(404), "not_found");
    }
    assert_eq!(other.post("/restores", restore(json!({"backup": id}))).await.refused(404), "not_found");
    assert_eq!(other.post("/backups", json!({"data_service": "orders"})).await.refused(404), "not_found");
}

#[tokio::test]
async fn what_was_asked_for_is_found_where_it_was_asked_for_whatever_another_cluster_says() {
    let house = House::sqlite().await;
    let (admin, agent) = plant(&house).await;
    let begun = admin.post("/backups", json!({"data_service": "orders"})).await.ok(202);
    let (id, name) = (begun["backup"]["id"].as_str().unwrap(), begun["backup"]["name"].as_str().unwrap());
    let path = format!("/backups/{id}");
    let office = enrol(&house, &admin, "office").await.key;
    for forged in ["forged", name] {
        let mut forged = backup(forged, "orders", "Complete");
        forged.record = Some(id.to_owned());
        tell(&house, office, vec![forged]).await;
        assert_eq!(admin.get(&path).await.refused(404), "not_found");
    }
    let mut made = backup(name, "orders", "Running");
    tell(&house, agent, vec![made.clone()]).await;
    assert_eq!(admin.get(&path).await.refused(404), "not_found", "a namesake that was not made here");
    made.record = Some(id.to_owned());
    // What is kept differs only when the object does.
    made.object["status"]["phase"] = json!("Complete");
    tell(&house, agent, vec![made]).await;
    assert_eq!(admin.get(&path).await.ok(200)["cluster"]["name"], "plant");
}
