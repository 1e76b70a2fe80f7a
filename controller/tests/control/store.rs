//! The store, each promise on both databases.

use std::net::IpAddr;
use std::sync::Arc;

use culvert_controller::domain::join_token::Use;
use culvert_controller::domain::{
    Act, AgentId, AgentSession, Attempt, AttemptId, Caller, Cluster, ClusterId, ClusterRef, Facts, JoinToken,
    JoinTokenId, Labels, Lock, OrgId, Organisation, Outcome, PageSize, Replica, ReplicaNews, Role, Session,
    SessionId, SignInCode, Stage, Time, User, UserId,
};
use culvert_controller::store::{
    Admitted, Claim, Founding, NewCertificate, NewEnrolment, OrgTx, Recalled, Store, StoreError,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::fixture::{On, somebody};
use crate::postgres;

struct Shelf {
    store: Store,
    url: String,
    _folder: TempDir,
    _database: Option<postgres::Database>,
}

impl Shelf {
    async fn open(on: On) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = matches!(on, On::Postgres).then(postgres::Database::create);
        let file = format!("sqlite://{}", folder.path().join("store.db").display());
        let url = database.as_ref().map_or(file, postgres::Database::url);
        Self { store: Store::open(&url).await.unwrap(), url, _folder: folder, _database: database }
    }

    /// A new organisation with one user.
    async fn tenant(&self, name: &str) -> Caller {
        let organisation =
            Organisation { id: OrgId::generate(), name: name.parse().unwrap(), created_at: at(0) };
        let user = User {
            id: UserId::generate(),
            name: "admin".parse().unwrap(),
            role: Role::Admin,
            created_at: at(0),
        };
        let caller = Caller::controller(organisation.id);
        let installation = self.store.installation().await.unwrap();
        installation.found(&Founding { organisation, user }).await.unwrap();
        installation.commit().await.unwrap();
        caller
    }

    async fn cluster(&self, caller: &Caller, name: &str) -> Cluster {
        let cluster = cluster(name);
        let tx = self.write(caller).await;
        tx.add_cluster(&cluster).await.unwrap();
        tx.commit().await.unwrap();
        cluster
    }

    async fn write(&self, caller: &Caller) -> OrgTx {
        self.store.write(caller).await.unwrap()
    }

    async fn agent(&self, caller: &Caller, cluster: &Cluster) -> AgentId {
        let new = enrolment(cluster.id, 1);
        let tx = self.write(caller).await;
        tx.add_agent(&new).await.unwrap();
        tx.commit().await.unwrap();
        new.agent
    }
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn at(seconds: i64) -> Time {
    Time::UNIX_EPOCH + time::Duration::seconds(seconds)
}

fn cluster(name: &str) -> Cluster {
    let labels = Labels::parse([("region".to_owned(), "north".to_owned())].into()).unwrap();
    Cluster { id: ClusterId::generate(), name: name.parse().unwrap(), labels, created_at: at(1), lock: None }
}

fn certificate(generation: u64) -> NewCertificate {
    NewCertificate {
        serial: uuid::Uuid::now_v7().simple().to_string(),
        generation,
        leaf: vec![1, 2, 3],
        not_before: at(0),
        not_after: at(1000),
    }
}

fn enrolment(cluster: ClusterId, generation: u64) -> NewEnrolment {
    NewEnrolment {
        agent: AgentId::generate(),
        cluster,
        version: "0.1.0".to_owned(),
        source: HERE,
        at: at(5),
        certificate: certificate(generation),
    }
}

fn token(cluster: ClusterId, public_id: &str) -> JoinToken {
    JoinToken {
        id: JoinTokenId::generate(),
        cluster,
        public_id: public_id.to_owned(),
        network: Some("10.0.0.0/8".parse().unwrap()),
        created_at: at(0),
        expires_at: at(100),
        revoked_at: None,
        used: None,
    }
}

fn size(n: u64) -> PageSize {
    PageSize::parse(Some(n)).unwrap()
}

/// Each case runs on both databases, under a name of its own.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Shelf::open(crate::fixture::On::Sqlite).await).await; })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Shelf::open(crate::fixture::On::Postgres).await).await; })*
        }
    };
}

