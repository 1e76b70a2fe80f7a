//! Requests that are malformed, oversized or repeated.

use axum::body::Body;
use axum::http::Method;
use serde_json::json;

use crate::fixture::{Answer, House};

async fn raw(house: &House, kind: Option<&str>, body: impl Into<Body>) -> Answer {
    let admin = house.admin().await;
    let mut request = admin.request(Method::POST, "/clusters");
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    admin.send(request.body(body.into()).unwrap()).await
}

const JSON: Option<&str> = Some("application/json; charset=utf-8");

#[tokio::test]
async fn a_body_is_strict_json_of_a_bounded_size() {
    let house = House::sqlite().await;
    assert_eq!(raw(&house, None, "{}").await.refused(415), "not_json");
    assert_eq!(raw(&house, Some("text/plain"), "{}").await.refused(415), "not_json");
    for broken in ["", "{", "{\"name\":\"a\"}x", "\u{feff}{}"] {
        assert_eq!(raw(&house, JSON, broken).await.refused(400), "malformed", "{broken}");
    }
    for wrong in ["[]x", "null garbage", "{}", "null", "7", "{\"name\":7}", "{\"name\":\"a\",\"name\":\"b\"}"]
    {
        let answer = raw(&house, JSON, wrong).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
    let unknown = raw(&house, JSON, r#"{"name":"a","colour":"red"}"#).await;
    assert_eq!(unknown.json()["errors"][0]["field"], "colour");
    assert_eq!(unknown.refused(400), "invalid");
    let deep = format!("{{\"name\":\"a\",\"labels\":{}}}", "[".repeat(100_000));
    assert_eq!(raw(&house, JSON, deep).await.status, 400);
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(300 * 1024));
    assert_eq!(raw(&house, JSON, large).await.refused(413), "too_large");
    let endless =
        futures::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 4096])));
    assert_eq!(raw(&house, JSON, Body::from_stream(endless)).await.refused(413), "too_large");
    let torn =
        futures::stream::iter([Ok(bytes::Bytes::from_static(b"{\"na")), Err(std::io::Error::other("torn"))]);
    assert_eq!(raw(&house, JSON, Body::from_stream(torn)).await.refused(400), "malformed");
    raw(&house, JSON, r#"{"name":"a"}"#).await.ok(201);
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let house = House::sqlite().await;
    let never = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), raw(&house, JSON, never)).await;
    assert_eq!(waited.expect("still waiting after 60 s").refused(408), "too_slow");
}

#[tokio::test]
async fn every_fault_of_a_request_is_named_at_once() {
    let house = House::sqlite().await;
    let answer = raw(&house, JSON, r#"{"name":"No Good","labels":{"-x":"1","ok":"not ok"}}"#).await;
    let body = answer.json();
    let fields: Vec<_> =
        body["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["name", "labels.-x", "labels.ok"]);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    assert_eq!(admin.get("/nothing").await.refused(404), "no_such_route");
    let answer = admin.send(admin.request(Method::PATCH, "/clusters").body(Body::empty()).unwrap()).await;
    assert!(answer.headers["allow"].to_str().unwrap().contains("GET"), "{answer:?}");
    assert_eq!(answer.refused(405), "no_such_method");
    for unnamed in ["/clusters/No%20Good", "/clusters/cls_x", "/agents/x", "/clusters/%ff"] {
        let answer = admin.get(unnamed).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{unnamed}: {answer:?}");
    }
    for query in
        ["limit=0", "limit=201", "limit=x", "after=zzz", "state=happy", "colour=red", "limit=1&limit=2"]
    {
        assert_eq!(admin.get(&format!("/clusters?{query}")).await.refused(400), "invalid", "{query}");
    }
}

#[tokio::test]
async fn credentials_are_refused_without_repeating_them() {
    let house = House::sqlite().await;
    for header in
        ["Basic YWJj", "Bearer", "Bearer x", "Bearer cvs1.secret.zzzz", "cvs1.x.y", "Bearer cvj1.a.b.c.d"]
    {
        let nobody = house.anonymous();
        let request =
            nobody.request(Method::GET, "/me").header("authorization", header).body(Body::empty()).unwrap();
        let answer = nobody.send(request).await;
        assert!(!answer.text.contains("secret"), "{answer:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.status, 401, "{header}");
    }
    let admin = house.admin().await;
    let twice =
        admin.request(Method::GET, "/me").header("authorization", "Bearer x").body(Body::empty()).unwrap();
    assert_eq!(admin.send(twice).await.refused(401), "not_signed_in");
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_secrets_included() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let post = async |path: &str, body: serde_json::Value, key: &str| {
        admin.json_with(Method::POST, path, body, &[("idempotency-key", key)]).await
    };
    let first = post("/clusters", json!({"name": "a"}), "k1").await.ok(201);
    assert_eq!(post("/clusters", json!({"name": "a"}), "k1").await.ok(201), first);
    assert_eq!(post("/clusters", json!({"name": "b"}), "k1").await.refused(409), "idempotency_conflict");
    assert_eq!(post("/clusters", json!({"name": "a"}), "k2").await.refused(409), "name_taken");
    // What failed was not done, so its key is free.
    post("/clusters", json!({"name": "c"}), "k2").await.ok(201);
    let path = "/clusters/a/join-tokens";
    let token = post(path, json!({}), "t").await.ok(201);
    assert_eq!(post(path, json!({}), "t").await.ok(201), token);
    assert_eq!(admin.get(path).await.ok(200)["items"].as_array().unwrap().len(), 1);
    let new = json!({"name": "ci", "role": "reader", "ttl_seconds": 600});
    let api = post("/api-tokens", new.clone(), "a").await.ok(201);
    assert_eq!(post("/api-tokens", new, "a").await.ok(201), api);
    assert_eq!(
        post("/sign-in-codes", json!({}), "s").await.ok(201),
        post("/sign-in-codes", json!({}), "s").await.ok(201)
    );
    for bad in ["", "with blank", &"x".repeat(256)] {
        assert_eq!(post("/clusters", json!({"name": "d"}), bad).await.refused(400), "invalid", "{bad}");
    }
    // Nobody else can fetch the answer, and nothing of it lies in the open.
    let other = house.admin().await;
    house.hands.forward(24 * 3600);
    drop(other);
    let file = house.config.data_dir.join("culvert.db-wal");
    let stored = [
        std::fs::read(house.config.data_dir.join("culvert.db")).unwrap(),
        std::fs::read(file).unwrap_or_default(),
    ]
    .concat();
    for secret in [&token["token"], &api["token"]] {
        let secret = secret.as_str().unwrap().as_bytes();
        assert!(
            !stored.windows(secret.len()).any(|window| window == secret),
            "a secret lies in the database"
        );
    }
}
