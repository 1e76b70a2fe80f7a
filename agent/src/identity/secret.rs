//! The state in a Secret: every save names the version it grew from, so two pods cannot trample each other.
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::state::{State, StateError};
use crate::config::SecretName;

const KEY: &str = "identity.json";

/// One named Secret. Of it only the one key is read and written; labels and
/// other keys stay as they are.
pub(crate) struct SecretStore {
    api: Api<Secret>,
    name: SecretName,
    /// As it was when last read or written; `None` when there is none yet.
    seen: Option<Secret>,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretStore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SecretStore {
    pub(super) fn new(client: Client, name: &SecretName) -> SecretStore {
        SecretStore { api: Api::namespaced(client, &name.namespace), name: name.clone(), seen: None }
    }

    pub(super) async fn load(&mut self) -> Result<State, StateError> {
        self.seen = self.api.get_opt(&self.name.name).await.map_err(|error| self.error("read", &error))?;
        let data = self.seen.as_ref().and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(KEY));
        // A chart may make the Secret empty, so that the agent need not create one.
        data.map_or_else(|| Ok(State::default()), |text| State::parse(&text.0))
    }

    pub(super) async fn save(&mut self, state: &State) -> Result<(), StateError> {
        let text = ByteString(state.to_text()?.to_vec());
        let saved = match self.seen.clone() {
            Some(mut secret) => {
                secret.data.get_or_insert_default().insert(KEY.to_owned(), text);
                self.api.replace(&self.name.name, &PostParams::default(), &secret).await
            }
            None => self.api.create(&PostParams::default(), &self.fresh(text)).await,
        };
        self.seen = Some(saved.map_err(|error| self.error("written", &error))?);
        Ok(())
    }

    /// The Secret's own id in its cluster; the API server gives it, and to no other Secret.
    pub(super) fn uid(&self) -> Option<&str> {
        self.seen.as_ref()?.metadata.uid.as_deref()
    }

