//! Data services at the command line: what is asked of the controller, and what people read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod site;

use serde_json::{Value, json};
use site::{Reply, Site};

const SERVICE: &str = "dsv_01hzy0000000000000000000000";
const OPERATION: &str = "opn_01hzy0000000000000000000000";

fn service() -> Value {
    json!({
        "id": SERVICE, "name": "orders", "revision": 7, "state": "ready", "stale": false,
        "project": {"id": "prj_1", "name": "default"}, "cluster": {"id": "cls_1", "name": "edge-1"},
        "namespace": "data-default", "observed_at": "2026-11-25T03:00:00Z",
        "spec": {"engine": "postgresql", "version": "17", "storage": {"size": "1Gi"},
                 "deletion": {"strategy": "Retain", "undeleteHours": 72}},
        "status": {"version": {"running": "17.12"}, "readyReplicas": "1/1", "dataBytes": 8388608,
                   "endpoints": [{"name": "primary", "host": "orders.data-default.svc", "port": 5432}],
                   "conditions": [{"type": "Available", "status": "True", "reason": "Probe", "message": "a write succeeded",
                                   "lastTransitionTime": "2026-11-25T03:00:00Z"}]},
    })
}

fn operation(state: &str, steps: &Value) -> Value {
    json!({"id": OPERATION, "kind": "data_service_create", "state": state, "steps": steps,
           "expected_seconds": {"low": 10, "high": 30}})
}

/// A site that knows the service, and whose operation is done at the third look.
fn site() -> Site {
    let site = Site::start();
    site.signed_in();
    site.answer("GET", "/api/v1/data-services/orders", Reply::json(200, service().to_string()));
    site.answer("GET", &format!("/api/v1/data-services/{SERVICE}"), Reply::json(200, service().to_string()));
    let mut looks = 0;
    site.handle("GET", &format!("/api/v1/operations/{OPERATION}"), move |_| {
        looks += 1;
        let state = if looks < 3 { "running" } else { "done" };
        let steps = json!([{"name": "send", "title": "Send to the cluster", "state": "done", "message": ""},
                           {"name": "available", "title": "Wait for the first write", "state": state, "message": ""}]);
        let whole = if looks < 3 { "running" } else { "succeeded" };
        Reply::json(200, operation(whole, &steps).to_string())
    });
    site
}

fn started(key: &str) -> Reply {
    Reply::json(202, json!({key: service(), "operation": operation("pending", &json!([]))}).to_string())
}

fn body(site: &Site, method: &str, path: &str) -> Value {
    let seen = site.requests().into_iter().find(|seen| seen.method == method && seen.path == path);
    serde_json::from_str(&seen.unwrap_or_else(|| panic!("no {method} {path}")).body).unwrap()
}

#[test]
fn creating_sends_what_was_given_and_follows_the_work() {
    let site = site();
    site.answer("POST", "/api/v1/data-services", started("data_service"));
    let output = site
        .culvert(&[
            "data-service",
            "create",
            "orders",
            "--cluster",
            "edge-1",
            "--engine",
            "postgresql",
            "--version",
            "17",
            "--replicas",
            "3",
            "--synchronous",
            "-p",
            "work_mem=8MB",
            "--backup-target",
            "vault",
            "--utc",
        ])
        .output()
        .unwrap();
    let (out, notes) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{notes}");
    let expected = json!({"name": "orders", "cluster": "edge-1", "spec": {
        "engine": "postgresql", "version": "17", "topology": {"replicas": 3, "synchronous": true},
        "parameters": {"work_mem": "8MB"}, "backup": {"target": "vault"}}});
    assert_eq!(body(&site, "POST", "/api/v1/data-services"), expected);
    assert!(notes.contains("this takes 10s to 30s by experience"), "{notes}");
    assert_eq!(notes.matches("Send to the cluster").count(), 1, "each step is told once: {notes}");
    assert!(notes.contains("    done  Wait for the first write"), "{notes}");
    assert!(notes.contains("primary: orders.data-default.svc:5432"), "{notes}");
    assert!(out.contains("17.12") && out.contains("edge-1"), "{out}");
}

#[test]
fn no_wait_returns_at_once_and_says_how_to_go_on() {
    let site = site();
    site.answer("POST", "/api/v1/data-services", started("data_service"));
    let run = site.culvert(&[
        "ds",
        "create",
        "orders",
        "--cluster",
        "edge-1",
        "--engine",
        "postgresql",
        "--no-wait",
    ]);
    let output = { run }.output().unwrap();
    assert!(
        String::from_utf8(output.stderr).unwrap().contains(&format!("culvert operation watch {OPERATION}"))
    );
    assert_eq!(site.count("GET", &format!("/api/v1/operations/{OPERATION}")), 0);
}

