//! The API's nouns, through the router.

use axum::http::{Method, StatusCode};
use culvert_controller::domain::Role;
use culvert_pki::key::KeyPair;
use culvert_pki::{csr, pem};
use serde_json::json;

use crate::fixture::House;

#[tokio::test]
async fn sign_in_who_am_i_sign_out() {
    let house = House::sqlite().await;
    let nobody = house.anonymous();
    let answer = nobody.post("/sessions", json!({"code": house.code()})).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    for part in ["__Host-culvert=cvs1.", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let session = answer.ok(201);
    assert_eq!(session["user"]["name"], "admin");
    let me = house.with_token(session["token"].as_str().unwrap());
    let told = me.get("/me").await.ok(200);
    assert_eq!(told["user"]["role"], "admin");
    assert_eq!(told["org"]["name"], "default");
    assert_eq!(told["credential"]["kind"], "session");
    assert_eq!(told["credential"]["expires_at"], session["expires_at"]);
    assert_eq!(nobody.post("/sessions", json!({"code": house.code()})).await.refused(401), "code_unknown");
    me.delete("/sessions/current").await.ok(204);
    assert_eq!(me.get("/me").await.refused(401), "token_unknown");
}

#[tokio::test]
async fn a_session_ends_by_itself() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    admin.get("/me").await.ok(200);
    house.hands.forward(12 * 3600);
    assert_eq!(admin.get("/me").await.refused(401), "token_unknown");
}

#[tokio::test]
async fn a_second_device_signs_in_with_a_code() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let made = admin
        .send(admin.request(Method::POST, "/sign-in-codes").body(axum::body::Body::empty()).unwrap())
        .await;
    let made = made.ok(201);
    house.hands.forward(60);
    house.anonymous().post("/sessions", json!({"code": made["code"]})).await.ok(201);
}

#[tokio::test]
async fn guessing_codes_is_slow() {
    let house = House::sqlite().await;
    let nobody = house.anonymous();
    for _ in 0..10 {
        assert_eq!(
            nobody.post("/sessions", json!({"code": "AAAA-AAAA-AAAA"})).await.refused(401),
            "code_unknown"
        );
    }
    let answer = nobody.post("/sessions", json!({"code": house.code()})).await;
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    assert_eq!(answer.refused(429), "rate_limited");
}

#[tokio::test]
async fn clusters_are_made_found_listed_locked_and_deleted() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let made = admin.post("/clusters", json!({"name": "plant", "labels": {"region": "north"}})).await.ok(201);
    assert_eq!(made["state"], "pending");
    assert_eq!(made["labels"]["region"], "north");
    let id = made["id"].as_str().unwrap();
    assert!(id.starts_with("cls_"));
    for which in [id, "plant"] {
        assert_eq!(admin.get(&format!("/clusters/{which}")).await.ok(200), made);
    }
    assert_eq!(admin.post("/clusters", json!({"name": "plant"})).await.refused(409), "name_taken");
    let locked = admin
        .json_with(Method::PUT, "/clusters/plant/lock", json!({"message": " audit "}), &[])
        .await
        .ok(200);
    assert_eq!((&locked["state"], &locked["lock"]["message"]), (&json!("locked"), &json!("audit")));
    assert_eq!(admin.get("/clusters?state=locked").await.ok(200)["items"][0]["name"], "plant");
    assert_eq!(admin.get("/clusters?state=pending").await.ok(200)["items"], json!([]));
    admin.delete("/clusters/plant/lock").await.ok(204);
    assert_eq!(admin.get("/clusters/plant").await.ok(200)["lock"], json!(null));
    admin.delete("/clusters/plant").await.ok(204);
    assert_eq!(admin.get("/clusters/plant").await.refused(404), "not_found");
    assert_eq!(admin.delete("/clusters/plant").await.refused(404), "not_found");
}

