//! Recent figures of data services: told by agents, shown to their own organisation, bounded.

use culvert_controller::app::{Of, SOURCES_MAX, Source, Untaken};
use culvert_controller::domain::Role;
use culvert_controller::domain::figures::SeriesKey;
use culvert_tunnel::AgentKey;
use serde_json::{Value, json};

use crate::fixture::House;
use crate::presence::enrol;

fn source(namespace: &str, service: &str, value: f64) -> Source {
    let instance = format!("{service}-0");
    let key = SeriesKey::parse(&instance, "culvert_postgresql_data_bytes", Vec::new()).unwrap();
    let samples = vec![(key, value)];
    let of = Of::Service { namespace: namespace.to_owned(), service: service.to_owned() };
    Source { of, instance, problem: None, samples }
}

#[tokio::test]
async fn figures_are_shown_for_a_while_and_to_nobody_else() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let key = enrol(&house, &admin, "plant").await.key;
    let wish =
        json!({"name": "orders", "cluster": "plant", "spec": {"engine": "postgresql", "version": "17"}});
    admin.post("/data-services", wish).await.ok(202);
    let path = "/data-services/orders/metrics";
    let none = admin.get(path).await.ok(200);
    assert_eq!((&none["series"], &none["stale"]), (&json!([]), &json!(true)));

    let other = house.person("mallory", Role::Admin, true).await;
    let theirs = enrol(&house, &other, "theirs").await.key;
    house.app.sample(theirs, vec![source("data-default", "orders", 666.0)]).await.unwrap();
    for value in [1.0, 2.0] {
        house.hands.forward(15);
        house.app.sample(key, vec![source("data-default", "orders", value)]).await.unwrap();
    }
    house.app.sample(key, vec![source("elsewhere", "orders", 9.0)]).await.unwrap();
    let silent = Source {
        problem: Some("it is silent".to_owned()),
        samples: Vec::new(),
        instance: "orders-1".to_owned(),
        ..source("data-default", "orders", 0.0)
    };
    house.app.sample(key, vec![silent]).await.unwrap();

    let told = admin.get(path).await.ok(200);
    let series = &told["series"][0];
    assert_eq!(series["name"], "culvert_postgresql_data_bytes");
    assert_eq!((&series["unit"], &series["kind"]), (&json!("bytes"), &json!("gauge")));
    assert_eq!(series["labels"], json!({"instance": "orders-0"}));
    let values: Vec<&Value> =
        series["samples"].as_array().unwrap().iter().map(|sample| &sample["value"]).collect();
    assert_eq!(values, [&json!(1.0), &json!(2.0)]);
    assert_eq!(told["problems"][0]["instance"], "orders-1");
    assert_eq!(told["series"].as_array().unwrap().len(), 1);

    let last = admin.get(&format!("{path}?since=10s")).await.ok(200);
    assert_eq!(last["series"][0]["samples"].as_array().unwrap().len(), 1);
    assert_eq!(admin.get(&format!("{path}?since=2h")).await.refused(400), "invalid");
    assert_eq!(other.get(path).await.refused(404), "not_found");
    house.hands.forward(3601);
    assert_eq!(admin.get(&format!("{path}?since=1h")).await.ok(200)["series"], json!([]));
}

#[tokio::test]
async fn an_agent_that_floods_is_not_heard_and_nobody_else_notices() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let (one, two) = (enrol(&house, &admin, "one").await.key, enrol(&house, &admin, "two").await.key);
    let many = (0..=SOURCES_MAX).map(|n| source("data", &format!("s{n}"), 1.0)).collect();
    assert!(matches!(house.app.sample(one, many).await, Err(Untaken::TooMany(_))));
    let mut heard = 0;
    while house.app.sample(one, vec![source("data", "s", 1.0)]).await.is_ok() {
        heard += 1;
        assert!(heard < 1000, "there is no end to what is taken");
    }
    assert!(matches!(house.app.sample(one, Vec::new()).await, Err(Untaken::TooOften)));
    assert_eq!(house.app.sample(two, vec![source("data", "s", 1.0)]).await.unwrap(), 0);
    let stranger = AgentKey { agent: uuid::Uuid::nil(), ..one };
    assert!(matches!(house.app.sample(stranger, Vec::new()).await, Err(Untaken::Nobody)));
}