#[test]
fn a_wait_that_ends_has_its_own_exit_code() {
    let site = site();
    let running = operation(
        "running",
        &json!([{"name": "send", "state": "running", "message": "the cluster is away"}]),
    );
    site.answer("GET", &format!("/api/v1/operations/{OPERATION}"), Reply::json(200, running.to_string()));
    let output = site.culvert(&["operation", "watch", OPERATION, "--timeout", "1s"]).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{notes}");
    assert!(notes.contains("the cluster is away") && notes.contains("culvert operation watch"), "{notes}");
}

#[test]
fn an_operation_that_fails_says_why_and_what_to_do() {
    let site = site();
    let mut failed =
        operation("failed", &json!([{"name": "provisioned", "state": "failed", "message": "no volume"}]));
    failed["failure"] = json!({"code": "no_storage_class", "message": "there is no storage class fast",
                               "next": "ask the platform operator for one"});
    site.answer("GET", &format!("/api/v1/operations/{OPERATION}"), Reply::json(200, failed.to_string()));
    let output = site.culvert(&["operation", "watch", OPERATION]).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(9), "{notes}");
    assert!(
        notes.contains("no storage class fast") && notes.contains("ask the platform operator"),
        "{notes}"
    );
}

fn plan(effect: &str) -> Reply {
    let plan = json!({"summary": "one change", "warnings": [], "faults": [], "interruption": null,
        "changes": [{"field": "resources.memory", "from": "512Mi", "to": "1Gi", "effect": effect, "note": ""}]});
    planned(&plan)
}

/// A plan as the API tells it.
fn planned(plan: &Value) -> Reply {
    let claim = json!({"data_services": 1, "cpu": "250m", "memory": "1Gi", "storage": "1Gi"});
    Reply::json(200, json!({"plan": plan, "spec": {}, "claim": claim}).to_string())
}

