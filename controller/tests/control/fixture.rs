//! A control plane of its own for one test, and ways to ask it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use culvert_controller::app::{App, Clock, FirstSignIn};
use culvert_controller::config::Config;
use culvert_controller::domain::{
    Caller, Credential, CredentialKind, OrgId, Organisation, RequestId, Role, Session, SessionId, Time, User,
    UserId,
};
use culvert_controller::store::{Founding, Store};
use culvert_pki::token::BearerToken;
use culvert_tunnel::{Hub, Limits};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::postgres;

/// Which database a test runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    Sqlite,
    Postgres,
}

/// A clock that a test sets.
#[derive(Clone)]
pub(crate) struct Hands(Arc<AtomicI64>);

impl Hands {
    pub(crate) fn new() -> Self {
        // Near the true time: version 7 UUIDs and TLS look at the real clock.
        let now = Time::now_utc().unix_timestamp() * 1000;
        Self(Arc::new(AtomicI64::new(now)))
    }

    pub(crate) fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::new(move || hands.now())
    }

    pub(crate) fn now(&self) -> Time {
        let ms = self.0.load(Ordering::SeqCst);
        Time::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap()
    }

    pub(crate) fn ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn forward(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

/// A control plane.
pub(crate) struct House {
    pub(crate) app: App,
    pub(crate) hands: Hands,
    pub(crate) config: Config,
    pub(crate) hub: Hub,
    pub(crate) stop: CancellationToken,
    pub(crate) first: Option<FirstSignIn>,
    router: Router,
    url: String,
    _folder: TempDir,
    _database: Option<postgres::Database>,
}

pub(crate) fn config(folder: &std::path::Path, url: Option<String>) -> Config {
    let data = folder.join("data").display().to_string();
    let mut flags = vec![("data_dir", data), ("public_address", "controller.example:8443".to_owned())];
    flags.extend(url.map(|url| ("database.url", url)));
    Config::load(None, [], &flags).unwrap()
}

impl House {
    pub(crate) async fn open(on: On) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = matches!(on, On::Postgres).then(postgres::Database::create);
        let url = database.as_ref().map(postgres::Database::url);
        let config = config(folder.path(), url.clone());
        let hands = Hands::new();
        App::open(&config, None, hands.clock()).await.unwrap().app.close().await.unwrap();
        // A second organisation; the next start makes what it needs.
        let file = format!("sqlite://{}", config.data_dir.join("culvert.db").display());
        let url = url.unwrap_or(file);
        let store = Store::open(&url).await.unwrap();
        let installation = store.installation().await.unwrap();
        installation.found(&founding("elsewhere", hands.now())).await.unwrap();
        installation.commit().await.unwrap();
        store.close().await.unwrap();
        let hub = Hub::new("replica".to_owned(), Limits::default());
        let opened = App::open(&config, Some(hub.clone()), hands.clock()).await.unwrap();
        let stop = CancellationToken::new();
        let router = culvert_controller::api::router(&opened.app, &config, stop.clone());
        let first = opened.first_sign_in;
        Self {
            app: opened.app,
            hands,
            config,
            hub,
            stop,
            first,
            router,
            url,
            _folder: folder,
            _database: database,
        }
    }

    pub(crate) async fn sqlite() -> Self {
        Self::open(On::Sqlite).await
    }

    /// The store, for a second pair of eyes.
    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.url).await.unwrap()
    }

    /// The code of the first start.
    pub(crate) fn code(&self) -> String {
        self.first.as_ref().unwrap().code.expose().to_owned()
    }

    /// A session of the first administrator.
    pub(crate) async fn admin(&self) -> Client<'_> {
        let code = self.app.create_sign_in_code_locally(None).await.unwrap();
        // From an address of its own, so that tests are not slowed down for guessing.
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let n = u32::try_from(NEXT.fetch_add(1, Ordering::SeqCst)).unwrap();
        let source = std::net::Ipv4Addr::from(0x0a02_0000 + n).into();
        let signed_in = self.app.sign_in(code.code.expose(), source, RequestId::generate()).await.unwrap();
        Client { house: self, token: Some(signed_in.token.expose().to_owned()), source: here() }
    }

    /// The first administrator as a caller, for calls that go past the API.
    pub(crate) async fn caller(&self) -> Caller {
        let admin = self.admin().await;
        self.app.authenticate_bearer(admin.token.as_ref().unwrap(), here().ip()).await.unwrap()
    }

    /// A session of another person: in the first organisation or in the second.
    pub(crate) async fn person(&self, name: &str, role: Role, elsewhere: bool) -> Client<'_> {
        let store = self.store().await;
        let now = self.hands.now();
        let user = User { id: UserId::generate(), name: name.parse().unwrap(), role, created_at: now };
        let org = store.organisations().await.unwrap()[usize::from(elsewhere)].id;
        let tx = store.write(&Caller::controller(org)).await.unwrap();
        tx.add_user(&user).await.unwrap();
        tx.commit().await.unwrap();
        let token = BearerToken::generate_session().unwrap();
        let session = Session {
            id: SessionId::generate(),
            user: user.id,
            created_at: now,
            expires_at: now + time::Duration::hours(1),
        };
        let tx = store.write(&Caller::controller(org)).await.unwrap();
        tx.add_session(token.hash().as_bytes(), &session).await.unwrap();
        tx.commit().await.unwrap();
        store.close().await.unwrap();
        Client { house: self, token: Some(token.expose().to_string()), source: here() }
    }

    pub(crate) fn anonymous(&self) -> Client<'_> {
        Client { house: self, token: None, source: here() }
    }

    /// Nobody, from an address of their own.
    pub(crate) fn anonymous_from(&self, n: usize) -> Client<'_> {
        let source = SocketAddr::from(([10, 1, 0, u8::try_from(n).unwrap()], 40_000));
        Client { house: self, token: None, source }
    }

    pub(crate) fn with_token(&self, token: &str) -> Client<'_> {
        Client { house: self, token: Some(token.to_owned()), source: here() }
    }
}

