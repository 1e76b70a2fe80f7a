//! The committed documents: the API's description, and who may do what.
//!
//! `CULVERT_GEN=1` writes both anew; without it a difference fails.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::Method;
use culvert_controller::domain::{Failure, Role};
use serde_json::{Value, json};

use crate::backups::told;
use crate::fixture::{Client, House};

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[track_caller]
fn compare(name: &str, made: &str) {
    let path = committed(name);
    if std::env::var_os("CULVERT_GEN").is_some() {
        std::fs::write(&path, made).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(a, b)| a != b);
    assert!(
        kept == made,
        "{name} differs from what the code says, first in {differs:?}; run `make gen` and review it"
    );
}

#[test]
fn the_document_is_what_the_code_says() {
    compare("openapi.json", culvert_controller::api::document());
}

#[test]
fn every_operation_says_how_it_fails_and_who_may_ask() {
    let document: Value = serde_json::from_str(culvert_controller::api::document()).unwrap();
    assert!(document["components"]["schemas"]["Problem"].is_object());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert!(problem.is_object(), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
}

/// Every route of the document.
fn routes() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(culvert_controller::api::document()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            routes.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    routes
}

/// What is there to be asked about, made anew for every question.
struct Things {
    cluster: String,
    join_token: String,
    api_token: String,
    agent: String,
    code: String,
    csr: String,
    project: String,
    template: String,
    backup_target: String,
    backup_schedule: String,
    backup: String,
    restore: String,
    data_service: String,
    deleted_data_service: String,
    operation: String,
    failed_operation: String,
}

/// A data service and its operation; with `over`, the service is deleted and the operation failed.
async fn data_service(
    house: &House,
    admin: &Client<'_>,
    cluster: &str,
    name: &str,
    over: bool,
) -> (String, String) {
    let spec = json!({"engine": "postgresql", "version": "17"});
    let asked = json!({"name": name, "cluster": cluster, "spec": spec});
    let made = admin.post("/data-services", asked).await.ok(202);
    let text = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let (service, operation) = (text(&made["data_service"]), text(&made["operation"]));
    if over {
        let (store, now) = (house.store().await, house.hands.now());
        let tx = store.write(&house.caller().await).await.unwrap();
        let until = Some(now + time::Duration::hours(1));
        assert!(tx.data_service_gone(service.parse().unwrap(), now, until).await.unwrap());
        let mut failed = tx.hold_operation(operation.parse().unwrap()).await.unwrap().unwrap();
        failed.fail(Failure::new("test", "it failed", "try again"), now);
        tx.seize_operation(&mut failed).await.unwrap();
        tx.commit().await.unwrap();
        store.close().await.unwrap();
    }
    (service, operation)
}

async fn things(house: &House, admin: &Client<'_>, name: &str, source: IpAddr) -> Things {
    let cluster = admin.post("/clusters", json!({"name": name})).await.ok(201);
    let path = format!("/clusters/{name}/join-tokens");
    let spent = admin.post(&path, json!({})).await.ok(201);
    let token = culvert_pki::token::JoinToken::parse(spent["token"].as_str().unwrap()).unwrap();
    let csr = culvert_pki::csr::make(&culvert_pki::key::KeyPair::generate().unwrap()).unwrap();
    let asked = culvert_controller::app::Redeem {
        token_id: &token.id().to_string(),
        secret: token.secret(),
        csr: &csr,
        version: "0.1.0",
        clock_ms: house.hands.ms(),
        source,
        attempt: None,
    };
    let agent = house.app.redeem(asked).await.unwrap().agent;
    let join_token = admin.post(&path, json!({})).await.ok(201);
    let api_token =
        admin.post("/api-tokens", json!({"name": name, "role": "reader", "ttl_seconds": 600})).await.ok(201);
    let project = admin.post("/projects", json!({"name": name})).await.ok(201);
    let template = json!({"name": name, "engine": "postgresql", "spec": {}});
    let template = admin.post("/templates", template).await.ok(201);
    let target = json!({"name": name, "spec": {"s3": {"bucket": "b"}}});
    let target = admin.post("/backup-targets", target).await.ok(201);
    let (data_service, operation) = data_service(house, admin, name, &format!("live-{name}"), false).await;
    let over = format!("over-{name}");
    let (deleted_data_service, failed_operation) = self::data_service(house, admin, name, &over, true).await;
    let observed = crate::backup_schedules::observation("data-default", name, "elsewhere");
    let key = culvert_tunnel::AgentKey { org: house.caller().await.org().uuid(), agent: agent.uuid() };
    house.app.observe(key, crate::mirror::deltas(vec![observed])).await.unwrap();
    let backup_schedule = name.to_owned();
    let code = house.app.create_sign_in_code_locally(None).await.unwrap();
    let key = culvert_controller::app::App::agent_key(house.caller().await.org(), agent);
    let spec = json!({"service": format!("live-{name}"), "target": name});
    let backup = told("Backup", &format!("b-{name}"), spec, json!({"phase": "Complete", "path": "p"}));
    let spec = json!({"service": format!("r-{name}"), "source": {"backup": format!("b-{name}")}});
    let restore = told("Restore", &format!("r-{name}"), spec, Value::Null);
    let report = culvert_controller::app::Report { objects: vec![backup, restore], ..Default::default() };
    house.app.observe(key, report).await.unwrap();
    let backup = admin.get(&format!("/backups/b-{name}")).await.ok(200);
    let restore = admin.get(&format!("/restores/r-{name}")).await.ok(200);
    let text = |value: &Value| value["id"].as_str().unwrap().to_owned();
    Things {
        cluster: text(&cluster),
        join_token: text(&join_token),
        api_token: text(&api_token),
        agent: agent.to_string(),
        code: code.code.expose().to_owned(),
        csr: culvert_pki::pem::request_to_pem(&csr),
        project: text(&project),
        template: text(&template),
        backup_target: text(&target),
        backup_schedule,
        backup: text(&backup),
        restore: text(&restore),
        data_service,
        deleted_data_service,
        operation,
        failed_operation,
    }
}

/// A good request for a route: path and body. A route that is not known here fails.
fn request(method: &Method, path: &str, things: &Things, name: &str) -> (String, Option<Value>) {
    let route = path.strip_prefix("/api/v1").unwrap();
    let token = if route.starts_with("/api-tokens") { &things.api_token } else { &things.join_token };
    let service =
        if route.ends_with("/undelete") { &things.deleted_data_service } else { &things.data_service };
    let operation = if route.ends_with("/retry") { &things.failed_operation } else { &things.operation };
    let filled = route
        .replace("{cluster}", &things.cluster)
        .replace("{project}", &things.project)
        .replace("{template}", &things.template)
        .replace("{engine}", "postgresql")
        .replace("{backup_target}", &things.backup_target)
        .replace("{backup_schedule}", &things.backup_schedule)
        .replace("{backup}", &things.backup)
        .replace("{restore}", &things.restore)
        .replace("{data_service}", service)
        .replace("{operation}", operation)
        .replace("{agent}", &things.agent)
        .replace("{token}", token);
    assert!(!filled.contains('{'), "{path}: add what it names to this test");
    let body = match (method.as_str(), route) {
        ("GET" | "DELETE", _) | ("POST", "/sign-in-codes") => None,
        ("POST", "/sessions") => Some(json!({"code": things.code})),
        ("POST", "/clusters") => Some(json!({"name": format!("new-{name}")})),
        ("PUT", "/clusters/{cluster}/lock") => Some(json!({"message": "audit"})),
        ("POST", "/clusters/{cluster}/join-tokens") => Some(json!({})),
        ("POST", "/certificates") => Some(json!({"csr_pem": things.csr})),
        ("POST", "/api-tokens") => {
            Some(json!({"name": format!("new-{name}"), "role": "admin", "ttl_seconds": 60}))
        }
        ("POST", "/projects") => Some(json!({"name": format!("new-{name}")})),
        ("PATCH", "/projects/{project}") => Some(json!({"quota": {"cpu": "4"}})),
        ("POST", "/templates") => {
            Some(json!({"name": format!("new-{name}"), "engine": "postgresql", "spec": {"version": "17"}}))
        }
        ("PUT", "/templates/{template}") => Some(json!({"engine": "postgresql", "spec": {"version": "17"}})),
        ("POST", "/backup-targets") => {
            Some(json!({"name": format!("new-{name}"), "spec": {"s3": {"bucket": "b"}}}))
        }
        ("PATCH", "/backup-targets/{backup_target}") => Some(json!({"spec": {"prefix": "p"}})),
        ("PUT", "/backup-targets/{backup_target}/credentials") => {
            Some(json!({"credentials": {"access-key-id": "a", "secret-access-key": "b"}}))
        }
        ("POST", "/backup-targets/{backup_target}/check") => None,
        ("POST", "/backup-schedules") => {
            let spec = json!({"cron": "0 3 * * *", "target": name});
            Some(json!({"data_service": things.data_service, "spec": spec}))
        }
        ("PATCH", "/backup-schedules/{backup_schedule}") => Some(json!({"spec": {"suspended": true}})),
        ("POST", "/backup-schedules/{backup_schedule}/run") => None,
        ("POST", "/data-services" | "/data-services/plan") => {
            let spec = json!({"engine": "postgresql", "version": "17"});
            Some(json!({"name": format!("new-{name}"), "cluster": things.cluster, "spec": spec}))
        }
        ("PATCH", "/data-services/{data_service}") | ("POST", "/data-services/{data_service}/plan") => {
            Some(json!({"revision": 1, "spec": {"topology": {"replicas": 2}}}))
        }
        ("POST", "/backups") => {
            Some(json!({"data_service": things.data_service, "target": things.backup_target}))
        }
        ("POST", "/restores") => {
            Some(json!({"data_service": format!("new-{name}"), "source": {"backup": things.backup}}))
        }
        ("POST", "/apply") => {
            let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
                "metadata": {"name": format!("new-{name}")}, "spec": {"engine": "postgresql", "version": "17"}});
            Some(json!({"objects": [object], "cluster": things.cluster}))
        }
        ("POST", act) if act.starts_with("/data-services/{data_service}/") => None,
        ("POST", act) if act.starts_with("/operations/{operation}/") => None,
        _ => panic!("{method} {path}: add a good request for it to this test"),
    };
    (filled, body)
}