#[test]
fn a_change_that_interrupts_is_not_made_without_a_yes() {
    let site = site();
    site.answer("POST", &format!("/api/v1/data-services/{SERVICE}/plan"), plan("rolling-restart"));
    site.answer("PATCH", &format!("/api/v1/data-services/{SERVICE}"), started("data_service"));
    let output = site.culvert(&["data-service", "update", "orders", "--memory", "1Gi"]).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{notes}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("rolling-restart"));
    assert_eq!(site.count("PATCH", &format!("/api/v1/data-services/{SERVICE}")), 0);

    let done =
        site.culvert(&["data-service", "update", "orders", "--memory", "1Gi", "--yes"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let sent = body(&site, "PATCH", &format!("/api/v1/data-services/{SERVICE}"));
    assert_eq!(sent, json!({"spec": {"resources": {"memory": "1Gi"}}, "revision": 7}));
}

#[test]
fn somebody_faster_is_a_conflict() {
    let site = site();
    site.answer("POST", &format!("/api/v1/data-services/{SERVICE}/plan"), plan("reload"));
    let mut refused = Reply::problem(409, "revision_conflict", "somebody changed it to revision 8");
    let mut problem: Value = serde_json::from_str(&refused.body).unwrap();
    let spec = |work_mem: &str| json!({"version": "17", "parameters": {"work_mem": work_mem}});
    problem["details"] = json!({"revision": 8, "current": spec("16MB"), "yours": spec("8MB")});
    refused.body = problem.to_string();
    site.answer("PATCH", &format!("/api/v1/data-services/{SERVICE}"), refused);
    let output = site.culvert(&["data-service", "update", "orders", "-p", "work_mem=8MB"]).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{notes}");
    assert!(notes.contains("spec.parameters.work_mem: is 16MB now, and yours is 8MB"), "{notes}");
    assert!(!notes.contains("version"), "only what differs: {notes}");
}

#[test]
fn a_plan_with_faults_names_each_and_changes_nothing() {
    let site = site();
    let faults = json!({"summary": "", "changes": [], "warnings": ["mind the gap"], "faults": [
        {"field": "spec.version", "code": "unknown", "message": "there is no version 99", "next": "use 17"},
        {"field": "spec.parameters.x", "code": "unknown", "message": "there is no parameter x", "next": ""}]});
    site.answer("POST", &format!("/api/v1/data-services/{SERVICE}/plan"), planned(&faults));
    let output =
        site.culvert(&["data-service", "update", "orders", "--version", "99", "--yes"]).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{notes}");
    for part in ["mind the gap", "there is no version 99", "there is no parameter x", "use 17"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert_eq!(site.count("PATCH", &format!("/api/v1/data-services/{SERVICE}")), 0);
}

#[test]
fn deleting_names_the_consequences_and_sends_the_name() {
    let site = site();
    let path = format!("/api/v1/data-services/{SERVICE}");
    site.answer("DELETE", &path, started("data_service"));
    let refused = site.culvert(&["data-service", "delete", "orders", "--no-input"]).output().unwrap();
    assert_eq!((refused.status.code(), site.count("DELETE", &path)), (Some(2), 0));
    let done =
        site.culvert(&["data-service", "delete", "orders", "--yes", "--final-backup"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let seen = site.requests().into_iter().find(|seen| seen.method == "DELETE").unwrap();
    assert_eq!(seen.query, "confirm=orders&strategy=FinalBackup");
}

#[test]
fn what_is_not_there_is_named_with_the_way_to_look() {
    let site = site();
    let output = site.culvert(&["data-service", "get", "nothing"]).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{notes}");
    assert!(
        notes.contains("no data service \"nothing\"") && notes.contains("culvert data-service list"),
        "{notes}"
    );
}

#[test]
fn a_log_is_passed_on_as_it_comes() {
    let site = site();
    let reply = Reply::stream(&[(0, "one\n"), (20, "two\n")]);
    site.answer("GET", &format!("/api/v1/data-services/{SERVICE}/logs"), reply);
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("culvert"))
        .env_clear()
        .env("HOME", site.home.path())
        .env("CULVERT_CONFIG", site.config())
        .args(["data-service", "logs", "orders", "--follow", "--tail", "5"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    child.kill().unwrap();
    child.wait().unwrap();
    let seen = site.requests().into_iter().find(|seen| seen.path.ends_with("/logs")).unwrap();
    assert_eq!(seen.query, "tail=5&follow=true");
}

#[test]
fn credentials_come_from_a_file_and_are_shown_nowhere() {
    let site = site();
    let target = json!({"id": "bkt_1", "name": "vault", "spec": {"s3": {"bucket": "b"}}, "credential_generation": 1, "placements": []});
    site.answer("POST", "/api/v1/backup-targets", Reply::json(201, target.to_string()));
    let file = site.home.path().join("keys.env");
    std::fs::write(&file, "AWS_ACCESS_KEY_ID=example\nAWS_SECRET_ACCESS_KEY=not-a-real-secret\n").unwrap();
    let file = file.to_str().unwrap();
    let output = site
        .culvert(&[
            "backup-target",
            "create",
            "vault",
            "--s3-bucket",
            "b",
            "--credentials-file",
            file,
            "--verbose",
        ])
        .output()
        .unwrap();
    let all =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    assert!(!all.contains("not-a-real-secret"), "{all}");
    let sent = body(&site, "POST", "/api/v1/backup-targets");
    assert_eq!(sent["credentials"]["secret-access-key"], "not-a-real-secret");
}

#[test]
fn restoring_in_place_needs_the_name_of_what_is_lost() {
    let site = site();
    let backup = json!({"id": "bkp_1", "name": "orders-1", "spec": {"service": "orders"}});
    site.answer("GET", "/api/v1/backups/orders-1", Reply::json(200, backup.to_string()));
    let restore = json!({"id": "rst_1", "name": "orders", "namespace": "data-default"});
    let begun = json!({"restore": restore, "operation": operation("pending", &json!([]))});
    site.answer("POST", "/api/v1/restores", Reply::json(202, begun.to_string()));
    let words = ["restore", "create", "orders", "--backup", "orders-1", "--in-place"];
    let refused = site.culvert(&words).output().unwrap();
    assert_eq!((refused.status.code(), site.count("POST", "/api/v1/restores")), (Some(2), 0));
    let done = site.culvert(&[&words[..], &["--yes", "--no-wait"]].concat()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let sent = body(&site, "POST", "/api/v1/restores");
    assert_eq!(sent["source"], json!({"backup": "bkp_1"}));
    assert_eq!(sent["in_place"], json!({"confirm": SERVICE}));
}

#[test]
fn applying_shows_plans_in_a_dry_run() {
    let site = site();
    let results = json!({"items": [{"kind": "DataService", "name": "orders", "result": "planned",
        "plan": {"summary": "one change", "changes": [{"field": "version", "from": "15", "to": "17", "effect": "restart"}]}}]});
    site.answer("POST", "/api/v1/apply", Reply::json(200, results.to_string()));
    let file = site.home.path().join("orders.yaml");
    std::fs::write(
        &file,
        "kind: DataService\nmetadata: {name: orders}\nspec: {engine: postgresql, version: '17'}\n",
    )
    .unwrap();
    let output = site
        .culvert(&["apply", "-f", file.to_str().unwrap(), "--cluster", "edge-1", "--dry-run"])
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && out.contains("planned") && out.contains("restart"), "{out}");
    let sent = body(&site, "POST", "/api/v1/apply");
    assert_eq!((&sent["dry_run"], &sent["objects"][0]["spec"]["version"]), (&json!(true), &json!("17")));
}