on_both! {
    a_second_start_finds_the_schema
    one_tenant_never_sees_another
    records_are_read_back_as_written
    names_are_unique_in_an_organisation
    a_token_is_used_once_however_many_try
    the_audit_has_no_gaps_however_many_write
    nothing_is_kept_of_what_was_not_committed
    deleting_a_cluster_takes_everything_along
    only_the_latest_attempts_are_kept
    a_certificate_follows_the_one_before
    what_an_agent_tells_is_kept
    a_code_works_once_and_in_time
    a_repeated_request_finds_its_answer
    of_two_that_race_one_waits
    pages_follow_each_other
    the_sweep_forgets_what_is_over
    however_many_claim_an_agent_each_epoch_is_given_once
    the_newest_holder_of_a_session_stays_when_an_older_ends
    a_replica_tells_the_others_in_order_and_leaves_nothing_behind
}

async fn a_second_start_finds_the_schema(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let made = shelf.cluster(&caller, "a").await;
    let again = Store::open(&shelf.url).await.unwrap();
    assert_eq!(again.org(&caller).cluster(&made.id.into()).await.unwrap(), Some(made));
    again.ping().await.unwrap();
    again.close().await.unwrap();
}

async fn one_tenant_never_sees_another(shelf: Shelf) {
    let (ours, theirs) = (shelf.tenant("ours").await, shelf.tenant("theirs").await);
    let cluster = shelf.cluster(&ours, "a").await;
    let agent = shelf.agent(&ours, &cluster).await;
    let tx = shelf.write(&ours).await;
    let join = token(cluster.id, "aaaaaaaaaaaaa");
    tx.add_join_token(&[1; 32], &join).await.unwrap();
    tx.commit().await.unwrap();

    let store = shelf.store.org(&theirs);
    assert_eq!(store.cluster(&cluster.id.into()).await.unwrap(), None);
    assert_eq!(store.cluster(&ClusterRef::Name(cluster.name.clone())).await.unwrap(), None);
    assert_eq!(store.clusters(None, None, 10).await.unwrap(), []);
    assert_eq!(store.agent(agent).await.unwrap(), None);
    assert_eq!(store.agents(None, size(10)).await.unwrap(), []);
    assert_eq!(store.agent_of(cluster.id).await.unwrap(), None);
    assert_eq!(store.join_tokens(cluster.id, None, size(10)).await.unwrap(), []);
    assert_eq!(store.join_token(cluster.id, join.id).await.unwrap(), None);
    let tx = shelf.write(&theirs).await;
    let lock = Lock { message: "x".to_owned(), at: at(1) };
    assert!(!tx.delete_cluster(cluster.id).await.unwrap());
    assert!(!tx.set_cluster_lock(cluster.id, Some(&lock)).await.unwrap());
    assert!(!tx.revoke_join_token(join.id, at(1)).await.unwrap());
    let used = Use { at: at(1), from: HERE, key: [9; 32], agent };
    assert!(!tx.use_join_token(join.id, &used).await.unwrap());
    assert!(!tx.renew_agent(agent, &certificate(2)).await.unwrap());
    assert!(!tx.lock_agent(agent, &lock).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(shelf.store.org(&ours).cluster(&cluster.id.into()).await.unwrap(), Some(cluster));
}

async fn records_are_read_back_as_written(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let made = shelf.cluster(&caller, "a").await;
    let join = token(made.id, "bbbbbbbbbbbbb");
    let tx = shelf.write(&caller).await;
    tx.add_join_token(&[7; 32], &join).await.unwrap();
    let lock = Lock { message: "audit – née".to_owned(), at: at(3) };
    assert!(tx.set_cluster_lock(made.id, Some(&lock)).await.unwrap());
    tx.commit().await.unwrap();
    let store = shelf.store.org(&caller);
    let found = store.cluster(&"a".parse::<ClusterRef>().unwrap()).await.unwrap().unwrap();
    assert_eq!(found, Cluster { lock: Some(lock), ..made.clone() });
    let (org, found, hash) = shelf.store.join_token_by_public_id("bbbbbbbbbbbbb").await.unwrap().unwrap();
    assert_eq!((org, &found, hash), (caller.org(), &join, [7; 32]));
    let tx = shelf.write(&caller).await;
    assert!(tx.set_cluster_lock(made.id, None).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.cluster(&made.id.into()).await.unwrap(), Some(made));
}

async fn names_are_unique_in_an_organisation(shelf: Shelf) {
    let (a, b) = (shelf.tenant("a").await, shelf.tenant("b").await);
    shelf.cluster(&a, "same").await;
    shelf.cluster(&b, "same").await;
    let tx = shelf.write(&a).await;
    let refused = tx.add_cluster(&cluster("same")).await;
    assert!(matches!(refused, Err(StoreError::Duplicate(_))), "{refused:?}");
}

async fn a_token_is_used_once_however_many_try(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let cluster = shelf.cluster(&caller, "a").await;
    let join = token(cluster.id, "ccccccccccccc");
    let tx = shelf.write(&caller).await;
    tx.add_join_token(&[1; 32], &join).await.unwrap();
    tx.commit().await.unwrap();
    let shelf = Arc::new(shelf);
    let tries = (0..20_u8).map(|key| {
        let (shelf, caller, id) = (shelf.clone(), caller.clone(), join.id);
        tokio::spawn(async move {
            let tx = shelf.write(&caller).await;
            let used = Use { at: at(50), from: HERE, key: [key; 32], agent: AgentId::generate() };
            let won = tx.use_join_token(id, &used).await.unwrap();
            tx.commit().await.unwrap();
            won.then_some(used)
        })
    });
    let won: Vec<Use> =
        futures::future::join_all(tries).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(won.len(), 1);
    let found = shelf.store.org(&caller).join_token(cluster.id, join.id).await.unwrap().unwrap();
    assert_eq!(found.used, won.into_iter().next());
    // Nor can it be taken back, or used after its end.
    let late = token(cluster.id, "ddddddddddddd");
    let tx = shelf.write(&caller).await;
    assert!(!tx.revoke_join_token(join.id, at(60)).await.unwrap());
    tx.add_join_token(&[1; 32], &late).await.unwrap();
    let used = Use { at: at(100), from: HERE, key: [1; 32], agent: AgentId::generate() };
    assert!(!tx.use_join_token(late.id, &used).await.unwrap());
}

async fn the_audit_has_no_gaps_however_many_write(shelf: Shelf) {
    let (caller, other) = (shelf.tenant("acme").await, shelf.tenant("other").await);
    let shelf = Arc::new(shelf);
    let writers = (0..20).map(|n| {
        let (shelf, caller) = (shelf.clone(), caller.clone());
        tokio::spawn(async move {
            let tx = shelf.write(&caller).await;
            tx.audit(Act::ClusterCreated, n, format!("writer {n}"), at(n)).await.unwrap();
            tx.commit().await.unwrap();
        })
    });
    for written in futures::future::join_all(writers).await {
        written.unwrap();
    }
    let events = shelf.store.org(&caller).audit_events(100).await.unwrap();
    let numbers: Vec<u64> = events.iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=20).rev().collect::<Vec<_>>());
    assert_eq!(shelf.store.org(&other).audit_events(100).await.unwrap(), []);
}

