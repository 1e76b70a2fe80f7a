//! What agents tell of their clusters: kept under their own cluster, compared, bounded.

use culvert_controller::app::{App, News, Report, Resync, Since, Taken, Untaken};
use culvert_controller::domain::observed::{Observation, REPORT_MAX, Untakable};
use culvert_controller::domain::{Caller, ClusterId, ObjectKey, ObjectKind};
use culvert_controller::store::ObservedFilter;
use culvert_tunnel::AgentKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Client, House, On};
use crate::presence::enrol;

/// A cluster with an agent.
pub(crate) struct Site {
    pub(crate) key: AgentKey,
    pub(crate) caller: Caller,
    pub(crate) cluster: ClusterId,
}

impl Site {
    pub(crate) async fn new(house: &House, admin: &Client<'_>, name: &str) -> Self {
        let key = enrol(house, admin, name).await.key;
        let id = admin.get(&format!("/clusters/{name}")).await.ok(200)["id"].as_str().unwrap().to_owned();
        Self { key, caller: house.caller().await, cluster: id.parse().unwrap() }
    }

    pub(crate) async fn tell(&self, house: &House, report: Report) -> Taken {
        house.app.observe(self.key, report).await.unwrap()
    }

    /// Names of the objects kept of this cluster.
    async fn kept(&self, app: &App) -> Vec<String> {
        let filter = ObservedFilter { cluster: Some(self.cluster), ..ObservedFilter::default() };
        let mut names: Vec<String> = app
            .observed(&self.caller, &filter, 100)
            .await
            .unwrap()
            .into_iter()
            .map(|object| object.told.key.name)
            .collect();
        names.sort();
        names
    }
}

fn backup(name: &str, phase: &str) -> Observation {
    let uid = Uuid::from_u128(name.bytes().map(u128::from).sum());
    let object = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
        "metadata": {"namespace": "data", "name": name, "uid": uid, "creationTimestamp": "2026-03-01T10:00:00Z",
            "labels": {"data.culvert.dev/record": format!("bkp_{name}")}},
        "status": {"phase": phase}});
    let key = ObjectKey::parse("Backup", "data", name).unwrap();
    Observation::parse(key, &uid.to_string(), 1, object.to_string().as_bytes(), false).unwrap()
}

pub(crate) fn deltas(objects: Vec<Observation>) -> Report {
    Report { objects, ..Report::default() }
}

fn whole(id: u64, objects: Vec<Observation>) -> Report {
    part(Resync { id, first: true, last: true, partial: false }, objects)
}

fn part(resync: Resync, objects: Vec<Observation>) -> Report {
    Report { resync: Some(resync), objects, ..Report::default() }
}

fn phase(object: &Value) -> &str {
    object["status"]["phase"].as_str().unwrap()
}

#[rstest::rstest]
#[tokio::test]
async fn what_is_told_is_kept_and_what_is_missing_from_a_full_telling_is_gone(
    #[values(On::Sqlite, On::Postgres)] on: On,
) {
    let house = House::open(on).await;
    let admin = house.admin().await;
    let site = Site::new(&house, &admin, "plant").await;
    assert_eq!(house.app.mirror(&site.caller, site.cluster).await.unwrap(), None);

    let first = site.tell(&house, deltas(vec![backup("a", "Running"), backup("b", "Running")])).await;
    assert!(first.resync, "a controller that never had a full telling asks for one");
    let begun = Resync { id: 1, first: true, last: false, partial: false };
    site.tell(&house, part(begun, vec![backup("a", "Complete")])).await;
    assert_eq!(site.kept(&house.app).await, ["a", "b"], "an unfinished telling takes nothing away");
    let ended = Resync { id: 1, first: false, last: true, partial: false };
    assert!(!site.tell(&house, part(ended, vec![backup("c", "Running")])).await.resync);
    assert_eq!(site.kept(&house.app).await, ["a", "c"]);
    assert!(house.app.mirror(&site.caller, site.cluster).await.unwrap().is_some());

    let key = ObjectKey::parse("Backup", "data", "a").unwrap();
    let kept = house.app.observed_one(&site.caller, site.cluster, &key).await.unwrap().unwrap();
    assert_eq!(phase(&kept.told.object), "Complete");
    let by_record = ObservedFilter {
        kind: Some(ObjectKind::Backup),
        record: Some("bkp_a".to_owned()),
        ..ObservedFilter::default()
    };
    assert_eq!(house.app.observed(&site.caller, &by_record, 10).await.unwrap(), std::slice::from_ref(&kept));
    // Two objects of one moment follow each other, one page after the other.
    let mut paged = Vec::new();
    let mut after = None;
    for _ in 0..2 {
        let rest = ObservedFilter { after, ..ObservedFilter::default() };
        let page = house.app.observed(&site.caller, &rest, 1).await.unwrap();
        after = Some((page[0].told.made_at, page[0].id));
        paged.push(page[0].told.key.name.clone());
    }
    paged.sort();
    assert_eq!(paged, ["a", "c"]);

    let gone = Report { deleted: vec![key], ..Report::default() };
    site.tell(&house, gone).await;
    assert_eq!(site.kept(&house.app).await, ["c"]);
    let partial = Resync { id: 2, first: true, last: true, partial: true };
    site.tell(&house, part(partial, vec![])).await;
    assert_eq!(site.kept(&house.app).await, ["c"], "nothing is concluded from a partial telling");
    site.tell(&house, whole(3, vec![])).await;
    assert!(site.kept(&house.app).await.is_empty());
}