/// The status alone: a stream that is let in would never end.
async fn status(client: &Client<'_>, method: Method, path: &str, body: Option<Value>) -> u16 {
    let mut request = client.request(method, path);
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
    client.open(request.body(body).unwrap()).await.status().as_u16()
}

#[tokio::test]
async fn the_matrix_of_roles_and_routes_is_the_reviewed_one() {
    let house = House::sqlite().await;
    let mut made = String::from(
        "# Who may do what: the status that a good request gets. Made by the test `access`; review each change.\n",
    );
    let columns = ["anonymous", "reader", "admin", "other org's admin"];
    writeln!(
        made,
        "{:<62} {:>9} {:>6} {:>5} {:>17}",
        "route", columns[0], columns[1], columns[2], columns[3]
    )
    .unwrap();
    for (n, (method, path)) in routes().into_iter().enumerate() {
        let mut row = Vec::new();
        for (m, column) in columns.into_iter().enumerate() {
            let name = format!("c{n}-{m}");
            let admin = house.admin().await;
            // Each agent from an address of its own, so that none is slowed down for trying too often.
            let source = [10, 3, u8::try_from(n).unwrap(), u8::try_from(m).unwrap()].into();
            let things = things(&house, &admin, &name, source).await;
            let (path, body) = request(&method, &path, &things, &name);
            let answer = match column {
                "anonymous" => status(&house.anonymous_from(n), method.clone(), &path, body).await,
                "reader" => {
                    let reader = house.person(&format!("reader-{name}"), Role::Reader, false).await;
                    status(&reader, method.clone(), &path, body).await
                }
                "admin" => status(&admin, method.clone(), &path, body).await,
                _ => {
                    let other = house.person(&format!("other-{name}"), Role::Admin, true).await;
                    status(&other, method.clone(), &path, body).await
                }
            };
            row.push(answer);
        }
        let route = format!("{method} {path}");
        writeln!(made, "{route:<62} {:>9} {:>6} {:>5} {:>17}", row[0], row[1], row[2], row[3]).unwrap();
    }
    compare("tests/access.matrix", &made);
}