async fn nothing_is_kept_of_what_was_not_committed(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let tx = shelf.write(&caller).await;
    tx.add_cluster(&cluster("a")).await.unwrap();
    tx.audit(Act::ClusterCreated, "a", "", at(1)).await.unwrap();
    drop(tx);
    let store = shelf.store.org(&caller);
    assert_eq!(store.clusters(None, None, 10).await.unwrap(), []);
    assert_eq!(store.audit_events(10).await.unwrap(), []);
    shelf.cluster(&caller, "a").await;
}

async fn deleting_a_cluster_takes_everything_along(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let cluster = shelf.cluster(&caller, "a").await;
    let agent = shelf.agent(&caller, &cluster).await;
    let tx = shelf.write(&caller).await;
    tx.add_join_token(&[1; 32], &token(cluster.id, "eeeeeeeeeeeee")).await.unwrap();
    tx.put_attempt(&Attempt::begin(cluster.id, HERE, at(1))).await.unwrap();
    assert!(tx.delete_cluster(cluster.id).await.unwrap());
    tx.commit().await.unwrap();
    let store = shelf.store.org(&caller);
    assert_eq!(store.agent(agent).await.unwrap(), None);
    assert_eq!(store.attempts(cluster.id).await.unwrap(), []);
    assert!(shelf.store.join_token_by_public_id("eeeeeeeeeeeee").await.unwrap().is_none());
    let tx = shelf.write(&caller).await;
    let orphan = tx.put_attempt(&Attempt::begin(cluster.id, HERE, at(1))).await;
    assert!(matches!(orphan, Err(StoreError::Orphan(_))), "{orphan:?}");
}