#[tokio::test]
async fn a_list_is_walked_page_by_page() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    for n in 0..7 {
        admin.post("/clusters", json!({"name": format!("c{n}")})).await.ok(201);
    }
    let mut seen = Vec::new();
    let mut path = "/clusters?limit=3".to_owned();
    loop {
        let page = admin.get(&path).await.ok(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/clusters?limit=3&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..7).map(|n| format!("c{n}")).collect::<Vec<_>>());
    let filtered = admin.get("/clusters?state=pending&limit=2").await.ok(200);
    assert_eq!(filtered["items"].as_array().unwrap().len(), 2);
    let next = filtered["next"].as_str().unwrap();
    assert_eq!(admin.get(&format!("/api-tokens?after={next}")).await.refused(400), "invalid");
    assert_eq!(admin.get("/clusters?name=c3").await.ok(200)["items"][0]["name"], "c3");
}

#[tokio::test]
async fn a_join_token_comes_with_its_command() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    let made = admin.post("/clusters/plant/join-tokens", json!({"ttl_seconds": 120})).await.ok(201);
    let token = made["token"].as_str().unwrap();
    let parsed = culvert_pki::token::JoinToken::parse(token).unwrap();
    assert_eq!(parsed.pins(), [house.app.pin()]);
    let command = made["helm"]["command"].as_str().unwrap();
    assert!(command.contains("controller.address=controller.example:8443"), "{command}");
    // The token is read from standard input: nobody finds it in a list of processes.
    let (arguments, input) = command.split_once('\n').unwrap();
    assert!(arguments.ends_with("--values - <<'VALUES'") && !arguments.contains(token), "{command}");
    assert_eq!(input, format!("token: {token}\nVALUES\n"));
    assert_eq!(made["helm"]["values"]["controller"]["domain"], "culvert.internal");
    let listed = admin.get("/clusters/plant/join-tokens").await.ok(200);
    assert_eq!(listed["items"][0]["state"], "active");
    house.hands.forward(120);
    assert_eq!(admin.get("/clusters/plant/join-tokens").await.ok(200)["items"][0]["state"], "expired");
    let bad = admin.post("/clusters/plant/join-tokens", json!({"ttl_seconds": 1, "cidr": "x"})).await;
    let fields: Vec<_> =
        bad.json()["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["ttl_seconds", "cidr"]);
}

#[tokio::test]
async fn api_tokens_let_machines_in_until_revoked() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let made = admin
        .post(
            "/api-tokens",
            json!({"name": "ci", "role": "reader", "ttl_seconds": 3600, "cidr": "192.0.2.0/24"}),
        )
        .await
        .ok(201);
    let machine = house.with_token(made["token"].as_str().unwrap());
    let told = machine.get("/me").await.ok(200);
    assert_eq!((&told["user"]["name"], &told["credential"]["kind"]), (&json!("ci"), &json!("api_token")));
    assert_eq!(machine.post("/clusters", json!({"name": "x"})).await.refused(403), "role_missing");
    assert_eq!(machine.post("/sign-in-codes", json!({})).await.refused(403), "not_a_person");
    let mut elsewhere = house.with_token(made["token"].as_str().unwrap());
    elsewhere.source = "203.0.113.1:1".parse().unwrap();
    assert_eq!(elsewhere.get("/me").await.refused(401), "wrong_network");
    let listed = admin.get("/api-tokens").await.ok(200);
    assert_eq!(listed["items"][0]["id"], made["id"]);
    assert!(!listed.to_string().contains("cva1"));
    admin.delete(&format!("/api-tokens/{}", made["id"].as_str().unwrap())).await.ok(204);
    assert_eq!(machine.get("/me").await.refused(401), "token_unknown");
}

#[tokio::test]
async fn a_person_gets_a_certificate_and_nothing_they_asked_for_beside() {
    let house = House::sqlite().await;
    let reader = house.person("rita", Role::Reader, false).await;
    let key = KeyPair::generate().unwrap();
    let request = pem::request_to_pem(&csr::make(&key).unwrap());
    let made = reader.post("/certificates", json!({"csr_pem": request, "ttl_seconds": 600})).await.ok(201);
    let chain = pem::certificates_from_pem(made["certificate_pem"].as_str().unwrap()).unwrap();
    assert_eq!(chain.len(), 2);
    let peer =
        culvert_pki::verify::verify_peer(&chain, house.app.roots(), house.app.domain(), house.hands.now())
            .unwrap();
    assert_eq!(peer.key, key.pin());
    let caller = house.app.authenticate_certificate(&peer).await.unwrap();
    assert_eq!(caller.kubernetes_user(), "culvert:rita");
    assert_eq!(caller.kubernetes_groups(), ["culvert:readers"]);
    house.hands.forward(601);
    assert!(house.app.authenticate_certificate(&peer).await.is_err());
    for (csr, ttl) in [("rubbish", 600), (request.as_str(), 3601)] {
        assert_eq!(
            reader.post("/certificates", json!({"csr_pem": csr, "ttl_seconds": ttl})).await.refused(400),
            "invalid"
        );
    }
}