    fn fresh(&self, text: ByteString) -> Secret {
        let labels =
            BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "culvert-agent".to_owned())]);
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.name.clone()),
                namespace: Some(self.name.namespace.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
            ..Secret::default()
        }
    }

    fn error(&self, what: &'static str, error: &kube::Error) -> StateError {
        match error {
            // Created, changed or deleted by another since it was read.
            kube::Error::Api(status) if status.code == 409 => StateError::Conflict,
            kube::Error::Api(status) if status.code == 404 && what == "written" && self.seen.is_some() => {
                StateError::Conflict
            }
            other => StateError::Kubernetes {
                name: self.name.to_string(),
                what,
                reason: crate::causes::chain(other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::super::keeper::Keeper;
    use super::super::state::tests::sample;
    use super::super::{Pending, PendingFor, Store};
    use super::*;

    /// The one Secret of a cluster, kept as the API server keeps it.
    type Kept = Arc<Mutex<Option<Value>>>;

    fn store(kept: &Kept) -> Store {
        let kept = Arc::clone(kept);
        let service = tower::service_fn(move |request| answer(request, Arc::clone(&kept)));
        let name = SecretName { namespace: "culvert".to_owned(), name: "state".to_owned() };
        Store::Secret(Box::new(SecretStore::new(Client::new(service, "culvert"), &name)))
    }

    async fn answer(request: Request<Body>, kept: Kept) -> Result<Response<Body>, std::convert::Infallible> {
        let method = request.method().clone();
        let sent = request.into_body().collect().await.unwrap().to_bytes();
        let mut kept = kept.lock().unwrap();
        let (status, body) = match (method.as_str(), kept.as_ref()) {
            ("GET", Some(secret)) => (200, secret.clone()),
            ("GET" | "PUT", None) => (404, failure(404)),
            ("POST", Some(_)) => (409, failure(409)),
            (_, before) => {
                let mut secret: Value = serde_json::from_slice(&sent).unwrap();
                let version =
                    |secret: &Value| secret["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                if before.is_some_and(|before| version(before) != version(&secret)) {
                    (409, failure(409))
                } else {
                    let next = version(&secret).map_or(1, |version| version.parse::<u64>().unwrap() + 1);
                    secret["metadata"]["resourceVersion"] = json!(next.to_string());
                    *kept = Some(secret.clone());
                    (200, secret)
                }
            }
        };
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        Ok(Response::builder().status(status).body(body).unwrap())
    }

    fn failure(code: u16) -> Value {
        let reason = if code == 404 { "NotFound" } else { "Conflict" };
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code})
    }

    async fn keeper(kept: &Kept) -> Keeper {
        Keeper::open(store(kept)).await.map_err(|(_, error)| error).unwrap()
    }

    fn waiting(state: &mut State, token: &str) -> Result<(), StateError> {
        if state.pending.is_none() {
            let key = Arc::new(culvert_pki::key::KeyPair::generate().unwrap());
            state.pending = Some(Pending { key, purpose: PendingFor::Enrolment(token.to_owned()) });
        }
        Ok(())
    }

    #[tokio::test]
    async fn two_pods_end_up_with_one_key() {
        let kept = Kept::default();
        let (one, two) = (keeper(&kept).await, keeper(&kept).await);
        let first = one.update(|state| waiting(state, "t")).await.unwrap();
        // The second read the Secret before the first made it: its save conflicts.
        let second = two.update(|state| waiting(state, "t")).await.unwrap();
        assert_eq!(first.pending.unwrap().key.pin(), second.pending.unwrap().key.pin());
    }

    #[tokio::test]
    async fn a_change_keeps_what_another_pod_saved() {
        let kept = Kept::default();
        let (one, two) = (keeper(&kept).await, keeper(&kept).await);
        let identity = sample();
        let obtain = |state: &mut State| {
            state.identity = Some(identity.clone());
            Ok(())
        };
        one.update(obtain).await.unwrap();
        let epoch = |state: &mut State| {
            if let Some(identity) = &mut state.identity {
                identity.last_epoch = 99;
            }
            Ok(())
        };
        let seen = two.update(epoch).await.unwrap().identity.unwrap();
        assert_eq!((seen.cluster_id.as_str(), seen.last_epoch), ("cls_1", 99));
        assert_eq!(one.refreshed().await.unwrap().identity.unwrap().last_epoch, 99);
    }

    #[tokio::test]
    async fn an_empty_secret_of_the_chart_is_used_and_its_labels_stay() {
        let made = json!({"kind": "Secret", "apiVersion": "v1",
            "metadata": {"name": "state", "namespace": "culvert", "labels": {"a": "b"}, "resourceVersion": "7"},
            "data": {"other": "eA=="}});
        let kept: Kept = Arc::new(Mutex::new(Some(made)));
        let keeper = keeper(&kept).await;
        assert!(keeper.state().await.identity.is_none());
        keeper.update(|state| waiting(state, "t")).await.unwrap();
        let secret = kept.lock().unwrap().clone().unwrap();
        assert_eq!(
            (&secret["metadata"]["labels"]["a"], &secret["data"]["other"]),
            (&json!("b"), &json!("eA=="))
        );
        // Deleted by hand: it is made again from what the process knows.
        *kept.lock().unwrap() = None;
        assert!(keeper.update(|state| waiting(state, "t")).await.unwrap().pending.is_some());
    }

    #[tokio::test]
    async fn a_damaged_secret_is_never_replaced() {
        let made = json!({"kind": "Secret", "apiVersion": "v1",
            "metadata": {"name": "state", "namespace": "culvert", "resourceVersion": "7"},
            "data": {KEY: "eA=="}});
        let kept: Kept = Arc::new(Mutex::new(Some(made)));
        let opened = Keeper::open(store(&kept)).await;
        assert!(matches!(opened, Err((_, StateError::Damaged(_)))));
    }
}