#[tokio::test]
async fn what_did_not_change_is_neither_written_nor_told_on() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let site = Site::new(&house, &admin, "plant").await;
    site.tell(&house, whole(1, vec![backup("a", "Running")])).await;
    let key = ObjectKey::parse("Backup", "data", "a").unwrap();
    let before = house.app.observed_one(&site.caller, site.cluster, &key).await.unwrap().unwrap();
    let (bell, newest) = (house.app.observations(), house.app.feed().newest());

    house.hands.forward(60);
    site.tell(&house, whole(2, vec![backup("a", "Running")])).await;
    let after = house.app.observed_one(&site.caller, site.cluster, &key).await.unwrap().unwrap();
    assert_eq!(before.observed_at, after.observed_at);
    assert!(!bell.has_changed().unwrap() && house.app.feed().newest() == newest);

    site.tell(&house, deltas(vec![backup("a", "Complete")])).await;
    assert!(bell.has_changed().unwrap());
    let Since::Changes(changes, _) = house.app.feed().since(site.caller.org(), newest) else {
        panic!("a gap")
    };
    let News::Observed(noted) = &changes[0].news else { panic!("{changes:?}") };
    assert_eq!((noted[0].key.name.as_str(), noted[0].gone), ("a", false));
}

#[tokio::test]
async fn an_agent_writes_into_its_own_cluster_only() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let (plant, office) =
        (Site::new(&house, &admin, "plant").await, Site::new(&house, &admin, "office").await);
    plant.tell(&house, whole(1, vec![backup("a", "Running")])).await;
    office.tell(&house, whole(1, vec![backup("a", "Complete")])).await;
    office.tell(&house, Report { deleted: vec![backup("a", "").key], ..Report::default() }).await;
    assert_eq!((plant.kept(&house.app).await.len(), office.kept(&house.app).await.len()), (1, 0));
    // Another organisation sees none of it.
    let store = house.store().await;
    let other = store.organisations().await.unwrap()[1].id;
    let seen = store.org(&Caller::controller(other)).observed(&ObservedFilter::default(), 10).await;
    assert!(seen.unwrap().is_empty());
    // The record of the cluster takes the mirror with it.
    admin.delete("/clusters/plant").await.ok(204);
    assert!(plant.kept(&house.app).await.is_empty());
    let after = house.app.observe(plant.key, deltas(vec![backup("a", "Running")])).await;
    assert!(matches!(after, Err(Untaken::Nobody)), "{after:?}");
}

#[tokio::test]
async fn a_hostile_agent_is_bounded() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let site = Site::new(&house, &admin, "plant").await;
    let many = (0..=REPORT_MAX).map(|n| backup(&format!("b{n}"), "Running")).collect();
    let too_much = house.app.observe(site.key, deltas(many)).await;
    assert!(matches!(too_much, Err(Untaken::TooMuch)), "{too_much:?}");
    let odd = Report { refused: vec![("x".to_owned(), Untakable::Json); 100], ..Report::default() };
    assert_eq!(site.tell(&house, odd).await.refused.len(), 10);

    // It is told to wait, and in the end not listened to.
    let mut waits = 0;
    let stopped = loop {
        match house.app.observe(site.key, Report::default()).await {
            Ok(taken) if taken.wait.is_zero() => {}
            Ok(_) => waits += 1,
            Err(untaken) => break untaken,
        }
        assert!(waits < 1000, "an agent that never waits is never stopped");
    };
    assert!(waits > 0 && matches!(stopped, Untaken::Busy), "{stopped:?}");
    house.hands.forward(120);
    assert!(house.app.observe(site.key, Report::default()).await.is_ok(), "it is heard again later");
}