async fn only_the_latest_attempts_are_kept(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let (a, b) = (shelf.cluster(&caller, "a").await, shelf.cluster(&caller, "b").await);
    let tx = shelf.write(&caller).await;
    tx.put_attempt(&Attempt::begin(b.id, HERE, at(0))).await.unwrap();
    let mut ids: Vec<AttemptId> = Vec::new();
    for n in 0..25 {
        let mut attempt = Attempt::begin(a.id, HERE, at(n));
        tx.put_attempt(&attempt).await.unwrap();
        attempt.advance(Stage::Token, at(n));
        tx.put_attempt(&attempt).await.unwrap();
        ids.push(attempt.id);
    }
    tx.commit().await.unwrap();
    let store = shelf.store.org(&caller);
    let kept: Vec<_> = store.attempts(a.id).await.unwrap().into_iter().map(|x| x.id).collect();
    assert_eq!(kept, ids.into_iter().rev().take(20).collect::<Vec<_>>());
    assert_eq!(store.attempts(b.id).await.unwrap().len(), 1);
    let tx = shelf.write(&caller).await;
    assert_eq!(tx.give_up_attempts(at(10), "gone").await.unwrap(), 6);
    tx.commit().await.unwrap();
    let oldest = store.attempts(a.id).await.unwrap().pop().unwrap();
    assert_eq!((oldest.outcome, oldest.stage), (Outcome::Failed, Stage::Token));
}

async fn a_certificate_follows_the_one_before(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let cluster = shelf.cluster(&caller, "a").await;
    let agent = shelf.agent(&caller, &cluster).await;
    let tx = shelf.write(&caller).await;
    assert!(tx.renew_agent(agent, &certificate(2)).await.unwrap());
    assert!(!tx.renew_agent(agent, &certificate(2)).await.unwrap());
    assert!(!tx.renew_agent(agent, &certificate(4)).await.unwrap());
    tx.commit().await.unwrap();
    let store = shelf.store.org(&caller);
    let record = store.agent(agent).await.unwrap().unwrap();
    assert_eq!((record.generation, record.seen_generation), (2, 1));
    assert_eq!(store.certificate_of(agent, 2).await.unwrap().unwrap().agent, agent);
    let second = shelf.agent(&caller, &cluster).await;
    let tx = shelf.write(&caller).await;
    assert_eq!(tx.revoke_agents_but(cluster.id, second, at(9)).await.unwrap(), [agent]);
    assert!(!tx.renew_agent(agent, &certificate(3)).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.agent_of(cluster.id).await.unwrap().unwrap().id, second);
}