pub(crate) fn here() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 40_000))
}

/// Somebody who asks the API.
pub(crate) struct Client<'h> {
    house: &'h House,
    pub(crate) token: Option<String>,
    pub(crate) source: SocketAddr,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The code of a refusal with this status.
    #[track_caller]
    pub(crate) fn refused(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let kind = self.headers.get("content-type").and_then(|v| v.to_str().ok());
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["request_id"], self.headers["x-request-id"].to_str().unwrap(), "{body}");
        body["code"].as_str().unwrap().to_owned()
    }
}

impl Client<'_> {
    pub(crate) fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.extension(ConnectInfo(self.source))
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn open(&self, request: Request<Body>) -> axum::response::Response {
        self.house.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.json_with(Method::POST, path, body, &[]).await
    }

    pub(crate) async fn json_with(
        &self,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self.request(method, path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// A cluster and a join token for it.
    pub(crate) async fn join_token(&self, cluster: &str) -> culvert_pki::token::JoinToken {
        self.post("/clusters", serde_json::json!({"name": cluster})).await.ok(201);
        let path = format!("/clusters/{cluster}/join-tokens");
        let made = self.post(&path, serde_json::json!({})).await.ok(201);
        culvert_pki::token::JoinToken::parse(made["token"].as_str().unwrap()).unwrap()
    }
}

/// What an organisation begins with.
fn founding(name: &str, now: Time) -> Founding {
    let organisation = Organisation { id: OrgId::generate(), name: name.parse().unwrap(), created_at: now };
    let user =
        User { id: UserId::generate(), name: "admin".parse().unwrap(), role: Role::Admin, created_at: now };
    Founding { organisation, user }
}

/// A caller who holds nothing but a name, for the store.
pub(crate) fn somebody(org: OrgId) -> Caller {
    let user = User {
        id: UserId::generate(),
        name: "somebody".parse().unwrap(),
        role: Role::Admin,
        created_at: Time::UNIX_EPOCH,
    };
    let credential = Credential {
        kind: CredentialKind::Session,
        id: SessionId::generate().to_string(),
        name: None,
        expires_at: None,
        network: None,
    };
    Caller::user(org, "org".parse().unwrap(), &user, credential)
}
