//! Who may use a cluster through the gateway, and how fast a change is felt.

use axum::http::Method;
use culvert_controller::app::{Error, Redeem};
use culvert_controller::domain::ClusterRef;
use culvert_pki::csr;
use culvert_pki::key::KeyPair;
use serde_json::json;

use crate::fixture::{Client, House};

async fn enrol(house: &House, admin: &Client<'_>, name: &str) -> culvert_controller::domain::AgentId {
    let token = admin.join_token(name).await;
    let key = KeyPair::generate().unwrap();
    let asked = Redeem {
        token_id: &token.id().to_string(),
        secret: token.secret(),
        csr: &csr::make(&key).unwrap(),
        version: "0.1.0",
        clock_ms: house.hands.ms(),
        source: [10, 0, 0, 1].into(),
        attempt: None,
    };
    house.app.redeem(asked).await.unwrap().agent
}

#[tokio::test]
async fn a_change_is_felt_at_once_though_answers_are_remembered() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let caller = house.caller().await;
    let which: ClusterRef = "plant".parse().unwrap();
    let ask = || house.app.authorise_gateway(&caller, &which);

    assert!(matches!(ask().await, Err(Error::NotFound("cluster"))));
    admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    assert!(matches!(ask().await, Err(Error::Conflict { code: "not_enrolled", .. })));
    admin.delete("/clusters/plant").await.ok(204);
    let agent = enrol(&house, &admin, "plant").await;
    let target = ask().await.unwrap();
    assert_eq!(target.agent, culvert_controller::app::App::agent_key(caller.org(), agent));
    assert_eq!((target.user.as_str(), target.groups), ("culvert:admin", vec!["culvert:admins".to_owned()]));

    let mut revocations = house.app.revocations();
    revocations.mark_unchanged();
    let lock = json!({"message": "audit"});
    admin.json_with(Method::PUT, "/clusters/plant/lock", lock, &[]).await.ok(200);
    assert!(revocations.has_changed().unwrap());
    let refused = ask().await.unwrap_err();
    assert!(
        matches!(&refused, Error::Denied { code: "locked", reason, .. } if reason.contains("audit")),
        "{refused:?}"
    );
    admin.delete("/clusters/plant/lock").await.ok(204);
    ask().await.unwrap();
    admin.delete("/clusters/plant").await.ok(204);
    assert!(matches!(ask().await, Err(Error::NotFound("cluster"))));
}

#[tokio::test]
async fn a_live_stream_finds_out_that_its_caller_is_gone() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let made =
        admin.post("/api-tokens", json!({"name": "ci", "role": "reader", "ttl_seconds": 600})).await.ok(201);
    let machine =
        house.app.authenticate_bearer(made["token"].as_str().unwrap(), [1, 2, 3, 4].into()).await.unwrap();
    house.app.recheck(&machine).await.unwrap();
    admin.delete(&format!("/api-tokens/{}", made["id"].as_str().unwrap())).await.ok(204);
    assert!(house.app.recheck(&machine).await.is_err());
    let caller = house.caller().await;
    house.app.recheck(&caller).await.unwrap();
    house.hands.forward(12 * 3600);
    assert!(house.app.recheck(&caller).await.is_err());
}
