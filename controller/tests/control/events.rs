//! Watching changes.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::fixture::{Client, House};

/// A watcher, reading one event at a time.
struct Watch {
    body: Body,
    text: String,
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    event: String,
    id: Option<u64>,
    data: Value,
    comment: String,
}

impl Watch {
    async fn open(client: &Client<'_>, query: &str, last: Option<u64>) -> Self {
        let mut request = client.request(Method::GET, &format!("/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response: Response = client.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let mut watch = Self { body: response.into_body(), text: String::new() };
        let first = watch.next().await.unwrap();
        assert_eq!(first.comment, "connected");
        assert!(first.id.is_some());
        watch
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Seen> {
        let wait = async {
            loop {
                if let Some((one, rest)) = self.text.split_once("\n\n") {
                    let seen = parse(one);
                    self.text = rest.to_owned();
                    return Some(seen);
                }
                let frame = self.body.frame().await?.unwrap();
                self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("nothing came for 20 s")
    }

    async fn named(&mut self, event: &str) -> Seen {
        loop {
            let seen = self.next().await.expect("the stream ended");
            if seen.event == event {
                return seen;
            }
            assert_ne!(seen.event, "gap");
        }
    }
}

fn parse(text: &str) -> Seen {
    let mut seen = Seen::default();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("event", value)) => seen.event = value.trim().to_owned(),
            Some(("id", value)) => seen.id = value.trim().parse().ok(),
            Some(("data", value)) => seen.data = serde_json::from_str(value).unwrap(),
            Some(("", value)) => seen.comment = value.trim().to_owned(),
            _ => panic!("{line}"),
        }
    }
    seen
}

#[tokio::test]
async fn changes_come_as_they_happen_and_again_for_who_was_away() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let mut watch = Watch::open(&admin, "", None).await;
    let made = admin.post("/clusters", json!({"name": "a"})).await.ok(201);
    let seen = watch.named("cluster").await;
    assert_eq!(seen.data, made);
    let first = seen.id.unwrap();
    admin.delete("/clusters/a").await.ok(204);
    let gone = watch.named("cluster").await;
    assert_eq!(gone.data["state"], "deleted");
    assert!(gone.id.unwrap() > first);
    drop(watch);
    // Back again: what came after the first.
    let mut back = Watch::open(&admin, "", Some(first)).await;
    assert_eq!(back.next().await.unwrap(), gone);
    // A number of another time is a gap, and then things go on.
    let mut lost = Watch::open(&admin, "", Some(5)).await;
    assert_eq!(lost.next().await.unwrap().event, "gap");
    admin.post("/clusters", json!({"name": "b"})).await.ok(201);
    assert_eq!(lost.named("cluster").await.data["name"], "b");
}

#[tokio::test]
async fn one_cluster_can_be_watched_alone() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    for name in ["a", "b"] {
        admin.post("/clusters", json!({"name": name})).await.ok(201);
    }
    let mut watch = Watch::open(&admin, "?cluster=b", None).await;
    for name in ["a", "b"] {
        let lock = json!({"message": name});
        admin.json_with(Method::PUT, &format!("/clusters/{name}/lock"), lock, &[]).await.ok(200);
    }
    assert_eq!(watch.named("cluster").await.data["name"], "b");
    assert_eq!(admin.get("/events?cluster=nothing").await.refused(404), "not_found");
    let token = culvert_pki::token::JoinToken::parse(
        admin.post("/clusters/b/join-tokens", json!({})).await.ok(201)["token"].as_str().unwrap(),
    )
    .unwrap();
    house.app.attempt_reached(&token.id(), [10, 0, 0, 1].into()).await.unwrap();
    let attempt = watch.named("attempt").await;
    assert_eq!((&attempt.data["stage"], &attempt.data["outcome"]), (&json!("reached"), &json!("running")));
}

#[tokio::test]
async fn another_organisation_sees_nothing() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let other = house.person("other", culvert_controller::domain::Role::Admin, true).await;
    let mut watch = Watch::open(&other, "", None).await;
    admin.post("/clusters", json!({"name": "ours"})).await.ok(201);
    house.stop.cancel();
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn signing_out_ends_the_stream() {
    let house = House::sqlite().await;
    let (admin, second) = (house.admin().await, house.admin().await);
    let mut watch = Watch::open(&admin, "", None).await;
    let mut stays = Watch::open(&second, "", None).await;
    admin.delete("/sessions/current").await.ok(204);
    assert_eq!(watch.next().await, None);
    second.post("/clusters", json!({"name": "a"})).await.ok(201);
    assert_eq!(stays.named("cluster").await.data["name"], "a");
}

#[tokio::test]
async fn a_quiet_stream_beats() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let mut watch = Watch::open(&admin, "", None).await;
    assert_eq!(watch.next().await.unwrap().comment, "beat");
}