#[tokio::test]
async fn the_kubeconfig_leads_through_the_gateway_without_a_secret() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let made = admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    let answer = admin.get("/clusters/plant/kubeconfig?exec=culvert&context=work").await;
    assert_eq!(answer.headers["content-type"], "application/yaml");
    let config = answer.ok(200);
    let cluster = &config["clusters"][0]["cluster"];
    let id = made["id"].as_str().unwrap();
    assert_eq!(cluster["server"], format!("https://controller.example:8443/clusters/{id}"));
    assert_eq!(cluster["tls-server-name"], "kube.culvert.internal");
    assert_eq!(
        config["users"][0]["user"]["exec"]["args"],
        json!(["kube", "credential", "--context", "work"])
    );
    assert_eq!(admin.get("/clusters/plant/kubeconfig?exec=sh").await.refused(400), "invalid");
    assert_eq!(admin.get("/clusters/plant/kubeconfig?context=-x").await.refused(400), "invalid");
}

#[tokio::test]
async fn anybody_may_know_how_to_reach_us() {
    let house = House::sqlite().await;
    let info = house.anonymous().get("/info").await.ok(200);
    assert_eq!(info["product"], "culvert");
    assert_eq!(info["agents"]["server_name"], "agents.culvert.internal");
    assert_eq!(info["gateway"]["address"], "controller.example:8443");
    assert_eq!(info["ca"]["pin"], house.app.pin().to_string());
    let roots = pem::certificates_from_pem(info["ca"]["pem"].as_str().unwrap()).unwrap();
    assert_eq!(culvert_pki::pin::Pin::of_certificate(&roots[0]).unwrap(), house.app.pin());
}

#[tokio::test]
async fn a_browser_changes_things_only_from_our_own_pages() {
    let house = House::sqlite().await;
    let token = house.admin().await.token.unwrap();
    let nobody = house.anonymous();
    let ask = async |method: Method, path: &str, origin: Option<&str>| {
        let mut request = nobody
            .request(method, path)
            .header("host", "controller.example:8443")
            .header("cookie", format!("__Host-culvert={token}"))
            .header("content-type", "application/json");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        nobody.send(request.body(axum::body::Body::from(r#"{"name":"a"}"#)).unwrap()).await
    };
    ask(Method::GET, "/me", None).await.ok(200);
    assert_eq!(ask(Method::POST, "/clusters", None).await.refused(403), "foreign_origin");
    let evil = Some("https://evil.example");
    assert_eq!(ask(Method::POST, "/clusters", evil).await.refused(403), "foreign_origin");
    ask(Method::POST, "/clusters", Some("https://controller.example:8443")).await.ok(201);
    // Nor can it be signed in by another page.
    let request = nobody
        .request(Method::POST, "/sessions")
        .header("host", "controller.example:8443")
        .header("origin", "https://evil.example")
        .header("content-type", "application/json");
    let body = json!({"code": house.code()}).to_string();
    let answer = nobody.send(request.body(axum::body::Body::from(body)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_was_done_is_written_down_with_who_and_by_which_request() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let answer = admin.post("/clusters", json!({"name": "plant"})).await;
    answer.ok(201);
    let store = house.store().await;
    let events = store.org(&house.caller().await).audit_events(50).await.unwrap();
    let made = events.iter().find(|e| e.act == "cluster.created").unwrap();
    assert_eq!((made.actor.0.as_str(), made.actor.2.as_str()), ("user", "admin"));
    let numbers: Vec<_> = events.iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=events.len() as u64).rev().collect::<Vec<_>>());
}