async fn what_an_agent_tells_is_kept(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let cluster = shelf.cluster(&caller, "a").await;
    let agent = shelf.agent(&caller, &cluster).await;
    let facts = Facts { kubernetes_version: "v1.35.4".to_owned(), nodes: 3, ..Facts::default() };
    let tx = shelf.write(&caller).await;
    let seen = Admitted { agent, version: "0.2.0".to_owned(), source: HERE, generation: 1, at: at(30) };
    tx.agent_admitted(&seen).await.unwrap();
    tx.agent_epoch(agent, 7).await.unwrap();
    tx.agent_epoch(agent, 3).await.unwrap();
    tx.agent_seen(agent, at(20)).await.unwrap();
    tx.agent_facts(agent, &facts).await.unwrap();
    tx.commit().await.unwrap();
    let record = shelf.store.org(&caller).agent(agent).await.unwrap().unwrap();
    assert_eq!((record.last_epoch, record.last_seen_at, record.version.as_str()), (7, Some(at(30)), "0.2.0"));
    assert_eq!(record.facts, Some(facts));
}

async fn a_code_works_once_and_in_time(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let user = shelf.store.org(&caller).first_admin().await.unwrap().unwrap();
    let code = SignInCode { org: caller.org(), user: user.id, created_at: at(0), expires_at: at(900) };
    let tx = shelf.write(&caller).await;
    tx.add_code(&[1; 32], &code).await.unwrap();
    tx.commit().await.unwrap();
    assert!(shelf.store.code_owner(&[1; 32], at(900)).await.unwrap().is_none());
    assert_eq!(shelf.store.code_owner(&[1; 32], at(899)).await.unwrap().unwrap().user, user.id);
    let tx = shelf.write(&caller).await;
    assert!(!tx.use_code(&[1; 32], at(900)).await.unwrap());
    assert!(tx.use_code(&[1; 32], at(1)).await.unwrap());
    assert!(!tx.use_code(&[1; 32], at(1)).await.unwrap());
    let session = Session { id: SessionId::generate(), user: user.id, created_at: at(1), expires_at: at(50) };
    tx.add_session(&[2; 32], &session).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        shelf.store.session_by_hash(&[2; 32], at(49)).await.unwrap(),
        Some((caller.org(), session.clone()))
    );
    assert_eq!(shelf.store.session_by_hash(&[2; 32], at(50)).await.unwrap(), None);
    assert_eq!(shelf.store.session_by_hash(&[3; 32], at(2)).await.unwrap(), None);
    let tx = shelf.write(&caller).await;
    assert!(tx.end_session(session.id).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(shelf.store.session_by_hash(&[2; 32], at(2)).await.unwrap(), None);
}

async fn a_repeated_request_finds_its_answer(shelf: Shelf) {
    let org = shelf.tenant("acme").await.org();
    let (caller, other) = (somebody(org), somebody(org));
    let tx = shelf.write(&caller).await;
    assert_eq!(tx.recall("k", &[1; 32], at(0), at(100)).await.unwrap(), Recalled::Fresh);
    tx.remember("k", vec![4, 2]).await.unwrap();
    tx.commit().await.unwrap();
    let tx = shelf.write(&caller).await;
    let earlier = Recalled::Earlier { request: [1; 32], answer: vec![4, 2] };
    assert_eq!(tx.recall("k", &[9; 32], at(99), at(200)).await.unwrap(), earlier);
    assert_eq!(tx.recall("other", &[1; 32], at(99), at(200)).await.unwrap(), Recalled::Fresh);
    drop(tx);
    let tx = shelf.write(&caller).await;
    assert_eq!(tx.recall("k", &[9; 32], at(100), at(200)).await.unwrap(), Recalled::Fresh);
    drop(tx);
    let tx = shelf.write(&other).await;
    assert_eq!(tx.recall("k", &[9; 32], at(1), at(200)).await.unwrap(), Recalled::Fresh);
}

