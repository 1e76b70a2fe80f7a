//! Keeps the Lease at the API server: reads it, takes it, renews it, gives it back.
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use super::fence::{Fence, Hold};
use super::record::{self, Record, Writing};
use super::rule::{Held, Step, Terms, View, step};
use crate::clock::Clock;
use crate::engine::Position;
use culvert_resources::meta::manager;

/// What the member wants of the Lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intent {
    /// Whether this instance may and wants to be primary.
    pub claim: bool,
    /// Seconds of the Lease.
    pub lease_seconds: i32,
    /// Whether others may take the Lease when it expires.
    pub fenced: bool,
    /// Identity of the data that was made.
    pub initialised: Option<String>,
    /// The list of synchronous standbys as it shall be; `None` leaves it.
    pub synchronous: Option<Option<Vec<String>>>,
    /// How far the log has come.
    pub position: Option<Position>,
    /// Takes the wish for a switchover away: it has been fulfilled.
    pub switched: bool,
    /// Gives the Lease back. The engine has ended.
    pub release: bool,
}

/// How things stand with the Lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The record, as the API server told it last; none when there is no Lease.
    pub record: Option<Record>,
    /// Whether it was ever read.
    pub known: bool,
    /// Since when it has been as it is, by the clock of this process.
    pub since: Duration,
    /// Whether this process holds it.
    pub leading: bool,
    /// Why the API server could not be asked last time.
    pub problem: Option<String>,
    /// Seconds by which the wall clock here is ahead of the API server's, when it was seen last.
    pub skew_seconds: Option<i64>,
}

/// The keeper.
pub struct Keeper {
    api: Api<Lease>,
    name: String,
    pod: String,
    uid: String,
    clock: Clock,
    fence: Fence,
    object: Option<Lease>,
    held: Option<Held>,
    standing: Standing,
}

impl Keeper {
    /// A keeper of the Lease `<database>-primary`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        database: &str,
        pod: (&str, &str),
        clock: Clock,
        fence: Fence,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: format!("{database}-primary"),
            pod: pod.0.to_owned(),
            uid: pod.1.to_owned(),
            clock,
            fence,
            object: None,
            held: None,
            standing: Standing::default(),
        }
    }

    /// Works until nobody reads the standing any more.
    pub async fn run(mut self, mut intent: watch::Receiver<Intent>, standing: watch::Sender<Standing>) {
        while !standing.is_closed() {
            let wish = intent.borrow_and_update().clone();
            let terms = Terms::new(wish.lease_seconds);
            self.look(terms).await;
            self.act(&wish, terms).await;
            self.standing.leading = self.held.is_some();
            standing.send_replace(self.standing.clone());
            // A change of the wish is carried out at once; a sender that is gone ends the loop by the reader.
            let _ = tokio::time::timeout(terms.patience(), intent.changed()).await;
        }
    }

    /// Reads the Lease.
    async fn look(&mut self, terms: Terms) {
        match tokio::time::timeout(terms.patience(), self.api.get_opt(&self.name)).await {
            Ok(Ok(object)) => self.saw(object),
            Ok(Err(error)) => self.standing.problem = Some(error.to_string()),
            Err(_) => self.standing.problem = Some("the API server does not answer".to_owned()),
        }
    }

    fn saw(&mut self, object: Option<Lease>) {
        let record = object.as_ref().map(Record::read);
        if !self.standing.known || turn(record.as_ref()) != turn(self.standing.record.as_ref()) {
            self.standing.since = self.clock.now();
        }
        self.object = object;
        self.standing.known = true;
        self.standing.problem = None;
        self.standing.record = record;
    }

    async fn act(&mut self, wish: &Intent, terms: Terms) {
        if !self.standing.known {
            return;
        }
        let view = View {
            now: self.clock.now(),
            pod: &self.pod,
            uid: &self.uid,
            terms,
            record: self.standing.record.as_ref(),
            since: self.standing.since,
            held: self.held,
            claim: wish.claim,
        };
        match step(&view) {
            Step::Fence => self.lose("the hold on the Lease has ended"),
            Step::Write => self.write(wish, terms).await,
            Step::Wait if self.held.is_some() && self.news(wish) => self.write(wish, terms).await,
            Step::Wait => {}
        }
    }

    /// Whether the member wants something in the Lease that is not there yet.
    fn news(&self, wish: &Intent) -> bool {
        let Some(record) = &self.standing.record else { return false };
        let listed = wish.synchronous.as_ref().is_some_and(|list| *list != record.synchronous);
        let made = wish.initialised.is_some() && wish.initialised != record.initialised;
        let switched = wish.switched && record.switchover_to.is_some();
        wish.release || listed || made || switched || wish.fenced != record.fenced
    }

    async fn write(&mut self, wish: &Intent, terms: Terms) {
        let object = record::write(self.begin(), &self.writing(wish, terms));
        let params = PostParams { field_manager: Some(manager::RUNNER.to_owned()), dry_run: false };
        if wish.fenced {
            // Before the server may know: others may count from this request on.
            self.limit(terms);
        }
        let sent = self.clock.now();
        let request = async {
            match object.metadata.resource_version {
                None => self.api.create(&params, &object).await,
                Some(_) => self.api.replace(&self.name, &params, &object).await,
            }
        };
        match tokio::time::timeout(terms.patience(), request).await {
            Ok(Ok(object)) => self.wrote(object, wish, Held::from(sent, terms, wish.fenced)),
            Ok(Err(error)) => self.standing.problem = Some(error.to_string()),
            Err(_) => self.standing.problem = Some("the API server does not answer".to_owned()),
        }
    }

    fn begin(&self) -> Lease {
        let mut object = self.object.clone().unwrap_or_default();
        object.metadata.name = Some(self.name.clone());
        object.metadata.managed_fields = None;
        object
    }

    fn writing<'a>(&'a self, wish: &'a Intent, terms: Terms) -> Writing<'a> {
        Writing {
            pod: &self.pod,
            uid: &self.uid,
            release: wish.release && self.held.is_some(),
            duration: terms.lease,
            wall: jiff::Timestamp::now(),
            initialised: wish.initialised.as_deref(),
            synchronous: wish.synchronous.as_ref().map(|list| list.as_deref()),
            switched: wish.switched,
            position: wish.position,
            fenced: wish.fenced,
        }
    }

    /// A hold without end gets one, before others are told that there is one.
    fn limit(&mut self, terms: Terms) {
        if let Some(held) = self.held.as_mut().filter(|held| held.until.is_none()) {
            *held = Held::from(held.renewed.max(self.clock.now()), terms, true);
            self.fence.hold(hold(self.clock, held));
        }
    }

    fn wrote(&mut self, object: Lease, wish: &Intent, held: Held) {
        self.standing.skew_seconds = skew(&object, jiff::Timestamp::now()).or(self.standing.skew_seconds);
        let released = wish.release && self.held.is_some();
        self.saw(Some(object));
        if released {
            self.lose("the Lease was given back");
            return;
        }
        if self.held.is_none() {
            tracing::info!(lease = self.name, "this instance holds the Lease");
        }
        self.held = Some(held);
        self.fence.hold(hold(self.clock, &held));
    }

    fn lose(&mut self, why: &'static str) {
        if self.held.take().is_some() {
            tracing::info!(lease = self.name, why, "this instance does not hold the Lease any more");
        }
        self.fence.hold(Hold::None);
    }
}