async fn of_two_that_race_one_waits(shelf: Shelf) {
    let caller = somebody(shelf.tenant("acme").await.org());
    let shelf = Arc::new(shelf);
    let tries = (0..8_u8).map(|n| {
        let (shelf, caller) = (shelf.clone(), caller.clone());
        tokio::spawn(async move {
            let tx = shelf.write(&caller).await;
            let recalled = tx.recall("k", &[1; 32], at(0), at(100)).await.unwrap();
            if recalled == Recalled::Fresh {
                tx.remember("k", vec![n]).await.unwrap();
                tx.commit().await.unwrap();
            }
            recalled
        })
    });
    let all: Vec<Recalled> = futures::future::join_all(tries).await.into_iter().map(Result::unwrap).collect();
    let fresh = all.iter().filter(|r| **r == Recalled::Fresh).count();
    assert_eq!(fresh, 1, "{all:?}");
}

async fn pages_follow_each_other(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    for name in ["c", "a", "b", "ab"] {
        shelf.cluster(&caller, name).await;
    }
    let store = shelf.store.org(&caller);
    let names = |found: Vec<Cluster>| found.into_iter().map(|c| c.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.clusters(None, None, 3).await.unwrap()), ["a", "ab", "b"]);
    let after = "ab".parse().unwrap();
    assert_eq!(names(store.clusters(Some(&after), None, 3).await.unwrap()), ["b", "c"]);
    assert_eq!(names(store.clusters(None, Some("b"), 3).await.unwrap()), ["ab", "b"]);
    assert_eq!(names(store.clusters(None, Some("%"), 3).await.unwrap()), [""; 0]);
    assert_eq!(names(store.clusters(None, Some("_"), 3).await.unwrap()), [""; 0]);
}

async fn the_sweep_forgets_what_is_over(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let user = shelf.store.org(&caller).first_admin().await.unwrap().unwrap();
    let cluster = shelf.cluster(&caller, "a").await;
    let agent = shelf.agent(&caller, &cluster).await;
    let tx = shelf.write(&caller).await;
    let code = SignInCode { org: caller.org(), user: user.id, created_at: at(0), expires_at: at(900) };
    tx.add_code(&[1; 32], &code).await.unwrap();
    let session =
        Session { id: SessionId::generate(), user: user.id, created_at: at(1), expires_at: at(900) };
    tx.add_session(&[2; 32], &session).await.unwrap();
    tx.add_join_token(&[1; 32], &token(cluster.id, "fffffffffffff")).await.unwrap();
    assert!(tx.renew_agent(agent, &certificate(2)).await.unwrap());
    assert_eq!(tx.recall("k", &[1; 32], at(0), at(900)).await.unwrap(), Recalled::Fresh);
    tx.remember("k", vec![1]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(shelf.store.sweep(at(899)).await.unwrap().total(), 0);
    let swept = shelf.store.sweep(at(900)).await.unwrap();
    assert_eq!((swept.codes, swept.sessions, swept.answers), (1, 1, 1));
    let swept = shelf.store.sweep(at(91 * 24 * 3600)).await.unwrap();
    assert_eq!((swept.join_tokens, swept.certificates), (1, 1));
    let store = shelf.store.org(&caller);
    assert!(store.certificate_of(agent, 1).await.unwrap().is_none());
    assert!(
        store.certificate_of(agent, 2).await.unwrap().is_some(),
        "the newest is what a return is proved with"
    );
}

fn session(caller: &Caller, agent: AgentId, replica: u128, told: u64) -> AgentSession {
    AgentSession {
        org: caller.org(),
        agent,
        replica: Uuid::from_u128(replica),
        epoch: told,
        instance: [3; 16],
        source: (HERE, 7).into(),
        connected_at: at(9),
    }
}

async fn claim(shelf: &Shelf, caller: &Caller, session: &AgentSession) -> u64 {
    let tx = shelf.write(caller).await;
    let epoch = tx.claim_session(Claim { session, listed: true }).await.unwrap();
    tx.commit().await.unwrap();
    epoch
}

async fn replica(shelf: &Shelf, id: u128) -> Uuid {
    let id = Uuid::from_u128(id);
    shelf.store.replica_beats(&Replica { id, address: format!("{id}:1"), beat: 1 }).await.unwrap();
    id
}

async fn however_many_claim_an_agent_each_epoch_is_given_once(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let cluster = shelf.cluster(&caller, "a").await;
    let agent = shelf.agent(&caller, &cluster).await;
    for id in 1..=8 {
        replica(&shelf, id).await;
    }
    let sessions: Vec<_> = (1..=8).map(|id| session(&caller, agent, id, 0)).collect();
    let mut epochs =
        futures::future::join_all(sessions.iter().map(|session| claim(&shelf, &caller, session))).await;
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 3, 4, 5, 6, 7, 8]);
    let listed = shelf.store.sessions_of_agents(&[agent]).await.unwrap();
    assert_eq!((listed.len(), listed[0].epoch), (1, 8), "the newest is not the one that is listed");
    // An agent that knows of a higher one gets one above that; one that lies gets no rest.
    assert_eq!(claim(&shelf, &caller, &session(&caller, agent, 1, 100)).await, 101);
    let lied = claim(&shelf, &caller, &session(&caller, agent, 1, u64::MAX)).await;
    assert_eq!(claim(&shelf, &caller, &session(&caller, agent, 1, u64::MAX)).await, lied + 1);
}