/// What changes when a Lease is renewed or changes hands; an edit of something else does not count.
fn turn(record: Option<&Record>) -> Option<[Option<&str>; 3]> {
    record.map(|record| [record.holder.as_deref(), record.holder_uid.as_deref(), record.renewed.as_deref()])
}

fn hold(clock: Clock, held: &Held) -> Hold {
    held.until.map_or(Hold::Open, |until| Hold::Until(clock.instant(until)))
}

/// Seconds by which `wall` is ahead of the API server, by the time it put on our write.
fn skew(object: &Lease, wall: jiff::Timestamp) -> Option<i64> {
    let ours = object.metadata.managed_fields.iter().flatten();
    let ours = ours.filter(|entry| entry.manager.as_deref() == Some(manager::RUNNER));
    let newest = ours.filter_map(|entry| entry.time.as_ref().map(|time| time.0)).max()?;
    Some(wall.as_second().saturating_sub(newest.as_second()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};

    use super::*;

    #[test]
    fn the_servers_time_on_our_own_write_tells_how_far_the_clock_is_off() {
        let entry = |manager: &str, second| ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            time: jiff::Timestamp::from_second(second).ok().map(Time),
            ..ManagedFieldsEntry::default()
        };
        let mut lease = Lease::default();
        lease.metadata.managed_fields = Some(vec![entry("kubectl", 9_999), entry(manager::RUNNER, 1_000)]);
        assert_eq!(skew(&lease, jiff::Timestamp::from_second(1_600).unwrap()), Some(600));
        assert_eq!(skew(&Lease::default(), jiff::Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn an_edit_by_hand_does_not_count_as_a_renewal() {
        let record = Record { version: "1".to_owned(), holder: Some("a".to_owned()), ..Record::default() };
        let edited =
            Record { version: "2".to_owned(), switchover_to: Some("b".to_owned()), ..record.clone() };
        assert_eq!(turn(Some(&record)), turn(Some(&edited)));
        let renewed = Record { renewed: Some("later".to_owned()), ..record.clone() };
        assert_ne!(turn(Some(&record)), turn(Some(&renewed)));
    }
}