async fn the_newest_holder_of_a_session_stays_when_an_older_ends(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let cluster = shelf.cluster(&caller, "a").await;
    let agent = shelf.agent(&caller, &cluster).await;
    let (one, two) = (replica(&shelf, 1).await, replica(&shelf, 2).await);
    let first = claim(&shelf, &caller, &session(&caller, agent, 1, 0)).await;
    let second = claim(&shelf, &caller, &session(&caller, agent, 2, 0)).await;
    shelf.store.session_ended(one, agent, first).await.unwrap();
    shelf.store.session_ended(two, agent, first).await.unwrap();
    let stays = AgentSession { epoch: second, ..session(&caller, agent, 2, 0) };
    assert_eq!(shelf.store.sessions_elsewhere(one).await.unwrap(), [stays]);
    assert_eq!(shelf.store.sessions_elsewhere(two).await.unwrap(), []);
    shelf.store.session_ended(two, agent, second).await.unwrap();
    assert_eq!(shelf.store.sessions_of_agents(&[agent]).await.unwrap(), []);
}

async fn a_replica_tells_the_others_in_order_and_leaves_nothing_behind(shelf: Shelf) {
    let caller = shelf.tenant("acme").await;
    let cluster = shelf.cluster(&caller, "a").await;
    let agent = shelf.agent(&caller, &cluster).await;
    let (one, two) = (replica(&shelf, 1).await, replica(&shelf, 2).await);
    let news =
        [ReplicaNews::Rights, ReplicaNews::Changes(caller.org()), ReplicaNews::Session(caller.org(), agent)];
    assert_eq!(shelf.store.last_told_by(one).await.unwrap(), 0);
    shelf.store.tell_replicas(one, 1, &news).await.unwrap();
    assert_eq!(shelf.store.told_by(one, 0).await.unwrap(), (news.to_vec(), 3));
    assert_eq!(shelf.store.told_by(one, 2).await.unwrap(), (news[2..].to_vec(), 3));
    assert_eq!(shelf.store.told_by(two, 0).await.unwrap(), (vec![], 0));
    claim(&shelf, &caller, &session(&caller, agent, 1, 0)).await;
    shelf.store.forget_replica(one).await.unwrap();
    assert_eq!(shelf.store.told_by(one, 0).await.unwrap(), (vec![], 0));
    assert_eq!(shelf.store.sessions_elsewhere(two).await.unwrap(), []);
    assert_eq!(shelf.store.other_replicas(two).await.unwrap(), []);
}
